"""WebDataset tars: members become inputs, what lies beside them becomes columns."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import fsspec
import pytest

from curate.errors import StorageError
from curate.ingest.listing import list_inputs
from curate.ingest.spool import spooled
from curate.ingest.tars import locate_member, member_uri, split_member_uri


def make_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    facts = {"title": "One", "views": 7, "tags": ["x"], "nothing": None}
    make_tar(
        tmp_path / "shard.tar",
        {
            "0001.mp4": b"first video",
            "0001.json": json.dumps(facts).encode(),
            "0001.txt": b" a caption \n",
            "deep/0002.left.webm": b"second",
            "deep/0002.json": b"{broken",
            "0003.jpg": b"picture",
            "alone.txt": b"no video beside",
            "/absolute.mp4": b"x",
            "../up.mp4": b"x",
            "linked.mp4": link("linked.mp4", "/etc/passwd"),
            "inner.tar": b"",
        },
    )
    return tmp_path / "shard.tar"


@pytest.mark.parametrize("folder", [True, False])
def test_members_are_inputs_or_have_a_cause(shard: Path, folder: bool) -> None:
    found = list_inputs([str(shard.parent if folder else shard)])
    assert {member: ref.cause for ref in found if (member := (split_member_uri(ref.uri) or [""])[0])} == {
        "0001.mp4": "",
        "deep/0002.left.webm": "",
        "0003.jpg": "not a video file name (.jpg)",
        "alone.txt": "not a video file name (.txt)",
        "/absolute.mp4": "unsafe name inside a tar",
        "../up.mp4": "unsafe name inside a tar",
        "linked.mp4": "link inside a tar",
        "inner.tar": "tar inside a tar",
    }


def test_json_and_text_beside_a_video_become_columns(shard: Path) -> None:
    users = {ref.uri: dict(ref.user) for ref in list_inputs([str(shard)])}
    assert users[member_uri("0001.mp4", str(shard))] == {"title": "One", "views": "7", "caption": "a caption"}
    assert users[member_uri("deep/0002.left.webm", str(shard))] == {}


def test_every_member_spools_to_its_bytes(shard: Path, tmp_path: Path) -> None:
    taken = [ref for ref in list_inputs([str(shard)]) if not ref.cause]
    contents = {}
    for ref in taken:
        with spooled(ref, tmp_path / "scratch") as file:
            contents[Path(file.path).suffix] = Path(file.path).read_bytes()
            assert (file.size_bytes, file.uri) == (ref.size_bytes, ref.uri)
    assert contents == {".mp4": b"first video", ".webm": b"second"}
    assert not list((tmp_path / "scratch").iterdir())


def test_a_member_named_by_its_uri_is_an_input(shard: Path) -> None:
    uri = member_uri("0001.mp4", str(shard))
    (ref,) = list_inputs([uri])
    assert (ref.uri, ref.size_bytes, ref.cause) == (uri, 11, "")
    listed = shard.with_name("list.txt")
    listed.write_text(f"{uri}\n{member_uri('gone.mp4', str(shard))}\n{member_uri('a.mp4', '/nowhere.tar')}\n")
    assert sorted(ref.size_bytes or 0 for ref in list_inputs([str(listed)])) == [0, 0, 11]


def test_a_remote_tar_works_alike(shard: Path, memory_bucket: str, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/shard.tar", shard.read_bytes())
    taken = [ref for ref in list_inputs([memory_bucket]) if not ref.cause]
    assert [ref.uri for ref in taken] == [
        "tar://0001.mp4::memory:///bucket/shard.tar",
        "tar://deep/0002.left.webm::memory:///bucket/shard.tar",
    ]
    with spooled(taken[0], tmp_path) as file:
        assert Path(file.path).read_bytes() == b"first video"


def test_a_file_that_is_no_tar_is_skipped_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "a.mp4").write_bytes(b"x")
    found = {Path(ref.uri).name: ref.cause for ref in list_inputs([str(tmp_path)])}
    assert found["bad.tar"].startswith("not a readable tar")
    assert found["a.mp4"] == ""


def test_a_tar_that_changed_is_read_again(shard: Path) -> None:
    assert locate_member("0001.mp4", str(shard)).size_bytes == 11
    make_tar(shard, {"0001.mp4": b"longer than it was before"})
    assert locate_member("0001.mp4", str(shard)).size_bytes == 25
    with pytest.raises(StorageError, match="no member"):
        locate_member("gone.mp4", str(shard))


def test_a_fifo_named_as_a_tar_never_makes_anybody_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(StorageError, match="not a regular file"):
        locate_member("0001.mp4", str(tmp_path / "pipe.tar"))
    (tmp_path / "list.txt").write_text(f"{member_uri('0001.mp4', str(tmp_path / 'pipe.tar'))}\n")
    assert [ref.size_bytes for ref in list_inputs([str(tmp_path / "list.txt")])] == [None]


def test_sparse_members_are_skipped_since_their_bytes_do_not_lie_in_one_piece(tmp_path: Path) -> None:
    sparse = tarfile.TarInfo("holes.mp4")
    sparse.pax_headers = {"GNU.sparse.map": "0,3,9,0", "GNU.sparse.size": "9"}
    sparse.size = 3
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(sparse, io.BytesIO(b"abc"))
        whole = tarfile.TarInfo("whole.mp4")
        whole.size = 3
        archive.addfile(whole, io.BytesIO(b"abc"))
    causes = {ref.uri.split("/")[2].split(":")[0]: ref.cause for ref in list_inputs([str(tmp_path / "s.tar")])}
    assert causes == {"holes.mp4": "not a regular file inside a tar", "whole.mp4": ""}
