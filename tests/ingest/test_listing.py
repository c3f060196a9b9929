"""What becomes an input, what is skipped and why."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import storage
from curate.errors import UsageError
from curate.ingest.listing import list_inputs
from curate.ingest.names import VIDEO_SUFFIXES
from curate.records import InputRef
from curate.redaction import same_file, stored_uri

NOT_A_VIDEO = "not a video file name (.txt)"
LEAVES = "link that leaves the source folder (--follow-links takes it)"


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))


def causes(refs: Iterable[InputRef], folder: Path) -> dict[str, str]:
    return {os.path.relpath(ref.uri, folder): ref.cause for ref in refs}


def test_a_folder_is_taken_with_all_below_it_and_the_rest_is_named(tmp_path: Path) -> None:
    put(tmp_path, "b.MP4", "a/c.mkv", "a/notes.txt", ".hidden.mp4", ".git/d.mp4", "e.mp4.part", "f", "g.tar.gz")
    assert causes(list_inputs([str(tmp_path)]), tmp_path) == {
        ".git": "hidden",
        ".hidden.mp4": "hidden",
        "a/c.mkv": "",
        "a/notes.txt": NOT_A_VIDEO,
        "b.MP4": "",
        "e.mp4.part": "temporary file, not yet complete",
        "f": "not a video file name (no extension)",
        "g.tar.gz": "compressed tar: store it as plain .tar",
    }


def test_a_corpus_below_a_source_is_not_curated_again(tmp_path: Path, memory_bucket: str) -> None:
    """`curate run . --out ./corpus`, twice."""
    shard = "corpus/shards/best/320x192x25/000000.tar"
    names = ["a.mp4", "corpus/corpus.json", "corpus/tables/sources/part-0.parquet", shard, "notes/corpus.json"]
    put(tmp_path, *names)
    fs = fsspec.filesystem("memory")
    for name in names:
        fs.pipe(f"/bucket/{name}", b"x")
    expected = {
        "a.mp4": "",
        "corpus": "a corpus, which is no source",
        "notes/corpus.json": "not a video file name (.json)",
    }
    assert causes(list_inputs([str(tmp_path)]), tmp_path) == expected
    assert {ref.uri.removeprefix("memory:///bucket/"): ref.cause for ref in list_inputs([memory_bucket])} == expected
    assert {ref.uri.rpartition("/")[2]: ref.cause for ref in list_inputs([f"{memory_bucket}/*"])} == {
        name.rpartition("/")[2]: cause for name, cause in expected.items()
    }


def test_size_and_version_come_from_the_file(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    (ref,) = list_inputs([str(tmp_path)])
    facts = (tmp_path / "a.mp4").stat()
    assert (ref.size_bytes, ref.version) == (facts.st_size, str(facts.st_mtime_ns))
    os.utime(tmp_path / "a.mp4", ns=(1, 1))
    assert list_inputs([str(tmp_path)])[0].version == "1"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "x/", "x/y/"]), st.text("ab1 ö", min_size=1, max_size=4)), min_size=1, max_size=8
    ),
    st.sampled_from(sorted(VIDEO_SUFFIXES)),
)
def test_every_video_is_listed_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, names: list[tuple[str, str]], suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    put(folder, *(f"{where}{name}{suffix}" for where, name in names))
    refs = list_inputs([str(folder), str(folder), f"{folder}/**/*{suffix}"])
    uris = [ref.uri for ref in refs]
    assert uris == sorted({str(folder / f"{where}{name}{suffix}") for where, name in names})
    assert not any(ref.cause for ref in refs)


def test_a_named_file_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    put(tmp_path, "raw.dat", ".hidden", "odd[1].mp4")
    sources = [str(tmp_path / name) for name in ("raw.dat", ".hidden", "odd[1].mp4")]
    assert causes(list_inputs(sources), tmp_path) == {".hidden": "", "odd[1].mp4": "", "raw.dat": ""}


def test_being_named_beats_being_skipped_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "raw.dat")
    for sources in ([str(tmp_path), str(tmp_path / "raw.dat")], [str(tmp_path / "raw.dat"), str(tmp_path)]):
        assert causes(list_inputs(sources), tmp_path) == {"raw.dat": ""}


def test_a_glob_goes_by_extension_unless_it_names_one(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.dat", "deep/c.mp4", "deep/d.dat")
    by_extension = causes(list_inputs([f"{tmp_path}/*"]), tmp_path)
    assert by_extension["b.dat"] == by_extension["deep/d.dat"] == "not a video file name (.dat)"
    assert by_extension["a.mp4"] == by_extension["deep/c.mp4"] == ""
    assert causes(list_inputs([f"{tmp_path}/**/*.dat"]), tmp_path) == {"b.dat": "", "deep/d.dat": ""}


def test_paths_may_be_relative_or_file_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.mp4")
    monkeypatch.chdir(tmp_path)
    assert list_inputs(["a.mp4"]) == list_inputs([f"file://{tmp_path}/a.mp4"]) == list_inputs([str(tmp_path)])


def test_special_files_are_never_opened(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "fifo.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.mp4"))
        found = causes(list_inputs([str(tmp_path)]), tmp_path)
    assert found["fifo.mp4"] == "not a regular file (FIFO)"
    assert found["s.mp4"] == "not a regular file (socket)"
    assert found["a.mp4"] == ""


def test_a_named_fifo_or_device_is_skipped(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "fifo.mp4")
    found = list_inputs([str(tmp_path / "fifo.mp4"), "/dev/null", str(tmp_path / "a.mp4")])
    assert {ref.uri: ref.cause for ref in found if ref.cause} == {
        "/dev/null": "not a regular file (device)",
        str(tmp_path / "fifo.mp4"): "not a regular file (FIFO)",
    }


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with links: within, out of it, to nowhere, and round in a circle."""
    put(tmp_path / "outside", "far.mp4", "sub/deep.mp4")
    root = tmp_path / "root"
    put(root, "a.mp4", "real/b.mp4")
    (root / "inside.mp4").symlink_to("a.mp4")
    (root / "inside_folder").symlink_to("real")
    (root / "loop").symlink_to(".")
    (root / "out.mp4").symlink_to(tmp_path / "outside" / "far.mp4")
    (root / "out_folder").symlink_to(tmp_path / "outside")
    (root / "broken.mp4").symlink_to("nowhere.mp4")
    (root / "itself.mp4").symlink_to("itself.mp4")
    return root


def test_links_that_leave_the_root_are_skipped(linked: Path) -> None:
    of_same_source = "link to a folder of the same source, listed under its own name"
    assert causes(list_inputs([str(linked)]), linked) == {
        "a.mp4": "",
        "broken.mp4": "broken link",
        "inside.mp4": "",
        "inside_folder": of_same_source,
        "itself.mp4": "broken link",
        "loop": of_same_source,
        "out.mp4": LEAVES,
        "out_folder": LEAVES,
        "real/b.mp4": "",
    }


def test_follow_links_takes_them_and_loops_end(linked: Path) -> None:
    outside = linked.parent / "outside"
    (outside / "back").symlink_to(linked)
    (outside / "round").symlink_to(outside)
    found = causes(list_inputs([str(linked)], follow_links=True), linked)
    taken = [name for name, cause in found.items() if not cause]
    assert taken == ["a.mp4", "inside.mp4", "out.mp4", "out_folder/far.mp4", "out_folder/sub/deep.mp4", "real/b.mp4"]


def test_links_found_by_a_glob_are_bound_to_its_folder(linked: Path) -> None:
    assert causes(list_inputs([f"{linked}/*.mp4"]), linked)["out.mp4"] == LEAVES


def test_a_source_that_is_itself_a_link_is_followed(linked: Path) -> None:
    entrance = linked.parent / "entrance"
    entrance.symlink_to(linked)
    assert causes(list_inputs([str(entrance)]), entrance)["a.mp4"] == ""
    assert list_inputs([str(linked / "out.mp4")])[0].cause == ""


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):  # deeper than any path name may be long
        os.mkdir("d" * 240, dir_fd=here)
        deeper = os.open("d" * 240, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    found = list_inputs([str(tmp_path)])
    assert [ref.cause for ref in found if ref.cause] == ["cannot be looked at: File name too long"]
    assert [ref.uri for ref in found if not ref.cause] == [str(tmp_path / "a.mp4")]


def test_a_name_that_is_no_text_is_skipped(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")).write_bytes(b"x")
    found = causes(list_inputs([str(tmp_path)]), tmp_path)
    assert found == {"a.mp4": "", "\\xff.mp4": "file name is not valid UTF-8"}


@pytest.mark.parametrize("name", ["nowhere", "nowhere.mp4", "nowhere.csv", "nowhere/*.mp4"])
def test_a_source_that_is_not_there_is_a_usage_error(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a.mp4")
    with pytest.raises(UsageError, match=r"nowhere.*Check the spelling"):
        list_inputs([str(tmp_path), str(tmp_path / name)])


def test_no_video_at_all_is_a_usage_error_that_counts_what_was_skipped(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing found"):
        list_inputs([str(tmp_path)])
    put(tmp_path, "a.txt", "b.txt", ".c.mp4")
    with pytest.raises(UsageError, match=r"3 skipped \(2 x not a video file name \(.txt\); 1 x hidden\)"):
        list_inputs([str(tmp_path)])


def test_remote_folder_glob_and_file(memory_bucket: str) -> None:
    fs = fsspec.filesystem("memory")
    for name in ("a.mp4", "deep/b.webm", "deep/notes.txt", "deep/.c.mp4"):
        fs.pipe_file(f"/bucket/{name}", name.encode())
    found = list_inputs([memory_bucket])
    assert {ref.uri: ref.cause for ref in found} == {
        "memory:///bucket/a.mp4": "",
        "memory:///bucket/deep/.c.mp4": "hidden",
        "memory:///bucket/deep/b.webm": "",
        "memory:///bucket/deep/notes.txt": NOT_A_VIDEO,
    }
    assert all(ref.version and ref.size_bytes for ref in found)
    assert list_inputs([f"{memory_bucket}/**/*.webm"])[0].uri == "memory:///bucket/deep/b.webm"
    assert list_inputs([f"{memory_bucket}/deep/notes.txt.mp4", f"{memory_bucket}/a.mp4"][1:])[0].size_bytes == 5


def test_a_remote_file_changes_its_version_with_its_content(memory_bucket: str) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/a.mp4", b"one")
    before = list_inputs([memory_bucket])[0].version
    fs.pipe_file("/bucket/a.mp4", b"two")
    assert list_inputs([memory_bucket])[0].version != before


def test_a_remote_source_that_is_not_there_is_a_usage_error(memory_bucket: str) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        list_inputs([f"{memory_bucket}/nothing.mp4"])


def test_an_unknown_scheme_says_so() -> None:
    with pytest.raises(UsageError, match="nosuchscheme"):
        list_inputs(["nosuchscheme://bucket/a.mp4"])


def listed(tmp_path: Path, *rows: str) -> dict[str, list[str]]:
    """Names of the inputs of a list of web addresses (of a closed port) by the address they are read from."""
    (tmp_path / "list.txt").write_text("".join(f"http://127.0.0.1:9/{row}\n" for row in rows))
    found: dict[str, list[str]] = {}
    for ref in list_inputs([str(tmp_path / "list.txt")]):
        assert not ref.cause
        found.setdefault(ref.place.removeprefix("http://127.0.0.1:9/"), []).append(ref.uri)
    return found


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WAITS_S", ())


@pytest.mark.parametrize("name", ["se", "sp", "st", "sr", "exp", "author", "tokenized", "policy", "x-ms-part"])
def test_parameters_without_a_signature_tell_files_apart(tmp_path: Path, at_once: None, name: str) -> None:
    """Regression: of two files that differ in such a parameter only one was read, and nothing said so."""
    rows = [f"v?{name}=1", f"v?{name}=2"]
    first, second = (listed(tmp_path, *rows)[row][0] for row in rows)
    assert first != second
    assert listed(tmp_path, rows[0]) == {rows[0]: [first]}


def test_addresses_of_one_name_stay_apart(tmp_path: Path, at_once: None) -> None:
    rows = ["v?token=1", "v?token=2", "v?id=1&sig=1", "v?id=1&sig=2", "v", "w?token=3", "w?token=3#t=5"]
    found = listed(tmp_path, *rows)
    names = [name for each in found.values() for name in each]
    assert [len(each) for each in found.values()] == [1] * 6 and len(set(names)) == 6
    assert found == listed(tmp_path, *reversed(rows[:-1]))
    assert found["v"] == ["http://127.0.0.1:9/v"]
    assert all(stored_uri(name) == name and "token=" not in name and "sig=" not in name for name in names)


def test_a_password_alone_makes_no_other_file(tmp_path: Path) -> None:
    names = [f"http://me:{word}@127.0.0.1:9/v.mp4?sig=1" for word in ("one", "two")]
    assert same_file(names[0]) == same_file(names[1]) == "http://me@127.0.0.1:9/v.mp4?sig=1"
    assert same_file("s3://me:one@bucket/a#b.mp4") == "s3://me@bucket/a#b.mp4"


class ClosedFileSystem(MemoryFileSystem):
    """A remote place that nobody may look into."""

    protocol = "closed"
    cachable = False

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        raise PermissionError(13, "no credentials")


def test_a_remote_place_that_cannot_be_asked_loses_nothing_else(tmp_path: Path) -> None:
    fsspec.register_implementation("closed", ClosedFileSystem, clobber=True)
    put(tmp_path, "a.mp4")
    found = {ref.uri: ref for ref in list_inputs([str(tmp_path), "closed://bucket/b.mp4", "closed://bucket/folder"])}
    assert found[str(tmp_path / "a.mp4")].cause == ""
    assert found["closed://bucket/b.mp4"] == InputRef("closed://bucket/b.mp4")
    assert found["closed://bucket/folder"].cause == "cannot be listed: may not be read"
