"""Inputs and contents: what is hashed before the run, and which names stand for the same bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from curate.bulk import inline_map
from curate.engine.inputs import hash_lookalikes, key_of, known_sources, same_content
from curate.errors import TransientStorageError
from curate.ingest.listing import list_inputs
from curate.query import connect
from curate.records import InputRef, Outcome
from curate.tables import SOURCES, Corpus, rows_table, write_part


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    made = Corpus(str(tmp_path / "corpus"))
    made.create()
    return made


def folder_of(tmp_path: Path, **files: bytes) -> list[InputRef]:
    folder = tmp_path / "bucket"
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}.mp4").write_bytes(data)
    return list_inputs([str(folder)])


def hashed(corpus: Corpus, refs: list[InputRef], tmp_path: Path) -> list[str]:
    """Look-alikes are hashed; gives the names that were read."""
    read: list[str] = []

    def watching(function, items):
        read.extend(Path(ref.uri).stem for ref in items)
        return inline_map(function, items)

    with connect() as con:
        n = hash_lookalikes(corpus, refs, known_sources(con, corpus), tmp_path, watching)
    assert n <= len(read)
    return read


def known(corpus: Corpus):
    with connect() as con:
        return known_sources(con, corpus)


def test_only_files_of_equal_size_are_read_beforehand(corpus, tmp_path):
    refs = folder_of(tmp_path, a=b"aaaa", b=b"bbbb", c=b"cc", d=b"")
    assert hashed(corpus, refs, tmp_path) == ["a", "b"]
    found = known(corpus)
    assert {Path(uri).stem: entry.digest for (uri, _, _), entry in found.items()} == {
        "a": hashlib.sha256(b"aaaa").hexdigest(),
        "b": hashlib.sha256(b"bbbb").hexdigest(),
    }
    assert hashed(corpus, refs, tmp_path) == []


def test_a_new_file_as_large_as_a_known_one_is_read(corpus, tmp_path):
    write_part(corpus.sources(), rows_table(SOURCES, [row("old.mp4", 4, "x")]))
    refs = folder_of(tmp_path, a=b"aaaa", b=b"bb")
    assert hashed(corpus, refs, tmp_path) == ["a"]


def test_skipped_inputs_are_not_read(corpus, tmp_path):
    refs = folder_of(tmp_path, a=b"aaaa")
    (tmp_path / "bucket" / "a.txt").write_bytes(b"tttt")
    assert hashed(corpus, list_inputs([str(tmp_path / "bucket")]), tmp_path) == []
    assert refs


def test_a_file_that_cannot_be_read_is_left_to_its_analysis(corpus, tmp_path):
    refs = folder_of(tmp_path, a=b"aaaa", b=b"bbbb")
    (tmp_path / "bucket" / "b.mp4").unlink()
    assert hashed(corpus, refs, tmp_path) == ["a", "b"]
    assert [Path(uri).stem for uri, _, _ in known(corpus)] == ["a"]


def test_the_first_name_stands_for_its_content_and_the_others_say_so(corpus, tmp_path):
    refs = folder_of(tmp_path, c=b"same", a=b"same", b=b"same", d=b"else")
    hashed(corpus, refs, tmp_path)
    twins = same_content(refs, known(corpus))
    assert {Path(uri).stem: Path(owner).stem for uri, owner in twins.items()} == {"b": "a", "c": "a"}
    backwards = same_content(list(reversed(refs)), known(corpus))
    assert backwards == twins


def row(uri: str, size: int, version: str, digest: str | None = "d", outcome: str = "ok", **more) -> dict:
    return {"uri": uri, "size_bytes": size, "version": version, "source_digest": digest, "outcome": outcome} | {
        "attempt": 1,
        **more,
    }


def test_a_changed_file_is_another_input(corpus, tmp_path):
    refs = folder_of(tmp_path, a=b"aaaa", b=b"bbbb")
    hashed(corpus, refs, tmp_path)
    path = tmp_path / "bucket" / "a.mp4"
    path.write_bytes(b"AAAA")
    os.utime(path, (1, 1))
    again = list_inputs([str(tmp_path / "bucket")])
    assert [key_of(ref) in known(corpus) for ref in again] == [False, True]
    assert hashed(corpus, again, tmp_path) == ["a"]


def test_an_input_without_known_size_never_looks_like_another(corpus, tmp_path):
    refs = [InputRef("https://host/a.mp4"), InputRef("https://host/b.mp4")]
    assert hashed(corpus, refs, tmp_path) == []


def test_the_table_of_sources_is_read_by_its_rule(corpus):
    rows = [
        row("a", 1, "1", None, "failed", error_class=TransientStorageError.__name__, error_message="slow"),
        row("a", 1, "1", "d1", "ok", attempt=2),
        row("b", 1, "1", None, "failed", error_class="NotMediaError", error_message="no", attempt=1),
        row("b", 1, "1", None, "failed", error_class="NotMediaError", error_message="still no", attempt=2),
        row("b", 1, "2", "d2"),
    ]
    write_part(corpus.sources(), rows_table(SOURCES, rows))
    found = known(corpus)
    assert (found["a", 1, "1"].outcome, found["a", 1, "1"].digest) == (Outcome.OK, "d1")
    assert (found["b", 1, "1"].error_message, found["b", 1, "1"].attempt) == ("still no", 2)
    assert found["b", 1, "2"].digest == "d2"
    assert len(found) == 3
