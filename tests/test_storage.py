"""Files appear whole or not at all, and no message carries a secret."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from curate import storage
from curate.errors import StorageError, TransientStorageError, TruncatedReadError
from curate.redaction import redacted
from curate.storage import Place, is_remote, retried, storage_error


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path, memory_bucket) -> Place:
    """A folder that is not there yet, on local disk and on an object store."""
    return Place(str(tmp_path / "folder") if request.param == "local" else f"{memory_bucket}/folder")


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000], ids=len)
def test_what_is_written_is_read(place, data):
    file = place.child("a", "b.bin")
    file.write_bytes(data)
    assert file.exists() and file.read_bytes() == data and file.size_bytes() == len(data)


def test_a_part_of_a_file_is_read_or_said_to_be_missing(place):
    file = place.child("b.bin")
    file.write_bytes(b"0123456789")
    assert file.read_range(3, 4) == b"3456"
    with pytest.raises(TruncatedReadError, match="ended after 2 of 4 bytes"):
        file.read_range(8, 4)


def test_a_server_that_gives_the_whole_file_for_every_part_is_refused(flaky, monkeypatch):
    monkeypatch.setattr(flaky, "cat_file", lambda *_, **__: b"data")
    with pytest.raises(StorageError, match="answers no range requests"):
        Place("flaky://a/b").read_range(1, 2)


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


class Flaky(MemoryFileSystem):
    """A remote place that fails in a given order, then works."""

    protocol = "flaky"
    cachable = False
    faults: ClassVar[list[Exception]] = []
    asked: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("flaky://").strip("/")

    def _ask(self, what: str) -> MemoryFileSystem:
        """The place that answers."""
        self.asked.append(what)
        if self.faults:
            raise self.faults.pop(0)
        return fsspec.filesystem("memory")

    def info(self, path: str, **more: Any) -> dict[str, Any]:
        return self._ask("info").info(path)

    def ls(self, path: str, detail: bool = True, **more: Any) -> list[Any]:
        return self._ask("ls").ls(path, detail)

    def open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        return self._ask("open").open(path, mode)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        return self._ask("cat").cat_file(path, start, end)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **more: Any) -> None:
        self._ask("write").pipe_file(path, value)


@pytest.fixture
def flaky(memory_bucket) -> type[Flaky]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    fsspec.filesystem("memory").pipe_file("/a/b", b"data")
    Flaky.faults.clear()
    Flaky.asked.clear()
    return Flaky


class Answer(Exception):
    """An error as clients raise it: aiohttp's ``status``, gcsfs's ``code``, botocore's ``response``."""

    def __init__(self, **told: Any) -> None:
        super().__init__(f"answered {told}")
        vars(self).update(told)


class PayloadError(Exception):
    """Named as aiohttp's error of a body that breaks off."""


def boto(status: int, code: str) -> Answer:
    return Answer(response={"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}})


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


PASSING = [
    TimeoutError("slow"),
    ConnectionResetError("reset"),
    OSError(errno.EBUSY, "slow down"),
    OSError(errno.ENETUNREACH, "no network"),
    http.client.IncompleteRead(b"ha", 2),
    PayloadError("not enough data"),
    Answer(status=503),
    Answer(code="429"),
    boto(500, "InternalError"),
    boto(400, "RequestTimeout"),
    caused(OSError(errno.EIO, "unknown"), boto(503, "WhoKnows")),
    caused(FileNotFoundError("http"), Answer(status=502)),
]
LASTING = [
    OSError(errno.ENOSPC, "full"),
    OSError(errno.EIO, "broken"),
    PermissionError(errno.EACCES, "no"),
    Answer(status=403),
    boto(400, "InvalidRequest"),
    caused(PermissionError("no"), TimeoutError("once")),
]
ACTIONS = {
    "exists": (lambda place: place.exists(), True),
    "size": (lambda place: place.size_bytes(), 4),
    "read": (lambda place: place.read_bytes(), b"data"),
    "range": (lambda place: place.read_range(1, 2), b"at"),
    "open": (lambda place: place.open().read(), b"data"),
    "write": (lambda place: place.write_bytes(b"x"), None),
    "files": (lambda place: Place("flaky://a").files(), ["/a/b"]),
    "folders": (lambda place: Place("flaky://").folders(), ["a"]),
}


@pytest.fixture
def raisable(monkeypatch):
    """The errors of this file, as if they were those of a loaded client."""
    kinds = [(__name__, kind.__name__) for kind in (Answer, PayloadError)]
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Answer=Answer, PayloadError=PayloadError))
    monkeypatch.setattr(storage, "_CLIENT_ERRORS", (*storage._CLIENT_ERRORS, *kinds))


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_tried_again(flaky, raisable, error):
    flaky.faults.extend([error, error, error])
    assert Place("flaky://a/b").read_bytes() == b"data"
    assert flaky.asked == ["open"] * 4


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_will_not_pass_is_said_at_once(flaky, raisable, error):
    flaky.faults.extend([error])
    with pytest.raises(StorageError) as caught:
        Place("flaky://a/b").read_bytes()
    assert flaky.asked == ["open"]
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("what", ACTIONS)
def test_every_way_to_ask_a_place_is_patient_for_a_while(flaky, what):
    action, result = ACTIONS[what]
    flaky.faults.extend([ConnectionError("reset")] * 3)
    assert action(Place("flaky://a/b")) == result
    flaky.faults.extend([ConnectionError("reset")] * 9)
    with pytest.raises(TransientStorageError, match=f"cannot be {'written' if what == 'write' else 'read'} just now"):
        action(Place("flaky://a/b"))
    assert len(flaky.faults) == 5


def test_removing_asks_no_more_often_than_the_rest(flaky):
    """Regression: each attempt to remove asked four times whether there is something."""
    flaky.faults.extend([ConnectionError("reset")] * 99)
    with pytest.raises(TransientStorageError, match="cannot be written just now"):
        Place("flaky://a/b").remove()
    assert len(flaky.asked) == len(storage.WAITS_S) + 1
    flaky.faults[:] = [ConnectionError("reset")]
    Place("flaky://a/b").remove()
    assert not Place("flaky://a/b").exists()
    flaky.faults[:] = [PermissionError("403")]
    with pytest.raises(StorageError, match="may not be written"):
        Place("flaky://a/b").remove()


def test_a_place_that_cannot_be_asked_is_not_empty(flaky):
    """Regression: a corpus behind a time-out looked like none."""
    flaky.faults[:] = [PermissionError("403")]
    with pytest.raises(StorageError, match="may not be read"):
        Place("flaky://a/b").exists()


def test_a_read_that_ends_early_is_noticed_and_repeated(flaky, monkeypatch):
    class Short(io.BytesIO):
        size = 4

    files = [Short(b"da"), Short(b""), Short(b"data")]
    monkeypatch.setattr(flaky, "open", lambda *_, **__: files.pop(0))
    assert Place("flaky://a/b").read_bytes() == b"data"
    files.extend(Short(b"dat") for _ in range(4))
    with pytest.raises(TruncatedReadError, match="ended after 3 of 4 bytes"):
        Place("flaky://a/b").read_bytes()


def waits(uri: str, monkeypatch, attempts: int) -> list[float]:
    monkeypatch.undo()
    waited: list[float] = []
    faults = [TimeoutError("slow")] * attempts

    def ask() -> None:
        if faults:
            raise faults.pop()

    with contextlib.suppress(TransientStorageError):
        retried(ask, uri, sleep=waited.append)
    return waited


def test_waits_grow_and_are_shortened_by_place(monkeypatch):
    waited = waits("http://host/a", monkeypatch, 9)
    assert len(waited) == len(storage.WAITS_S)
    for told, most in zip(waited, storage.WAITS_S, strict=True):
        assert most / 2 <= told <= most
    assert waited == waits("http://host/a", monkeypatch, 9)
    assert waited != waits("http://host/b", monkeypatch, 9)
    assert waits("http://host/a", monkeypatch, 0) == []


def test_a_client_that_tries_again_itself_gets_one_more_attempt_only(monkeypatch):
    assert [len(waits(f"{kind}://bucket/a", monkeypatch, 9)) for kind in ("s3", "gs", "http")] == [1, 1, 3]


def test_an_error_of_a_write_becomes_ours_though_it_is_no_system_error(flaky, raisable):
    flaky.faults.extend([Answer(status=403, message="secret")])
    with pytest.raises(StorageError, match="cannot be written: Answer"):
        Place("flaky://a/b").write_bytes(b"x")


def test_a_local_file_is_put_where_it_belongs(place, tmp_path):
    file = tmp_path / "made"
    file.write_bytes(b"x")
    place.child("first").write_bytes(b"")
    place.child("it").put(file)
    assert place.child("it").read_bytes() == b"x"
