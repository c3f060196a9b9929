"""What is shown of one clip is what the tables say of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from corpus_kit import CorpusKit
from engine_kit import Double, Luma, LumaConfig, Picky, PickyConfig, all_cells, pipeline, run
from export_kit import select

from curate.config import Config
from curate.errors import CorpusError, StorageError, UsageError
from curate.inspection import clip_picture, find_clip
from curate.tables import Corpus
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> tuple[Corpus, dict]:
    """A run over one film of three clips, which also lies there under a second name; the last clip fails in `picky`.

    The name of the corpus looks like a pattern.
    """
    folder = tmp_path_factory.mktemp("story")
    bucket = folder / "bucket"
    bucket.mkdir()
    write_video(bucket / "a.mp4", moving_texture(75, 96, 64, (1, 0), seed=1))
    (bucket / "twin.mp4").write_bytes((bucket / "a.mp4").read_bytes())
    pipe = pipeline(Luma(LumaConfig()), Double(Config()), Picky(PickyConfig(fails_above=1.5)))
    run(folder / "c[1]", bucket, pipe)
    corpus = Corpus(str(folder / "c[1]"))
    cells = all_cells(folder / "c[1]", pipe)
    ids = [row[0] for row in sorted(cells["clips"], key=lambda row: row[3])]
    for name, kept in {"some": ids[:1], "other": ids}.items():
        select(corpus, ids, kept, name)
    (folder / "c[1]" / "selections" / "half_made").mkdir()
    return corpus, {"ids": ids, "cells": cells, "fingerprints": {s.name: fp for _, s, fp in pipe.stages()}}


def test_a_clip_is_shown_with_its_source_all_its_cells_and_verdicts(story):
    corpus, truth = story
    record = find_clip(corpus, truth["ids"][0])
    assert record.clip.clip_id == truth["ids"][0] and record.clip.start_pts == 0
    assert [Path(uri).name for uri in record.uris] == ["a.mp4", "twin.mp4"]
    assert (record.facts.width_px, record.facts.n_frames) == (96, 75)
    assert list(record.cells) == ["cut", "luma", "double", "picky"]
    mean = {row[0]: row[1] for row in truth["cells"]["luma"]}[truth["ids"][0]]
    assert record.cells["luma"]["mean"] == mean and record.cells["double"]["twice"] == 2 * mean
    assert record.cells["cut"]["n_clips"] == 3
    assert record.fingerprints == truth["fingerprints"]
    assert {name: row["verdict"] for name, row in record.verdicts.items()} == {"other": "kept", "some": "kept"}


def test_a_failed_cell_is_shown_with_its_whole_error(story):
    corpus, truth = story
    cell = find_clip(corpus, truth["ids"][2]).cells["picky"]
    assert (cell["outcome"], cell["error_class"], cell["error_message"]) == ("failed", "StageError", "too late for me")
    assert "in score" in cell["error_traceback"]


def test_the_beginning_of_an_id_is_enough_when_it_is_the_only_one(story):
    corpus, truth = story
    wanted = truth["ids"][1]
    length = next(n for n in range(1, 33) if sum(other.startswith(wanted[:n]) for other in truth["ids"]) == 1)
    assert find_clip(corpus, wanted[:length]).clip.clip_id == wanted


@pytest.mark.parametrize("clip_id", ["", "xyz", "' or true --", "a" * 33])
def test_what_is_no_id_is_refused(story, clip_id):
    with pytest.raises(UsageError, match="hex digits"):
        find_clip(story[0], clip_id)


def test_no_clip_and_several_clips_are_told_apart(tmp_path):
    kit = CorpusKit(tmp_path / "c", {})
    ids = kit.source("film.mp4", [1.0] * 40)
    corpus = kit.write()
    first = next(digit for digit in "0123456789abcdef" if sum(i.startswith(digit) for i in ids) > 1)
    with pytest.raises(UsageError, match=r"\d+ clips of run run-1 begin like that"):
        find_clip(corpus, first)
    with pytest.raises(UsageError, match="no clip of run run-1 begins like that"):
        find_clip(corpus, "0" * 32)


def test_a_folder_that_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="is not a corpus"):
        find_clip(Corpus(str(tmp_path)), "0")


def test_the_picture_is_a_sheet_of_the_clips_own_frames(story):
    corpus, truth = story
    record = find_clip(corpus, truth["ids"][0])
    sheet = cv2.imdecode(np.frombuffer(clip_picture(record), np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape[0] >= 64 and sheet.shape[1] >= 96
    other = cv2.imdecode(np.frombuffer(clip_picture(find_clip(corpus, truth["ids"][1])), np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape != other.shape or (sheet != other).any()


def test_a_source_that_is_gone_is_read_under_its_other_name_and_then_said_to_be_gone(story, tmp_path):
    corpus, truth = story
    record = find_clip(corpus, truth["ids"][0])
    first, second = map(Path, record.uris)
    aside = [path.rename(tmp_path / path.name) for path in (first,)]
    assert clip_picture(record)
    aside += [second.rename(tmp_path / second.name)]
    try:
        with pytest.raises(StorageError, match="does not exist"):
            clip_picture(record)
    finally:
        for path, home in zip(aside, (first, second), strict=True):
            path.rename(home)
