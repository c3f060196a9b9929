"""Downloads from a real server that breaks off, and onto disks that are full: what came is kept and gone on with."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from file_server_kit import serving

from curate.errors import StorageError
from curate.weights import download
from curate.weights.cards import Card, ModelFile
from curate.weights.store import FileStatus, fetch, glance, verify

DATA = os.urandom(12 << 20)
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = f"m/{SHA256[:16]}/w.bin"
BLOCK = 5 << 20
"""Bytes of one request of fsspec's client of the web."""


def card_of(*sources: str, sha256: str | None = SHA256, size_bytes: int | None = len(DATA)) -> Card:
    file = ModelFile(name="w.bin", sha256=sha256, size_bytes=size_bytes, sources=sources)
    return Card(
        name="m", purpose="p", licence="MIT", files=(file,), input="i", output="o", memory_bytes=1, needed_by=()
    )  # fmt: skip


CARD = card_of("file:/no/such/file")


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("CURATE_MIRROR", raising=False)
    return tmp_path / "models"


def parts(models: Path) -> list[int]:
    """Sizes of what was begun."""
    return [path.stat().st_size for path in models.rglob("*.part")]


def begin(models: Path, data: bytes) -> None:
    path = models / "m" / f".w.bin.{SHA256[:16]}.part"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)


def starts(asked: list[str]) -> list[int]:
    """Where the GETs of the file began."""
    return [int(line.partition("bytes=")[2].partition("-")[0] or 0) for line in asked]


def test_a_file_comes_whole_from_a_mirror_on_the_web(models):
    heard = []
    with serving({NAME: DATA}) as server:
        (path,) = fetch(CARD, mirror=server.uri, moved=lambda name: lambda done, total: heard.append((done, total)))
    assert path == models / NAME
    assert path.read_bytes() == DATA
    assert glance(CARD) == verify(CARD) == {"w.bin": FileStatus.OK}
    assert heard[-1] == (len(DATA), len(DATA))
    assert heard == sorted(heard)
    assert parts(models) == []


def test_a_connection_that_breaks_is_made_again_where_it_broke(models):
    with serving({NAME: DATA}, faults=["", "break:1000", "503", "break:70000"]) as server:
        (path,) = fetch(CARD, mirror=server.uri)
    assert path.read_bytes() == DATA
    assert not server.faults
    assert starts(server.gets()).count(0) == 1


def test_what_broke_off_for_good_is_gone_on_with_by_the_next_fetch(models):
    with serving({NAME: DATA}, faults=["", *["503"] * 20]) as server, pytest.raises(StorageError, match="503"):
        fetch(CARD, mirror=server.uri)
    (begun,) = parts(models)
    assert 0 < begun < len(DATA)
    with serving({NAME: DATA}) as server:
        (path,) = fetch(CARD, mirror=server.uri)
    assert path.read_bytes() == DATA
    assert min(starts(server.gets())) == begun
    assert parts(models) == []


def test_a_process_that_was_killed_leaves_what_the_next_one_goes_on_with(models, tmp_path):
    """Half of the file is in a pipe; the process that reads it is killed while it waits for the rest."""
    program = f"""
import sys
from curate.weights.download import download
from curate.weights.sources import Source
def append(out):
    out.write(sys.stdin.buffer.read({len(DATA) // 2}))
    print("half", flush=True)
    sys.stdin.buffer.read(1)
from pathlib import Path
from types import SimpleNamespace
part = Path({str(models)!r}) / "m" / ".w.bin.{SHA256[:16]}.part"
part.parent.mkdir(parents=True)
download(Source("x", append, {len(DATA)}), part, "{SHA256}", lambda *_: None)
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdin.write(DATA[: len(DATA) // 2])
    child.stdin.flush()
    assert child.stdout.readline() == b"half\n"
    child.kill()
    child.wait()
    assert parts(models) == [len(DATA) // 2]
    with serving({NAME: DATA}) as server:
        fetch(CARD, mirror=server.uri)
    assert min(starts(server.gets())) == len(DATA) // 2
    assert verify(CARD) == {"w.bin": FileStatus.OK}


@pytest.mark.parametrize("begun", [0, BLOCK])
def test_a_server_without_ranges_is_read_from_the_beginning(models, begun):
    begin(models, DATA[:begun])
    with serving({NAME: DATA}, ranges=False, faults=["break:1000000"]) as server:
        (path,) = fetch(CARD, mirror=server.uri)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("begun", [b"?" * BLOCK, DATA + b"more"], ids=["damaged", "too long"])
def test_a_beginning_that_is_wrong_costs_no_more_than_another_download(models, begun):
    begin(models, begun)
    with serving({NAME: DATA}) as server:
        (path,) = fetch(CARD, mirror=server.uri)
    assert path.read_bytes() == DATA


def test_another_source_goes_on_where_one_broke_off(models, tmp_path):
    original = tmp_path / "w.bin"
    original.write_bytes(DATA)
    said: list[str] = []
    with serving({NAME: DATA}, faults=["", *["500"] * 20]) as server:
        (path,) = fetch(card_of(f"file:{original}"), said.append, mirror=server.uri)
    assert path.read_bytes() == DATA
    assert [line.split(": ", 1)[1] for line in said] == [f"from mirror {server.uri}", f"from file:{original}"]


def test_a_mirror_without_the_file_or_with_another_one_is_passed_over(models, tmp_path):
    original = tmp_path / "w.bin"
    original.write_bytes(DATA)
    for files in ({}, {NAME: b"short"}, {NAME: bytes(len(DATA))}):
        with serving(files) as server:
            (path,) = fetch(card_of(f"file:{original}"), mirror=server.uri)
        assert path.read_bytes() == DATA
        path.unlink()


def test_the_mirror_of_the_environment_is_taken_and_no_secret_of_it_is_said(models, monkeypatch):
    said: list[str] = []
    with serving({}) as server:
        secret = server.uri.replace("://", "://me:hidden@")
        monkeypatch.setenv("CURATE_MIRROR", f"{secret}/models")
        with pytest.raises(StorageError) as caught:
            fetch(CARD, said.append)
    assert "from mirror http" in said[0] and "://***@127.0.0.1" in said[0]
    assert "hidden" not in "".join(said) + str(caught.value)


def test_a_disk_without_room_is_told_before_anything_is_read(models, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    told = r"12\.0 MiB more are needed, 1\.0 MiB are free.*CURATE_MODELS"
    with serving({NAME: DATA}) as server, pytest.raises(StorageError, match=told):
        fetch(CARD, mirror=server.uri)
    assert server.gets() == []


def test_a_disk_that_fills_up_ends_it_and_keeps_what_came(models, monkeypatch):
    """A limit of the kernel on the size of files stands for the end of the disk; no other source is asked."""
    program = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({6 << 20}, {6 << 20}))
from curate.weights.cards import Card, ModelFile
from curate.weights.store import fetch
file = ModelFile(name="w.bin", sha256="{SHA256}", size_bytes={len(DATA)}, sources=("file:/not/asked",))
card = Card(name="m", purpose="p", licence="l", files=(file,), input="i", output="o", memory_bytes=1, needed_by=())
fetch(card, print, mirror=sys.argv[1])
"""
    with serving({NAME: DATA}) as server:
        command = [sys.executable, "-c", program, server.uri]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "DiskError" in done.stderr
    assert "not/asked" not in done.stdout
    assert parts(models) == [6 << 20]


def test_two_processes_that_fetch_one_model_do_not_write_into_one_file(models):
    program = f"""
import sys
from curate.weights.cards import Card, ModelFile
from curate.weights.store import fetch
file = ModelFile(name="w.bin", sha256="{SHA256}", size_bytes={len(DATA)}, sources=("file:/no/such",))
card = Card(name="m", purpose="p", licence="l", files=(file,), input="i", output="o", memory_bytes=1, needed_by=())
fetch(card, print, mirror=sys.argv[1])
"""
    with serving({NAME: DATA}) as server:
        command = [sys.executable, "-c", program, server.uri]
        children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        told = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sum("already here" in text for text in told) == 1
    assert starts(server.gets()).count(0) == 1
