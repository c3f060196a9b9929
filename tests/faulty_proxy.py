"""An HTTP proxy that fails like a busy object store: seeded, on the loopback, in front of a real server."""

from __future__ import annotations

import http.client
import http.server
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

FAULTS = ("error", "throttle", "slow", "reset", "partial", "lost_upload", "lost_answer")
"""error: 500 instead of an answer. throttle: 503 SlowDown. slow: answers late. reset: the connection is reset in the
middle of the answer's body. partial: it ends in the middle of the body, after a full Content-Length. lost_upload: it
is reset in the middle of the request's body, which the store never sees. lost_answer: the store does what was asked,
and the answer never comes."""

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect"})


class FaultyProxy(http.server.ThreadingHTTPServer):
    """Passes requests on to ``target`` (host, port); a ``share`` of them meets one of ``faults``.

    One request fails ``in_a_row`` times at most before it is let through.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        target: tuple[str, int],
        *,
        seed: int,
        share: float,
        faults: tuple[str, ...] = FAULTS,
        in_a_row: int = 2,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.in_a_row = in_a_row
        self.target = target
        self.share = share
        self.faults = faults
        self.injected: Counter[str] = Counter()
        self.requests = 0
        self._draw = random.Random(seed)
        self._failed: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self, request: str) -> str:
        """The fault that this request meets, "" for none."""
        with self._lock:
            self.requests += 1
            wanted = self._draw.random() < self.share
            kind = self._draw.choice(self.faults)
            if not wanted or self._failed[request] >= self.in_a_row:
                del self._failed[request]
                return ""
            self._failed[request] += 1
            self.injected[kind] += 1
            return kind

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the game."""


@contextmanager
def faulty_proxy(target: tuple[str, int], **options: object) -> Iterator[FaultyProxy]:
    """A running proxy."""
    with FaultyProxy(target, **options) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def log_message(self, *_: object) -> None: ...

    def _pass_on(self) -> None:
        name = f"{self.command} {self.path} {self.headers.get('Range', '')}"
        kind = self.server.fault(name)
        if kind == "lost_upload":
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            self._reset()
            return
        body = self._body()
        if kind == "slow":
            time.sleep(0.3)
        if kind in {"error", "throttle"}:
            self._answer(
                *((500, _INTERNAL) if kind == "error" else (503, _SLOW_DOWN)), {"Content-Type": "application/xml"}
            )
            return
        status, headers, data = self._ask(body)
        if kind == "lost_answer":
            self._reset()
        elif kind in {"reset", "partial"} and self.command == "GET" and data:
            self._answer(status, data, headers, cut=len(data) // 2)
            self._reset() if kind == "reset" else self._end()
        else:
            self._answer(status, data, headers)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return found

    def _ask(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        store = http.client.HTTPConnection(*self.server.target, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
        headers["Content-Length"] = str(len(body))
        store.request(self.command, self.path, body, headers)
        answer = store.getresponse()
        data = answer.read()
        found = {key: value for key, value in answer.getheaders() if key.lower() not in _HOP}
        store.close()
        return answer.status, found, data

    def _answer(self, status: int, data: bytes, headers: Mapping[str, str], *, cut: int | None = None) -> None:
        self.send_response_only(status)
        for key, value in headers.items():
            if key.lower() != "content-length" or self.command == "HEAD":
                self.send_header(key, value)
        if self.command != "HEAD" and status not in {204, 304}:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:cut])
            self.wfile.flush()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end()

    def _end(self) -> None:
        self.close_connection = True
        self.connection.close()
