"""A server of files on loopback that breaks off, forgets ranges and redirects, as servers do; and a model hub of it."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FileServer:
    """``files`` by their paths. ``faults`` are used up, one a GET: ``break:N`` closes the connection after N bytes, a
    number is an answer of that status. ``ranges`` False: every GET is answered with the whole file.

    ``asked`` holds method, path and range of every request, ``tokens`` the head of its path and the key it came with.
    As a hub, files lie below ``/<repository>/resolve/<name of revision>/``; those of ``large`` are told apart by their
    sha256 and live at another host.
    """

    files: dict[str, bytes]
    ranges: bool = True
    faults: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    large: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    uri: str = ""

    def gets(self) -> list[str]:
        """Path and range of the GETs that were answered with bytes of a file."""
        return [line.removeprefix("GET ") for line in self.asked if line.startswith("GET ")]


class _Handler(http.server.BaseHTTPRequestHandler):
    state: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def _serve(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if "Authorization" in self.headers:
            self.state.tokens.add(f"{path.split('/')[1]} {self.headers['Authorization']}")
        if path in self.state.large:
            return self._redirect(path)
        data = self.state.files.get(path.removeprefix("/cdn"))
        self.state.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        fault = self.state.faults.pop(0) if body and self.state.faults else ""
        if fault.isdigit() or data is None:
            return self._head(int(fault or 404), {"Content-Length": "0"})
        self._send(data, fault, body=body)

    def _send(self, data: bytes, fault: str, *, body: bool) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.state.ranges else None
        start = int(span[1]) if span else 0
        end = min(int(span[2]) + 1 if span and span[2] else len(data), len(data))
        if span and start >= len(data):
            return self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(data)}"})
        headers = {"Content-Length": str(end - start), "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        headers |= {"X-Repo-Commit": COMMIT}
        headers |= {"Accept-Ranges": "bytes"} if self.state.ranges else {}
        headers |= {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} if span else {}
        self._head(206 if span else 200, headers)
        if body:
            kept = min(end, start + int(fault.removeprefix("break:"))) if fault else end
            self.wfile.write(data[start:kept])
            self.close_connection = self.close_connection or bool(fault)

    def _redirect(self, path: str) -> None:
        """As the hub answers for its large files, with an address that is signed."""
        data = self.state.files[path]
        elsewhere = self.state.uri.replace("127.0.0.1", "localhost")
        headers = {"Location": f"{elsewhere}/cdn{path}?Signature=verysecret", "Content-Length": "0"}
        headers |= {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data))}
        self._head(302, {**headers, "X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving(files: Mapping[str, bytes], **more: object) -> Iterator[FileServer]:
    """A server of these files while the block lasts."""
    state = FileServer({f"/{name}": data for name, data in files.items()}, **more)  # pyright: ignore[reportArgumentType]
    handler = type("Handler", (_Handler,), {"state": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None
        state.uri = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield state
        server.shutdown()
