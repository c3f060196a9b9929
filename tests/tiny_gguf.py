"""A tiny language model as a GGUF file, written by the format's own library: 4 bits where the real one has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tiny_llm import CHAT_TEMPLATE, SPECIAL, tiny_model, tiny_tokenizer

_LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


def tiny_gguf(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write the file; gives the tensors that it holds, unpacked by that library, by transformers' names."""
    import gguf

    model, tokenizer = tiny_model(seed), tiny_tokenizer()
    writer = gguf.GGUFWriter(str(path), "llama")
    _write_facts(writer, model.config, tokenizer)
    held = {}
    for name, source, heads in _tensors(model.config):
        data = model.state_dict()[source].numpy().astype(np.float32)
        if data.ndim == 1:
            writer.add_tensor(name, data)
            held[source] = data
            continue
        packed = gguf.quants.quantize(_interleaved(data, heads), gguf.GGMLQuantizationType.Q4_1)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
        held[source] = _apart(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_1), heads)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def _tensors(config: Any) -> list[tuple[str, str, int]]:
    """(name in the file, name in transformers, heads whose rows the format interleaves)."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    found = [
        ("token_embd.weight", "model.embed_tokens.weight", 0),
        ("output_norm.weight", "model.norm.weight", 0),
        ("output.weight", "lm_head.weight", 0),
    ]
    for number in range(config.num_hidden_layers):
        for ours, theirs in _LAYER.items():
            found.append((f"blk.{number}.{ours}.weight", f"model.layers.{number}.{theirs}.weight", heads.get(ours, 0)))
    return found


def _interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """The rotary halves of each head row by row, as llama.cpp keeps them."""
    if not heads:
        return rows
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _apart(rows: np.ndarray, heads: int) -> np.ndarray:
    if not heads:
        return rows
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _write_facts(writer: Any, config: Any, tokenizer: Any) -> None:
    import gguf

    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    writer.add_token_types(kinds)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(CHAT_TEMPLATE)
