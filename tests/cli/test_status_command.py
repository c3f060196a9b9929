"""`curate status` from another process: what goes on, what died, what came of it."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import time
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import pytest
from cli_kit import curate, good_video, run_args, start
from rich.console import Console, Group

from curate.cli import status as command
from curate.errors import CorpusError, TransientStorageError
from curate.tables import Corpus
from curate.testing.footage import moving_texture, write_video
from curate.watch import status
from curate.watch.status import FailureStatus, PassStatus, RunStatus, StageStatus, place_of, statuses

NASTY = "[red]a[/red]\x1b[31m\n\u202eb https://u:hunter2@host/x?sig=hunter2"


@pytest.fixture(scope="module")
def long_bucket(tmp_path_factory) -> Path:
    """A short film, then many of many shots: for longer than anybody looks."""
    folder = tmp_path_factory.mktemp("long")
    good_video(folder / "a.mp4", 1)
    shots = list(chain(*(moving_texture(25, 160, 90, (0.5, 0.0), seed) for seed in range(4))))
    write_video(folder / "b.mp4", chain(*[shots] * 12), codec="mpeg4")
    data = (folder / "b.mp4").read_bytes()
    assert data.count(b"mp41") == 1, "a brand that nobody reads, by which the copies differ"
    for number in range(15):
        (folder / f"c{number}.mp4").write_bytes(data.replace(b"mp41", b"m%03d" % number))
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    """Where no corpus is yet."""
    return tmp_path / "c"


@pytest.fixture
def empty(out) -> Corpus:
    made = Corpus(str(out))
    made.create()
    return made


def put(corpus: Corpus, run_id: str = "20260101T000000.000000Z-abcdef", **more) -> None:
    """The status of a run that gave a sign of life just now."""
    beat = {"beat_at": datetime.now(UTC).isoformat()}
    place_of(corpus, run_id).write_text(RunStatus(run_id, **{**beat, **more}).to_json())


def told(*args: object) -> list[dict]:
    return json.loads(curate("status", *args, "--json").out)


def test_where_nothing_ran_it_says_so(out):
    assert curate("status", out).status == 1
    Corpus(str(out)).create()
    ended = curate("status", out)
    assert (ended.status, ended.out) == (0, "No run has begun here, or none of a version that leaves a status.\n")
    assert told(out) == []


def test_a_run_that_ended_is_told_with_what_came_of_it(corpus):
    text = curate("status", corpus).out
    assert re.match(r"Run 20\S+ of recipe small is complete after [\d.]+s\n", text)
    assert "sources   4 done of 5 inputs, 1 failed" in text
    assert re.search(r"result    4 clips kept, 0 clips dropped, 0 clips failed, \d shards of [\d.]+ [KM]iB", text)
    assert "1 x NotMediaError in probe" in text
    (status,) = told(corpus)
    assert (status["state"], status["goes_on"], status["clips"], status["left_s"]) == ("complete", False, 4, 0)
    assert status["stages"]["quality"]["ok"] == 4


def test_it_is_seen_going_on_then_dead_then_complete(long_bucket, recipe, out):
    """A process of its own, killed in the middle; its status grows old, and the next run takes its place."""
    process = start("run", long_bucket, *run_args(recipe, out))
    while process.poll() is None and not (list(out.glob("runs/*/status.json")) and told(out)[0]["clips"]):
        time.sleep(0.02)
    going, text = told(out), curate("status", out).out
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [(each["goes_on"], each["measured"]) for each in going] == [(True, False)]
    assert "goes on: Reading sources" in text and f"process {process.pid} on " in text
    assert re.search(r"sources   \d+ of 17 done, [01] in flight, \d+ waiting; 0 failed\n", text)
    assert re.search(r"clips     \d+, [\d.]+ clips/s, [\d.]+ video-hours/hour, about .* left\n", text)

    place = Corpus(str(out))
    (left,) = statuses(place)
    since = datetime.now(UTC) - timedelta(minutes=2)
    put(place, left.run, beat_at=since.isoformat(), step="Reading sources", recipe="small")
    text = curate("status", out).out
    assert f"gave no sign of life since {since:%Y-%m-%d %H:%M:%S} UTC (2m0" in text
    assert "it was at: Reading sources" in text
    assert curate("failures", out).status == 0, "nothing takes it for a complete run"
    assert curate("verify", out, "--clean").status == 0

    assert curate("run", long_bucket / "a.mp4", *run_args(recipe, out)).status == 0
    (last,) = told(out)
    assert last["state"] == "complete" and last["run"] > left.run, "and the dead one is told no more"
    (asked,) = told(out, "--run", left.run)
    assert asked["state"] == "running" and not asked["goes_on"]


def test_watching_looks_again_until_the_run_is_over(empty, out):
    """The run's part is taken by the test. Were its end never seen, it would be silent after a minute."""
    put(empty, recipe="small", step="Reading sources")
    watch = start("status", out, "--watch", "--json")
    looks = [watch.stdout.readline()]
    put(empty, recipe="small", state="complete", measured=True)
    looks += watch.communicate()[0].splitlines()
    states = [[(each["state"], each["goes_on"]) for each in json.loads(line)] for line in looks]
    assert len(states) >= 2
    assert states[0] == [("running", True)] and states[-1] == [("complete", False)]
    assert watch.returncode == 0


@pytest.mark.parametrize("fault", [TransientStorageError("is throttled"), CorpusError("is not a corpus")])
def test_watching_outlasts_a_corpus_that_is_out_of_reach(empty, out, monkeypatch, fault):
    """Throttled, or on a mount that is gone. Whoever looks once is told at once."""
    asked: list[int] = []

    def statuses_of(corpus: Corpus) -> list[RunStatus]:
        asked.append(len(asked))
        if 2 <= len(asked) <= 3:
            raise fault
        put(empty, recipe="small", **({"state": "complete", "measured": True} if len(asked) == 4 else {}))
        return statuses(corpus)

    monkeypatch.setattr(status, "statuses", statuses_of)
    monkeypatch.setattr(command, "LOOK_EVERY_S", 0.0)
    ended = curate("status", out, "--watch", "--json")
    assert ended.status == 0
    assert [json.loads(line)[0]["state"] for line in ended.out.splitlines()] == ["running", "complete"]
    assert ended.err == f"cannot be read just now, asked again: {fault}\n", "told once"
    asked.clear()
    monkeypatch.setattr(command, "PATIENCE_S", 0.0)
    assert curate("status", out, "--watch").err == f"Error {fault}\n"
    asked[:] = [0]
    assert curate("status", out).status == 1


def test_what_could_not_be_seen_since_is_shown_as_it_was(empty):
    """A run is not called dead because nobody can see it."""
    then = datetime.now(UTC) - timedelta(minutes=5)
    put(empty, recipe="small", step="Reading sources", beat_at=then.isoformat())
    seen = Console(file=io.StringIO(), width=200)
    seen.print(Group(*command._picture(command._Look(statuses(empty), then, "cannot be read just now [red]"))))
    text = seen.file.getvalue()
    assert "goes on: Reading sources" in text and "cannot be read just now [red]" in text


def test_a_run_that_is_measured_and_silent_or_damaged_is_said_to_be(corpus, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(corpus, out)
    place = Corpus(str(out))
    (ended,) = statuses(place)
    put(place, ended.run, beat_at="2026-01-01T00:00:00+00:00", recipe="small", step="Selecting", seconds=3.0)
    place_of(place, "20990101T000000.000000Z-abcdef").write_text(f'{{"run": "{NASTY!r}"')
    text = curate("status", out).out
    assert f"Run {ended.run} of recipe small is measured, but ended without a word after 3.0s, at: Selecting\n" in text
    assert text.startswith("Run 20990101T000000.000000Z-abcdef is damaged: status.json is not the status of a run")
    (damaged, silent) = told(out)
    assert (damaged["state"], damaged["goes_on"], silent["measured"], silent["goes_on"]) == (
        "damaged",
        False,
        True,
        False,
    )


def test_a_run_that_gave_up_says_why(bucket, recipe, out):
    assert curate("run", bucket, *run_args(recipe, out), "--max-failures", "0").status == 1
    text = curate("status", out).out
    assert re.match(r"Run \S+ of recipe small failed after [\d.]+s, at: Reading sources\n", text)
    assert "why       TooManyFailuresError: 1 of 3 sources failed, more than --max-failures 0 allows" in text


def test_what_the_page_shows_is_what_is_printed(empty, out, monkeypatch):
    """The example of docs/watch.md, from a run as it was then."""
    at = datetime.now(UTC)
    monkeypatch.setattr(RunStatus, "silent_s", lambda self, now: 3.1)
    the_pass = PassStatus(1, sources=24, done=17, in_flight=3, clips=23, video_s=65.7, seconds=80.14)
    took = {
        "text": 7.9,
        "cut": 6.5,
        "probe": 5.2,
        "features": 5.0,
        "motion": 0.7,
        "quality": 0.3,
        "caption.template": 0.0,
    }
    waited = {"text": 84, "features": 87, "motion": 99, "quality": 99, "caption.template": 100}
    stages = {
        name: StageStatus(23, 0, seconds, busy_s=100.0 - waited[name], waited_s=waited[name])
        if name in waited
        else StageStatus(13, 4 * (name == "probe"), seconds)
        for name, seconds in took.items()
    }
    classes = {"NotMediaError": 2, "NoVideoStreamError": 1, "DecodeError": 1}
    status = RunStatus(
        "20261122T044013.720884Z-16c269", "running", "Reading sources", "embedded", "ray", "vm", 27910,
        beat_at=at.isoformat(), seconds=105.0, the_pass=the_pass, sources_ok=13, sources_failed=4, clips=23,
        read_bytes=round(2.8 * 2**20), written_bytes=round(1.1 * 2**20), stages=stages, nodes=2, cpus=3.0,
        failures=tuple(FailureStatus("probe", name, n) for name, n in classes.items()),
        metrics_url="http://127.0.0.1:9102/metrics", dashboard_url="http://127.0.0.1:8265",
    )  # fmt: skip
    seen = Console(file=io.StringIO(), width=120)
    command.print_statuses(seen, [status], at)
    page = (Path(__file__).parents[2] / "docs" / "watch.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```\n(Run .*?)^```", page, re.MULTILINE | re.DOTALL)
    assert [line.rstrip() for line in seen.file.getvalue().splitlines()] == [
        line.rstrip() for line in shown.splitlines()
    ]


def test_several_runs_at_once_are_told_apart(empty, out):
    the_pass = PassStatus(2, sources=10, done=4, in_flight=2, clips=30, video_s=60.0, seconds=20.0)
    put(empty, "20260101T000001.000000Z-aaaaaa", recipe="svd", step="Reading sources", the_pass=the_pass)
    put(empty, "20260101T000002.000000Z-bbbbbb", recipe="small", state="stopped", step="Selecting", seconds=3.0)
    found = curate("status", out).out
    assert "bbbbbb of recipe small was stopped after 3.0s, at: Selecting" in found
    assert "aaaaaa of recipe svd goes on: Reading sources, pass 2" in found
    assert "4 of 10 done, 2 in flight, 4 waiting; 0 failed" in found
    assert "1.5 clips/s, 3.00 video-hours/hour, about 30.0s left" in found


def test_addresses_machines_and_gpus_are_shown_where_there_are_some(empty, out):
    stages = {"clip": StageStatus(3, 1, 4.0, 4, 3.0, 1.0, on_gpu=True), "cut": StageStatus(2, 0, 6.0)}
    urls = {"dashboard_url": "http://127.0.0.1:8265", "metrics_url": "http://127.0.0.1:9102/metrics"}
    put(empty, engine="ray", nodes=2, cpus=4.0, gpus=1.0, stages=stages, **urls)
    text = curate("status", out).out
    assert "ray, 2 nodes, 4 CPUs, 1 GPU\n" in text
    assert "GPUs      waited 25% of their workers' time" in text
    assert "http://127.0.0.1:9102/metrics" in text and "http://127.0.0.1:8265 (Ray's)" in text
    rows = [line.split() for line in text.splitlines() if re.match(r"  (clip|cut) ", line)]
    assert rows == [["cut", "2", "0", "6.0s", "60%"], ["clip", "3", "1", "4.0s", "40%", "25%"]], "the slowest first"


def test_nothing_in_a_status_forges_a_line_or_tells_a_secret(empty, out):
    failures = tuple(FailureStatus("cut", f"{NASTY}{number}", 1) for number in range(20))
    more = {"recipe": NASTY, "step": NASTY, "host": NASTY, "engine": NASTY, "error": NASTY, "error_class": NASTY}
    put(empty, failures=failures, stages={NASTY: StageStatus(1)}, dashboard_url=NASTY, metrics_url=NASTY, **more)
    text = curate("status", out).out
    assert "hunter2" not in text and "\x1b" not in text and "\u202e" not in text
    assert "and 8 more classes of failures" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_on_a_terminal_the_last_look_stays(empty, out, monkeypatch):
    put(empty, state="complete", measured=True, recipe="small")
    file = io.StringIO()
    monkeypatch.setattr(command, "out", Console(file=file, force_terminal=True, width=200))
    assert curate("status", out, "--watch").status == 0
    assert "is complete after" in file.getvalue()
