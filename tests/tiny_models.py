"""Small captioners with random weights, written as the published checkpoints are.

Weights come from NumPy's generator by name of the tensor, so that they are the same whatever draws on them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from model_kit import ModelKit

COCA: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 40,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 2,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {
        "context_length": 40,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 2,
        "attn_pooler_heads": 2,
    },
    "custom_text": True,
}
"""An open_clip configuration as of `coca_ViT-L-14`, in small. The vocabulary is that of open_clip's tokenizer."""

COCA_END = 49407
COCA_SETTINGS: dict[str, bool | int | float | str] = {"image_px": 32}


def drawn(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """float32 weights: norms near one, other vectors small, matrices that keep the size of what passes."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    x = rng.standard_normal(shape).astype(np.float32)
    if len(shape) < 2:
        return 1 + 0.1 * x if name.endswith("weight") else 0.1 * x
    spread = 1.0 if "embed" in name or "query" in name else 1.5 * float(np.prod(shape[1:])) ** -0.5
    return spread * x


def fill(module: Any, seed: int) -> dict[str, Any]:
    """Overwrite every parameter of a network; gives its state, tensors on their own."""
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(np.asarray(drawn(name, tuple(parameter.shape), seed))))
    return {name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}


def coca_state(seed: int, end_gain: float = 5.0) -> dict[str, Any]:
    """Weights of a CoCa of the configuration above, by name. ``end_gain``: how readily a caption ends."""
    from open_clip.coca_model import CoCa

    model = CoCa(**{key: value for key, value in COCA.items() if key != "custom_text"})
    state = fill(model, seed)
    state["text_decoder.text_projection"] *= 6.0
    state["text_decoder.text_projection"][:, COCA_END] *= end_gain
    return state


def tiny_coca(folder: Path, seed: int = 4, *, pickled: bool = False) -> Path:
    """A CoCa in open_clip's hub format: `open_clip_config.json` and safetensors, or a pickled checkpoint."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    text = json.dumps({"model_cfg": COCA, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")
    state = coca_state(seed)
    if pickled:
        torch.save(state, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(state, folder / "open_clip_model.safetensors")
    return folder


VBLIP_SETTINGS: dict[str, bool | int | float | str] = {"image_px": 28, "frames": 4}
VBLIP_END = 202
"""A line break: with it the OPT of BLIP-2 ends a sentence."""

_VBLIP_WORDS = ["the", "person", "dog", "is", "runs", "sits", "jumps", "on", "in", "table", "grass"]
_VBLIP_WORDS += ["Question", "Answer", "What", "happening", "this", "video"]


def byte_tokenizer(folder: Path, around: str) -> int:
    """A byte-level tokenizer as OPT's, saved as that is; gives the size of its vocabulary. ``around``: the template
    that puts marks to a prompt."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token=None))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    words = trainers.BpeTrainer(
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        vocab_size=340,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([f" {word}" for word in _VBLIP_WORDS for _ in range(3)], words)
    made.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("</s>", 2)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return len(fast)


def _opt(vocabulary: int) -> Any:
    from transformers import OPTConfig

    return OPTConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        eos_token_id=VBLIP_END,
        bos_token_id=2,
        pad_token_id=1,
    )


def _t5(vocabulary: int) -> Any:
    from transformers import T5Config

    return T5Config(
        vocab_size=vocabulary,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        eos_token_id=2,
        pad_token_id=1,
        decoder_start_token_id=1,
    )


def vblip_config(text: Any, image_token: int | None = None) -> Any:
    """A configuration of BLIP-2 in small; with an image token as checkpoints have had them since 2024."""
    from transformers import Blip2Config

    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    qformer = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "encoder_hidden_size": 32, "vocab_size": 32,
    }  # fmt: skip
    token = {} if image_token is None else {"image_token_index": image_token}
    return Blip2Config(
        vision_config=vision, qformer_config=qformer, text_config=text.to_dict(), num_query_tokens=6, **token
    )


def tiny_vblip(
    folder: Path,
    seed: int = 1,
    *,
    language: str = "opt",
    image_tokens: bool = False,
    pickled: bool = False,
    end_gain: float = 1.5,
) -> Path:
    """A VideoBLIP in the format of `transformers`, as the published ones of 2023 are: configuration with what was then
    written into it, tokenizer, preprocessing; weights as safetensors, or pickled in two shards.

    ``language``: ``opt``, which goes on from what it is shown, or ``t5``, which reads it first. ``end_gain``: how
    readily a sentence of OPT ends; from about 2 on some end before they begin.
    """
    from transformers import Blip2ForConditionalGeneration, BlipImageProcessor

    folder.mkdir(parents=True, exist_ok=True)
    n = byte_tokenizer(folder, "$A </s>" if language == "t5" else "</s> $A")
    text = _t5(n) if language == "t5" else _opt(n + image_tokens)
    model = Blip2ForConditionalGeneration(vblip_config(text, n if image_tokens else None))
    fill(model, seed)
    if language == "opt":
        _vary(model.language_model.model.decoder, end_gain)
    if pickled:
        _save_shards(folder, model.state_dict())
        model.config.save_pretrained(folder)
    else:
        model.save_pretrained(folder)
    BlipImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder)
    _edit(folder / "config.json", lambda config: config["text_config"].update(_OF_2023))
    _edit(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class="GPT2Tokenizer"))
    return folder


_OF_2023 = {"max_length": 20, "min_length": 0, "do_sample": True, "num_beams": 1, "temperature": 0.7, "top_k": 50}
"""Configurations held settings of generation too; we must not follow them."""


def _vary(decoder: Any, end_gain: float) -> None:
    """Else each word calls for itself again, and texts are one word long or repeat one for ever."""
    import torch

    with torch.no_grad():
        decoder.embed_positions.weight *= 2.5
        words = decoder.embed_tokens.weight
        words *= 0.25
        words[-60:] *= 1.3
        words[[2, VBLIP_END]] *= end_gain
        for layer in decoder.layers:
            layer.self_attn.out_proj.weight *= 3.0


def _save_shards(folder: Path, state: dict[str, Any]) -> None:
    import torch

    names = [name for name in state if name != "language_model.lm_head.weight"]
    parts = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
    for file, part in parts.items():
        torch.save({name: state[name].clone() for name in part}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data, indent=2), encoding="utf-8")


def add_captioners(kit: ModelKit, folder: Path) -> None:
    """Small models under the names that `caption.coca` and `caption.vblip` have as defaults."""
    kit.add("coca-vit-l-14", tiny_coca(folder / "coca"), COCA_SETTINGS)
    kit.add("videoblip-opt-2.7b", tiny_vblip(folder / "vblip"), VBLIP_SETTINGS)
