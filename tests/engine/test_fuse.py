"""When a run that fails source by source is ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_kit import Listening, Luma, LumaConfig, all_cells, pipeline
from hypothesis import given
from hypothesis import strategies as st

from curate.bulk import inline_map
from curate.engine.fuse import MIN_JUDGED, Fuse, MaxFailures
from curate.engine.inline import InlineEngine
from curate.engine.run import RunRequest, execute
from curate.engine.work import Ended, SourceWork, Summary
from curate.errors import EngineError, TooManyFailuresError
from curate.ingest.listing import list_inputs
from curate.records import InputRef
from curate.tables import Corpus

OK = Ended()
BAD = Ended(error_class="NotMediaError", message="no video")
WORSE = Ended(error_class="StorageError", message="closed")


def works(n: int) -> list[SourceWork]:
    return [SourceWork(InputRef(f"{i}.mp4")) for i in range(n)]


def bundle(**ended: Ended) -> Summary:
    return Summary(sources=len(ended), ended=dict(ended))


@given(st.integers(0, 60), st.integers(0, 80))
def test_a_number_is_the_most_that_may_fail(count, failed):
    assert MaxFailures.parse(str(count)).allows(failed, failed) is (failed <= count)


@pytest.mark.parametrize(
    ("text", "failed", "read", "goes_on"),
    [
        ("5%", MIN_JUDGED - 1, MIN_JUDGED - 1, True),
        ("5%", 2, MIN_JUDGED, True),
        ("5%", 3, MIN_JUDGED, False),
        ("5%", 5, 100, True),
        ("5%", 6, 100, False),
        ("0.5%", 1, 100, False),
        ("0%", 1, 100, False),
        ("100 %", 100, 100, True),
    ],
)
def test_a_share_is_judged_when_enough_was_read(text, failed, read, goes_on):
    assert MaxFailures.parse(text).allows(failed, read) is goes_on


def test_a_source_counts_once_and_no_more_when_it_went_well_later():
    fuse = Fuse(MaxFailures.parse("2"), "corpus")
    fuse.planned(works(4))
    fuse.heard(bundle(a=BAD, b=WORSE, c=OK))
    fuse.planned(works(2))
    fuse.heard(bundle(a=BAD))
    fuse.heard(bundle(b=OK))
    fuse.heard(bundle(d=BAD))
    with pytest.raises(TooManyFailuresError):
        fuse.heard(bundle(e=BAD))


def test_sources_that_are_read_again_are_no_more_sources():
    """In later passes nearly everything fails: that is why it is read again."""
    fuse = Fuse(MaxFailures.parse("10%"), "corpus")
    fuse.planned(works(200))
    fuse.heard(bundle(**{f"a{i}": OK for i in range(180)}))
    fuse.heard(bundle(**{f"b{i}": BAD for i in range(20)}))
    for _ in range(2):
        fuse.planned(works(20))
        fuse.heard(bundle(**{f"b{i}": BAD for i in range(20)}))


def test_it_says_how_many_of_what_failed_mostly_why_and_how_to_see_them():
    fuse = Fuse(MaxFailures.parse("2"), "my corpus")
    fuse.planned(works(9))
    with pytest.raises(TooManyFailuresError) as caught:
        fuse.heard(bundle(a=WORSE, b=BAD, c=OK, d=BAD))
    assert str(caught.value) == (
        "3 of 4 sources failed, more than --max-failures 2 allows; 2 x NotMediaError, for example: no video. "
        "See all with `curate failures 'my corpus' --all`. What is finished is kept, and the same command goes on from "
        "there"
    )


def test_without_a_limit_nothing_is_kept():
    fuse = Fuse(None, "corpus")
    fuse.planned(works(9))
    fuse.heard(bundle(a=BAD))
    assert not fuse._failed


def execute_with(tmp_path: Path, folder: Path, engine: InlineEngine, text: str) -> Listening:
    corpus, heard = Corpus(str(tmp_path / "c")), Listening()
    corpus.create()
    limit = MaxFailures.parse(text)
    refs = list_inputs([str(folder)])
    request = RunRequest(corpus, pipe(), refs, "test", "name: test\n", max_failures=limit)
    execute(request, engine, inline_map, tmp_path, heard)
    return heard


def pipe():
    return pipeline(Luma(LumaConfig()))


@pytest.fixture
def folder(tmp_path, bucket) -> Path:
    """A good file, bad ones, and a good one again, in the order in which they are read."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    for name, source in (("a", "a"), ("z", "b")):
        (folder / f"{name}.mp4").write_bytes((bucket / f"{source}.mp4").read_bytes())
    for name in "bcd":
        (folder / f"{name}.mp4").write_bytes(f"{name} no video".encode() * (ord(name) - 90))
    return folder


def test_what_is_finished_is_kept_and_the_next_run_goes_on(tmp_path, folder):
    with pytest.raises(TooManyFailuresError, match="2 of 3 sources failed"):
        execute_with(tmp_path, folder, InlineEngine(tmp_path), "1")
    assert Corpus(str(tmp_path / "c")).run_ids() == []
    assert len(all_cells(tmp_path / "c", pipe())["luma"]) == 3
    heard = execute_with(tmp_path, folder, InlineEngine(tmp_path), "1")
    assert [Path(work.ref.uri).stem for work in heard.plans[0]] == ["d", "z"]
    assert len(all_cells(tmp_path / "c", pipe())["luma"]) == 5


class Dying(InlineEngine):
    """Its workers die over everything."""

    def run_pass(self, corpus, pipeline, works, *, run_id, single):
        self._in_flight = {work.ref.uri for work in works}
        raise EngineError("a worker died")
        yield


def test_quarantined_sources_count_too(tmp_path, folder):
    with pytest.raises(TooManyFailuresError, match=r"5 of 5 sources failed.*5 x WorkerDiedError"):
        execute_with(tmp_path, folder, Dying(tmp_path), "4")
