"""Source lists keep their columns; rows that lead nowhere fail later and alone."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import UsageError
from curate.ingest.listing import list_inputs
from curate.ingest.lists import list_rows


def test_a_text_list_names_paths_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"x")
    (tmp_path / "list.txt").write_text("# ours\n\n videos/a.mp4 \n/nowhere/b.mp4\nvideos/a.mp4\n")
    found = list_inputs([str(tmp_path / "list.txt")])
    assert [(ref.uri, ref.size_bytes, ref.cause) for ref in found] == [
        ("/nowhere/b.mp4", None, ""),
        (str(tmp_path / "videos" / "a.mp4"), 1, ""),
    ]


@pytest.mark.parametrize(("suffix", "mark"), [("csv", ","), ("tsv", "\t")])
def test_columns_of_a_table_stay_with_the_video(tmp_path: Path, suffix: str, mark: str) -> None:
    rows = [["title", "Path", "licence"], ["One", "a.mp4", "CC BY"], ["Two", "s3://bucket/b.mp4", ""]]
    path = tmp_path / f"list.{suffix}"
    path.write_text("\ufeff" + "\n".join(mark.join(row) for row in rows))
    assert list(list_rows(str(path))) == [
        (str(tmp_path / "a.mp4"), {"title": "One", "licence": "CC BY"}),
        ("s3://bucket/b.mp4", {"title": "Two"}),
    ]


def test_without_a_known_name_the_first_column_counts_and_a_header_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("clip,title\nx.mp4,One\n")
    (tmp_path / "b.csv").write_text("x.mp4,One\ny.mp4,Two\n")
    assert list(list_rows(str(tmp_path / "a.csv"))) == [(str(tmp_path / "x.mp4"), {"title": "One"})]
    assert list(list_rows(str(tmp_path / "b.csv"))) == [
        (str(tmp_path / "x.mp4"), {"column_2": "One"}),
        (str(tmp_path / "y.mp4"), {"column_2": "Two"}),
    ]


def test_a_parquet_list_gives_its_values_as_text(tmp_path: Path) -> None:
    table = pa.table({"year": [1999, None], "url": ["a.mp4", "b.mp4"], "tags": [["x", "y"], []]})
    pq.write_table(table, tmp_path / "list.parquet")
    assert list(list_rows(str(tmp_path / "list.parquet"))) == [
        (str(tmp_path / "a.mp4"), {"year": "1999", "tags": '["x", "y"]'}),
        (str(tmp_path / "b.mp4"), {"tags": "[]"}),
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)))
def test_any_text_in_a_column_comes_back(tmp_path_factory: pytest.TempPathFactory, titles: list[str]) -> None:
    path = tmp_path_factory.mktemp("list") / "list.parquet"
    pq.write_table(
        pa.table({"path": [f"{i}.mp4" for i in range(len(titles))], "t": pa.array(titles, pa.string())}), path
    )
    assert [user["t"] for _, user in list_rows(str(path))] == titles


def test_a_row_may_name_a_fifo_or_a_folder_without_harm(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "list.txt").write_text(f"a.mp4\n{tmp_path}\n/dev/null\n")
    found = {ref.uri: ref.cause for ref in list_inputs([str(tmp_path / "list.txt")])}
    assert found[str(tmp_path)] == "not a regular file (folder)"
    assert found["/dev/null"] == "not a regular file (device)"
    assert found[str(tmp_path / "a.mp4")] == ""


def test_an_input_named_twice_keeps_the_columns_of_both(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "list.csv").write_text("path,title\na.mp4,One\n")
    (tmp_path / "more.csv").write_text("path,title,rights\na.mp4,Other,free\n")
    sources = [str(tmp_path), str(tmp_path / "list.csv"), str(tmp_path / "more.csv")]
    (taken,) = [ref for ref in list_inputs(sources) if not ref.cause]
    assert dict(taken.user) == {"title": "One", "rights": "free"}


def test_a_remote_list_names_remote_files(memory_bucket: str) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/deep/a.mp4", b"abc")
    fs.pipe_file("/bucket/list.csv", b"path,title\ndeep/a.mp4,One\nmemory://bucket/gone.mp4,Two\n")
    found = list_inputs([f"{memory_bucket}/list.csv"])
    assert [(ref.uri, ref.size_bytes, dict(ref.user)) for ref in found] == [
        ("memory://bucket/deep/a.mp4", 3, {"title": "One"}),
        ("memory://bucket/gone.mp4", None, {"title": "Two"}),
    ]


@pytest.mark.parametrize(("name", "data"), [("a.parquet", b"not parquet"), ("a.txt", b"\xff\xfe\x00"), ("a.csv", b"")])
def test_an_unreadable_or_empty_list_is_a_usage_error(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=name):
        list_inputs([str(tmp_path / name)])
