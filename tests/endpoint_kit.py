"""A real chat endpoint on the loopback: it answers what it reads, slowly, out of order, wrongly or not at all."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

FAULTS = ("busy", "throttled", "broken_json", "half", "no_choices", "no_content", "empty", "reset", "silent", "wrong")
"""busy: 500. throttled: 429 with Retry-After. broken_json: no JSON at all. half: the body ends in its middle, after a
full Content-Length. no_choices, no_content, empty, wrong: JSON without what was asked for. reset: the connection is
reset. silent: no answer within the client's patience."""

BITS, CELL_PX = 16, 16


@dataclass
class Script:
    """How the endpoint behaves. ``faults(question, attempt)`` names the fault that one attempt of a question meets."""

    answer: Callable[[Mapping[str, Any]], str]
    faults: Callable[[str, int], str] = lambda question, attempt: ""
    delay_s: Callable[[str, int], float] = lambda question, attempt: 0.0
    retry_after: str = "0"
    silent_s: float = 1.0
    key: str = ""
    attempts: Counter[str] = field(default_factory=Counter)
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no trouble of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        script = self.server.script
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with script.lock:
            script.asked.append(asked)
            script.headers.append({name.lower(): value for name, value in self.headers.items()})
            script.at_once += 1
            script.most_at_once = max(script.most_at_once, script.at_once)
        try:
            self._answer(script, asked)
        finally:
            with script.lock:
                script.at_once -= 1

    def _answer(self, script: Script, asked: Mapping[str, Any]) -> None:
        if script.key and self.headers.get("Authorization") != f"Bearer {script.key}":
            told = f"Incorrect API key provided: {self.headers.get('Authorization')}"
            return self._send(401, json.dumps({"error": {"message": told}}).encode())
        text = script.answer(asked)
        with script.lock:
            attempt = script.attempts[text]
            script.attempts[text] += 1
        time.sleep(script.delay_s(text, attempt))
        fault = script.faults(text, attempt)
        body = json.dumps(completion(asked, text)).encode()
        if fault:
            return self._fail(fault, body)
        return self._send(200, body)

    def _fail(self, fault: str, body: bytes) -> None:
        script = self.server.script
        if fault.isdigit():
            self._send(int(fault), json.dumps({"error": {"message": f"no, {fault}"}}).encode())
        elif fault == "busy":
            self._send(500, b"<html>internal error</html>")
        elif fault == "throttled":
            self._send(429, b'{"error": {"message": "slow down"}}', {"Retry-After": script.retry_after})
        elif fault == "half":
            self._head(200, len(body))
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault == "silent":
            time.sleep(script.silent_s)
            self._send(200, body)
        else:
            self._send(200, _WRONG[fault])

    def _head(self, status: int, n_bytes: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(n_bytes))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._head(status, len(body), headers)
        self.wfile.write(body)


_WRONG = {
    "broken_json": b'{"choices": [{"message": {"content": "cut of',
    "no_choices": b'{"object": "chat.completion", "choices": []}',
    "no_content": b'{"choices": [{"message": {"role": "assistant", "content": null}}]}',
    "empty": b'{"choices": [{"message": {"content": "  "}}]}',
    "wrong": b'["a", "list"]',
}


def completion(asked: Mapping[str, Any], text: str) -> dict[str, Any]:
    """An answer as such endpoints give it; a token is a word here, and a picture is 100 tokens."""
    words, n_pictures = texts_of(asked), len(pictures_of(asked))
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": f"{asked['model']}-served",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": sum(len(word.split()) for word in words) + 100 * n_pictures,
            "completion_tokens": len(text.split()),
            "total_tokens": 0,
        },
    }


@contextmanager
def served(script: Script) -> Iterator[str]:
    """The base address of a server that follows the script."""
    server = _Server(script)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def _parts(asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for message in asked["messages"]:
        content = message["content"]
        yield from [{"type": "text", "text": content}] if isinstance(content, str) else content


def texts_of(asked: Mapping[str, Any]) -> list[str]:
    """All texts of a question in order."""
    return [part["text"] for part in _parts(asked) if part["type"] == "text"]


def pictures_of(asked: Mapping[str, Any]) -> list[np.ndarray]:
    """All pictures of a question in order, RGB uint8 (height, width, 3)."""
    found = []
    for part in _parts(asked):
        if part["type"] == "image_url":
            head, _, data = part["image_url"]["url"].partition(",")
            assert head == "data:image/jpeg;base64"
            bgr = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
            found.append(bgr[..., ::-1])
    return found


def drawn(number: int) -> np.ndarray:
    """A picture that shows a number: its 16 bits as fields of red (1) and blue (0), uint8 (64, 64, 3)."""
    side = 4
    bits = np.array([number >> bit & 1 for bit in range(BITS)], bool).reshape(side, side)
    small = np.where(bits[..., None], np.array((230, 20, 20), np.uint8), np.array((20, 20, 230), np.uint8))
    return small.repeat(CELL_PX, 0).repeat(CELL_PX, 1)


def number_in(picture: np.ndarray) -> int:
    """The number that a picture shows."""
    middles = picture[CELL_PX // 2 :: CELL_PX, CELL_PX // 2 :: CELL_PX].astype(int)
    bits = middles[..., 0] > middles[..., 2]
    return sum(int(bit) << place for place, bit in enumerate(bits.ravel()))
