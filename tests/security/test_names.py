"""Names and texts from outside forge no line, colour nothing and lead nowhere; files swapped meanwhile are noticed."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cli_kit import RECIPE, curate, good_video, run_args, verdicts, write_recipe
from job_kit import do
from rich.console import Console

from curate import job
from curate.cli import console
from curate.cli.console import MOST_CHARS, plain
from curate.errors import SourceChangedError
from curate.ingest.listing import list_inputs
from curate.ingest.spool import check_listed, spooled
from curate.ingest.tars import tar_inputs
from curate.recipe import parse_recipe
from curate.records import InputRef
from curate.select.inputs import input_verdicts
from curate.tables import Corpus

EVIL = "[red]x[/red][link=http://127.0.0.1]:bomb:\x1b[2J\x1b]8;;http://127.0.0.1\x07y\r\n"
EVIL += "Error forged\u202e\u2066\u200b\x9b31m"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""All but the end of a line."""


def shown(text: str) -> str:
    """What a terminal with colours gets."""
    file = io.StringIO()
    Console(file=file, force_terminal=True, width=500, highlight=False, emoji=False).print(plain(text), soft_wrap=True)
    return file.getvalue()


TEXTS = (EVIL, "[bold]", "\\[bold]", "a\\", "[/]", ":smile:", "a[b]c", "\ud800", "x" * 5000, "\\" * 300_000)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:8]))
def test_a_text_is_one_harmless_line(text):
    line = shown(text)
    assert len(line) < MOST_CHARS * 2 + 100
    assert line.endswith("\n") and line.count("\n") == 1
    assert not FORBIDDEN.search(line.removesuffix("\n"))
    for part in re.findall(r"\[/?\w+\]|:smile:", text):
        assert part in line


@pytest.mark.parametrize(
    "code", [*range(0x20), *range(0x7F, 0xA0), 0x202A, 0x202E, 0x2066, 0x2069, 0x200B, 0xFEFF, 0xE0041]
)
def test_no_control_character_is_printed(code):
    assert chr(code) not in shown(f"a{chr(code)}b").removesuffix("\n")


def test_scripts_that_need_joiners_keep_them():
    assert "क्\u200dष \u200c" in shown("क्\u200dष \u200c")


@pytest.fixture(scope="module")
def evil_corpus(tmp_path_factory):
    """A corpus whose inputs have evil names, columns and members, with all that a run said."""
    folder = tmp_path_factory.mktemp("evil")
    bucket = folder / "bucket"
    bucket.mkdir()
    name = EVIL.replace("/", "_")
    good_video(folder / "good.mp4")
    (folder / "good.mp4").rename(bucket / f"{name}.mp4")
    (bucket / f"{name}2.mp4").write_bytes(b"no video" * 99)
    (bucket / f"{name}.txt").write_text("x")
    (bucket / f"{name}link.mp4").symlink_to("/nowhere")
    with tarfile.open(bucket / "evil.tar", "w") as archive:
        for member, data in ((f"{name}3.mp4", b"none"), (f"{name}3.json", json.dumps({EVIL: EVIL}).encode())):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    recipe = write_recipe(folder, RECIPE.replace("name: small\nstages", f"name: {json.dumps(EVIL)}\nstages", 1))
    out = folder / "corpus"
    return out, bucket, [curate("run", bucket, *run_args(recipe, out))]


def test_no_command_prints_what_a_name_forges(evil_corpus, tmp_path):
    out, bucket, said = evil_corpus
    assert said[0].status == 0
    clip = pq.read_table(out / "selections/small/selection.parquet")["clip_id"][0].as_py()
    png = tmp_path / f"{EVIL.replace('/', '_')}.png"
    said += [
        curate("stats", out),
        curate("stats", out, "--json"),
        curate("show", out, clip, "--png", png),
        curate("failures", out),
        curate("select", out, "--name", "again"),
        curate("select", out, "--name", EVIL),
        curate("export", out, "--selection", EVIL),
        curate("verify", out, EVIL),
        curate("verify", out),
        curate("run", bucket / EVIL, *run_args(tmp_path / f"{EVIL[:9]}.yaml", tmp_path / "no")),
        curate("run", bucket, "--out", tmp_path / "no", "--recipe", EVIL),
        curate("run", bucket, "--out", tmp_path / "no", "--set", f"{EVIL}=1"),
        curate("recipes", "validate", EVIL),
        curate("models", "fetch", EVIL),
        curate("forget", out, EVIL, "--reason", EVIL),
        curate("forget", out, f"{bucket}/{EVIL.replace('/', '_')}.mp4", "--reason", EVIL),
        curate("select", out),
        curate("verify", out),
    ]
    for ended in said:
        for text in (ended.out, ended.err):
            assert not FORBIDDEN.search(text)
            assert not any(line.startswith("Error forged") for line in text.splitlines())
    told = "".join(ended.out + ended.err for ended in said)
    assert told.count("[red]x[/red][link=http:") > 5
    assert ":bomb:" in told


def test_consoles_read_no_emoji_codes():
    assert not console.out._emoji and not console.err._emoji


def tar_of(path: Path, *members: tarfile.TarInfo, data: bytes = b"x") -> Path:
    with tarfile.open(path, "w", encoding="utf-8", errors="surrogateescape") as archive:
        for info in members:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


TAR_MEMBERS = {
    "../../up.mp4": (tarfile.REGTYPE, "", "unsafe name inside a tar"),
    "/etc/abs.mp4": (tarfile.REGTYPE, "", "unsafe name inside a tar"),
    "a/../../b.mp4": (tarfile.REGTYPE, "", "unsafe name inside a tar"),
    "x::http:__host.mp4": (tarfile.REGTYPE, "", "unsafe name inside a tar"),
    "sym.mp4": (tarfile.SYMTYPE, "/etc/passwd", "link inside a tar"),
    "hard.mp4": (tarfile.LNKTYPE, "../../up.mp4", "link inside a tar"),
    "fifo.mp4": (tarfile.FIFOTYPE, "", "not a regular file inside a tar"),
    "device.mp4": (tarfile.CHRTYPE, "", "not a regular file inside a tar"),
    "block.mp4": (tarfile.BLKTYPE, "", "not a regular file inside a tar"),
    "bytes\udcff.mp4": (tarfile.REGTYPE, "", "file name is not valid UTF-8"),
    "nested.tar": (tarfile.REGTYPE, "", "tar inside a tar"),
}


@pytest.mark.parametrize("name", TAR_MEMBERS)
def test_members_of_tars_cannot_lead_anywhere(name, tmp_path):
    kind, target, cause = TAR_MEMBERS[name]
    path = tar_of(tmp_path / "a.tar", member(name, kind, target))
    (ref,) = tar_inputs(InputRef(str(path), path.stat().st_size, "1"))
    assert ref.cause == cause
    ref.uri.encode()


def test_nothing_of_a_tar_is_written_under_its_own_name(tmp_path):
    folder = tmp_path / "bucket"
    folder.mkdir()
    video = good_video(tmp_path / "plain.mp4").read_bytes()
    names = [name for name, (kind, *_) in TAR_MEMBERS.items() if kind == tarfile.REGTYPE]
    tar_of(folder / "a.tar", *(member(name) for name in [*names, "good.mp4"]), data=video)
    before = set(tmp_path.rglob("*"))
    do([folder], tmp_path / "corpus", parse_recipe(RECIPE, "test"))
    found = input_verdicts(Corpus(str(tmp_path / "corpus")), "small")
    assert [row.uri for row in found if row.verdict == "kept"] == [f"tar://good.mp4::{folder}/a.tar"]
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "corpus")} == before


BOMBS = (
    "[" * 200_000,
    json.dumps({f"k{n}": n for n in range(50_000)}),
    '{"a": "\\ud800", "\\udfff": 1}',
    '{"a": 1e999}',
)


def test_metadata_beside_a_video_in_a_tar_cannot_stop_a_run(tmp_path):
    video = good_video(tmp_path / "plain.mp4").read_bytes()
    for number, text in enumerate(BOMBS):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for name, data in (("a.mp4", video + bytes(number)), ("a.json", text.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    do([tmp_path / f"{number}.tar" for number in range(len(BOMBS))], tmp_path / "corpus", parse_recipe(RECIPE, "test"))
    found = input_verdicts(Corpus(str(tmp_path / "corpus")), "small")
    assert [row.verdict for row in found] == ["kept"] * len(BOMBS)


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_link(path: Path) -> None:
    secret = good_video(path.parents[1] / "secret.mp4", 9)
    path.unlink()
    path.symlink_to(secret)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SWAPS = {
    "fifo.mp4": (make_fifo, "is not a regular file (FIFO)"),
    "link.mp4": (make_link, "was changed, replaced or removed while the run was going on. Run the command again"),
    "folder.mp4": (make_folder, "is not a regular file (folder)"),
}


def test_a_file_that_is_swapped_after_it_was_listed_is_not_read(tmp_path, monkeypatch):
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    for seed, name in enumerate([*SWAPS, "good.mp4"]):
        good_video(bucket / name, seed)

    def list_then_swap(*args, **more):
        found = list_inputs(*args, **more)
        for name, (swap, _) in SWAPS.items():
            swap(bucket / name)
        return found

    monkeypatch.setattr(job, "list_inputs", list_then_swap)
    do([bucket], tmp_path / "corpus", parse_recipe(RECIPE, "test"))
    found = verdicts(tmp_path / "corpus")
    assert found.pop("good.mp4") == ("kept", "")
    assert found == {name: ("failed", reason) for name, (_, reason) in SWAPS.items()}


def test_a_file_that_failed_and_is_a_link_by_now_is_not_read_by_retry(tmp_path):
    bucket, out = tmp_path / "bucket", tmp_path / "corpus"
    bucket.mkdir()
    (bucket / "a.mp4").write_bytes(b"no video" * 99)
    assert curate("run", bucket, *run_args(write_recipe(tmp_path), out)).status == 3
    make_link(bucket / "a.mp4")
    ended = curate("retry", out, "--engine", "inline")
    assert "failed again" in ended.out
    verdict = max((out / "runs").iterdir())
    (row,) = pq.read_table(verdict / "inputs.parquet").to_pylist()
    assert row["outcome"] == "failed"
    again = curate("run", bucket, *run_args(tmp_path / "small.yaml", out))
    assert "link that leaves the source folder" in again.out + again.err


def test_what_was_opened_is_what_was_listed(tmp_path):
    path = good_video(tmp_path / "a.mp4")
    (ref,) = list_inputs([str(path)])
    os.utime(path, (1, 1))
    with spooled(ref, tmp_path / "scratch") as file, pytest.raises(SourceChangedError):
        check_listed(ref, file)


def test_sockets_devices_and_loops_are_skipped(tmp_path, monkeypatch):
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    good_video(bucket / "good.mp4")
    monkeypatch.chdir(bucket)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.mp4")
    (bucket / "null.mp4").symlink_to("/dev/null")
    (bucket / "loop").symlink_to(".")
    (bucket / "self.mp4").symlink_to("self.mp4")
    causes = {Path(ref.uri).name: ref.cause for ref in list_inputs([str(bucket)], follow_links=True)}
    assert causes == {
        "good.mp4": "",
        "socket.mp4": "not a regular file (socket)",
        "null.mp4": "not a regular file (device)",
        "loop": "link to a folder of the same source, listed under its own name",
        "self.mp4": "broken link",
    }
    causes = {Path(ref.uri).name: ref.cause for ref in list_inputs([str(bucket)])}
    assert causes["null.mp4"] == "link that leaves the source folder (--follow-links takes it)"
