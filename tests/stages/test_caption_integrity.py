"""A clip's caption is never another's: in any order, in any batches, with clips among them that fail."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_kit import ModelKit
from tiny_models import add_captioners

from curate.records import Clip, Outcome, Span
from curate.stages.caption.base import frames_digest
from curate.stages.registry import stage_class

N_CLIPS = 8
SETTINGS = {
    "caption.coca": {"max_tokens": 10},
    "caption.vblip": {"max_tokens": 10, "beams": 2, "frames": 3, "prompt": "Question:"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioners")
    with pytest.MonkeyPatch.context() as patch:
        add_captioners(ModelKit(folder / "kit", patch), folder)
        yield


@pytest.fixture(scope="module", params=sorted(SETTINGS))
def stage(request, models):
    cls = stage_class(request.param)
    made = cls(cls.config_type(**SETTINGS[request.param]))
    made.setup()
    return made


@pytest.fixture(scope="module")
def clips(stage, clip_item):
    """Clips of different pictures, some in other shapes, each with a caption that no other has; their cells, computed
    for each on its own."""
    n_frames = len(stage.views()["frames"].points)
    found = {}
    for i in range(10 * N_CLIPS):
        size = ((32, 40), (40, 32))[i % 2]
        rng = np.random.default_rng(i)
        frames = (rng.integers(0, 192, 3) + rng.integers(0, 64, (n_frames, *size, 3))).astype(np.uint8)
        clip = Clip.of_span("0" * 64, 0, Fraction(1, 1000), Span(i, i + 1))
        item = replace(clip_item(views={"frames": frames}), clip=clip)
        (cell,) = stage.process([item])
        found.setdefault(cell.values["caption"], (item, cell))
        if len(found) == N_CLIPS:
            break
    assert len({cell.values["frames"] for _, cell in found.values()}) == N_CLIPS
    return [item for item, _ in found.values()], {cell.key: cell for _, cell in found.values()}


def spoilt(item):
    """The clip with a view that lost its colours on the way."""
    view = item.views["frames"]
    return replace(item, views={"frames": replace(view, frames=view.frames[..., 0])})


@settings(max_examples=12)
@given(
    order=st.permutations(range(N_CLIPS)),
    cuts=st.sets(st.integers(1, N_CLIPS - 1), max_size=3),
    bad=st.sets(st.integers(0, N_CLIPS - 1), max_size=2),
    rows=st.sampled_from([1, 3]),
)
def test_a_caption_stays_with_its_clip(stage, clips, order, cuts, bad, rows):
    items, alone = clips
    stage.rows = rows
    shown = [spoilt(items[i]) if i in bad else items[i] for i in order]
    edges = [0, *sorted(cuts), N_CLIPS]
    cells = [cell for start, end in pairwise(edges) for cell in stage.process(shown[start:end])]
    assert [cell.key for cell in cells] == [items[i].clip.clip_id for i in order]
    for i, cell in zip(order, cells, strict=True):
        if i in bad:
            assert cell.outcome == Outcome.FAILED
            assert items[i].clip.clip_id in str(cell.failure)
        else:
            assert cell.values == alone[cell.key].values
            assert cell.values["frames"] == frames_digest(items[i].views["frames"])
