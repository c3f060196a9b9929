"""Spooling: the right bytes, the right digest, nothing left behind, never a wait."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from curate.errors import EmptyFileError, StorageError, TransientStorageError, TruncatedReadError
from curate.ingest.spool import BLOCK_BYTES, digest_of, local_copy, spooled
from curate.records import InputRef


@pytest.fixture
def data() -> bytes:
    """More than one block, and no whole number of them."""
    return os.urandom(1 << 16) * (BLOCK_BYTES // (1 << 16)) + b"tail"


def test_a_local_file_is_hashed_in_place(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with spooled(InputRef(str(path)), tmp_path / "scratch") as file:
        assert (file.path, file.size_bytes) == (str(path), len(data))
        assert file.digest == hashlib.sha256(data).hexdigest() == digest_of(path)
    assert path.exists() and not (tmp_path / "scratch").exists()


def test_a_remote_file_is_copied_and_removed(tmp_path: Path, memory_bucket: str, data: bytes) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/a.webm", data)
    uri = f"{memory_bucket}/a.webm"
    with spooled(InputRef(uri), tmp_path) as file, local_copy(uri, tmp_path) as copy:
        assert Path(file.path).read_bytes() == copy.read_bytes() == data
        assert (file.digest, file.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        assert file.path.endswith(".webm")
    assert not list(tmp_path.iterdir())


def test_the_copy_goes_even_when_its_user_fails(tmp_path: Path, memory_bucket: str) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/a.mp4", b"x")
    with pytest.raises(ZeroDivisionError), spooled(InputRef(f"{memory_bucket}/a.mp4"), tmp_path):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_what_is_larger_than_the_quota_is_refused(tmp_path: Path, memory_bucket: str) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/a.mp4", b"12345")
    ref = InputRef(f"{memory_bucket}/a.mp4")
    with (
        pytest.raises(StorageError, match="larger than the scratch quota of 4 B"),
        spooled(ref, tmp_path, quota_bytes=4),
    ):
        pass
    with spooled(ref, tmp_path, quota_bytes=5) as file:
        assert file.size_bytes == 5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("remote", [True, False])
def test_a_file_without_bytes_says_so(tmp_path: Path, memory_bucket: str, remote: bool) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/a.mp4", b"")
    (tmp_path / "a.mp4").touch()
    uri = f"{memory_bucket}/a.mp4" if remote else str(tmp_path / "a.mp4")
    with pytest.raises(EmptyFileError), spooled(InputRef(uri), tmp_path / "scratch"):
        pass


@pytest.mark.parametrize("use", [spooled, lambda ref, scratch: local_copy(ref.uri, scratch)])
def test_a_fifo_that_took_the_place_of_a_file_does_not_block(tmp_path: Path, use: Any) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(StorageError, match="FIFO"), use(InputRef(str(tmp_path / "a.mp4"), 100), tmp_path):
        pass


def test_what_is_not_there_or_a_folder_is_a_storage_error(tmp_path: Path, memory_bucket: str) -> None:
    for uri, message in [
        (str(tmp_path / "gone.mp4"), "does not exist"),
        (f"{memory_bucket}/gone.mp4", "does not exist"),
        (str(tmp_path), "folder"),
        ("tar://a.mp4::/nowhere.tar", "does not exist"),
    ]:
        with pytest.raises(StorageError, match=message), spooled(InputRef(uri), tmp_path):
            pass


class FaultyFileSystem(MemoryFileSystem):
    """A remote place that fails in the way its files are named."""

    protocol = "faulty"
    cachable = False

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": 10}

    def _open(self, path: str, *_: Any, **__: Any) -> Any:
        if "timeout" in path:
            raise TimeoutError("no answer")
        if "forbidden" in path:
            raise PermissionError("403")
        return fsspec.filesystem("memory").open("/short", "rb")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("timeout", TransientStorageError), ("forbidden", StorageError), ("short", TruncatedReadError)],
)
def test_faults_of_a_remote_place_have_their_class(
    tmp_path: Path, memory_bucket: str, name: str, kind: type[StorageError]
) -> None:
    fsspec.filesystem("memory").pipe_file("/short", b"half")
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    with pytest.raises(StorageError) as caught, spooled(InputRef(f"faulty://{name}.mp4"), tmp_path):
        pass
    assert type(caught.value) is kind
    assert not list(tmp_path.iterdir())


class Breaking(MemoryFileSystem):
    """A remote place whose connection breaks after a few bytes, and that may hold another file by then."""

    protocol = "breaking"
    cachable = False
    version = "1"
    breaks = 3
    changes = False
    opened: ClassVar[list[int]] = []

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        data = fsspec.filesystem("memory").cat_file("/bucket/a.mp4")
        return {"name": path, "type": "file", "size": len(data), "etag": self.version}

    def _open(self, path: str, *_: Any, **__: Any) -> Any:
        data = fsspec.filesystem("memory").cat_file("/bucket/a.mp4")
        return BreakingFile(data, type(self))


class BreakingFile(io.BytesIO):
    def __init__(self, data: bytes, place: type[Breaking]) -> None:
        super().__init__(data)
        self.place, self.first = place, True

    def read(self, size: int = -1) -> bytes:
        if self.first:
            self.place.opened.append(self.tell())
        elif self.place.breaks:
            self.place.breaks -= 1
            if self.place.changes:
                self.place.version += "1"
            raise ConnectionResetError("reset")
        self.first = False
        return super().read(min(size, 4))


@pytest.fixture
def breaking(memory_bucket: str) -> Iterator[type[Breaking]]:
    fsspec.register_implementation("breaking", Breaking, clobber=True)
    fsspec.filesystem("memory").pipe_file("/bucket/a.mp4", b"0123456789ABCDEF")
    Breaking.version, Breaking.breaks, Breaking.changes = "1", 3, False
    Breaking.opened.clear()
    yield Breaking


def test_a_copy_that_breaks_off_goes_on_where_it_stopped(tmp_path: Path, breaking: type[Breaking]) -> None:
    with spooled(InputRef("breaking://bucket/a.mp4"), tmp_path) as file:
        assert Path(file.path).read_bytes() == b"0123456789ABCDEF"
        assert file.digest == hashlib.sha256(b"0123456789ABCDEF").hexdigest()
    assert breaking.opened == [0, 4, 8, 12]


@pytest.mark.parametrize("versioned", [True, False])
def test_a_file_that_changed_meanwhile_or_has_no_version_is_copied_anew(
    tmp_path: Path, breaking: type[Breaking], versioned: bool
) -> None:
    breaking.changes, breaking.version = versioned, "1" if versioned else ""
    with spooled(InputRef("breaking://bucket/a.mp4"), tmp_path) as file:
        assert Path(file.path).read_bytes() == b"0123456789ABCDEF"
        assert file.digest == hashlib.sha256(b"0123456789ABCDEF").hexdigest()
    assert breaking.opened == [0, 0, 0, 0]


def test_a_copy_is_given_up_after_a_few_attempts(tmp_path: Path, breaking: type[Breaking]) -> None:
    breaking.breaks = 9
    fsspec.filesystem("memory").pipe_file("/bucket/a.mp4", b"x" * 99)
    with pytest.raises(TransientStorageError, match="just now: reset"), spooled(InputRef("breaking://b/a"), tmp_path):
        pass
    assert len(breaking.opened) == 4
    assert not list(tmp_path.iterdir())
