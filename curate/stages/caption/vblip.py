"""VideoBLIP on frames of the whole clip: the second of the paper's three captions (SVD section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from curate.config import Config
from curate.packages import needed, of_extra
from curate.stages.caption.local import LocalCaptioner, LocalConfig
from curate.view import ViewSpec
from curate.weights.cards import card_settings
from curate.weights.store import folder_of

if TYPE_CHECKING:
    import numpy as np
    import torch


(_TRANSFORMERS,) = of_extra("captions", "transformers")


class VblipSettings(Config):
    """What the card says. ``image_px``: side of the square that the network sees; ``frames``: of a clip that it was
    trained with, 8 for those published."""

    image_px: Annotated[int, Field(ge=8)]
    frames: Annotated[int, Field(ge=1, le=64)] = 8


class VblipConfig(LocalConfig):
    """``frames``: spread evenly from the first to the last; left out, the card's number.

    The paper leaves frames and prompt unpublished. ``prompt`` is ours: it has the form with which the weights were
    trained ("Question: What is the camera wearer doing? Answer:"), but asks for the clip, since these are not
    recordings of somebody's own camera. ``beams`` are those of the authors' demonstration; ``max_tokens`` counts the
    tokens of the answer.
    """

    model: str = "videoblip-opt-2.7b"
    frames: Annotated[int, Field(ge=1, le=64)] | None = None
    prompt: str = "Question: What is happening in this video? Answer:"
    beams: Annotated[int, Field(ge=1, le=16)] = 4
    max_tokens: Annotated[int, Field(ge=1, le=512)] = 40


class VblipCaption(LocalCaptioner[VblipConfig]):
    """BLIP-2's language model, shown what the Q-Former sees in the tokens of all frames."""

    name = "caption.vblip"
    version = 1
    config_type = VblipConfig
    packages = (_TRANSFORMERS,)

    def views(self) -> Mapping[str, ViewSpec]:
        """Frames spread evenly over the clip, both ends included, as in training."""
        card = card_settings(self.config.model, VblipSettings)
        n = self.config.frames or card.frames
        points = tuple(i / (n - 1) for i in range(n)) if n > 1 else (0.5,)
        return {self.view: ViewSpec(points=points, short_side_px=card.image_px)}

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Model, tokenizer and preprocessing from a folder of `transformers`."""
        needed(_TRANSFORMERS)
        from curate.stages.caption import video_blip

        self._device, self._dtype = device, dtype
        self._loaded = video_blip.load(folder_of(self.config.model), device, dtype)
        self._prompt = self._loaded.prompt_ids(self.config.prompt)
        self._how = self._loaded.how(self.config.beams, self.config.max_tokens)

    def pixels(self, clips: Sequence[np.ndarray]) -> torch.Tensor:
        """(clips, frames, 3, image_px, image_px) of clips uint8 (frames, height, width, 3) each."""
        return self._loaded.pixels(clips)

    def write(self, pixels: torch.Tensor) -> list[str]:
        """One text per clip."""
        import torch

        pixels_bt3hw = pixels.to(self._device, self._dtype, non_blocking=True)
        with torch.inference_mode():
            ids_bn = self._loaded.model.answer(pixels_bt3hw, self._prompt, self._how)
        return self._loaded.tokenizer.batch_decode(ids_bn, skip_special_tokens=True)
