"""A real server that fails in all the ways servers do: what may pass is asked again, what will not is not."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from curate.errors import StorageError, TransientStorageError
from curate.ingest.remote import remote_ref
from curate.ingest.spool import spooled
from curate.storage import Place

DATA = os.urandom(300_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file by ranges; ``faults`` are used up, one a GET."""

    faults: ClassVar[list[str]] = []
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._head(200, len(DATA))

    def do_GET(self) -> None:
        span = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(span[1]) if span else 0
        end = min(int(span[2]) + 1 if span and span[2] else len(DATA), len(DATA))
        self.asked.append(f"{start}-{end}")
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit():
            self._head(int(fault), 0)
        elif fault == "reset":
            self.connection.close()
        else:
            self._head(206 if span else 200, end - start, f"bytes {start}-{end - 1}/{len(DATA)}")
            self.wfile.write(DATA[start : end - 1000 if fault == "short" else end])
            self.close_connection = True

    def _head(self, status: int, size_bytes: int, span: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(size_bytes))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"one"')
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()


@pytest.fixture
def uri() -> Iterator[str]:
    Handler.faults.clear()
    Handler.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/a.mp4"
        server.shutdown()


@pytest.mark.parametrize("fault", ["500", "502", "503", "429", "408", "reset", "short"])
def test_a_source_is_read_whole_though_the_server_fails_thrice(tmp_path: Path, uri: str, fault: str) -> None:
    Handler.faults.extend([fault] * 3)
    with spooled(remote_ref(uri), tmp_path) as file:
        assert file.digest == hashlib.sha256(DATA).hexdigest()
        assert Path(file.path).read_bytes() == DATA
    assert not Handler.faults


@pytest.mark.parametrize("fault", ["503", "reset", "short"])
def test_a_table_is_read_whole_though_the_server_fails_thrice(uri: str, fault: str) -> None:
    Handler.faults.extend([fault] * 3)
    assert Place(uri).read_bytes() == DATA


@pytest.mark.parametrize("fault", ["503", "reset", "short"])
def test_a_server_that_never_gets_well_is_a_failure_that_may_pass(tmp_path: Path, uri: str, fault: str) -> None:
    ref = remote_ref(uri)
    Handler.faults.extend([fault] * 30)
    with pytest.raises(TransientStorageError), spooled(ref, tmp_path):
        pass
    assert 4 <= len(Handler.asked) <= 8
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["403", "404", "410"])
def test_an_answer_that_will_not_change_is_not_asked_for_again(tmp_path: Path, uri: str, fault: str) -> None:
    ref = remote_ref(uri)
    Handler.faults.extend([fault] * 30)
    with contextlib.suppress(StorageError), spooled(ref, tmp_path):
        raise AssertionError("it was read")
    assert len(Handler.asked) == 1
