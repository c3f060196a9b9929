"""docs/bad-inputs.md, row by row: what the command says, how it ends, and that a good neighbour ends as kept."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from cli_kit import RECIPE, curate, files_below, good_video, run_args, start, tables, verdicts, write_recipe
from fsspec.implementations.memory import MemoryFileSystem

from curate import job
from curate.engine import analyse
from curate.testing.bucket import EXPECTED, REAL

DOC = Path(__file__).parents[2] / "docs" / "bad-inputs.md"
KEPT = ("kept", "")


@dataclass(frozen=True)
class Row:
    """One row of the tables: the first code span of what the user sees, and the exit status."""

    sees: str
    said: str
    status: int


def _rows() -> dict[str, Row]:
    cells = [line.strip("| \n").split(" | ") for line in DOC.read_text().splitlines() if line.startswith("| ")]
    return {name: Row(sees, _span(sees), int(status)) for name, sees, status, _ in cells if name != "Input"}


def _span(text: str) -> str:
    found = re.search(r"`([^`]+)`", text)
    return found[1] if found else ""


ROWS = _rows()
FILES = {_span(name): name for name in ROWS if _span(name) in EXPECTED}


def row(name: str) -> Row:
    return ROWS[name]


def matches(said: str, text: str, **names: object) -> bool:
    """Whether ``text`` is what a row says; ' in a table stands for the code quote of the message."""
    for name, value in names.items():
        said = said.replace(name, str(value))
    pattern = re.escape(said).replace("…", ".*").replace("'", "['`]")
    return bool(re.fullmatch(pattern, text))


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return good_video(tmp_path_factory.mktemp("good") / "good.mp4")


@pytest.fixture
def bucket(good, tmp_path) -> Path:
    """A folder with one good video."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    shutil.copy(good, folder)
    return folder


@pytest.fixture
def recipe(tmp_path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture
def corpus(tmp_path) -> Path:
    return tmp_path / "corpus"


def check_input(name: str, corpus: Path, file: str, **names: object) -> None:
    """The input ended as the row says, for the reason it says, and its neighbour was kept."""
    told = row(name)
    verdict, reason = verdicts(corpus)[file]
    assert verdict == told.sees.split(":")[0]
    assert matches(told.said, reason, **names), reason
    assert verdicts(corpus)["good.mp4"] == KEPT


def check_refused(name: str, *args: object, corpus: Path | None = None, **names: object) -> None:
    """The command ended as the row says, in one line, and wrote nothing."""
    ended = curate("run", *args)
    assert ended.status == row(name).status
    assert matches(row(name).said, ended.err.removesuffix("\n"), **names), ended.err
    assert "\n" not in ended.err.removesuffix("\n")
    assert corpus is None or not corpus.exists()


# Files


@pytest.fixture(scope="module")
def sample(tmp_path_factory, sample_bucket, good):
    """(bucket, corpus, how the run ended) of the sample bucket and a good video."""
    folder = tmp_path_factory.mktemp("of_sample")
    args = run_args(write_recipe(folder), folder / "corpus")
    return sample_bucket, folder / "corpus", curate("run", sample_bucket, good, *args)


def test_every_hard_or_bad_file_of_the_sample_bucket_has_a_row():
    scenes = {"dissolve", "fade", "flashes", "hard_cuts", "heavy_text", "letterbox", "slideshow", "static_shot", "zoom"}
    assert set(FILES) == set(EXPECTED) - set(REAL) - {f"{name}.mp4" for name in scenes}


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_file_of_the_sample_bucket_ends_as_its_row_says(file, sample):
    folder, corpus, ended = sample
    assert (ended.status, ended.err) == (row(FILES[file]).status, "")
    assert verdicts(corpus)["hard_cuts.mp4"] == KEPT
    if row(FILES[file]).sees.startswith("kept"):
        assert verdicts(corpus)[file] == verdicts(corpus)["good.mp4"] == KEPT
    else:
        check_input(FILES[file], corpus, file, BUCKET=folder)
        assert verdicts(corpus)[file][1] in ended.out


def test_every_input_of_the_sample_bucket_is_accounted_for(sample):
    folder, corpus, ended = sample
    counts = Counter(verdict for verdict, _ in verdicts(corpus).values())
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


def every_row(folder: Path) -> list[dict]:
    parts = sorted(folder.rglob("*.parquet"))
    return [row for part in parts for row in pq.ParquetFile(part).read(use_threads=False).to_pylist()]


def make_link_out(folder: Path) -> None:
    (folder.parent / "elsewhere.mp4").write_bytes((folder / "good.mp4").read_bytes() + b"\0")
    (folder / "bad.mp4").symlink_to(folder.parent / "elsewhere.mp4")


ODD_FILES = {
    "Link out of the folder": ("bad.mp4", make_link_out),
    "Link to nowhere": ("bad.mp4", lambda folder: (folder / "bad.mp4").symlink_to("nowhere.mp4")),
    "FIFO": ("bad.mp4", lambda folder: os.mkfifo(folder / "bad.mp4")),
    "File still being written": ("bad.mp4.part", lambda folder: (folder / "bad.mp4.part").write_text("half")),
    "Hidden file": (".bad.mp4", lambda folder: (folder / ".bad.mp4").write_text("hidden")),
    "Tar that is none": ("bad.tar", lambda folder: (folder / "bad.tar").write_text("no tar")),
    "Name that is not UTF-8": ("\\xff.mp4", lambda folder: (folder / os.fsdecode(b"\xff.mp4")).touch()),
}


@pytest.mark.parametrize("name", sorted(ODD_FILES))
def test_odd_files_are_skipped_with_the_cause(name, bucket, recipe, corpus):
    file, make = ODD_FILES[name]
    make(bucket)
    ended = curate("run", bucket, *run_args(recipe, corpus))
    assert ended.status == row(name).status
    check_input(name, corpus, file)


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


def swap_while_decoded(bucket, other, patch):
    """Replace the file in the middle of its decoding."""
    iter_frames = analyse.iter_frames

    def swapping(path, facts):
        for number, frame in enumerate(iter_frames(path, facts)):
            if path.endswith("bad.mp4") and number == 20:
                replace(bucket / "bad.mp4", other)
            yield frame

    patch.setattr(analyse, "iter_frames", swapping)


def overwrite_while_decoded(bucket, other, patch):
    """Write other bytes into the file in the middle of its decoding."""
    iter_frames = analyse.iter_frames

    def swapping(path, facts):
        for number, frame in enumerate(iter_frames(path, facts)):
            if path.endswith("bad.mp4") and number == 20:
                (bucket / "bad.mp4").write_bytes(other.read_bytes())
            yield frame

    patch.setattr(analyse, "iter_frames", swapping)


@pytest.mark.parametrize("swap", [swap_when_opened, swap_while_decoded, overwrite_while_decoded])
def test_replaced_or_written_to_while_it_is_read(swap, bucket, recipe, corpus, tmp_path, monkeypatch):
    name = "Replaced or written to while it is read"
    good_video(bucket / "bad.mp4", 5, frames=60)
    first, other = shutil.copy2(bucket / "bad.mp4", tmp_path / "first.mp4"), good_video(tmp_path / "other.mp4", 6)
    with monkeypatch.context() as patch:
        swap(bucket, other, patch)
        ended = curate("run", bucket, *run_args(recipe, corpus))
    assert ended.status == row(name).status
    check_input(name, corpus, "bad.mp4")
    assert curate("run", bucket, *run_args(recipe, corpus)).status == 0
    assert verdicts(corpus)["bad.mp4"] == KEPT
    fresh = tmp_path / "fresh"
    curate("run", bucket, *run_args(recipe, fresh))
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


@pytest.fixture
def faulty(good, memory_bucket, monkeypatch):
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    fsspec.filesystem("memory").pipe_file("/closed/bad.mp4", good.read_bytes() + b"\0")
    fsspec.filesystem("memory").pipe_file("/silent/bad.mp4", good.read_bytes() + b"\0\0")
    monkeypatch.setattr(FaultyFileSystem, "mended", False)


IN_LISTS = {
    "Unknown scheme in a list": "nosuch://bucket/bad.mp4",
    "File of a list that is not there": "/nowhere/bad.mp4",
    "Place that refuses access": "faulty://closed/bad.mp4",
    "Place that does not answer": "faulty://silent/bad.mp4",
}


def listed(bucket: Path, uri: str) -> Path:
    path = bucket.parent / "list.txt"
    path.write_text(f"{bucket}/good.mp4\n{uri}\n")
    return path


@pytest.mark.parametrize("name", sorted(IN_LISTS))
def test_a_row_of_a_list_fails_alone(name, bucket, recipe, corpus, faulty):
    ended = curate("run", listed(bucket, IN_LISTS[name]), *run_args(recipe, corpus))
    assert (ended.status, ended.err) == (row(name).status, "")
    check_input(name, corpus, "bad.mp4")
    assert curate("verify", corpus).status == 0


@pytest.mark.parametrize("name", [name for name in IN_LISTS if name.startswith("Place")])
def test_a_place_that_is_mended_is_read_by_the_next_run(name, bucket, recipe, corpus, faulty, monkeypatch):
    args = [listed(bucket, IN_LISTS[name]), *run_args(recipe, corpus)]
    assert "Pass 3: 1 sources to read again" in curate("run", *args).out
    monkeypatch.setattr(FaultyFileSystem, "mended", True)
    again = curate("run", *args)
    assert again.out.startswith("1 sources to read\n")
    assert verdicts(corpus) == {"good.mp4": KEPT, "bad.mp4": KEPT}


def test_every_input_fails(tmp_path, recipe, corpus):
    folder = tmp_path / "bad"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.mp4").touch()
    ended = curate("run", folder, *run_args(recipe, corpus))
    assert ended.status == row("Every input fails").status
    reason = ("failed", row("Every input fails").said)
    assert verdicts(corpus) == {"a.mp4": reason, "b.mp4": reason}
    assert curate("verify", corpus).status == 0


def test_something_failed_with_strict(bucket, recipe, corpus):
    (bucket / "bad.mp4").touch()
    ended = curate("run", bucket, *run_args(recipe, corpus), "--strict")
    assert ended.status == row("Something failed, with `--strict`").status
    assert "curate failures" in ended.out
    assert verdicts(corpus) == {"good.mp4": KEPT, "bad.mp4": ("failed", "has no bytes")}


# The corpus and the machine


def test_output_below_a_file(bucket, recipe, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    check_refused("Output below a file", bucket, *run_args(recipe, file / "corpus"), FILE=file)
    check_refused("Output that is a file", bucket, *run_args(recipe, file), FILE=file)
    assert file.read_text() == "mine"


class Disk:
    """The disk below the corpus: full after ``room`` more files are written to it, in the middle of the next one."""

    def __init__(self, monkeypatch, corpus: Path, room: int = 1 << 30) -> None:
        self.writes = 0
        self._fsync = os.fsync
        self._corpus, self._room = corpus, room
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        self.writes += 1
        if self.writes > self._room:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._fsync(descriptor)


@pytest.fixture(scope="module")
def undisturbed(good, tmp_path_factory):
    """(bucket of two videos, a corpus of it, the number of files that were written)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "bucket").mkdir()
    shutil.copy(good, folder / "bucket")
    good_video(folder / "bucket/more.mp4", 8, frames=75)
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, folder)
        assert curate("run", folder / "bucket", *run_args(write_recipe(folder), folder / "corpus")).status == 0
    return folder / "bucket", folder / "corpus", disk.writes


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.999])
def test_full_disk(share, undisturbed, recipe, corpus, monkeypatch):
    bucket, wanted, writes = undisturbed
    with monkeypatch.context() as patch:
        Disk(patch, corpus, room=int(share * writes))
        check_refused("Full disk", bucket, *run_args(recipe, corpus))
    assert_whole(corpus)
    assert curate("run", bucket, *run_args(recipe, corpus)).status == 0
    assert_the_same(corpus, wanted)


def assert_whole(corpus: Path) -> None:
    """Everything under a name of a table can be read to its end, and nothing half-written lies about."""
    assert not list(corpus.rglob("*.tmp"))
    every_row(corpus / "tables")


def assert_the_same(corpus: Path, wanted: Path) -> None:
    assert tables(corpus) == tables(wanted)
    assert verdicts(corpus) == verdicts(wanted)
    assert curate("verify", corpus, "--deep").status == 0
    shards = (files_below(each / "shards") for each in (corpus, wanted))
    assert next(shards) == next(shards)
    assert_whole(corpus)


def test_limit_on_file_sizes(undisturbed, recipe, corpus):
    """The kernel's own refusal, in the middle of a file: shards are larger than the limit, parts of tables are not."""
    bucket, wanted, _ = undisturbed

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40 << 10, 40 << 10))

    process = start("run", bucket, *run_args(recipe, corpus), preexec_fn=limit)
    _, err = process.communicate()
    told = row("Limit on file sizes")
    assert process.returncode == told.status
    assert matches(told.said, err.removesuffix("\n")), err
    assert_whole(corpus)
    assert tables(corpus) == tables(wanted)
    assert curate("run", bucket, *run_args(recipe, corpus)).status == 0
    assert_the_same(corpus, wanted)


def test_corpus_of_another_format(bucket, recipe, corpus):
    corpus.mkdir()
    (corpus / "corpus.json").write_text('{"format_version": 99}')
    check_refused("Corpus of another format", bucket, *run_args(recipe, corpus), CORPUS=corpus)
    assert [path.name for path in corpus.iterdir()] == ["corpus.json"]


def test_weights_that_are_not_there(bucket, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "none"))
    args = [bucket, "--out", corpus, "--engine", "inline"]
    check_refused("Weights that are not there", *args, corpus=corpus)


# Recipe and options

WRONG_RECIPES = {
    "Wrong key of a stage": ("min_len_s", "min_len"),
    "Wrong key of the recipe": ("select:", "selects:"),
    "Unknown stage": ("quality]", "qualty]"),
    "Value of the wrong type": ("min_len_s: 0.5", "min_len_s: long"),
    "Recipe that is not YAML": ("stages: [", "stages: ]"),
    "Condition on a column that is not there": ("quality.contrast", "quality.contrst"),
}


@pytest.mark.parametrize("name", sorted(WRONG_RECIPES))
def test_a_wrong_recipe_is_refused(name, bucket, tmp_path, corpus):
    recipe = write_recipe(tmp_path, RECIPE.replace(*WRONG_RECIPES[name]))
    check_refused(name, bucket, *run_args(recipe, corpus), corpus=corpus, RECIPE=recipe)


WRONG_OPTIONS = {
    "Unknown recipe": ["--recipe", "embeded"],
    "`--set` with a wrong key": ["--set", "ct.min_len_s=2"],
    "`--set` of a stage that is not in the recipe": ["--set", "motion.fps=2"],
    "`--set` without a value": ["--set", "cut.min_len_s"],
}


@pytest.mark.parametrize("name", sorted(WRONG_OPTIONS))
def test_a_wrong_option_is_refused(name, bucket, recipe, corpus):
    check_refused(name, bucket, *run_args(recipe, corpus), *WRONG_OPTIONS[name], corpus=corpus)


def test_every_row_of_the_tables_has_its_test():
    source = Path(__file__).read_text()
    elsewhere = {"Ctrl" + "-C"}
    assert {name for name in ROWS if name not in FILES.values() and f'"{name}"' not in source} == elsewhere
    assert len(ROWS) > 50
