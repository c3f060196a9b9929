"""How pleasing a clip's frames look: LAION's aesthetic heads on the embeddings of `clip` (paper App. C)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Config
from curate.errors import ConfigError, ModelFileError, StageError
from curate.stage import ClipItem, ClipStage, Column, Resources, Stage
from curate.stages.clip.card import FRAMES, clip_settings
from curate.weights.cards import card_settings, load_card
from curate.weights.loading import load_state
from curate.weights.store import path_of

_CLIP = "clip"


class AestheticConfig(Config):
    """``model``: the card of a head trained on embeddings of the family that `clip` gives."""

    model: str = "laion-aesthetic-sac-logos-ava1-l14"


class HeadSettings(Config):
    """What a head's card says: how it is made, the length of the embeddings it reads, and of which family they are."""

    head: Literal["mlp", "linear"]
    embedding: Annotated[int, Field(ge=1)]
    family: str


class Aesthetic(ClipStage[AestheticConfig]):
    """A rating of about 1 to 10 for each of the three frames. Looks at no pixels, runs on a CPU in float32."""

    name = "aesthetic"
    version = 1
    config_type = AestheticConfig
    reads = (_CLIP,)
    reads_pixels = False
    resources = Resources(cpus=0.1, memory_bytes=64 << 20)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("scores", pa.list_(pa.float64()), "rating", "of the first, middle and last frame, about 1 to 10"),
    )

    def check_reads(self, above: Mapping[str, Stage[Any]]) -> None:
        """ConfigError unless the head was trained on what `clip` gives."""
        said, other = card_settings(self.config.model, HeadSettings), above[_CLIP].config.model
        given = clip_settings(other)
        if (said.family, said.embedding) != (given.family, given.embedding):
            raise ConfigError(
                f"{self.config.model!r} rates {said.family} embeddings of {said.embedding} numbers, `clip` gives "
                f"{given.family} ones of {given.embedding} ({other!r})",
                subject=f"{self.name}.model",
                fix="Choose a head of the same family, or leave the stage out",
            )

    def model_digests(self) -> Mapping[str, str]:
        """The head's file."""
        return load_card(self.config.model).digests()

    def setup(self) -> None:
        """Read the head; ModelFileError when it is not what its card says."""
        said = card_settings(self.config.model, HeadSettings)
        paths = [path_of(self.config.model, file.name) for file in load_card(self.config.model).files]
        if len(paths) != 1:
            raise ModelFileError(f"a head is one file, not {len(paths)}", subject=self.config.model)
        self._layers = read_head(paths[0], said.head, said.embedding)
        self._length = said.embedding

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """The three ratings of one clip; StageError when an embedding has the wrong length."""
        vectors_3d = np.stack([np.asarray(item.cells[_CLIP][frame], np.float32) for frame in FRAMES])
        if vectors_3d.shape[1] != self._length:
            raise StageError(
                f"an embedding of {vectors_3d.shape[1]} numbers, the head reads {self._length}",
                subject=item.clip.clip_id,
            )
        return {"scores": rate(self._layers, vectors_3d).astype(np.float64).tolist()}


Layers = list[tuple[np.ndarray, np.ndarray]]
"""(weight (out, in), bias (out,)) in order, float32."""


def read_head(path: str, head: Literal["mlp", "linear"], length: int) -> Layers:
    """The layers of a head that reads ``length`` numbers and gives one. ModelFileError when the file holds another.

    ``linear``: one layer, keys ``weight`` and ``bias`` (LAION's first predictor). ``mlp``: keys ``layers.N.weight``
    and ``layers.N.bias`` (the "improved" one); the numbers missing between are drop-outs, which do nothing here, and
    its authors put no activation between its layers.
    """
    state = {name: value.float().numpy() for name, value in load_state(path).items()}
    prefixes = {name.rpartition(".")[0] for name in state}
    numbers = sorted(int(number) for prefix in prefixes if (number := prefix.removeprefix("layers.")).isdigit())
    order = [""] if head == "linear" else [f"layers.{number}." for number in numbers]
    if {f"{prefix}{part}" for prefix in order for part in ("weight", "bias")} != set(state) or not order:
        raise ModelFileError(f"is no {head} head: it holds {', '.join(sorted(state))}", subject=Path(path).name)
    layers = [(state[f"{prefix}weight"], state[f"{prefix}bias"]) for prefix in order]
    width = length
    for weight, bias in layers:
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise ModelFileError(f"a layer of {weight.shape} after {width} numbers", subject=Path(path).name)
        width = len(bias)
    if width != 1:
        raise ModelFileError(f"gives {width} numbers, not a rating", subject=Path(path).name)
    return layers


def rate(layers: Layers, vectors_nd: np.ndarray) -> np.ndarray:
    """float32 (n,): ratings of n embeddings, which are brought to length 1 first, as the heads were trained."""
    x_nd = vectors_nd / np.linalg.norm(vectors_nd, axis=1, keepdims=True)
    for weight, bias in layers:
        x_nd = x_nd @ weight.T + bias
    return x_nd[:, 0]
