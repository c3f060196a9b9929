"""The walk-through of docs/two-nodes.md, as it is written: two nodes of Ray, a run on both, watched meanwhile."""

from __future__ import annotations

import http.client
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from engine_kit import all_cells
from job_kit import do
from prometheus_client.parser import text_string_to_metric_families

from curate.query import last_run
from curate.recipe import build, load_recipe
from curate.tables import Corpus

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/two-nodes.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```\n((?:Run |curate_).*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ONLY = ("quality",)
BOUND_S = 300

Metrics = dict[str, float]


def free_port() -> str:
    """Below those that the system gives to outgoing connections, of which one may take it before it is used."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return str(port)


def commands() -> list[str]:
    """What the page has one type, a text for each terminal, on ports that nobody uses."""
    free = {port: free_port() for port in ("6390", "9102")}
    text = re.sub(r"\b(6390|9102)\b", lambda found: free[found[0]], PAGE)
    return re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


class Terminals:
    """Terminals in one folder; whatever is left of them goes at the end, by its process id."""

    def __init__(self, folder: Path, ray_folder: str) -> None:
        self.folder = folder
        self.mark = f"RAY_TMPDIR={ray_folder}"
        paths = {"PATH": Path(sys.executable).parent, "PYTHONPATH": ROOT}
        more = {name: os.pathsep.join(filter(None, [str(path), os.environ.get(name)])) for name, path in paths.items()}
        self.env = {**os.environ, **more, "RAY_TMPDIR": ray_folder, "HOME": str(folder)}  # Ray's token lies in HOME

    def open(self, name: str, text: str) -> subprocess.Popen[bytes]:
        """Type this; what it prints goes into a file of this name."""
        with (self.folder / name).open("wb") as file:
            command = ["bash", "-e", "-c", text]
            same = {"cwd": self.folder, "env": self.env, "start_new_session": True}
            return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **same)

    def wait_for(self, words: str, name: str, process: subprocess.Popen[bytes]) -> None:
        """Until a terminal shows these words."""
        until = time.monotonic() + BOUND_S
        while words not in self.shown(name):
            assert process.poll() is None and time.monotonic() < until, self.shown(name)
            time.sleep(0.1)

    def shown(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace")

    def run(self, text: str) -> tuple[int, str]:
        """Type this, and wait for its end."""
        done = subprocess.run(
            ["bash", "-e", "-c", text], cwd=self.folder, env=self.env, capture_output=True, check=False
        )
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    def left(self) -> list[int]:
        """Processes that came of these terminals, by their environment, which all inherit."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended meanwhile, or is another's
        return found

    def end(self) -> list[int]:
        """What is left once those whose parent has just ended had time to end, too."""
        until = time.monotonic() + BOUND_S
        while self.left() and time.monotonic() < until:
            time.sleep(0.1)
        return self.left()


def control_c(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=BOUND_S)


@pytest.fixture
def terminals(tmp_path, sample_bucket) -> Iterator[Terminals]:
    shutil.copytree(sample_bucket, tmp_path / "demo" / "bucket")
    with tempfile.TemporaryDirectory(
        prefix="r", ignore_cleanup_errors=True
    ) as ray_folder:  # names of sockets are short
        made = Terminals(tmp_path, ray_folder)
        try:
            yield made
        finally:
            for process in made.left():
                with suppress(ProcessLookupError):  # it ended meanwhile
                    os.kill(process, signal.SIGKILL)


def scraped(url: str) -> Metrics:
    """Samples without labels of runs by name, others of a metric summed up; nothing before the server is there."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            text = answer.read().decode()
    except (OSError, http.client.HTTPException):  # not yet there, too slow, or over in the middle
        return {}
    found: Metrics = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            kinds = [value for key, value in sample.labels.items() if key in {"kind", "outcome"}]
            name = " ".join([sample.name, *kinds])
            found[name] = found.get(name, 0.0) + sample.value
    return found


def watched(terminals: Terminals, text: str, process: subprocess.Popen[bytes]) -> tuple[list[str], list[Metrics]]:
    """What terminal 4 shows while the run goes on: answers of `curate status`, and metrics."""
    status, curl = text.splitlines()
    told, metrics = [], []
    while process.poll() is None:
        metrics.append(scraped(curl.split()[-1]))
        code, answer = terminals.run(status)
        told += [answer] if code == 0 else []
    return told, [each for each in metrics if each]


def heads(text: str) -> set[str]:
    """First words of the lines below that of the run; failures begin with their number."""
    return {line.split()[0] for line in text.splitlines() if line.startswith("  ") and " x " not in line}


def test_the_walk_through(terminals):
    head, second, run, watch = commands()
    nodes = []
    for name, text in (("head", head), ("second", second)):
        nodes.append(terminals.open(name, text))
        terminals.wait_for("This command will now block", name, nodes[-1])
    job = terminals.open("run", run)
    told, metrics = watched(terminals, watch, job)
    assert job.returncode == 0, terminals.shown("run")
    _, ended = terminals.run(watch.splitlines()[0])
    for node in reversed(nodes):
        control_c(node)
    assert terminals.end() == [], "Ctrl-C leaves nothing of a node"

    out = terminals.folder / "demo" / "two-nodes"
    corpus, recipe = Corpus(str(out)), load_recipe("embedded")
    counts = corpus.manifest(last_run(corpus))["counts"]
    going = [each for each in told if "goes on: Reading sources" in each]
    assert going and all("ray, 2 nodes, 3 CPUs" in each for each in going), told
    assert f"of {counts['sources_read']} done" in going[-1]
    assert "is complete after" in ended and f"{counts['sources_read']} done of" in ended
    assert heads(SHOWN[0]) <= set().union(*map(heads, [*going, ended])), "what the page shows of a run is seen"
    assert set(re.findall(r"^curate_\w+", SHOWN[1], re.MULTILINE)) <= {
        name.split()[0] for each in metrics for name in each
    }
    last = metrics[-1]
    assert (last["curate_machines nodes"], last["curate_pass_sources"]) == (2, counts["sources_read"])
    assert 0 <= last["curate_clips_total"] <= counts["clips_scored"]

    inline, _ = do([terminals.folder / "demo/bucket"], terminals.folder / "inline", recipe, only_stages=ONLY)
    assert counts == inline.run.counts
    pipeline = build(recipe, ONLY)
    assert all_cells(out, pipeline) == all_cells(terminals.folder / "inline", pipeline)
