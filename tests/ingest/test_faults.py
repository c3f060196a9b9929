"""Which faults of a place may pass, and which are final."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple

import fsspec
import pytest

from curate.errors import SourceChangedError, StorageError, TransientStorageError
from curate.ingest.spool import check_unchanged, spooled
from curate.records import InputRef
from curate.storage import storage_error

URI = "https://user:secret@host/a.mp4?sig=secret"


class Answer(Exception):
    """As web clients raise it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status} from {URI}")
        self.status = status


def not_found(cause: Exception | None = None) -> FileNotFoundError:
    error = FileNotFoundError(URI)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "may_pass", "told"),
    [
        (not_found(), False, "does not exist"),
        (not_found(FileNotFoundError(URI)), False, "does not exist"),
        (not_found(ConnectionRefusedError(111, "refused")), True, "cannot be read just now"),
        (TimeoutError("slow"), True, "cannot be read just now"),
        (Answer(503), True, "cannot be read just now"),
        (Answer(403), False, "cannot be read"),
        (PermissionError(13, "no"), False, "may not be read"),
        (OSError(errno.ENOSPC, "full"), True, "no space left"),
        (OSError(errno.EIO, "broken"), False, "cannot be read"),
    ],
)
def test_what_may_pass_is_transient_and_nothing_tells_a_secret(error, may_pass, told):
    """Regression: the web's file system calls every fault "not found", with the true one as its cause."""
    found = storage_error(error, URI)
    assert isinstance(found, TransientStorageError) == may_pass
    assert told in found.message
    assert "secret" not in str(found)


def test_a_file_that_was_listed_and_is_gone_may_come_back(tmp_path):
    path = str(tmp_path / "a.mp4")
    with pytest.raises(TransientStorageError, match="gone since it was listed"), spooled(InputRef(path, 5), tmp_path):
        pass
    with pytest.raises(StorageError, match="does not exist") as never_there, spooled(InputRef(path), tmp_path):
        pass
    assert not isinstance(never_there.value, TransientStorageError)


def test_a_scratch_folder_without_room_may_get_some(tmp_path, memory_bucket, monkeypatch):
    fsspec.filesystem("memory").pipe_file("/bucket/a.mp4", b"12345")
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 6, 4))
    ref = InputRef(f"{memory_bucket}/a.mp4")
    with pytest.raises(TransientStorageError, match="free scratch space of 4 B"), spooled(ref, tmp_path):
        pass


@pytest.mark.parametrize("change", ["rewritten", "replaced", "removed"])
def test_a_file_that_changes_in_use_is_noticed(tmp_path, change):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"first")
    with spooled(InputRef(str(path)), tmp_path) as file:
        check_unchanged(file)
        if change == "rewritten":
            path.write_bytes(b"second")
        elif change == "replaced":
            (tmp_path / "b.mp4").write_bytes(b"first")
            (tmp_path / "b.mp4").replace(path)
        else:
            path.unlink()
        with pytest.raises(SourceChangedError, match="changed, replaced or removed"):
            check_unchanged(file)
