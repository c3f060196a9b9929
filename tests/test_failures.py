"""Failures as the tables tell them: grouped, with all that is known of them, and the command that repeats one."""

from __future__ import annotations

import subprocess

import pyarrow as pa
import pytest
from corpus_kit import TAIL, CorpusKit, digest_of

from curate.errors import ConfigError, TransientStorageError
from curate.failures import FailureGroup, failures, shell_word
from curate.memory import peak_memory_bytes
from curate.query import connect, sources_sql
from curate.stage import failed_cell
from curate.stats import corpus_stats
from curate.tables import SOURCES, Corpus, rows_table, write_part

STAGES = {"motion": {"speed": pa.float64()}}


@pytest.fixture
def kit(tmp_path) -> CorpusKit:
    """Three clips, two without motion, and inputs that failed in each way there is."""
    kit = CorpusKit(tmp_path / "corpus", STAGES)
    clips = kit.source("a.mp4", [2.0] * 3)
    for clip in clips[:2]:
        kit.failed("motion", clip, "StageError", "no flow")
    kit.cell("motion", clips[2], speed=1.0)
    kit.input("gone.mp4", "failed", "StorageError: cannot be read")
    kit.input("bad.mp4", "failed", "NotMediaError: no demuxer", digest_of("bad.mp4"))
    kit.failed("probe", digest_of("bad.mp4"), "NotMediaError", "no demuxer")
    kit.source("torn.mp4", [])
    kit.cells["cut"].pop()
    kit.failed("cut", digest_of("torn.mp4"), "DecodeError", "ends early")
    return kit


def told(groups: list[FailureGroup]) -> list[tuple[str, str, int]]:
    return [(group.stage, group.error_class, group.n) for group in groups]


EVERY = [
    ("motion", "StageError", 2),
    ("cut", "DecodeError", 1),
    ("input", "StorageError", 1),
    ("probe", "NotMediaError", 1),
]


@pytest.mark.parametrize("every", [False, True])
def test_failures_are_grouped_with_examples_each_counted_once(kit, every):
    groups = failures(kit.write(), every=every)
    assert told(groups) == EVERY
    assert {(e.uri, e.message) for e in groups[0].examples} == {("a.mp4", "no flow")}
    assert [groups[i].examples[0].uri for i in (1, 2, 3)] == ["torn.mp4", "gone.mp4", "bad.mp4"]


def test_statistics_tell_the_same(kit):
    assert told(corpus_stats(kit.write()).failures) == EVERY


def test_one_stage_and_a_number_of_examples(kit):
    corpus = kit.write()
    (motion,) = failures(corpus, stage="motion", examples=1)
    assert (motion.n, len(motion.examples)) == (2, 1)
    assert told(failures(corpus, stage="input")) == [("input", "StorageError", 1)]
    for every in (False, True):
        with pytest.raises(ConfigError, match="did you mean 'motion'"):
            failures(corpus, stage="moton", every=every)


def test_only_what_the_run_sees_unless_all_is_asked_for(kit):
    corpus = kit.write("run-1")
    kit.inputs.clear()
    kit.source("b.mp4", [1.0])
    kit.write("run-2")
    assert failures(corpus) == []
    assert told(failures(corpus, "run-1")) == told(failures(corpus, every=True)) == EVERY


def test_an_empty_corpus_has_no_failures(tmp_path):
    corpus = Corpus(str(tmp_path / "c"))
    corpus.create()
    assert failures(corpus, every=True) == []


def test_failures_of_a_corpus_that_never_had_a_clip(tmp_path):
    kit = CorpusKit(tmp_path / "c", STAGES)
    kit.input("bad.mp4", "failed", "NotMediaError: no demuxer", digest_of("bad.mp4"))
    kit.failed("probe", digest_of("bad.mp4"), "NotMediaError", "no demuxer")
    (group,) = failures(kit.write(), every=True)
    assert (group.stage, group.error_class, [e.uri for e in group.examples]) == ("probe", "NotMediaError", ["bad.mp4"])


def test_each_comes_with_its_attempt_host_time_memory_and_traceback(tmp_path):
    kit = CorpusKit(tmp_path / "c", STAGES)
    (clip,) = kit.source("a.mp4", [1.0])
    kit.failed("motion", clip, attempt=3)
    (group,) = failures(kit.write())
    (example,) = group.examples
    assert (example.key, example.attempt, example.host, example.seconds) == (clip, 3, "h", 0.1)
    assert (example.run_id, example.traceback, example.command) == ("r", "...", "")


@pytest.mark.parametrize("old_first", [True, False])
def test_parts_that_know_nothing_of_memory_are_read_beside_those_that_do(tmp_path, old_first):
    """Corpora of earlier versions: cells without peak memory, sources without it and without a traceback."""
    kit = CorpusKit(tmp_path / "c", STAGES)
    clips = kit.source("a.mp4", [1.0, 1.0])
    corpus = kit.write()
    tail = {"outcome": "failed", "error_class": "E", "error_message": "no", "attempt": 1}
    cells, folder = corpus.cells("motion", kit.fingerprint("motion")), corpus.sources()
    old = pa.schema([("key", pa.string()), ("speed", pa.float64()), *[t for t in TAIL if t[0] != "peak_memory_bytes"]])
    new = old.append(pa.field("peak_memory_bytes", pa.int64()))
    older = pa.schema([field for field in SOURCES if field.name not in {"error_traceback", "peak_memory_bytes"}])
    source = {"uri": "x", "size_bytes": 1, "version": "1", **tail}
    parts = [
        lambda: write_part(cells, rows_table(old, [{"key": clips[0], **tail}])),
        lambda: write_part(folder, rows_table(older, [source])),
    ]
    for write in parts:
        write()
    assert {e.peak_memory_bytes for g in failures(corpus, every=True) for e in g.examples} == {None}
    write_part(cells, rows_table(new, [{"key": clips[1], **tail, "peak_memory_bytes": 7}]))
    row = {**source, "uri": "y", "error_traceback": "T", "peak_memory_bytes": 8}
    write_part(folder, rows_table(SOURCES, [row]))
    for part in (tmp_path / "c" / "tables").rglob("*.parquet"):
        part.rename(part.with_name(f"{'a' if (part.stat().st_size % 2 == 0) == old_first else 'z'}-{part.name}"))
    found = {(g.stage, e.peak_memory_bytes) for g in failures(corpus, every=True) for e in g.examples}
    assert found == {("motion", None), ("motion", 7), ("input", None), ("input", 8)}
    with connect() as con:
        assert len(con.sql(f"select * from ({sources_sql(con, corpus)})").fetchall()) == 3


class Child(TransientStorageError):
    peak_memory_bytes = 12345


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_a_failed_cell_says_how_much_memory_was_held():
    own = failed_cell("k", raised(ValueError("no")), 0.0).failure
    assert own.peak_memory_bytes == pytest.approx(peak_memory_bytes(), rel=0.1)
    assert failed_cell("k", Child("no"), 0.0).failure.peak_memory_bytes == 12345


def test_no_secret_of_an_address_is_kept_with_a_failure():
    error = raised(ValueError("https://me:word@host/a.mp4?sig=abc is gone"))
    failure = failed_cell("k", error, 0.0).failure
    assert failure.message == "https://***@host/a.mp4?sig=*** is gone"
    assert "ValueError" in failure.traceback
    assert "word" not in failure.traceback and "abc" not in failure.traceback


@pytest.mark.parametrize(
    "word", ["plain.mp4", "a b", 'it\'s $(here) `x` \\ "y"', "-x", "tab\there\nline", "\u202egpj.mp4", "'\x07\\", ""]
)
def test_a_shell_reads_back_every_name_and_a_terminal_obeys_none(word):
    spelt = shell_word(word)
    assert spelt.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {spelt}"], check=True, capture_output=True)
    assert done.stdout.decode() == word
