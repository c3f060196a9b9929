"""Two layers of the network that do less than diffusers' own for the same result. Parameters and their names stay.

Of a batch of single pictures, nothing over time is computed: diffusers computes it and blends it in with a factor of 0.

A text is projected to keys and values once a clip. In the layers over time every place of the picture is a sequence of
its own, and diffusers projects the text for each: 2880 times at 320 x 576. But all places of a clip attend to the same
text, so they can do it as one long sequence. Sums come out in another order then, which is seen in the last digits.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import (
    TransformerSpatioTemporalModel,
    TransformerTemporalModelOutput,
)
from torch import Tensor, nn

__all__ = ["lighten"]


def lighten(unet: nn.Module) -> None:
    """Let every layer of these kinds work as those below, in place; layers of other networks stay as they are.

    The blocks between pass ``image_only_indicator`` on to them: (B, T), 1 where a frame is a single picture, or None
    where all of them are.
    """
    for module in list(unet.modules()):
        if type(module) is SpatioTemporalResBlock:
            module.__class__ = _ResBlock
        elif type(module) is TransformerSpatioTemporalModel:
            module.__class__ = _Transformer
            blocks: Any = module.temporal_transformer_blocks
            for block in blocks:
                block.attn2.__class__ = _ClipAttention


class _ResBlock(SpatioTemporalResBlock):
    """Convolutions over space, then over time."""

    def forward(
        self, hidden_states: Tensor, temb: Tensor | None = None, image_only_indicator: Tensor | None = None
    ) -> Tensor:
        if image_only_indicator is None:
            return self.spatial_res_block(hidden_states, temb)
        return super().forward(hidden_states, temb, image_only_indicator)


class _Transformer(TransformerSpatioTemporalModel):
    """Attention over space, then over time."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        image_only_indicator: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """``hidden_states`` (B T, C, h, w), ``encoder_hidden_states`` (B T, L, D)."""
        _, _, height, width = hidden_states.shape
        tokens = self.proj_in(self.norm(hidden_states).permute(0, 2, 3, 1).flatten(1, 2))
        positions = None if image_only_indicator is None else self._positions(image_only_indicator, tokens.dtype)
        for block, over_time in zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True):
            tokens = self._over_space(block, tokens, encoder_hidden_states)
            if image_only_indicator is not None and encoder_hidden_states is not None:
                num_frames = image_only_indicator.shape[-1]
                first = encoder_hidden_states.unflatten(0, (-1, num_frames))[:, 0]
                mixed = over_time(tokens + positions, num_frames=num_frames, encoder_hidden_states=first)
                tokens = self.time_mixer(x_spatial=tokens, x_temporal=mixed, image_only_indicator=image_only_indicator)
        found = self.proj_out(tokens).unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous() + hidden_states
        return TransformerTemporalModelOutput(sample=found) if return_dict else (found,)

    def _over_space(self, block: nn.Module, tokens: Tensor, context: Tensor | None) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            again: Any = self._gradient_checkpointing_func
            return again(block, tokens, None, context, None)
        return block(tokens, encoder_hidden_states=context)

    def _positions(self, image_only_indicator: Tensor, dtype: torch.dtype) -> Tensor:
        """What tells frames apart (B T, 1, C)."""
        clips, num_frames = image_only_indicator.shape
        numbers = torch.arange(num_frames, device=image_only_indicator.device).repeat(clips)
        return self.time_pos_embed(self.time_proj(numbers).to(dtype))[:, None]


class _ClipAttention(Attention):
    """Attention of every place of a clip, over its frames, to what the clip is told."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """``hidden_states`` (B h w, T, C), ``encoder_hidden_states`` (B, L, D)."""
        assert encoder_hidden_states is not None
        clips, length, _ = encoder_hidden_states.shape
        if length == 1:  # an image: so little to project that it stays as it is in diffusers, to the last bit
            each = encoder_hidden_states.repeat_interleave(len(hidden_states) // clips, dim=0)
            return super().forward(hidden_states, each, attention_mask, **kwargs)
        together = hidden_states.reshape(clips, -1, hidden_states.shape[-1])
        found = super().forward(together, encoder_hidden_states, attention_mask, **kwargs)
        return found.reshape(hidden_states.shape)
