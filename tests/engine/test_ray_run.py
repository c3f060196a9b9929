from __future__ import annotations

import os
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import ray
from engine_kit import (
    Bulky,
    Double,
    FaultConfig,
    GpuDouble,
    Killer,
    KillerConfig,
    Listening,
    LosesGpu,
    Luma,
    LumaConfig,
    Picky,
    PickyConfig,
    Slow,
    SlowConfig,
    TooLarge,
    all_cells,
    pipeline,
    run,
)
from ray.exceptions import RayActorError

from curate.bulk import inline_map
from curate.config import Config
from curate.engine import ray_engine, run_map
from curate.engine import run as engine_run
from curate.engine.fuse import MaxFailures
from curate.engine.pipeline import Pipeline
from curate.engine.ray_engine import RayEngine
from curate.engine.ray_start import RayOptions, wait_for
from curate.engine.room import Room
from curate.engine.run import RunRequest, execute
from curate.engine.run_map import ray_map
from curate.errors import (
    ClusterError,
    DeviceMemoryError,
    EngineError,
    StorageError,
    TooManyFailuresError,
    TransientStorageError,
)
from curate.ingest.listing import list_inputs
from curate.storage import Place
from curate.tables import Corpus, read_parquet
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def workers_see_tests():
    """Ray's workers import the stages of the test kit by name."""
    old = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    yield
    os.environ.pop("PYTHONPATH") if old is None else os.environ.update(PYTHONPATH=old)


@pytest.fixture(scope="module")
def one_gpu():
    """Ray is told of a GPU. Nothing here computes on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 1}')
        yield


@pytest.fixture(scope="module")
def nobody_listens():
    """A run once joined, or waited ten minutes for, the Ray that RAY_ADDRESS or a file left by `ray start` named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "127.0.0.1:9")
        yield


@pytest.fixture(scope="module")
def engine(workers_see_tests, one_gpu, nobody_listens):
    """One CPU: each pass has one decoder, for every worker is a process that takes seconds to start."""
    engine = RayEngine(RayOptions(num_cpus=1, object_store_bytes=80 << 20))
    yield engine
    engine.close()
    assert not ray.is_initialized()


def test_without_an_address_a_ray_of_its_own_is_started(engine):
    assert ray.cluster_resources()["CPU"] == 1
    assert len(ray.nodes()) == 1
    wait_for(Room(cpus=1))
    with pytest.raises(ClusterError, match=r"has 1 CPUs and 1 GPUs after 0 min, asked for were 1 CPUs and 2 GPUs"):
        wait_for(Room(cpus=1, gpus=2), timeout_s=0)


@pytest.fixture
def no_restarts(monkeypatch):
    """Each is a process that starts in vain."""
    monkeypatch.setattr(ray_engine, "RETRIES", 0)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bucket")
    for index in range(5):
        write_video(folder / f"{index}.mp4", moving_texture(70, 96, 64, (1, index), seed=index))
    (folder / "broken.mp4").write_bytes(b"not a video at all")
    return folder


def failures(out: Path, pipe: Pipeline) -> set[str]:
    """Classes of all recorded errors."""
    corpus = Corpus(str(out))
    places = [corpus.sources(), *(corpus.cells(stage.name, fingerprint) for _, stage, fingerprint in pipe.stages())]
    tables = [read_parquet(Place(path)) for place in places for path in place.files(".parquet")]
    return {row["error_class"] for table in tables for row in table.to_pylist() if row["outcome"] == "failed"}


def test_a_worker_that_loses_its_gpu_is_started_again_and_the_tables_are_those_of_inline(tmp_path, bucket, engine):
    """In an engine of which an earlier run was ended, with a pool beside the decoder and one on a GPU."""
    end_by_too_many_failures(tmp_path, bucket, engine)
    loses = LosesGpu(FaultConfig(marker=str(tmp_path / "lost")))
    beside = [Luma(LumaConfig()), Picky(PickyConfig(fails_above=1.5)), Double(Config())]
    pipe = pipeline(*beside, loses, GpuDouble(Config()))
    by_ray, heard = run(tmp_path / "ray", bucket, pipe, engine)
    assert (tmp_path / "lost").exists()
    assert heard.deaths == []
    inline, _ = run(tmp_path / "inline", bucket, pipe)
    cells = all_cells(tmp_path / "ray", pipe)
    assert cells == all_cells(tmp_path / "inline", pipe)
    assert len(cells["loses"]) == len(cells["clips"]) == 15
    assert {row[2] for row in cells["loses"]} == {"ok"}
    assert by_ray.counts["inputs"] == inline.counts["inputs"] == {"ok": 5, "failed": 1}
    assert ray.cluster_resources()["GPU"] == 1.0 and pipe.n_groups == 3
    assert not ray.get(engine._registry.__ray_call__.remote(lambda _: "ray.data" in sys.modules)), "all wait for it"


def end_by_too_many_failures(tmp_path, bucket, engine):
    corpus, refs = Corpus(str(tmp_path / "c")), list_inputs([str(bucket)])
    corpus.create()
    pipe = pipeline(Luma(LumaConfig()))
    request = RunRequest(corpus, pipe, refs, "test", "name: test\n", max_failures=MaxFailures.parse("0"))
    with pytest.raises(TooManyFailuresError, match="NotMediaError"):
        execute(request, engine, inline_map, tmp_path, Listening())
    assert corpus.run_ids() == []


@pytest.mark.usefixtures("no_restarts")
def test_a_source_that_kills_its_workers_is_quarantined_and_its_neighbours_are_not(
    tmp_path, bucket, engine, monkeypatch
):
    monkeypatch.setattr(ray_engine, "WATCH_TIMEOUT_S", 0.0)  # for who watches: the end of a pass waits for its answer
    folder = tmp_path / "bucket"
    folder.mkdir()
    for path in bucket.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    write_video(folder / "killer.mp4", moving_texture(70, 128, 64, (1, 0), seed=50))
    pipe = pipeline(Killer(KillerConfig(width_px=128)))
    result, heard = run(tmp_path / "c", folder, pipe, engine)
    assert len(heard.deaths) == 2
    assert result.counts["inputs"] == {"ok": 5, "failed": 2}
    cells = all_cells(tmp_path / "c", pipe)
    assert len(cells["killer"]) == len(cells["clips"]) == 15
    corpus = Corpus(str(tmp_path / "c"))
    rows = read_parquet(corpus.runs().child(result.run_id, "inputs.parquet")).to_pylist()
    cause = next(row["cause"] for row in rows if row["uri"].endswith("killer.mp4"))
    assert "workers died" in cause


def test_more_output_than_the_object_store_holds(tmp_path, engine):
    folder = tmp_path / "bucket"
    folder.mkdir()
    for index in range(4):
        write_video(folder / f"{index}.mp4", moving_texture(40, 960, 540, (2, index), seed=index), Fraction(4))
    pipe = pipeline(Bulky(Config()), stride_s=5.0)  # it sees every frame
    view_bytes = 4 * 10 * 4 * 960 * 540 * 3
    assert view_bytes > 80 << 20
    run(tmp_path / "ray", folder, pipe, engine)
    run(tmp_path / "inline", folder, pipe)
    assert all_cells(tmp_path / "ray", pipe) == all_cells(tmp_path / "inline", pipe)


@pytest.fixture
def one_pass(monkeypatch):
    """The engine says after each whom it holds to blame."""
    monkeypatch.setattr(engine_run, "MAX_PASSES", 1)


class HoldsASource(Listening):
    """One is in flight for as long as the pass goes on."""

    def __init__(self, engine: RayEngine) -> None:
        super().__init__()
        self._engine = engine

    def planned(self, pass_number: int, works: Any) -> None:
        super().planned(pass_number, works)
        threading.Thread(target=self._hold, args=(self._engine._registry,), daemon=True).start()

    def _hold(self, before: Any) -> None:
        while self._engine._registry is before:
            time.sleep(0.01)
        ray.get(self._engine._registry.on_source.remote("start", "held.mp4", "w"))


@pytest.mark.usefixtures("one_pass")
def test_a_place_that_cannot_be_written_just_now_is_no_fault_of_the_sources_in_flight(tmp_path, bucket, engine):
    class Throttled(Corpus):
        """Its tables cannot be written by any worker."""

        @property
        def root(self) -> Place:
            if ray.get_runtime_context().get_actor_id():
                raise TransientStorageError("is throttled")
            return Place(self.uri)

    corpus, heard = Throttled(str(tmp_path / "c")), HoldsASource(engine)
    corpus.create()
    refs = list_inputs([str(bucket / f"{index}.mp4") for index in range(4)])
    request = RunRequest(corpus, pipeline(Slow(SlowConfig(seconds=0.4))), refs, "test", "name: test\n")
    with pytest.raises(EngineError, match=r"4 sources are still not done .*is throttled"):
        execute(request, engine, inline_map, tmp_path, heard)
    assert len(heard.deaths) == 1
    assert engine.in_flight() == set(), "no source is to blame for a place"
    assert corpus.sources().files() == []


def test_errors_of_bulk_work_come_as_they_were_raised(engine):
    def refuse(item: int) -> int:
        if item == 1:
            raise StorageError("is full", subject="disk", fix="Free some space")
        if item == 2:
            raise ValueError("a bug")
        return item

    assert list(ray_map(refuse, [3, 4])) == [3, 4]
    with pytest.raises(StorageError) as ours:
        list(ray_map(refuse, [3, 1]))
    assert str(ours.value) == "disk: is full. Free some space"
    with pytest.raises(EngineError, match="a Ray task failed: ValueError"):
        list(ray_map(refuse, [2]))


def test_bulk_work_is_given_to_ray_a_part_at_a_time(engine, monkeypatch):
    monkeypatch.setattr(run_map, "IN_FLIGHT", 3)
    given: list[int] = []

    def items():
        for number in range(10):
            given.append(number)
            yield number

    results = run_map.ray_map(str, items())
    assert next(results) == "0" and given == [0, 1, 2]
    assert list(results) == [str(number) for number in range(1, 10)]


@pytest.mark.usefixtures("one_pass", "no_restarts")
def test_a_gpu_that_is_lost_over_and_over_is_named_as_the_reason(tmp_path, bucket, engine):
    slow = Slow(SlowConfig(seconds=2.0))  # there is a source in flight when the worker has PyTorch and fails
    pipe = pipeline(Luma(LumaConfig()), slow, LosesGpu(FaultConfig(always=True)))
    with pytest.raises(EngineError, match=r"still not done .*stage loses: the GPU failed"):
        run(tmp_path / "c", bucket, pipe, engine)
    assert all_cells(tmp_path / "c", pipe)["loses"] == []
    assert failures(tmp_path / "c", pipe) <= {"NotMediaError"}
    assert engine.in_flight() == set(), "no source is to blame for a GPU"


def test_who_watches_gets_the_last_answer_where_there_is_none_in_time_or_no_registry(engine, monkeypatch):
    registry = ray_engine.Registry.remote()
    ray.get(registry.on_source.remote("start", "a.mp4", "w"))
    monkeypatch.setattr(engine, "_ended_over", None)
    monkeypatch.setattr(engine, "_registry", registry)
    assert engine.in_flight() == {"a.mp4"}
    with monkeypatch.context() as patch:
        patch.setattr(ray_engine, "WATCH_TIMEOUT_S", 0.0)
        assert engine.in_flight() == {"a.mp4"}
    ray.kill(registry)
    with pytest.raises(RayActorError):
        while True:  # it may answer for a moment
            ray.get(registry.in_flight.remote())
    assert engine.in_flight() == {"a.mp4"}
    assert engine._ask_for("in_flight", {"b.mp4"}) == {"b.mp4"}, "and the end of a pass does not fail for it"
    engine._end_workers()


class KillsTheRegistry(Listening):
    """As soon as the first pass reads a source."""

    def __init__(self, engine: RayEngine) -> None:
        super().__init__()
        self._engine = engine
        self.seen: set[str] = set()
        self.blamed: list[set[str]] = []

    def planned(self, pass_number: int, works: Any) -> None:
        super().planned(pass_number, works)
        if pass_number == 1:
            threading.Thread(target=self._kill, daemon=True).start()

    def died(self, error: EngineError) -> None:
        super().died(error)
        self.blamed.append(self._engine.in_flight())

    def _kill(self) -> None:
        while not self.seen:
            self.seen = self._engine.in_flight()
            time.sleep(0.05)
        ray.kill(self._engine._registry)


@pytest.mark.usefixtures("no_restarts")
def test_a_pass_whose_registry_dies_is_planned_again_and_no_source_is_to_blame(tmp_path, bucket, engine):
    corpus, listener = Corpus(str(tmp_path / "c")), KillsTheRegistry(engine)
    corpus.create()
    pipe = pipeline(Slow(SlowConfig(seconds=0.4)))
    request = RunRequest(corpus, pipe, list_inputs([str(bucket)]), "test", "name: test\n")
    result = execute(request, engine, inline_map, tmp_path, listener)
    assert len(listener.seen) >= 1 and len(listener.deaths) == 1 and listener.blamed == [set()]
    assert result.counts["inputs"] == {"ok": 5, "failed": 1}
    assert failures(tmp_path / "c", pipe) == {"NotMediaError"}
    assert len(all_cells(tmp_path / "c", pipe)["slow"]) == 15


def test_a_gpu_that_was_lost_and_came_back_is_not_the_reason_why_a_pass_died_later(engine):
    registry = ray_engine.Registry.remote()
    ray.get([registry.on_worker.remote("a", None, "node"), registry.on_death.remote("a", "the GPU failed")])
    assert ray.get(registry.last_words.remote()) == "the GPU failed"
    ray.get([registry.on_death.remote("b", "another failed"), registry.on_worker.remote("a", None, "node")])
    assert ray.get(registry.last_words.remote()) == "another failed"
    ray.get(registry.on_worker.remote("b", None, "node"))
    assert ray.get(registry.last_words.remote()) == ""


def test_our_reason_is_found_in_what_ray_wraps_it_into_and_no_circle_holds_it_up():
    def wrapping(carried: BaseException) -> Exception:
        error = RuntimeError("as Ray's own errors: what the worker raised is their `cause`")
        error.__dict__["cause"] = carried
        return error

    full, user = StorageError("is full", subject="disk"), ValueError("in the worker")
    user.__cause__ = full
    found = ray_engine._own_error(wrapping(user))
    assert type(found) is StorageError and found.subject == "disk"
    circle, back = wrapping(ValueError("not ours")), ValueError("back")
    circle.__cause__, back.__cause__ = back, circle
    assert ray_engine._own_error(circle) is None


def test_a_model_without_room_ends_a_run_on_ray_too(tmp_path, bucket, engine):
    pipe = pipeline(Luma(LumaConfig()), TooLarge(FaultConfig()))
    with pytest.raises(DeviceMemoryError, match=r"stage too_large: .*no room"):
        run(tmp_path / "c", bucket, pipe, engine)
    assert all_cells(tmp_path / "c", pipe)["too_large"] == []
