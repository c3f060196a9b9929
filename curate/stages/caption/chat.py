"""What is said to a language model and what it answers, wherever it runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from curate.errors import CurateError
from curate.stage import Column
from curate.stages.caption.base import tidy

Chat = Sequence[Mapping[str, Any]]
"""Messages in order, each with ``role`` and ``content``."""

_THOUGHT = re.compile(r"^.*</think>|<think>.*", re.DOTALL)
"""Also one whose beginning the prompt held, and one that never ended: what is left of that is no caption."""

_LIST_MARK = re.compile(r"^(?:[-*•]|\d{1,2}[.)])\s+")
_QUOTES = ('""', "''", "“”", "‘’", "``")

ANSWER_COLUMNS = (
    Column("model", pa.string(), "", "the model that answered, as its endpoint or its card names it"),
    Column("prompt_tokens", pa.int64(), "token", "length of what was asked; empty where the endpoint does not count"),
    Column(
        "completion_tokens",
        pa.int64(),
        "token",
        "length of the answer, the end mark included; empty where the endpoint does not count",
    ),
    Column("truncated", pa.bool_(), "", "the answer was cut off at `max_tokens`"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. Token counts are those of the model's own tokens, None where nobody counted them."""

    text: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None
    truncated: bool

    def values(self) -> dict[str, Any]:
        """Values of ``ANSWER_COLUMNS``."""
        return {
            "model": self.model,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "truncated": self.truncated,
        }


class LanguageModel(Protocol):
    """What answers chats."""

    def ask(self, chats: Sequence[Chat]) -> Sequence[Answer | Exception]:
        """One answer for each chat in their order, or the error of the one that found none."""
        ...


def sentence(text: str) -> str:
    """The caption in an answer: without thoughts spoken aloud, list mark or quotation marks around it, in one line."""
    line = _LIST_MARK.sub("", tidy(_THOUGHT.sub("", text)))
    quoted = len(line) > 1 and line[0] + line[-1] in _QUOTES and line[0] not in line[1:-1]
    return line[1:-1].strip() if quoted else line


def answers(model: LanguageModel, chats: Sequence[Chat | CurateError]) -> list[Answer | Exception]:
    """The model's answer to each chat in order; what could not be asked keeps its error."""
    given = iter(model.ask([chat for chat in chats if not isinstance(chat, CurateError)]))
    return [chat if isinstance(chat, CurateError) else next(given) for chat in chats]
