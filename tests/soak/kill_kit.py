"""Kill a job at random moments, run it again until it is done, and compare with a job that nobody disturbed.

Run as a program for the long form (`make soak`): python tests/soak/kill_kit.py --kills 50 --videos 40 [--seed N]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cli_kit import RECIPE, curate, files_below, verdicts
from engine_kit import all_cells

from curate.recipe import build, parse_recipe
from curate.testing.footage import moving_texture, write_video

TALLY_RECIPE = RECIPE.replace("quality]", "quality, tally]")
TALLY = '''"""A stage that notes every cell that it computes."""

import os

import pyarrow as pa

from curate.config import Config
from curate.stage import ClipStage, Column


class Tally(ClipStage[Config]):
    """One line a cell, appended in one write."""

    name = "tally"
    version = 1
    columns = (Column("start_s", pa.float64(), "s", "start"),)

    def score(self, item):
        log = os.open(os.environ["CURATE_TALLY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, f"{item.clip.source_digest} {item.clip.clip_id}\\n".encode())
        os.close(log)
        return {"start_s": float(item.clip.start_s)}
'''
KILLS_A_CORPUS = 3


def make_bucket(folder: Path, videos: int) -> Path:
    """Short films of one to three shots, 96x64."""
    folder.mkdir(parents=True)
    for number in range(videos):
        shots = (moving_texture(30, 96, 64, (1.0, 0.5), 10 * number + shot) for shot in range(1 + number % 3))
        write_video(folder / f"{number:03}.mp4", chain(*shots))
    return folder


def install_tally(folder: Path) -> Path:
    """A folder for PYTHONPATH that holds the stage as an installed package."""
    about = folder / "curate_tally-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: curate-tally\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[curate.stages]\ntally = curate_tally:Tally\n")
    (folder / "curate_tally.py").write_text(TALLY)
    return folder


@dataclass
class Report:
    """What was killed, when, and what it cost."""

    kills: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    cells_again: int = 0
    most_sources_again: int = 0
    """Of one job: sources that it computed a cell of although an earlier one had, or more than once."""

    @property
    def n_kills(self) -> int:
        return sum(self.kills.values())

    def count_again(self, before: Counter[str], after: Counter[str]) -> None:
        again = [source for source, times in after.items() if times > max(1, before[source])]
        self.most_sources_again = max(self.most_sources_again, len(again))


class Range:
    """A bucket, a recipe and an undisturbed corpus of them; jobs are started and killed here."""

    def __init__(self, folder: Path, videos: int) -> None:
        self.folder = folder
        self.videos = videos
        self.bucket = make_bucket(folder / "bucket", videos)
        self.recipe = folder / "tally.yaml"
        self.recipe.write_text(TALLY_RECIPE)
        packages = install_tally(folder / "packages")
        self._packages = str(packages)
        sys.path.insert(0, self._packages)
        self.pipeline = build(parse_recipe(TALLY_RECIPE, "test"))
        self.tallied = folder / "tally"
        path = f"{packages}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        self.env = {**os.environ, "PYTHONPATH": path, "CURATE_TALLY": str(self.tallied)}
        self.undisturbed = folder / "undisturbed"
        began = time.monotonic()
        with self.job(self.undisturbed, "inline") as process:
            self.until_done(process, self.undisturbed)
        self.job_s = time.monotonic() - began
        self.n_cells = len(self.tally())

    def close(self) -> None:
        """Take the stage out of this process again."""
        sys.path.remove(self._packages)

    @contextmanager
    def job(self, out: Path, engine: str, address: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """`curate run` in a session of its own; whatever is left of that session is killed at the end."""
        command = [sys.executable, "-m", "curate.cli.main", "run", self.bucket, "--recipe", self.recipe, "--out", out]
        command += ["--no-report"]
        command += ["--engine", engine, *(["--address", address] if address else [])]
        log = out.with_suffix(".log").open("ab")
        process = subprocess.Popen(
            list(map(str, command)), stdout=log, stderr=log, start_new_session=True, env=self.env
        )
        try:
            yield process
        finally:
            log.close()
            end_session(process)

    def until_done(self, process: subprocess.Popen[bytes], out: Path) -> None:
        """AssertionError unless the job completes."""
        status = process.wait()
        assert status == 0, (status, out.with_suffix(".log").read_text())

    def tally(self) -> list[tuple[str, str]]:
        """(source, clip) of every cell of `tally` that was computed for the corpus at hand, written or not."""
        lines = self.tallied.read_text().splitlines() if self.tallied.exists() else []
        return [(line[:64], line[65:]) for line in lines]

    def times_by_source(self) -> Counter[str]:
        """How often a source's most often computed cell was computed."""
        found: Counter[str] = Counter()
        for (source, _), times in Counter(self.tally()).items():
            found[source] = max(found[source], times)
        return found

    def compare(self, out: Path) -> None:
        """AssertionError unless the corpus is that of the undisturbed job."""
        assert all_cells(out, self.pipeline) == all_cells(self.undisturbed, self.pipeline)
        assert verdicts(out) == verdicts(self.undisturbed)
        ours, theirs = ((path / "selections/small/selection.parquet").read_bytes() for path in (out, self.undisturbed))
        assert ours == theirs
        # A job that dies while it exports may leave the folder it wrote in; `verify --clean` removes those.
        assert files_below(out / "shards/small") == files_below(self.undisturbed / "shards/small")
        ended = curate("verify", out, "--deep")
        assert ended.status == 0, ended.out


@dataclass(frozen=True)
class Victim:
    """What is killed. ``strike`` gets the job and says whether it hit; ``ready`` says whether there is a target."""

    name: str
    engine: str
    strike: Callable[[subprocess.Popen[bytes], random.Random], bool]
    ready: Callable[[subprocess.Popen[bytes]], bool] = lambda _: True
    address: str = ""


def _strike_driver(process: subprocess.Popen[bytes], _: random.Random) -> bool:
    return kill(process.pid) and process.wait() != 0


def _strike_worker(process: subprocess.Popen[bytes], draw: random.Random) -> bool:
    found = workers(process.pid)
    return bool(found) and kill(draw.choice(found))


INLINE = Victim("inline", "inline", _strike_driver)
"""The process of `--engine inline`."""
DRIVER = Victim("driver", "ray", _strike_driver)
"""The driver of a job on Ray."""
WORKER = Victim("worker", "ray", _strike_worker, lambda process: bool(workers(process.pid)))
"""One of Ray's workers, at random."""


@contextmanager
def second_node(place: Range) -> Iterator[Victim]:
    """All processes of the second of two Ray nodes; a new one joins after each kill."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.update(place.env)
    options = {"num_cpus": 2, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    nodes = [cluster.add_node(**options)]
    cluster.wait_for_nodes()

    def strike(_: subprocess.Popen[bytes], __: random.Random) -> bool:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        nodes.append(cluster.add_node(**options))
        return True

    try:
        yield Victim("node", "ray", strike, address=cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()


def storm(
    place: Range,
    victim: Victim,
    kills: int,
    seed: int,
    *,
    finish: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Kill so many times at moments drawn from ``seed``; every corpus is completed and compared in the end.

    ``finish`` is the engine of the job that completes a corpus once all kills are done; default that of the victim.
    """
    draw, report = random.Random(f"{victim.name} {seed}"), Report()
    while report.n_kills < kills:
        out = place.folder / f"{victim.name}-{seed}-{report.compared}"
        place.tallied.unlink(missing_ok=True)
        most = min(kills, report.n_kills + KILLS_A_CORPUS)
        complete = False
        while report.n_kills < most and not complete:
            complete = _job(place, out, victim, draw, report)
        if not complete:
            before = place.times_by_source()
            with place.job(out, finish or victim.engine, "" if finish else victim.address) as process:
                place.until_done(process, out)
            report.count_again(before, place.times_by_source())
        place.compare(out)
        report.compared += 1
        times = Counter(place.tally())
        assert len(times) == place.n_cells
        report.cells_again += sum(times.values()) - len(times)
        say(f"{victim.name}: corpus {report.compared} is the same after {report.n_kills} kills")
    return report


def _job(place: Range, out: Path, victim: Victim, draw: random.Random, report: Report) -> bool:
    """One job that is struck, if it lives so long; True when it completed all the same."""
    before = place.times_by_source()
    with place.job(out, victim.engine, victim.address) as process:
        when = Moment.drawn(draw, place, out, victim.engine)
        if when.wait(process, lambda: victim.ready(process)) and victim.strike(process, draw):
            report.kills[victim.name] += 1
            report.moments[how_far(out)] += 1
        status = process.wait()
    assert status in {0, 1, -signal.SIGKILL}, (status, out.with_suffix(".log").read_text())
    report.count_again(before, place.times_by_source())
    return status == 0


@dataclass
class Moment:
    """When to kill: so long after so many files lay below the corpus.

    Counting files rather than seconds spreads the kills over all that a job does, however slow its start is; a fifth
    of them come at any time at all.
    """

    out: Path
    files: int
    delay_s: float

    @classmethod
    def drawn(cls, draw: random.Random, place: Range, out: Path, engine: str) -> Moment:
        """A moment of the work that is left. Ray writes a part a table for 16 sources, and takes longer for each."""
        ray = engine == "ray"
        if draw.random() < 0.2:
            return cls(out, 0, draw.uniform(0, (5 if ray else 1) * place.job_s))
        whole = written(place.undisturbed) + 2 * len(list(place.undisturbed.glob("shards/*/*/*")))
        most = written(out) + 5 * -(-place.videos // 16) if ray else whole
        span = sorted((written(out), most))
        return cls(out, draw.randint(*span), draw.uniform(0, 1.0 if ray else 0.05))

    def wait(self, process: subprocess.Popen[bytes], more: Callable[[], bool]) -> bool:
        """False when the process ended before."""
        while written(self.out) < self.files or not more():
            if process.poll() is not None:
                return False
            time.sleep(0.002)
        time.sleep(self.delay_s)
        return process.poll() is None


def written(out: Path) -> int:
    """Files of a corpus, temporary ones and those of an export that goes on too."""
    return sum(len(files) for _, _, files in os.walk(out))


def how_far(out: Path) -> str:
    """How far the job had come, by what it had written."""
    if list(out.glob("shards/*/index.json")):
        return "after the shards"
    if list(out.glob("shards/.*")):
        return "writing shards"
    if list(out.glob("selections/*/funnel.json")):
        return "beginning to write shards"
    if list(out.glob("runs/*/manifest.json")):
        return "selecting"
    if list(out.glob("tables/sources/*.parquet")):
        return "sources partly done"
    return "before the first source was done"


def of_session(session: int) -> list[int]:
    """Processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def end_session(process: subprocess.Popen[Any]) -> None:
    """Kill a process and whatever is left of the session that it leads."""
    for pid in of_session(process.pid):
        kill(pid)
    process.wait()


def workers(session: int) -> list[int]:
    """Ray's workers of a session that are at work: actors of Ray Data."""
    found = []
    for pid in of_session(session):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name.startswith(b"ray::") and b"IDLE" not in name:
            found.append(pid)
    return sorted(found)


def kill(pid: int) -> bool:
    """SIGKILL; False when there is no such process any more."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--victims", nargs="+", choices=list(SHARES), default=list(SHARES))
    args = parser.parse_args()
    print(f"seed {args.seed}: {args.kills} kills over {args.videos} videos", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        place = Range(Path(folder), args.videos)
        for name in args.victims:
            kills = max(1, round(args.kills * SHARES[name] / sum(SHARES[each] for each in args.victims)))
            began = time.monotonic()
            with second_node(place) if name == "node" else nullcontext(STEADY.get(name)) as victim:
                report = storm(place, victim, kills, args.seed, say=partial(print, flush=True))
            print(f"{name}: {report} in {time.monotonic() - began:.0f} s", flush=True)


STEADY = {victim.name: victim for victim in (INLINE, DRIVER, WORKER)}
SHARES = {"inline": 0.5, "driver": 0.2, "worker": 0.2, "node": 0.1}
"""Shares of the kills: a job on Ray takes some ten times as long to start as one inline."""

if __name__ == "__main__":
    main()
