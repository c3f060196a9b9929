"""What turns pictures and texts into what a network sees: the frozen parts of a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from curate.errors import ModelFileError
from curate.train.codecs import Codec, identity_vae
from curate.train.conditioning import ImageEncoder, TextEncoder
from curate.train.folders import reading
from curate.train.pipeline_folder import tiny_image_parts, tiny_text_encoder
from curate.train.recipe import Kind

__all__ = ["CLIP_PARTS", "Encoders"]

CLIP_PARTS: dict[Kind, str] = {"image": "text_encoder", "video": "text_encoder", "image-to-video": "image_encoder"}
"""Folder of the CLIP model that a stage needs."""


@dataclass(frozen=True)
class Encoders:
    """Codec, and the text and image encoders where a folder has them. ``feature_extractor`` is CLIP's processor."""

    codec: Codec
    text: TextEncoder | None
    image: ImageEncoder | None
    feature_extractor: Any | None

    @classmethod
    def load(cls, folder: Path) -> Self:
        """From a diffusers folder with ``vae`` and, as there are, ``text_encoder`` and ``tokenizer``,
        ``image_encoder`` and ``feature_extractor``. ModelFileError names the folder and the part that is wrong.
        """
        with reading(folder, "vae") as vae:
            codec = Codec.load(vae)
        text = TextEncoder.load(folder) if _has(folder, "text_encoder", "tokenizer") else None
        image = processor = None
        if _has(folder, "image_encoder", "feature_extractor"):
            image, processor = ImageEncoder.load(folder), ImageEncoder.processor(folder)
        return cls(codec, text, image, processor)

    @classmethod
    def tiny(cls, width: int = 32, seed: int = 0) -> Self:
        """The exact codec, and random CLIP models with embeddings of ``width`` numbers."""
        image, processor = tiny_image_parts(width, seed)
        return cls(Codec(identity_vae()), tiny_text_encoder(width, seed), image, processor)

    def digests(self, kind: Kind) -> dict[str, str]:
        """Of the codec and of CLIP's model that a stage of this kind needs, where they are there."""
        part = self._clip(kind)
        return {"vae": self.codec.digest} | ({} if part is None else {CLIP_PARTS[kind]: part.digest})

    @property
    def text_width(self) -> int | None:
        """Numbers of one token's embedding."""
        return None if self.text is None else self.text.model.config.hidden_size

    @property
    def image_width(self) -> int | None:
        """Numbers of a picture's embedding."""
        return None if self.image is None else self.image.model.config.projection_dim

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        self.codec.vae.save_pretrained(folder / "vae", safe_serialization=True)
        if self.text is not None:
            self.text.model.save_pretrained(folder / "text_encoder", safe_serialization=True)
            self.text.tokenizer.save_pretrained(folder / "tokenizer")
        if self.image is not None and self.feature_extractor is not None:
            self.image.model.save_pretrained(folder / "image_encoder", safe_serialization=True)
            self.feature_extractor.save_pretrained(folder / "feature_extractor")

    def clip(self, kind: Kind) -> Any:
        """CLIP's model that a stage of this kind needs, a `torch.nn.Module`; None where there is none."""
        found = self._clip(kind)
        return None if found is None else found.model

    def _clip(self, kind: Kind) -> ImageEncoder | TextEncoder | None:
        return self.image if CLIP_PARTS[kind] == "image_encoder" else self.text

    def to(self, device: torch.device | str, kind: Kind) -> Self:
        """Move the weights that a stage of this kind needs there."""
        for part in (self.codec, self._clip(kind)):
            if part is not None:
                part.to(device)
        return self


def _has(folder: Path, model: str, reader: str) -> bool:
    """Whether there are both; ModelFileError when there is one of them."""
    there = {part: (folder / part).is_dir() for part in (model, reader)}
    if len(set(there.values())) == 2:
        lacking = next(part for part, is_there in there.items() if not is_there)
        raise ModelFileError(f"has no folder {lacking!r}, which {model!r} needs", subject=str(folder))
    return there[model]
