"""What lies in the corpus of a run: written while it goes on, told apart from one that died, harmful to nobody."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from engine_kit import Luma, LumaConfig, Picky, PickyConfig, Slow, SlowConfig, pipeline, run
from watch_kit import MOST_LOOKS, Quiet, watched_run

from curate.engine.inline import InlineEngine
from curate.engine.run import RunResult
from curate.engine.work import Ended, FailedCell, SourceWork, Summary
from curate.errors import ConfigError, CorpusError, EngineError
from curate.query import last_run
from curate.records import InputRef
from curate.storage import Place, storage_error
from curate.tables import STATUS, Corpus
from curate.verify import leftovers
from curate.watch import beat
from curate.watch.state import MOST_CLASSES, OTHER, RunState
from curate.watch.status import SILENT_S, PassStatus, RunStatus, StageStatus, place_of, status_of, statuses

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def pipe():
    return pipeline(Luma(LumaConfig()), Picky(PickyConfig(fails_above=1.5)))


def put(corpus: Corpus, run_id: str, **more) -> None:
    status = RunStatus(run_id, **{"beat_at": NOW.isoformat(), **more})
    place_of(corpus, run_id).write_text(status.to_json())


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    made = Corpus(str(tmp_path / "c"))
    made.create()
    return made


def test_a_status_is_read_as_it_was_written_and_keys_of_later_versions_do_no_harm():
    stages = {"cut": StageStatus(3, 1, 2.5), "motion": StageStatus(3, 0, 1.0, 3, 0.9, 0.1, True)}
    status = RunStatus("r", beat_at=NOW.isoformat(), the_pass=PassStatus(2, 9, 4), stages=stages, result={"kept": 3})
    assert RunStatus.from_json(status.to_json()) == status
    later = json.loads(status.to_json()) | {"colour": "blue"}
    later["the_pass"]["mood"] = "good"
    assert RunStatus.from_json(json.dumps(later)) == status


def spoilt(**more: object) -> str:
    """A status but for some values; those of the pass if they are its."""
    status = json.loads(RunStatus("r", beat_at=NOW.isoformat(), result={"kept": 1}).to_json())
    status["the_pass"] |= {name: more.pop(name) for name in ("sources", "done") if name in more}
    return json.dumps(status | more)


DAMAGED = [
    "",
    "[]",
    "{}",
    '{"run": "r"}',
    '{"run": "r", "beat_at": "yesterday"}',
    "\x00",
    "[" * 10**5,
    spoilt(beat_at="2026-01-02T03:04:05"),
    spoilt(beat_at="0001-01-01T00:00:00+14:00"),
    spoilt(state="asleep"),
    spoilt(seconds=None),
    spoilt(seconds=float("nan")),
    spoilt(clips=10**400),
    spoilt(run=None),
    spoilt(done=None),
    spoilt(stages={"cut": {"ok": "many"}}),
    spoilt(failures=[{"stage": "cut", "error_class": None, "n": 1}]),
    spoilt(result={"kept": None}),
    spoilt(result=3),
]


@pytest.mark.parametrize("text", DAMAGED)
def test_what_is_no_status_is_told(text):
    with pytest.raises(CorpusError, match="is not the status of a run"):
        RunStatus.from_json(text)


def test_what_follows_from_a_status():
    the_pass = PassStatus(1, sources=10, done=4, in_flight=2, clips=30, seconds=20.0)
    assert (the_pass.waiting, the_pass.clips_per_s, the_pass.left_s) == (4, 1.5, 30.0)
    assert PassStatus(1, sources=10).left_s is None
    assert PassStatus(1, sources=2, done=2, in_flight=1).waiting == 0
    assert PassStatus(1, sources=2, done=3, seconds=6.0).left_s == 0, "a source that came twice"
    stages = {
        "cut": StageStatus(1, 0, 6.0),
        "clip": StageStatus(1, 0, 2.0, 8, 3.0, 1.0, on_gpu=True),
        "text": StageStatus(1, 0, 2.0, 8, 2.0, 50.0),
    }
    status = RunStatus("r", stages=stages)
    assert status.slowest == ("cut", 0.6)
    assert status.gpu_waiting_share == 0.25, "of the workers on GPUs alone"
    assert RunStatus("r").slowest is None and RunStatus("r").gpu_waiting_share is None


def test_a_run_that_says_nothing_for_a_minute_does_not_go_on():
    status = RunStatus("r", beat_at=NOW.isoformat())
    assert status.goes_on(NOW + timedelta(seconds=SILENT_S))
    assert not status.goes_on(NOW + timedelta(seconds=SILENT_S + 1))
    assert status.goes_on(NOW - timedelta(hours=1)), "the clock here is behind that of the run"
    assert status.silent_s(NOW - timedelta(hours=1)) == 0


def test_a_run_leaves_what_came_of_it(tmp_path, bucket):
    result = watched_run(tmp_path / "c", bucket, pipe())
    (status,) = statuses(Corpus(str(tmp_path / "c")))
    assert (status.run, status.state, status.measured, status.engine) == (result.run_id, "complete", True, "inline")
    assert (status.inputs, status.sources_ok, status.sources_failed, status.clips) == (3, 2, 1, 5)
    assert {name: (stage.ok, stage.failed) for name, stage in status.stages.items()} == {
        "probe": (2, 1),
        "cut": (2, 0),
        "luma": (5, 0),
        "picky": (4, 1),
    }
    assert sorted((each.stage, each.error_class, each.n) for each in status.failures) == [
        ("picky", "StageError", 1),
        ("probe", "NotMediaError", 1),
    ]
    assert status.read_bytes == sum(file.stat().st_size for file in bucket.iterdir())
    assert status.written_bytes == sum(file.stat().st_size for file in (tmp_path / "c/tables").rglob("*.parquet"))
    assert status.the_pass.done == status.the_pass.sources == 3 and status.the_pass.left_s == 0
    assert status.stages["luma"].items == 5 and status.stages["luma"].busy_s > 0


def test_sources_count_as_in_the_manifest_also_of_a_run_that_goes_on_with_another(tmp_path, bucket):
    corpus = Corpus(str(tmp_path / "c"))
    for _ in range(2):
        result = watched_run(tmp_path / "c", bucket, pipe())
        (status,) = statuses(corpus)
        place_of(corpus, result.run_id).remove()
        (manifest,) = [each for each in statuses(corpus) if each.run == result.run_id]
        for each in (status, manifest):
            assert (each.sources_ok, each.sources_failed, each.inputs) == (2, 1, 3)


def test_a_source_that_was_given_up_counts_as_failed_and_one_in_two_passes_once():
    state = RunState()
    works = [SourceWork(InputRef(uri), digest=uri) for uri in ("a", "b")]
    state.quarantined(works, Summary(sources=1, failed_sources=1, ended={"a": Ended(error_class="WorkerDiedError")}))
    assert (state.status().sources_failed, state.status().quarantined) == (2, 2)
    state.wrote(Summary(sources=5))
    state.complete(RunResult("r", {"inputs": {"ok": 4, "failed": 2}}, 1.0, {}, {}))
    assert (state.status().sources_ok, state.status().sources_failed) == (4, 2)


class Watcher(Quiet):
    """Looks at the corpus from inside, as another process would, once the first clips are there."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.seen: list[RunStatus] = []

    def wrote(self, summary):
        for _ in range(MOST_LOOKS):
            if self.seen and self.seen[-1].clips:
                break
            self.seen += statuses(self.corpus)
            time.sleep(0.01)
        else:
            pytest.fail("no status ever told of a clip")
        assert self.corpus.run_ids() == [], "a status makes no run complete"
        with pytest.raises(CorpusError, match="holds no complete run"):
            last_run(self.corpus)


def test_it_is_there_while_the_run_goes_on(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(beat, "LOCAL_BEAT_S", 0.01)
    corpus = Corpus(str(tmp_path / "c"))
    watcher = Watcher(corpus)
    watched_run(tmp_path / "c", bucket, pipeline(Slow(SlowConfig(seconds=0.01))), shown=watcher)
    last = watcher.seen[-1]
    assert (last.state, last.step, last.measured) == ("running", "Reading sources", False)
    assert last.goes_on(datetime.now(UTC))
    assert 0 < last.clips < 5 and last.the_pass.done < last.the_pass.sources == 3
    assert last.the_pass.in_flight + last.the_pass.waiting + last.the_pass.done == 3


class Breaking(InlineEngine):
    """Its workers die whatever they do, or somebody stops it."""

    error: BaseException = EngineError("a worker died")

    def run_pass(self, corpus, pipeline, works, *, run_id, single):
        raise self.error
        yield


def test_a_run_that_failed_says_why(tmp_path, bucket):
    with pytest.raises(EngineError):
        watched_run(tmp_path / "c", bucket, pipe(), engine=Breaking(tmp_path))
    (status,) = statuses(Corpus(str(tmp_path / "c")))
    assert (status.state, status.error_class, status.passes_died) == ("failed", "EngineError", 3)
    assert status.error.startswith("3 sources are still not done after 3 passes")
    assert not status.goes_on(datetime.now(UTC)) and not status.measured


def test_a_run_that_was_stopped_is_no_failure(tmp_path, bucket):
    engine = Breaking(tmp_path)
    engine.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        watched_run(tmp_path / "c", bucket, pipe(), engine=engine)
    (status,) = statuses(Corpus(str(tmp_path / "c")))
    assert (status.state, status.error) == ("stopped", "")


def test_runs_are_told_back_to_the_last_that_ended_well(corpus):
    put(corpus, "20260101T1", state="complete", measured=True)
    put(corpus, "20260102T1", state="failed")
    put(corpus, "20260103T1", state="complete", measured=True)
    put(corpus, "20260104T1", state="running")
    put(corpus, "20260104T2", state="running")
    assert [each.run[:8] for each in statuses(corpus)] == ["20260104", "20260104", "20260103"]
    assert status_of(corpus, "20260102T1").state == "failed"
    with pytest.raises(ConfigError, match="no run called 'x'"):
        status_of(corpus, "x")


def test_an_older_run_that_goes_on_is_told_behind_one_that_ended_well(corpus):
    beat = datetime.now(UTC).isoformat()
    put(corpus, "20260101T1", beat_at=beat)
    put(corpus, "20260102T1", state="failed")
    put(corpus, "20260103T1")
    place_of(corpus, "20260104T1").write_text("half a sta")
    put(corpus, "20260105T1", state="complete", measured=True)
    assert [each.run[:8] for each in statuses(corpus)] == ["20260105", "20260101"]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_run_hides_no_other(corpus, text):
    put(corpus, "20260101T1", state="complete", measured=True)
    place_of(corpus, "20260102T1").write_text(text)
    corpus.runs().child("20260103T1", "manifest.json").write_text(text)
    corpus.runs().child("20260104T1", "manifest.json").write_bytes(b"\xff\xfe")
    place_of(corpus, "20260105T1").write_bytes(b"\xff\xfe")
    found = statuses(corpus)
    assert [each.state for each in found] == ["damaged"] * 4 + ["complete"]
    assert found[0].error.startswith("status.json is not the status of a run")
    assert found[2].error == "manifest.json is not that of a run"


def test_a_silent_run_that_left_a_manifest_is_measured(tmp_path, bucket):
    result, _ = run(tmp_path / "c", bucket, pipe())
    corpus = Corpus(str(tmp_path / "c"))
    put(corpus, result.run_id)
    (status,) = statuses(corpus)
    assert (status.state, status.measured, status.goes_on(datetime.now(UTC))) == ("running", True, False)
    put(corpus, result.run_id, state="failed")
    (status,) = statuses(corpus)
    assert not status.measured, "its own words count where it had any"


def test_a_run_without_a_status_is_told_by_its_manifest(tmp_path, bucket):
    result, _ = run(tmp_path / "c", bucket, pipe())
    corpus = Corpus(str(tmp_path / "c"))
    corpus.runs().child("20990101T000000.000000Z-abcdef", "recipe.yaml").write_text("name: x\n")
    (status,) = statuses(corpus)
    assert (status.run, status.state, status.clips, status.inputs) == (result.run_id, "complete", 5, 3)
    assert status.stages["luma"].items == 5
    place_of(corpus, result.run_id).write_text("half a sta")
    assert statuses(corpus) == [status]


def test_a_run_that_died_is_no_leftover_to_remove(corpus):
    put(corpus, "20260101T1")
    (found,) = leftovers(corpus, now_s=time.time() + 10**7)
    assert found.needed and not found.is_old


def test_a_corpus_that_takes_no_status_stops_no_run(tmp_path, bucket, monkeypatch):
    """Its disk may be full, or another's rights be in the way."""
    write = Place.write_bytes

    def refused(self, data):
        if self.uri.endswith(STATUS):
            (tmp_path / "c" / "tried").touch()
            raise storage_error(PermissionError(13, "Permission denied"), self.uri, writing=True)
        write(self, data)

    monkeypatch.setattr(Place, "write_bytes", refused)
    watched_run(tmp_path / "c", bucket, pipe())
    assert (tmp_path / "c" / "tried").exists()
    (status,) = statuses(Corpus(str(tmp_path / "c")))
    assert status.state == "complete", "from the manifest"


def test_an_older_status_never_comes_after_the_last(tmp_path, bucket, monkeypatch):
    """A place that hangs is given up; what it takes in the end is in order, for one thread writes it."""
    monkeypatch.setattr(beat, "_LAST_WAIT_S", 0.01)
    write, free = Place.write_bytes, threading.Event()
    writers: list[threading.Thread] = []
    states: list[str] = []

    def slow(self, data):
        if self.uri.endswith(STATUS):
            writers.append(threading.current_thread())
            if writers[-1] is not threading.main_thread():
                free.wait()
            states.append(json.loads(data)["state"])
        write(self, data)

    monkeypatch.setattr(Place, "write_bytes", slow)
    watched_run(tmp_path / "c", bucket, pipe())
    assert writers and not states, "the job does not wait for it"
    free.set()
    writers[0].join()
    assert set(writers) == {writers[0]} and states[-1] == "complete"


def test_it_works_on_an_object_store(memory_bucket, bucket, tmp_path):
    corpus = Corpus(f"{memory_bucket}/c")
    corpus.create()
    put(corpus, "20260101T1")
    assert [each.run for each in statuses(corpus)] == ["20260101T1"]


def test_classes_of_errors_are_counted_apart_up_to_a_bound():
    state = RunState()
    cells = [FailedCell("s", "d", "c", f"Error{number}", "no") for number in range(MOST_CLASSES + 5)]
    state.wrote(Summary(failed=[*cells, cells[0]]))
    found = {(each.stage, each.error_class): each.n for each in state.status().failures}
    assert len(found) == MOST_CLASSES + 1
    assert found[OTHER, OTHER] == 5 and found["s", "Error0"] == 2
