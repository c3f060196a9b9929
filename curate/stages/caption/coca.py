"""open_clip's CoCa on the middle frame: the first of the paper's three captions (SVD section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from curate.config import Config
from curate.errors import ConfigError, ModelFileError
from curate.stages.caption.beams import Limits, search
from curate.stages.caption.local import LocalCaptioner, LocalConfig
from curate.stages.openclip import PACKAGES, load_model, load_tokenizer, load_transform
from curate.view import ViewSpec
from curate.weights.cards import card_settings
from curate.weights.store import folder_of

if TYPE_CHECKING:
    import numpy as np
    import torch


class CocaSettings(Config):
    """What the card says. ``image_px``: side of the square that the network sees; ``context_tokens``: the longest text
    that it reads, left out only where a text that is too long may be found out on the worker."""

    image_px: Annotated[int, Field(ge=8)]
    context_tokens: Annotated[int, Field(ge=4)] | None = None


class CocaConfig(LocalConfig):
    """``beams``: 2 is what open_clip's default of six beams in three groups amounts to: nothing tells its groups apart,
    so each searches the same texts. ``max_tokens`` and ``min_tokens`` are open_clip's ``seq_len`` and ``min_seq_len``
    with their defaults: they count the marks of start and end.
    """

    model: str = "coca-vit-l-14"
    beams: Annotated[int, Field(ge=1, le=16)] = 2
    max_tokens: Annotated[int, Field(ge=4, le=256)] = 30
    min_tokens: Annotated[int, Field(ge=1, le=255)] = 5

    @model_validator(mode="after")
    def _in_order(self) -> CocaConfig:
        if self.min_tokens >= self.max_tokens:
            raise ValueError("min_tokens must be below max_tokens")
        return self


class CocaCaption(LocalCaptioner[CocaConfig]):
    """Beam search over CoCa's next-word scores; the picture is encoded once."""

    name = "caption.coca"
    version = 1
    config_type = CocaConfig
    packages = PACKAGES

    def __init__(self, config: CocaConfig) -> None:
        super().__init__(config)
        self._check_length(card_settings(config.model, CocaSettings).context_tokens)

    def views(self) -> Mapping[str, ViewSpec]:
        """The middle frame, its short side as the model takes it."""
        return {
            self.view: ViewSpec(points=(0.5,), short_side_px=card_settings(self.config.model, CocaSettings).image_px)
        }

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Model, preprocessing and tokenizer from a folder in open_clip's hub format.

        ModelFileError where the folder holds another model, ConfigError where ``max_tokens`` is beyond it.
        """
        folder = folder_of(self.config.model)
        self._device, self._dtype = device, dtype
        self._model = load_model(folder, device, dtype, pure=True)
        import open_clip

        if not isinstance(self._model, open_clip.CoCa):
            raise ModelFileError("is no CoCa", subject=self.config.model)
        self._check_length(self._model.context_length)
        self._transform = load_transform(self._model.visual)
        self._tokenizer = load_tokenizer(folder)
        if not isinstance(self._tokenizer, open_clip.SimpleTokenizer):
            raise ModelFileError("asks for another tokenizer than open_clip's own", subject=self.config.model)

    def _check_length(self, context_tokens: int | None) -> None:
        """ConfigError where the model cannot read as many tokens as it may write."""
        if context_tokens is not None and self.config.max_tokens > context_tokens:
            raise ConfigError(
                f"is {self.config.max_tokens}, {self.config.model!r} reads {context_tokens} tokens at most",
                subject=f"{self.name}.max_tokens",
                fix=f"Set {self.name}.max_tokens={context_tokens} or less",
            )

    def pixels(self, clips: Sequence[np.ndarray]) -> torch.Tensor:
        """(clips, 3, image_px, image_px) of middle frames, uint8 (1, height, width, 3) each."""
        import torch
        from PIL import Image

        return torch.stack([self._transform(Image.fromarray(frames[0])) for frames in clips])

    def write(self, pixels: torch.Tensor) -> list[str]:
        """One text per picture."""
        return [self._tokenizer.decode(tokens) for tokens in self.tokens(pixels)]

    def tokens(self, pixels_b3hw: torch.Tensor) -> list[list[int]]:
        """Token ids per preprocessed picture, float (batch, 3, height, width), without the marks of start and end."""
        import torch

        config, model = self.config, self._model
        limits = Limits(
            self._tokenizer.sot_token_id,
            self._tokenizer.eot_token_id,
            config.beams,
            config.max_tokens,
            config.min_tokens,
        )
        with torch.inference_mode():
            latent, tokens_bnd = model._encode_image(pixels_b3hw.to(self._device, self._dtype, non_blocking=True))
            seen = {
                "image_latent": latent.repeat_interleave(config.beams, dim=0),
                "image_embs": tokens_bnd.repeat_interleave(config.beams, dim=0),
            }

            def logits_of(ids: torch.Tensor) -> torch.Tensor:
                return model(None, ids.to(self._device), output_labels=False, **seen)["logits"][:, -1]

            return search(logits_of, len(pixels_b3hw), limits)
