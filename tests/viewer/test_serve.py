"""`curate view` as a command: where it listens, for whom, and what it says when it cannot."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from urllib.parse import parse_qs, urlsplit

import pytest
from cli_kit import curate, start
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from curate.errors import UsageError
from curate.viewer.guard import Guard, is_loopback
from curate.viewer.serve import viewing


def test_without_its_packages_it_says_how_to_get_them(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ended = curate("view", made.corpus.uri)
    assert ended.status == 2
    assert "pip install 'curate-video[view]'" in ended.err


def test_a_port_that_is_taken_or_none_of_ours_is_refused(made):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = curate("view", made.corpus.uri, "--port", port, "--no-open")
    assert (ended.status, f"127.0.0.1:{port}: cannot listen there" in ended.err) == (2, True)
    with pytest.raises(UsageError, match="cannot listen there"), viewing(made.corpus, host="192.0.2.1", port=0):
        pass


def test_what_is_no_corpus_or_no_run_is_refused(made, tmp_path):
    assert "is not a corpus" in curate("view", tmp_path, "--port", 0).err
    assert "no run is called 'run-9'" in curate("view", made.corpus.uri, "--run", "run-9", "--port", 0).err


def test_tokens_are_made_up_beyond_loopback_alone(made):
    with viewing(made.corpus, port=0) as here:
        assert re.fullmatch(r"http://[\d.]+:\d+/", here.url) and here.is_local
    odd = 'a&b c#%\u00e9+=";'
    with viewing(made.corpus, port=0, token=odd) as here:
        query = urlsplit(here.url).query
        assert parse_qs(query) == {"token": [odd]}
    guarded = Guard(PlainTextResponse("in"), names=frozenset(), loopback=True, token=odd)
    assert TestClient(guarded, base_url="http://127.0.0.1").get(f"/?{query}").text == "in"  # by its cookie
    with pytest.raises(UsageError, match="at least 16"), viewing(made.corpus, host="0.0.0.0", port=0, token="x" * 15):
        pass
    urls = []
    for _ in range(2):
        with viewing(made.corpus, host="0.0.0.0", port=0) as there:
            assert not there.is_local
            urls.append(there.url)
    tokens = [re.fullmatch(r"http://[^/]+:\d+/\?token=([\w-]{32})", url)[1] for url in urls]
    assert tokens[0] != tokens[1]
    assert socket.gethostname() in urls[0]


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("127.0.0.1.evil.example", False), ("", False)],
)  # fmt: skip
def test_what_loopback_is(host, local):
    assert is_loopback(host) == local


def test_beyond_loopback_a_real_server_wants_its_token(made):
    process = start("view", made.corpus.uri, "--host", "0.0.0.0", "--port", 0, "--no-open")
    try:
        port, token = re.search(r":(\d+)/\?token=([\w-]+)", process.stdout.readline()).groups()
        address = f"http://127.0.0.1:{port}/api/facts"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address)
        asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked) as answer:
            assert json.load(answer)["totals"]["n"] == len(made.ids)
            assert "server" not in answer.headers
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
