"""VideoBLIP: BLIP-2 whose Q-Former looks at the tokens of all frames of a clip, one frame after the other.

The rule is that of its authors (yukw777/VideoBLIP). Imported where the stage loads it, because of `transformers`.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipImageProcessor,
    GenerationConfig,
)
from transformers.utils import logging

from curate.errors import ModelFileError

_KINDS = ("blip-2", "video_blip")
_BROKEN = (OSError, ValueError, RuntimeError, KeyError, pickle.UnpicklingError, SafetensorError)


class VideoBlip(Blip2ForConditionalGeneration):
    """BLIP-2 with clips for pictures."""

    def seen(self, pixels_bt3hw: torch.Tensor) -> torch.Tensor:
        """What the language model is shown of clips, float (batch, queries, width).

        ``pixels_bt3hw``: preprocessed frames, float (batch, frames, 3, height, width).
        """
        n_clips, n_frames = pixels_bt3hw.shape[:2]
        frames_nsd = self.vision_model(pixels_bt3hw.flatten(0, 1)).last_hidden_state
        clips_bnd = frames_nsd.reshape(n_clips, n_frames * frames_nsd.shape[1], -1)
        queries_bqd = self.query_tokens.expand(n_clips, -1, -1)
        looked_bqd = self.qformer(query_embeds=queries_bqd, encoder_hidden_states=clips_bnd).last_hidden_state
        return self.language_projection(looked_bqd.to(self.language_projection.weight.dtype))

    def answer(self, pixels_bt3hw: torch.Tensor, prompt: list[int], how: GenerationConfig) -> torch.Tensor:
        """Token ids int64 (batch, length) that follow what is seen of each clip and the prompt, which is one for all.

        What is seen goes before the prompt as vectors, not through image tokens, so that checkpoints from before those
        existed need no change.
        """
        seen_bqd = self.seen(pixels_bt3hw)
        ids_bn = torch.tensor([prompt] * len(seen_bqd), dtype=torch.long, device=seen_bqd.device)
        inputs_bnd = torch.cat([seen_bqd, self.get_input_embeddings()(ids_bn).to(seen_bqd.dtype)], dim=1)
        mask_bn = torch.ones(inputs_bnd.shape[:2], dtype=torch.long, device=inputs_bnd.device)
        model: Any = self.language_model
        return model.generate(inputs_embeds=inputs_bnd, attention_mask=mask_bn, generation_config=how)


@dataclass(frozen=True)
class Loaded:
    """A checkpoint, ready to run."""

    model: VideoBlip
    tokenizer: Any
    images: Any

    @property
    def words(self) -> Any:
        """Configuration of the language model."""
        return self.model.config.text_config

    def prompt_ids(self, prompt: str) -> list[int]:
        """As the model was trained: after a mark of start for language models that only go on, closed by a mark of
        end for those that read first (T5)."""
        if self.words.is_encoder_decoder:
            return list(self.tokenizer(prompt)["input_ids"])
        start = self.words.bos_token_id
        return [start, *(self.tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt else [])]

    def how(self, beams: int, max_tokens: int) -> GenerationConfig:
        """Deterministic generation, whatever the checkpoint's own settings say.

        BLIP-2 ends a sentence with the end mark of its language model's configuration (for OPT a line break), VideoBLIP
        was trained to end it with the tokenizer's: either ends it.
        """
        listed = self.words.eos_token_id
        ends = {*(listed if isinstance(listed, list) else [listed]), self.tokenizer.eos_token_id} - {None}
        pad = self.tokenizer.pad_token_id
        return GenerationConfig(
            do_sample=False,
            num_beams=beams,
            max_new_tokens=max_tokens,
            min_length=0,
            length_penalty=1.0,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            early_stopping=False,
            eos_token_id=sorted(ends),
            pad_token_id=pad if pad is not None else min(ends),
        )

    def pixels(self, clips: Sequence[np.ndarray]) -> torch.Tensor:
        """Preprocessed frames, float32 (clips, frames, 3, height, width), of clips uint8 (frames, height, width, 3)."""
        frames = [frame.copy() for clip in clips for frame in clip]  # of read-only ones no tensors are made
        made = self.images(images=frames, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
        return made.unflatten(0, (len(clips), -1))


def load(folder: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """Model, tokenizer and preprocessing from a folder as `save_pretrained` leaves it, of kind blip-2 or video_blip.

    ModelFileError when something is missing from it, or is of another model. Nothing outside the folder is asked.
    """
    logging.disable_progress_bar()  # its bars would run into those of the run
    try:
        kind = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind not in _KINDS:
            raise ModelFileError(f"holds a model of kind {kind!r}, not BLIP-2", subject=folder)
        config = Blip2Config.from_pretrained(folder, local_files_only=True)
        made: Any = VideoBlip.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            weights_only=True,
            dtype=dtype,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        images = BlipImageProcessor.from_pretrained(folder, local_files_only=True)
    except _BROKEN as error:
        raise ModelFileError(f"cannot be loaded as BLIP-2: {error}", subject=folder) from error
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_ids):
        raise ModelFileError("holds no tokenizer", subject=folder)  # the library makes an empty one then
    model, report = made
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise ModelFileError(f"lacks {len(lacking)} weights, among them {lacking[0]}", subject=folder)
    return Loaded(model.to(device).eval(), tokenizer, images)
