"""A language model on the worker itself: greedy answers that do not depend on what else is asked.

Greedy decoding turns a rounding difference into another word, and matrix products round by their shape. So every
question runs in a shape that it alone decides: one row on a CPU; on a GPU always ``rows`` rows (the last ones repeated
where there are fewer), padded on the left to the next multiple of 64 tokens above its own length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from curate.errors import CurateError, ModelFileError, StageError
from curate.packages import needed
from curate.stages.caption.chat import Answer, Chat
from curate.stages.nets import NetConfig, place
from curate.weights.gguf import PACKAGES, transformers_folder

_STEP_TOKENS = 64


class LocalModel:
    """A causal language model of transformers from a card's folder, with its own chat template."""

    def __init__(self, card: str, net: NetConfig, max_tokens: int, *, rows: int | None = None) -> None:
        """Load it. ``rows``: shape of the batch, else one on a CPU and ``net.batch_size`` on a GPU.

        Raises MissingModelError when files or packages are not here, ModelFileError for a model of another kind.
        """
        device, dtype = place(net)
        self._name, self._max_tokens = card, max_tokens
        self._rows = rows or (net.batch_size if device.type == "cuda" else 1)
        self._tokenizer, model = _loaded(card, dtype)
        self._model = model.to(device).eval()
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._ends = sorted({end for end in (*ends, self._tokenizer.eos_token_id) if end is not None})
        if not self._ends:
            raise ModelFileError("names no token that ends an answer", subject=card)

    def ask(self, chats: Sequence[Chat]) -> list[Answer | CurateError]:
        """One answer for each chat in their order; StageError in its place where one is too long for the model."""
        asked = [self.token_ids(chat) for chat in chats]
        found: dict[int, Answer | CurateError] = {}
        groups: dict[int, list[int]] = defaultdict(list)
        for index, ids in enumerate(asked):
            length = (len(ids) // _STEP_TOKENS + 1) * _STEP_TOKENS
            if length + self._max_tokens > self._model.config.max_position_embeddings:
                found[index] = StageError(f"{len(ids)} tokens are too many for the model", subject=self._name)
            else:
                groups[length].append(index)
        for length, indices in groups.items():
            for part in _parts(indices, self._rows):
                answers = self._generate([asked[index] for index in part], length)
                found.update(zip(part, answers, strict=False))
        return [found[index] for index in range(len(chats))]

    def token_ids(self, chat: Chat) -> list[int]:
        """The chat as the model reads it, up to where its answer begins."""
        encoded = self._tokenizer.apply_chat_template(
            [dict(message) for message in chat], add_generation_prompt=True, return_dict=True
        )
        return list(encoded["input_ids"])

    def _generate(self, asked: Sequence[list[int]], length: int) -> Iterator[Answer]:
        """Answers to the questions, which run as ``self._rows`` rows of ``length`` tokens."""
        import torch
        from transformers import GenerationConfig

        rows = [*asked, *[asked[-1]] * (self._rows - len(asked))]
        ids_bl = torch.full((len(rows), length), self._ends[0], dtype=torch.long)
        mask_bl = torch.zeros_like(ids_bl)
        for row, ids in enumerate(rows):
            ids_bl[row, length - len(ids) :] = torch.tensor(ids)
            mask_bl[row, length - len(ids) :] = 1
        device = self._model.device
        greedy = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._max_tokens,
            eos_token_id=self._ends,
            pad_token_id=self._ends[0],
        )
        with torch.inference_mode():
            out_bl = self._model.generate(
                ids_bl.to(device), attention_mask=mask_bl.to(device), generation_config=greedy
            )
        for ids, said in zip(asked, out_bl[:, length:].tolist(), strict=False):
            yield self._answer(len(ids), said)

    def _answer(self, prompt_tokens: int, said: list[int]) -> Answer:
        end = next((index for index, token in enumerate(said) if token in self._ends), None)
        kept = said if end is None else said[:end]
        text = self._tokenizer.decode(kept, skip_special_tokens=True)
        n_said = len(kept) + (end is not None)
        return Answer(str(text), self._name, prompt_tokens, n_said, truncated=end is None)


def _parts(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _loaded(card: str, dtype: Any) -> tuple[Any, Any]:
    for package in PACKAGES:
        needed(package)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = transformers_folder(card)
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True, **safe)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelFileError(f"is no causal language model in safetensors: {error}", subject=card) from error
    if not tokenizer.chat_template:
        raise ModelFileError("has no chat template, so it cannot be told what to do", subject=card)
    return tokenizer, model
