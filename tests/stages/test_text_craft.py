"""CRAFT: the boxes of EasyOCR, however many frames go through the network at once, and the paper's 7 % rule."""

import sys
from pathlib import Path

import cv2
import easyocr
import numpy as np
import pyarrow as pa
import pytest
import torch
from corpus_kit import CorpusKit

from curate.config import parse_config
from curate.errors import MissingModelError
from curate.records import Outcome
from curate.select import SelectConfig, select
from curate.stages.text import Text, TextConfig, covered_share
from curate.stages.text.craft import Craft, CraftConfig
from curate.tables import read_parquet
from curate.weights.store import path_of

FONT = cv2.FONT_HERSHEY_SIMPLEX
W, H = 288, 160


def texture(seed):
    coarse = np.random.default_rng(seed).integers(0, 255, (H // 8, W // 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (W, H), interpolation=cv2.INTER_CUBIC)


def plain():
    return np.full((H, W, 3), (28, 40, 64), np.uint8)


def written(back, lines, scale):
    """A copy of a frame with lines of text, and the share that boxes from ascender to descender cover."""
    frame, mask, bottom = back.copy(), np.zeros((H, W), np.uint8), 12
    for line in lines:
        (wide, ascent), descent = cv2.getTextSize(line, FONT, scale, 2)
        bottom += ascent + 4
        cv2.putText(frame, line, (16, bottom), FONT, scale, (255, 255, 255), 2, cv2.LINE_AA)
        mask[bottom - ascent : bottom + descent, 16 : 16 + wide] = 1
        bottom += descent + 4
    return frame, float(mask.mean())


def turned(frame, degrees):
    return cv2.warpAffine(frame, cv2.getRotationMatrix2D((W / 2, H / 2), degrees, 1), (W, H))


@pytest.fixture(scope="module")
def frames():
    """Text of several sizes on textures and plain, level and tilted, and a frame without any."""
    shown = [
        written(texture(1), ["Some words", "of small text"], 0.6)[0],
        written(plain(), ["Larger words"], 1.1)[0],
        written(texture(2), ["BIG"], 2.5)[0],
        turned(written(plain(), ["Tilted line"], 1.0)[0], 20),
        texture(3),
    ]
    return np.stack(shown)


@pytest.fixture(scope="module")
def detector(weights):
    made = Craft(CraftConfig())
    made.setup()
    return made


@pytest.fixture(scope="module")
def found(detector, frames):
    return detector.detect(frames)


@pytest.fixture(scope="module")
def stage(detector):
    made = Text(TextConfig(detector="craft"))
    made.setup()
    return made


def score(stage, clip_item, frames):
    (cell,) = stage.process([clip_item(views={"ends": frames})])
    assert cell.outcome is Outcome.OK, cell.failure
    return cell.values


def test_boxes_are_those_of_easyocr(detector, frames, found):
    folder = str(Path(path_of("craft", "craft_mlt_25k.pth")).parent)
    options = {"recognizer": False, "download_enabled": False, "verbose": False, "model_storage_directory": folder}
    reader = easyocr.Reader(["en"], gpu=False, **options)
    for frame, boxes in zip(frames, found, strict=True):
        (level,), (tilted,) = reader.detect(frame)
        expected = [[(a, c), (b, c), (b, d), (a, d)] for a, b, c, d in level] + tilted
        np.testing.assert_array_equal(boxes, np.asarray(expected, np.float32).reshape(-1, 4, 2))
    assert [len(boxes) > 0 for boxes in found] == [True] * 4 + [False]
    x, y = found[3][0, :, 0], found[3][0, :, 1]
    assert len(set(x)) > 2 and len(set(y)) > 2, "a tilted line is not made level"


def test_boxes_do_not_depend_on_batch_or_order(frames, found, weights):
    other = Craft(CraftConfig())
    other.setup()
    other.rows = 4
    backwards = other.detect(frames[::-1])[::-1]
    for boxes, expected in zip(backwards, found, strict=True):
        np.testing.assert_array_equal(boxes, expected)


def test_frames_that_do_not_fit_together_are_looked_at_in_smaller_batches(frames, found, weights):
    class Tight(Craft):
        def infer(self, items, prepared):
            if len(items) > 1:
                raise torch.OutOfMemoryError("injected")
            return super().infer(items, prepared)

    tight = Tight(CraftConfig())
    tight.setup()
    tight.rows = 4
    for boxes, expected in zip(tight.detect(frames[:2]), found, strict=False):
        np.testing.assert_array_equal(boxes, expected)
    assert tight.rows == 1


def test_area_of_drawn_text(stage, clip_item):
    """Within a factor of 1.4: EasyOCR adds a tenth of a line's height on every side."""
    small, small_share = written(plain(), ["A line of words"], 0.7)
    large, large_share = written(texture(4), ["Two lines of", "larger text"], 1.0)
    values = score(stage, clip_item, [small, large, texture(5)])
    for area, share in zip(values["areas"], (small_share, large_share), strict=False):
        assert share / 1.4 < area < share * 1.4
    assert values["areas"][2] == 0.0
    assert values["n_boxes_max"] >= 2


def test_pictures_without_text_have_none(stage, clip_item):
    gradient = np.broadcast_to(np.linspace(20, 235, W).astype(np.uint8)[None, :, None], (H, W, 3)).copy()
    values = score(stage, clip_item, [texture(6), np.zeros((H, W, 3), np.uint8), gradient])
    assert values["areas"] == [0.0, 0.0, 0.0]


def test_clips_of_several_sizes_are_scored_together_as_alone(stage, clip_item):
    frame = written(plain(), ["Words"], 1.0)[0][:64, :128]
    upright = clip_item(views={"ends": [np.rot90(frame).copy()] * 3})
    wide = [clip_item(views={"ends": [frame, texture(i)[:64, :128], texture(i + 1)[:64, :128]]}) for i in (7, 9)]
    items = [wide[0], upright, wide[1]]
    together = [cell.values for cell in stage.process(items)]
    assert together == [stage.process([item])[0].values for item in items]
    assert together[0]["areas"][0] > 0.03


def selected(path, areas):
    """The verdict on clips with these text areas under the paper's rule."""
    kit = CorpusKit(path / "corpus", {"text": {"area_max": pa.float64()}})
    clips = kit.source("a.mp4", [2.0] * len(areas))
    for clip, area in zip(clips, areas, strict=True):
        kit.cell("text", clip, area_max=area)
    rule = {"name": "paper", "conditions": [{"column": "text.area_max", "max": 0.07}], "dedup": {"method": "none"}}
    corpus = kit.write()
    select(corpus, parse_config(SelectConfig, rule, "select"))
    rows = read_parquet(corpus.selections().child("paper", "selection.parquet")).to_pylist()
    verdicts = {row["clip_id"]: (row["verdict"], row["reason"]) for row in rows}
    return [verdicts[clip] for clip in clips]


def test_seven_per_cent_drops_0_102_and_keeps_0_06(tmp_path):
    boxes = [np.array([[(0, 0), (wide - 1, 0), (wide - 1, 99), (0, 99)]]) for wide in (102, 60)]
    areas = [covered_share(each, 100, 1000) for each in boxes]
    assert areas == [0.102, 0.06]
    assert [verdict for verdict, _ in selected(tmp_path, areas)] == ["dropped", "kept"]


def test_seven_per_cent_on_frames(stage, clip_item, tmp_path):
    bad, good = (written(plain(), ["Credits of it", "in two lines"], scale)[0] for scale in (0.62, 0.48))
    areas = score(stage, clip_item, [bad, good, plain()])["areas"][:2]
    assert areas == pytest.approx([0.102, 0.06], abs=0.005)
    verdicts = selected(tmp_path, areas)
    assert [verdict for verdict, _ in verdicts] == ["dropped", "kept"]
    assert "text.area_max" in verdicts[0][1]


def test_without_the_package_the_way_to_install_it_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "easyocr"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingModelError, match=r"easyocr.*pip install 'curate-video\[craft\]'"):
        Text(TextConfig(detector="craft")).setup()


def test_without_the_weights_the_way_to_fetch_them_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path))
    with pytest.raises(MissingModelError, match="curate models fetch craft"):
        Text(TextConfig(detector="craft")).setup()


def test_each_detector_has_its_own_keys_and_weights_in_the_fingerprint():
    plain_one = Text(TextConfig())
    assert set(plain_one.identity()["config"]) == {
        "short_side_px", "min_probability", "core_probability", "unclip_ratio"
    }  # fmt: skip
    assert set(plain_one.model_digests()) == {"pp-ocr-det/ch_PP-OCRv4_det_infer.onnx"}
    unheard = Text(TextConfig(craft=CraftConfig(low_text=0.3)))
    assert unheard.fingerprint({}) == plain_one.fingerprint({})
    other = Text(TextConfig(detector="craft"))
    assert set(other.model_digests()) == {"craft/craft_mlt_25k.pth"}
    changed = {"text_threshold": 0.6, "link_threshold": 0.3, "low_text": 0.3, "canvas_px": 512, "batch_size": 6}
    made = [Text(TextConfig(detector="craft", craft=CraftConfig(**{key: value}))) for key, value in changed.items()]
    prints = {stage.fingerprint({}) for stage in [plain_one, other, *made]}
    assert len(prints) == 1 + len(made), "the size of a batch decides nothing"
    deaf = TextConfig(detector="craft", min_probability=0.5, core_probability=0.2, unclip_ratio=2)
    assert Text(deaf).fingerprint({}) == other.fingerprint({}), "these are PP-OCR's alone"
    wider = TextConfig(detector="craft", short_side_px=300)
    assert Text(wider).fingerprint({}) not in prints, "frames of this size are shown to either"
    assert (made[-1].resources.batch_size, made[-1].resources.gpu_optional) == (6, True)
    assert plain_one.resources.gpus == 0
