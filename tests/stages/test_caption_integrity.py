"""A clip's caption is never another's: prepared ahead in batches of any size and order, with clips among them that fail
before the network or in it, and a memory that does not do for whole batches."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_kit import ModelKit
from tiny_llm import tiny_llm
from tiny_models import add_captioners

from curate.records import Cell, Clip, Outcome, Span
from curate.stage import ClipItem
from curate.stages.batches import Batched
from curate.stages.caption.base import CaptionStage, frames_digest
from curate.stages.caption.coca import CocaCaption, CocaConfig
from curate.stages.caption.fused import CAPTIONERS, FusedCaption, FusedConfig, joint_digest
from curate.stages.caption.llm import LocalModel
from curate.stages.caption.vblip import VblipCaption, VblipConfig

N_CLIPS = 8
FUSED = FusedConfig(device="cpu", prompt="Join.", examples=(), max_tokens=8, max_caption_chars=8000)


class Faulty(Batched):
    """A network whose memory does not do for several items at the calls ``short``, and that fails on the ``broken``."""

    n_calls = 0
    short: frozenset[int] = frozenset()
    broken: Callable[[Any], bool] = staticmethod(lambda item: False)

    def infer(self, items, prepared):
        self.n_calls += 1
        if len(items) > 1 and self.n_calls in self.short:
            raise torch.OutOfMemoryError("injected")
        if any(self.broken(item) for item in items):
            raise RuntimeError("injected")
        return super().infer(items, prepared)


class FaultyCoca(Faulty, CocaCaption):
    pass


class FaultyVblip(Faulty, VblipCaption):
    pass


class FaultyModel(Faulty, LocalModel):
    pass


@dataclass(frozen=True)
class Kind:
    """A captioner under test. ``clip``: one of its clips, by number; ``spoilt``: that clip as it cannot be prepared;
    ``frames``: what its cell must say of frames; ``told``: whether an item of the network is this clip's."""

    stage: CaptionStage
    network: Faulty
    clip: Callable[[int], ClipItem]
    spoilt: Callable[[ClipItem], ClipItem]
    frames: Callable[[ClipItem], str]
    told: Callable[[Any, ClipItem], bool]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioners")
    with pytest.MonkeyPatch.context() as patch:
        kit = ModelKit(folder / "kit", patch)
        add_captioners(kit, folder)
        kit.add("smollm2-135m-instruct", tiny_llm(folder / "llm"))
        yield


def seeing(stage, clip_item) -> Kind:
    """A captioner that looks at frames: of different pictures, some in other shapes."""
    n_frames = len(stage.views()["frames"].points)

    def clip(number):
        rng = np.random.default_rng(number)
        size = ((32, 40), (40, 32))[number % 2]
        frames = (rng.integers(0, 192, 3) + rng.integers(0, 64, (n_frames, *size, 3))).astype(np.uint8)
        return named(clip_item(views={"frames": frames}), number)

    def spoilt(item):
        view = item.views["frames"]
        return replace(item, views={"frames": replace(view, frames=view.frames[..., 0])})

    stage.setup()
    told = lambda shown, item: shown.clip == item.clip  # noqa: E731
    return Kind(stage, stage, clip, spoilt, lambda item: frames_digest(item.views["frames"]), told)


def reading(clip_item) -> Kind:
    """The one that joins captions: of different lengths, so that not all go into one batch."""
    stage = FusedCaption(FUSED)
    model = FaultyModel("smollm2-135m-instruct", FUSED, FUSED.max_tokens)
    model.setup()
    stage._model = model

    def clip(number):
        said = (f"a dog {number} " + "runs " * (number % 3 * 10), f"clip {number}")
        cells = {
            name: {"caption": text, "frames": f"{name} {number}"} for name, text in zip(CAPTIONERS, said, strict=True)
        }
        return named(clip_item(cells=cells), number)

    def spoilt(item):
        """With a caption that is too long for the model."""
        coca = {**item.cells["caption.coca"], "caption": "word " * 1500}
        return replace(item, cells={**item.cells, "caption.coca": coca})

    def told(chat, item):
        return chat == stage.chat([item.cells[name]["caption"].strip() for name in CAPTIONERS])

    def frames(item):
        return joint_digest({name: cell["frames"] for name, cell in item.cells.items()})

    return Kind(stage, model, clip, spoilt, frames, told)


def named(item: ClipItem, number: int) -> ClipItem:
    return replace(item, clip=Clip.of_span("0" * 64, 0, Fraction(1, 1000), Span(number, number + 1)))


@pytest.fixture(scope="module", params=["coca", "vblip", "fused"])
def kind(request, models, clip_item) -> Kind:
    if request.param == "coca":
        return seeing(FaultyCoca(CocaConfig(device="cpu", max_tokens=10)), clip_item)
    if request.param == "vblip":
        config = VblipConfig(device="cpu", max_tokens=10, beams=2, frames=3, prompt="Question:")
        return seeing(FaultyVblip(config), clip_item)
    return reading(clip_item)


@pytest.fixture(scope="module")
def clips(kind) -> tuple[list[ClipItem], dict[str, Cell]]:
    """Clips that each get a caption that no other has; their cells, computed for each on its own."""
    found = {}
    for number in range(10 * N_CLIPS):
        item = kind.clip(number)
        (cell,) = kind.stage.process([item])
        found.setdefault(cell.values["caption"], (item, cell))
        if len(found) == N_CLIPS:
            break
    assert len({cell.values["frames"] for _, cell in found.values()}) == N_CLIPS
    return [item for item, _ in found.values()], {cell.key: cell for _, cell in found.values()}


some = st.sets(st.integers(0, N_CLIPS - 1), max_size=2)


@settings(max_examples=12)
@given(
    order=st.permutations(range(N_CLIPS)),
    cuts=st.sets(st.integers(1, N_CLIPS - 1), max_size=3),
    spoilt=some,
    broken=some,
    short=st.frozensets(st.integers(1, 5), max_size=3),
    rows=st.sampled_from([1, 3, 4]),
)
def test_a_caption_stays_with_its_clip(kind, clips, order, cuts, spoilt, broken, short, rows):
    items, alone = clips
    network = kind.network
    network.rows, network.n_calls, network.short = rows, 0, short
    network.broken = lambda shown: any(kind.told(shown, items[i]) for i in broken)
    given = [kind.spoilt(items[i]) if i in spoilt else items[i] for i in order]
    batches = [given[start:end] for start, end in pairwise([0, *sorted(cuts), N_CLIPS])]
    cells = [cell for batch in kind.stage.process_batches(iter(batches)) for cell in batch]
    assert [cell.key for cell in cells] == [items[i].clip.clip_id for i in order]
    for i, cell in zip(order, cells, strict=True):
        if i in spoilt or i in broken:
            assert cell.outcome == Outcome.FAILED
            assert ("injected" in cell.failure.message) == (i not in spoilt)
        else:
            assert cell.values == alone[cell.key].values
            assert cell.values["frames"] == kind.frames(items[i])
