"""docs/bad-inputs.md, row by row: files and sources. What the command says, and that a good neighbour ends as kept."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from bad_inputs_kit import FILES, KEPT, ROWS, check_input, check_refused, check_verdict, every_row, matches, row
from cli_kit import curate, good_video, run_args, tables, verdicts, write_recipe
from fsspec.implementations.memory import MemoryFileSystem

from curate import job, storage
from curate.engine import analyse, reading
from curate.testing.bucket import EXPECTED, REAL
from curate.testing.footage import moving_texture, write_video

# Files


@pytest.fixture(scope="module")
def sample(tmp_path_factory, sample_bucket, good):
    """(bucket, corpus, how the run ended) of the sample bucket and a good video."""
    folder = tmp_path_factory.mktemp("of_sample")
    args = run_args(write_recipe(folder), folder / "corpus")
    return sample_bucket, folder / "corpus", curate("run", sample_bucket, good, *args)


@pytest.fixture(scope="module")
def found(sample):
    """The verdicts of its inputs."""
    return verdicts(sample[1])


def test_every_hard_or_bad_file_of_the_sample_bucket_has_a_row():
    scenes = {"dissolve", "fade", "flashes", "hard_cuts", "heavy_text", "letterbox", "slideshow", "static_shot", "zoom"}
    assert set(FILES) == set(EXPECTED) - set(REAL) - {f"{name}.mp4" for name in scenes}


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_file_of_the_sample_bucket_ends_as_its_row_says(file, sample, found):
    folder, _, ended = sample
    assert (ended.status, ended.err) == (row(FILES[file]).status, "")
    assert found["hard_cuts.mp4"] == KEPT
    if row(FILES[file]).sees.startswith("kept"):
        assert found[file] == found["good.mp4"] == KEPT
    else:
        check_verdict(FILES[file], found, file, BUCKET=folder)
        assert found[file][1] in ended.out


def test_every_input_of_the_sample_bucket_is_accounted_for(sample, found):
    folder, corpus, ended = sample
    counts = Counter(verdict for verdict, _ in found.values())
    assert sum(counts.values()) == len(list(folder.iterdir())) + 1
    shown = re.search(r"^inputs +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", ended.out, re.MULTILINE)
    assert [int(n) for n in shown.groups()] == [
        sum(counts.values()), *(counts[verdict] for verdict in ("kept", "dropped", "failed", "skipped")),
    ]  # fmt: skip
    assert curate("verify", corpus, "--deep").status == 0


EXPORTED = {
    "variable_rate.mp4": {"vfr": True},
    "rotated_phone.mp4": {"coded_width_px": 320, "coded_height_px": 180, "width_px": 180, "height_px": 320},
    "anamorphic.mp4": {"coded_width_px": 240, "coded_height_px": 180, "width_px": 320, "height_px": 180},
    "hevc_10bit.mp4": {"codec": "hevc", "bit_depth": 10},
    "vp9.webm": {"codec": "vp9"},
    "av1.mp4": {"codec": "av1"},
    "two_streams.mp4": {"stream": 1, "width_px": 320, "height_px": 180},
}


@pytest.mark.parametrize("file", sorted(EXPORTED))
def test_a_hard_file_is_exported_as_it_looks(file, sample):
    _, corpus, _ = sample
    (run,) = (corpus / "runs").iterdir()
    inputs = pq.read_table(run / "inputs.parquet").to_pylist()
    digest = next(row["source_digest"] for row in inputs if row["uri"].endswith(f"/{file}"))
    probe = next(row for row in every_row(corpus / "tables/cells/probe") if row["key"] == digest)
    assert {name: probe[name] for name in EXPORTED[file]} == EXPORTED[file]
    clips = [clip for clip in every_row(corpus / "shards") if clip["source_digest"] == digest]
    assert clips
    assert {(clip["width_px"], clip["height_px"]) for clip in clips} == {(probe["width_px"], probe["height_px"])}


def make_link_out(path: Path) -> None:
    far = path.parent.with_name("elsewhere.mp4")
    far.write_bytes((path.parent / "good.mp4").read_bytes() + b"\0")
    path.symlink_to(far)


def make_playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXTINF:1,\ngood.mp4\n")


def make_snow(path: Path) -> None:
    write_video(path.with_suffix(".avi"), moving_texture(10, 96, 64, (1, 0), 1), codec="snow")
    path.with_suffix(".avi").rename(path)


ODD_FILES = {
    "Link out of the folder": ("far.mp4", make_link_out),
    "Link to nowhere": ("link.mp4", lambda path: path.symlink_to("nowhere.mp4")),
    "FIFO": ("fifo.mp4", os.mkfifo),
    "File still being written": ("half.mp4.part", lambda path: path.write_text("half")),
    "Hidden file": (".hidden.mp4", lambda path: path.write_text("hidden")),
    "Tar that is none": ("bad.tar", lambda path: path.write_text("no tar")),
    "Name that is not UTF-8": ("\\xff.mp4", lambda path: path.with_name(os.fsdecode(b"\xff.mp4")).touch()),
    "Playlist named like a video": ("list.mp4", make_playlist),
    "Codec that is not read": ("snow.mp4", make_snow),
}


@pytest.fixture(scope="module")
def odd(good, tmp_path_factory):
    """(verdicts, how the run ended) of a good video and all odd files."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "bucket").mkdir()
    shutil.copy(good, folder / "bucket")
    for file, make in ODD_FILES.values():
        make(folder / "bucket" / file)
    args = run_args(write_recipe(folder), folder / "corpus")
    ended = curate("run", folder / "bucket", *args)
    return verdicts(folder / "corpus"), ended


@pytest.mark.parametrize("name", sorted(ODD_FILES))
def test_odd_files_end_with_the_cause_and_are_never_opened(name, odd):
    found, ended = odd
    assert ended.status == row(name).status
    check_verdict(name, found, ODD_FILES[name][0])


def test_a_name_cannot_forge_what_is_printed(bucket, recipe, corpus):
    told = row("Name with control characters or markup")
    (bucket / "[red]x\x1b[31m\nError forged.mp4").write_bytes(b"no video" * 99)
    ended = curate("run", bucket, *run_args(recipe, corpus))
    listed = curate("failures", corpus)
    assert (ended.status, listed.status) == (told.status, 0)
    assert f"{bucket}/[red]x{told.said}[31m{told.said}Error forged.mp4" in listed.out
    assert not any(line.startswith("Error") for line in listed.out.splitlines())
    assert verdicts(corpus)["good.mp4"] == KEPT


def test_gone_between_listing_and_reading(bucket, recipe, corpus, monkeypatch):
    name = "Gone between listing and reading"
    good_video(bucket / "bad.mp4", 5)
    content = (bucket / "bad.mp4").read_bytes()
    listed = job.list_inputs

    def list_then_lose(*args, **more):
        found = listed(*args, **more)
        (bucket / "bad.mp4").rename(bucket.parent / "away.mp4")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(job, "list_inputs", list_then_lose)
        ended = curate("run", bucket, *run_args(recipe, corpus))
    assert ended.status == row(name).status
    check_input(name, corpus, "bad.mp4")
    (bucket.parent / "away.mp4").rename(bucket / "bad.mp4")
    again = curate("run", bucket, *run_args(recipe, corpus))
    assert "1 sources to read\n" in again.out
    assert verdicts(corpus)["bad.mp4"] == KEPT
    assert (bucket / "bad.mp4").read_bytes() == content


def replace(path: Path, other: Path) -> None:
    """As an upload does: the new content under the old name."""
    shutil.copy(other, path.with_name("upload"))
    path.with_name("upload").replace(path)


def swap_when_opened(bucket, other, patch):
    """Replace the file after its digest was taken, before it is decoded."""
    spooled = analyse.spooled

    @contextmanager
    def swapping(ref, scratch):
        with spooled(ref, scratch) as file:
            if file.path.endswith("bad.mp4"):
                replace(bucket / "bad.mp4", other)
            yield file

    patch.setattr(analyse, "spooled", swapping)


def in_the_middle(patch, happens):
    """Let something happen to bad.mp4 between its probing and its decoding."""
    cut = reading.SourceReader.cut

    def cutting(self, file, facts, stages):
        if file.path.endswith("bad.mp4"):
            happens()
        return cut(self, file, facts, stages)

    patch.setattr(reading.SourceReader, "cut", cutting)


def swap_while_decoded(bucket, other, patch):
    """Replace the file when it is about to be decoded."""
    in_the_middle(patch, lambda: replace(bucket / "bad.mp4", other))


def overwrite_while_decoded(bucket, other, patch):
    """Write other bytes into the file when it is about to be decoded."""
    in_the_middle(patch, lambda: (bucket / "bad.mp4").write_bytes(other.read_bytes()))


@pytest.fixture(scope="module")
def contents(good, tmp_path_factory):
    """(a film, another film, the corpus of a bucket that has the other one)."""
    folder = tmp_path_factory.mktemp("contents")
    first, other = good_video(folder / "first.mp4", 5, frames=60), good_video(folder / "other.mp4", 6)
    (folder / "bucket").mkdir()
    shutil.copy(good, folder / "bucket")
    shutil.copy(other, folder / "bucket" / "bad.mp4")
    assert curate("run", folder / "bucket", *run_args(write_recipe(folder), folder / "corpus")).status == 0
    return first, other, folder / "corpus"


@pytest.mark.parametrize("swap", [swap_when_opened, swap_while_decoded, overwrite_while_decoded])
def test_replaced_or_written_to_while_it_is_read(swap, bucket, recipe, corpus, contents, monkeypatch):
    name = "Replaced or written to while it is read"
    first, other, fresh = contents
    shutil.copy2(first, bucket / "bad.mp4")
    with monkeypatch.context() as patch:
        swap(bucket, other, patch)
        ended = curate("run", bucket, *run_args(recipe, corpus))
    assert ended.status == row(name).status
    check_input(name, corpus, "bad.mp4")
    assert curate("run", bucket, *run_args(recipe, corpus)).status == 0
    assert verdicts(corpus)["bad.mp4"] == KEPT
    assert tables(fresh)["quality"] == [cell for cell in tables(corpus)["quality"] if cell[-3] == "ok"]
    assert tables(fresh)["clips"] == tables(corpus)["clips"]
    shutil.copy2(first, bucket / "bad.mp4")
    assert curate("run", bucket, *run_args(recipe, corpus)).status == 0
    assert verdicts(corpus)["bad.mp4"] == KEPT


# Sources


def test_no_source(recipe, corpus):
    check_refused("No source", *run_args(recipe, corpus), corpus=corpus)


def test_empty_bucket(tmp_path, recipe, corpus):
    (tmp_path / "empty").mkdir()
    check_refused(
        "Empty bucket", tmp_path / "empty", *run_args(recipe, corpus), corpus=corpus, BUCKET=tmp_path / "empty"
    )


def test_bucket_without_a_video(tmp_path, recipe, corpus):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / ".b.mp4").write_text("b")
    check_refused("Bucket without a video", folder, *run_args(recipe, corpus), corpus=corpus, BUCKET=folder)


def test_empty_bucket_beside_a_good_one(tmp_path, bucket, recipe, corpus):
    (tmp_path / "empty").mkdir()
    ended = curate("run", tmp_path / "empty", bucket, *run_args(recipe, corpus))
    assert (ended.status, ended.err) == (row("Empty bucket beside a good one").status, "")
    assert verdicts(corpus) == {"good.mp4": KEPT}


WRONG_NAMES = {
    "Name of no file": "BUCKET/nowhere.mp4",
    "Glob that matches nothing": "BUCKET/*.mkv",
    "Unknown scheme": "nosuch://bucket/a.mp4",
}


@pytest.mark.parametrize("name", sorted(WRONG_NAMES))
def test_a_source_that_leads_nowhere(name, bucket, recipe, corpus):
    source = WRONG_NAMES[name].replace("BUCKET", str(bucket))
    check_refused(name, bucket, source, *run_args(recipe, corpus), corpus=corpus, BUCKET=bucket)


class FaultyFileSystem(MemoryFileSystem):
    """A remote place whose doors are closed, or that does not answer, until it is ``mended``."""

    protocol = "faulty"
    cachable = False
    mended = False

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("faulty://").lstrip("/")

    def _open(self, path, *args, **more):
        if not type(self).mended and "closed" in path:
            raise PermissionError(errno.EACCES, "no")
        if not type(self).mended:
            raise TimeoutError("no answer within 60 s")
        return super()._open(path, *args, **more)


IN_LISTS = {
    "Unknown scheme in a list": "nosuch://bucket/scheme.mp4",
    "File of a list that is not there": "/nowhere/gone.mp4",
    "Place that refuses access": "faulty://closed/closed.mp4",
    "Place that does not answer": "faulty://silent/silent.mp4",
}


@pytest.fixture(scope="module")
def in_list(good, tmp_path_factory):
    """(verdicts, how the run ended, how verifying ended) of a list of a good video and all rows that fail; and
    (verdicts, how the run ended) of it once the places were mended."""
    folder = tmp_path_factory.mktemp("list")
    (folder / "list.txt").write_text("\n".join([str(good), *IN_LISTS.values()]) + "\n")
    fs = fsspec.filesystem("memory")
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    for extra, name in enumerate(("closed", "silent"), 1):
        fs.pipe_file(f"/{name}/{name}.mp4", good.read_bytes() + bytes(extra))
    args = [folder / "list.txt", *run_args(write_recipe(folder), folder / "corpus")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FaultyFileSystem, "mended", False)
        patch.setattr(storage, "WAITS_S", tuple(0.0 for _ in storage.WAITS_S))
        ended = curate("run", *args)
        before = verdicts(folder / "corpus"), ended, curate("verify", folder / "corpus")
        patch.setattr(FaultyFileSystem, "mended", True)
        again = curate("run", *args)
    fs.rm("/closed", recursive=True)
    fs.rm("/silent", recursive=True)
    return before, (verdicts(folder / "corpus"), again)


@pytest.mark.parametrize("name", sorted(IN_LISTS))
def test_a_row_of_a_list_fails_alone(name, in_list):
    found, ended, verified = in_list[0]
    assert (ended.status, ended.err) == (row(name).status, "")
    check_verdict(name, found, Path(IN_LISTS[name]).name)
    assert verified.status == 0


def test_a_place_that_is_mended_is_read_by_the_next_run(in_list):
    (_, ended, _), (found, again) = in_list
    assert "Pass 3: 2 sources to read again" in ended.out
    assert again.out.startswith("2 sources to read\n")
    kept = {name for name, verdict in found.items() if verdict == KEPT}
    assert kept == {"good.mp4", "closed.mp4", "silent.mp4"}


def test_every_input_fails(tmp_path, recipe, corpus):
    folder = tmp_path / "bad"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.mp4").touch()
    ended = curate("run", folder, *run_args(recipe, corpus))
    assert ended.status == row("Every input fails").status
    said = row("Every input fails").sees.split("says last: ")[1].strip("`")
    assert matches(said, ended.err.removesuffix("\n"), CORPUS=corpus)
    reason = ("failed", row("Every input fails").said)
    assert verdicts(corpus) == {"a.mp4": reason, "b.mp4": reason}
    assert curate("verify", corpus).status == 0


def test_something_failed_with_strict(bucket, recipe, corpus):
    (bucket / "bad.mp4").touch()
    ended = curate("run", bucket, *run_args(recipe, corpus), "--strict")
    assert ended.status == row("Something failed, with `--strict`").status
    assert "curate failures" in ended.out
    assert verdicts(corpus) == {"good.mp4": KEPT, "bad.mp4": ("failed", "has no bytes")}


def test_every_row_of_the_tables_has_its_test():
    source = "".join(Path(__file__).with_name(f"test_bad_{what}.py").read_text() for what in ("inputs", "places"))
    elsewhere = {
        "Ctrl" + "-C",
        "A source or mirror with " + "another file under a model's name",
        "Weights that are " + "damaged",
        "No room for a " + "model",
        "Packages that are " + "not installed",
        "No GPU where a stage " + "insists on one",
        "A key that is " + "not set",
        "Another model on a " + "worker",
    }
    assert {name for name in ROWS if name not in FILES.values() and f'"{name}"' not in source} == elsewhere
    assert len(ROWS) > 50
