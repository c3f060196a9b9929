"""How well each caption fits the frames it speaks of, and how far captions differ (paper App. C).

The paper compares the embeddings of three frames with all three captions. All nine numbers are kept; how to make one of
them is said where clips are selected (`aggregate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.errors import ConfigError, ModelFileError, StageError
from curate.stage import ClipItem, Column, Scored, Stage
from curate.stages.caption.base import own_name
from curate.stages.clip.card import FRAMES, clip_settings
from curate.stages.nets import NetConfig, NetStage, net_resources
from curate.stages.openclip import PACKAGES
from curate.weights.cards import load_card
from curate.weights.store import folder_of

if TYPE_CHECKING:
    import torch

_CLIP = "clip"
_CAPTION = "caption"
_COSINES = pa.list_(pa.float64())


class SimilarityConfig(NetConfig):
    """``model``: the card that `clip` has too. ``captions``: stages whose captions are compared, in this order."""

    model: str = "openclip-vit-l-14"
    captions: Annotated[tuple[str, ...], Field(min_length=1)] = ("caption.coca", "caption.vblip", "caption.fused")


def _columns(captions: Sequence[str]) -> tuple[Column, ...]:
    """One column a captioner, called by the last part of its name, and what is found over all of them."""
    own = [
        Column(own_name(name), _COSINES, "cosine", f"first, middle and last frame beside the caption of {name}")
        for name in captions
    ]
    return (
        *own,
        Column("all", _COSINES, "cosine", "the columns above in one list, captioner by captioner"),
        Column("disagreement", pa.float64(), "1 - cosine", "between captions, mean over pairs; none with one caption"),
        Column("best", pa.string(), "", "captioner with the highest mean over the frames"),
    )


class ClipSimilarity(NetStage[SimilarityConfig]):
    """The text half of an OpenCLIP model beside the stored embeddings of `clip`. Looks at no pixels."""

    name = "clip.similarity"
    version = 1
    config_type = SimilarityConfig
    packages = PACKAGES
    reads_pixels = False
    reads = (_CLIP, *SimilarityConfig().captions)
    columns = _columns(SimilarityConfig().captions)

    def __init__(self, config: SimilarityConfig) -> None:
        super().__init__(config)
        found = _columns(config.captions)
        names = [column.name for column in found]
        wrong = sorted({name for name in names if names.count(name) > 1 or not name.isidentifier()})
        if wrong:
            raise ConfigError(f"captioners cannot be told apart by {wrong}", subject=f"{self.name}.captions")
        self.reads = (_CLIP, *config.captions)
        # A class says what its stages write; this one has as many columns as its recipe has captioners.
        self.columns = found  # pyright: ignore[reportAttributeAccessIssue]
        self.resources = net_resources(config, [config.model])

    def check_reads(self, above: Mapping[str, Stage[Any]]) -> None:
        """ConfigError unless `clip` runs the same model and every captioner writes a caption."""
        if (other := above[_CLIP].config.model) != self.config.model:
            raise ConfigError(
                f"compares with {self.config.model!r} what `clip` embeds with {other!r}: their numbers have nothing "
                "in common",
                subject=f"{self.name}.model",
                fix=f"Set {self.name}.model={other}",
            )
        mute = [name for name in self.config.captions if _CAPTION not in {c.name for c in above[name].columns}]
        if mute:
            raise ConfigError(f"{', '.join(mute)} writes no caption", subject=f"{self.name}.captions")

    def model_digests(self) -> Mapping[str, str]:
        """All files of the model."""
        return load_card(self.config.model).digests()

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Load the text network and its tokenizer; ModelFileError when it is not what its card says."""
        from curate.stages.clip.towers import TextTower

        self._tower = TextTower(folder_of(self.config.model), device, dtype)
        said = clip_settings(self.config.model).embedding
        length = self.embed(["a"]).shape[1]
        if length != said:
            raise ModelFileError(f"gives {length} numbers; its card says {said}", subject=self.config.model)

    def sample(self) -> ClipItem | None:
        """A clip with a word for every caption: the network sees as many tokens of any."""
        item, unit = super().sample(), np.ones(clip_settings(self.config.model).embedding)
        cells = {name: {_CAPTION: "a"} for name in self.config.captions}
        return item and replace(item, cells={_CLIP: dict.fromkeys(FRAMES, unit), **cells})

    def prepare(self, item: ClipItem) -> torch.Tensor:
        """(captions, context); StageError when a caption is empty."""
        return self._tower.tokens([self._caption(item, name) for name in self.config.captions])

    def infer(self, items: Sequence[ClipItem], prepared: torch.Tensor) -> list[Scored]:
        """All cosines of each clip, from (captions x clips, context), or why it has none."""
        vectors_bnd = self._tower.embed(prepared).astype(np.float64)
        vectors_bnd = vectors_bnd.reshape(len(items), len(self.config.captions), -1)
        return [self._compared(item, texts_nd) for item, texts_nd in zip(items, vectors_bnd, strict=True)]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (n, length), of length 1 each, of n texts."""
        return self._tower.embed(self._tower.tokens(texts))

    @staticmethod
    def _caption(item: ClipItem, name: str) -> str:
        text = item.cells[name][_CAPTION]
        if not (text and text.strip()):
            raise StageError(f"the caption of {name} is empty", subject=item.clip.clip_id)
        return text

    def _compared(self, item: ClipItem, texts_nd: np.ndarray) -> Scored:
        frames_3d = np.stack([np.asarray(item.cells[_CLIP][frame], np.float64) for frame in FRAMES])
        if frames_3d.shape[1] != texts_nd.shape[1]:
            return StageError(
                f"an embedding of {frames_3d.shape[1]} numbers, the text's has {texts_nd.shape[1]}",
                subject=item.clip.clip_id,
            )
        # What was stored as half floats is of length 1 to three digits only.
        frames_3d /= np.linalg.norm(frames_3d, axis=1, keepdims=True)
        texts_nd = texts_nd / np.linalg.norm(texts_nd, axis=1, keepdims=True)
        # Products summed in one order whatever the number of captions; a matrix product promises none.
        cosines_n3 = (texts_nd[:, None] * frames_3d[None]).sum(axis=2)
        pairs = [float((a * b).sum()) for a, b in combinations(texts_nd, 2)]
        names = [own_name(name) for name in self.config.captions]
        return {
            **dict(zip(names, cosines_n3.tolist(), strict=True)),
            "all": cosines_n3.ravel().tolist(),
            "disagreement": 1 - sum(pairs) / len(pairs) if pairs else None,
            "best": self.config.captions[int(cosines_n3.mean(axis=1).argmax())],
        }
