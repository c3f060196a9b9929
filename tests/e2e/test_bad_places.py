"""docs/bad-inputs.md, row by row: the corpus, the machine, recipes and options."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
from bad_inputs_kit import check_refused, every_row, matches, row
from cli_kit import RECIPE, curate, files_below, good_video, run_args, start, tables, verdicts, write_recipe

from curate.tables import STATUS

# The corpus and the machine


def test_output_below_a_file(bucket, recipe, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    check_refused("Output below a file", bucket, *run_args(recipe, file / "corpus"), FILE=file)
    check_refused("Output that is a file", bucket, *run_args(recipe, file), FILE=file)
    assert file.read_text() == "mine"


class Disk:
    """The disk below the corpus: full after ``room`` more files are written to it, in the middle of the next one.

    How a run goes is written down by the clock, and without: it counts for nothing.
    """

    def __init__(self, monkeypatch, corpus: Path, room: int = 1 << 30) -> None:
        self.writes = 0
        self._fsync = os.fsync
        self._corpus, self._room = corpus, room
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        if STATUS in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            return
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


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.8, 0.999])
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
    "Recipe that grows when it is read": ("name: small\nstages", f"many: [{'1,' * 20_001}]\nname: small\nstages"),
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
