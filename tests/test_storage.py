"""Files appear whole or not at all, and no message carries a secret."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import storage
from curate.errors import StorageError, TransientStorageError
from curate.storage import Place, is_remote, redacted, storage_error


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path, memory_bucket) -> Place:
    """A folder that is not there yet, on local disk and on an object store."""
    return Place(str(tmp_path / "folder") if request.param == "local" else f"{memory_bucket}/folder")


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000], ids=len)
def test_what_is_written_is_read(place, data):
    file = place.child("a", "b.bin")
    file.write_bytes(data)
    assert file.exists() and file.read_bytes() == data and file.size_bytes() == len(data)


def test_text_is_utf_8(place):
    place.child("t.txt").write_text("Straße 東京")
    assert place.child("t.txt").read_text() == "Straße 東京"
    assert place.child("t.txt").read_bytes() == "Straße 東京".encode()


def test_a_file_is_replaced_as_a_whole(place):
    file = place.child("f")
    file.write_bytes(b"a long first text")
    file.write_bytes(b"short")
    assert file.read_bytes() == b"short"


def test_listing_gives_what_lies_directly_in_the_folder(place):
    for name in ("b.parquet", "a.parquet", "c.json", ".a.parquet.123.tmp", "sub/d.parquet", "other/e", ".hidden/f"):
        place.child(*name.split("/")).write_bytes(b"x")
    assert [path.rsplit("/", 1)[-1] for path in place.files()] == ["a.parquet", "b.parquet", "c.json"]
    assert [path.rsplit("/", 1)[-1] for path in place.files(".parquet")] == ["a.parquet", "b.parquet"]
    assert place.folders() == ["other", "sub"]


def test_a_folder_that_is_not_there_is_empty(place):
    assert place.files() == [] and place.folders() == [] and not place.exists()
    place.remove()


def test_removing_takes_all_that_is_in_it(place):
    place.child("a", "b").write_bytes(b"x")
    place.child("a").remove()
    assert not place.child("a").exists() and not place.child("a", "b").exists()


def test_a_missing_file_says_so(place):
    with pytest.raises(StorageError, match="does not exist"):
        place.child("nothing").read_bytes()


class _Stop(BaseException):
    """Ctrl-C, or a worker being told to end."""


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken"), _Stop()], ids=repr)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_breaks_off_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fault, call):
    file = Place(str(tmp_path / "part.parquet"))
    file.write_bytes(b"old")

    def broken(*_: object) -> None:
        raise fault

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), broken)
    with pytest.raises(_Stop if isinstance(fault, _Stop) else StorageError) as caught:
        file.write_bytes(b"new" * 1000)
    monkeypatch.undo()
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["part.parquet"]
    if getattr(fault, "errno", None) == errno.ENOSPC:
        assert "no space left" in str(caught.value) and "goes on where it stopped" in str(caught.value)


def test_nothing_but_the_whole_file_is_ever_seen_under_its_name(tmp_path, monkeypatch):
    """At the moment before the rename the bytes are all there, and the name is not."""
    seen = []
    target = tmp_path / "index.json"

    def look(file_number: int) -> None:
        seen.append((target.exists(), [path.stat().st_size for path in tmp_path.iterdir()]))

    monkeypatch.setattr(storage.os, "fsync", look)
    Place(str(target)).write_bytes(b"x" * 100_000)
    assert seen == [(False, [100_000])]
    assert target.stat().st_size == 100_000


def test_a_folder_that_cannot_be_made_is_our_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be written"):
        Place(str(tmp_path / "file" / "below")).write_bytes(b"x")


def test_an_unknown_kind_of_place_says_so():
    with pytest.raises(StorageError, match="not known: nosuchstore") as caught:
        Place("nosuchstore://user:word@host/x").exists()
    assert caught.value.fix and "word" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file"), StorageError, "does not exist"),
        (PermissionError(errno.EACCES, "Permission denied"), StorageError, "may not be read"),
        (OSError(errno.EIO, "Input/output error"), StorageError, "cannot be read: Input/output error"),
        (TimeoutError("slow"), TransientStorageError, "just now"),
        (ConnectionResetError("reset"), TransientStorageError, "just now"),
    ],
)
def test_errors_of_the_system_become_ours(error, kind, words):
    ours = storage_error(error, "s3://key:secret@bucket/x?sig=secret")
    assert type(ours) is kind and words in str(ours)
    assert "secret" not in str(ours) and "bucket/x" in str(ours)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("videos/a b.mp4", "videos/a b.mp4"),
        ("s3://bucket/a@b.mp4", "s3://bucket/a@b.mp4"),
        ("s3://key:secret@bucket/a.mp4", "s3://***@bucket/a.mp4"),
        ("HTTPS://user:p@ss@host/a.mp4", "HTTPS://***@host/a.mp4"),
        ("https://host/a.mp4?X-Sig=abc&exp=9", "https://host/a.mp4?X-Sig=***&exp=***"),
        ("zip://a.mp4::s3://key:secret@bucket/b.zip", "zip://a.mp4::s3://***@bucket/b.zip"),
    ],
)
def test_secrets_are_blotted_out_and_the_rest_is_not(uri, shown):
    assert redacted(uri) == shown


words = st.text(st.characters(categories=["L", "N"], include_characters="@:!$*+,;~"), min_size=12, max_size=20)


@given(words, words, st.sampled_from(["s3", "https", "GS", "web-dav", "a.b"]))
def test_no_part_of_a_secret_is_left(password, signature, scheme):
    shown = redacted(f"{scheme}://me:{password}@host/folder/a.mp4?token={signature}")
    assert shown == f"{scheme}://***@host/folder/a.mp4?token=***"


@pytest.mark.parametrize(
    ("uri", "remote"), [("a/b", False), ("/a/b", False), ("file:///a", False), ("s3://a/b", True), ("memory://a", True)]
)
def test_what_is_remote(uri, remote):
    assert is_remote(uri) is remote
