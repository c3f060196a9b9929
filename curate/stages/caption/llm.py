"""A language model on the worker itself: greedy answers that do not depend on what else is asked.

Greedy decoding turns a rounding difference into another word, and matrix products round by their shape. So every
question runs in a shape that it alone decides: one row on a CPU; on a GPU always ``rows`` rows (the last ones repeated
where there are fewer), padded on the left to the next multiple of 64 tokens above its own length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curate.errors import ModelFileError, StageError
from curate.packages import needed
from curate.stages.batches import Batched
from curate.stages.caption.chat import Answer, Chat
from curate.stages.nets import NetConfig, place
from curate.weights.gguf import PACKAGES, transformers_folder

if TYPE_CHECKING:
    import torch

_STEP_TOKENS = 64


class LocalModel(Batched[Chat, Answer]):
    """A causal language model of transformers from a card's folder, with its own chat template."""

    def __init__(self, card: str, net: NetConfig, max_tokens: int, *, longest: Chat | None = None) -> None:
        """``longest``: a chat as long as they come, to find out how many fit on a GPU at once."""
        self._name, self._net, self._max_tokens, self._longest = card, net, max_tokens, longest

    def setup(self) -> None:
        """Load it.

        Raises MissingModelError when files or packages are not here, ModelFileError for a model of another kind, and
        DeviceMemoryError.
        """
        net = self._net
        self.bring(self._load, place(net), share=net.gpus, most=net.batch_size)

    def _load(self, device: torch.device, dtype: torch.dtype) -> None:
        self._tokenizer, model = _loaded(self._name, dtype)
        self._model = model.to(device).eval()
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._ends = sorted({end for end in (*ends, self._tokenizer.eos_token_id) if end is not None})
        if not self._ends:
            raise ModelFileError("names no token that ends an answer", subject=self._name)

    def ask(self, chats: Sequence[Chat]) -> list[Answer | Exception]:
        """One answer for each chat in their order; StageError in its place where one is too long for the model."""
        return self.results(chats)

    def sample(self) -> Chat | None:
        """The chat that was named as the longest."""
        return self._longest

    def prepare(self, item: Chat) -> list[int]:
        """Token ids of a chat; StageError where they are too many."""
        ids = self.token_ids(item)
        if self.shape(ids) + self._max_tokens > self._model.config.max_position_embeddings:
            raise StageError(f"{len(ids)} tokens are too many for the model", subject=self._name)
        return ids

    def shape(self, part: list[int]) -> int:
        """Tokens to which the question is padded."""
        return (len(part) // _STEP_TOKENS + 1) * _STEP_TOKENS

    def join(self, parts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask, int64 (questions, length) each, padded on the left."""
        import torch

        length = self.shape(parts[0])
        ids_bl = torch.full((len(parts), length), self._ends[0], dtype=torch.long)
        mask_bl = torch.zeros_like(ids_bl)
        for row, ids in enumerate(parts):
            ids_bl[row, length - len(ids) :] = torch.tensor(ids)
            mask_bl[row, length - len(ids) :] = 1
        return self.pinned(ids_bl), self.pinned(mask_bl)

    def token_ids(self, chat: Chat) -> list[int]:
        """The chat as the model reads it, up to where its answer begins."""
        encoded = self._tokenizer.apply_chat_template(
            [dict(message) for message in chat], add_generation_prompt=True, return_dict=True
        )
        return list(encoded["input_ids"])

    def infer(self, items: Sequence[Chat], prepared: tuple[torch.Tensor, torch.Tensor]) -> list[Answer | Exception]:
        """Greedy answers."""
        import torch
        from transformers import GenerationConfig

        ids_bl, mask_bl = prepared
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
                ids_bl.to(device, non_blocking=True),
                attention_mask=mask_bl.to(device, non_blocking=True),
                generation_config=greedy,
            )
        said = out_bl[:, ids_bl.shape[1] :].tolist()
        return [self._answer(n, each) for n, each in zip(mask_bl.sum(dim=1).tolist(), said, strict=True)]

    def _answer(self, prompt_tokens: int, said: list[int]) -> Answer:
        end = next((index for index, token in enumerate(said) if token in self._ends), None)
        kept = said if end is None else said[:end]
        text = self._tokenizer.decode(kept, skip_special_tokens=True)
        n_said = len(kept) + (end is not None)
        return Answer(str(text), self._name, prompt_tokens, n_said, truncated=end is None)


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
