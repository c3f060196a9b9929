"""One sentence from several captions of a clip by a language model that is told to add nothing (paper 3.1).

The paper's third caption sums up those of CoCa and V-BLIP; which model and prompt it took is not published. Words that
are in no input are stored in ``invented``, and `caption.chosen` does not take such a sentence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from curate.config import Config
from curate.errors import CurateError, StageError
from curate.records import Cell
from curate.stage import ClipItem, Column, Resources, Scored, Stage, only
from curate.stages.caption.base import CaptionStage, check_captions, tidy
from curate.stages.caption.chat import ANSWER_COLUMNS, Answer, Chat, LanguageModel, sentence
from curate.stages.caption.endpoint import PACKAGES as CLIENT
from curate.stages.caption.endpoint import Endpoint, EndpointConfig
from curate.stages.caption.llm import LocalModel
from curate.stages.caption.words import invented
from curate.stages.nets import NetConfig, net_resources
from curate.weights.cards import load_card
from curate.weights.gguf import PACKAGES

CAPTIONERS = ("caption.coca", "caption.vblip")
"""The paper's two, in its order: CoCa came out first in its comparison (E.2.2)."""

_MODEL = "smollm2-135m-instruct"
_PROMPT = "You merge captions of one video clip into one short sentence. Use only what the captions say. Add nothing."


class Example(Config):
    """Captions of a clip and the sentence that the model should have made of them."""

    captions: Annotated[tuple[str, ...], Field(min_length=1)]
    fused: Annotated[str, Field(min_length=1)]


_EXAMPLES = (
    Example(
        captions=("a cat sitting on a chair .", "a cat is looking out of a window"),
        fused="A cat sits on a chair and looks out of a window.",
    ),
    Example(
        captions=("a red car parked in front of a house .", "a man opens the door of a car"),
        fused="A man opens the door of a red car parked in front of a house.",
    ),
    Example(
        captions=("there is a boat on the water .", "people are fishing"),
        fused="People are fishing in a boat on the water.",
    ),
)


class FusedConfig(NetConfig):
    """Which captions are fused, and by what.

    ``captions``: names of the stages that gave them. Either ``model``, the card of a causal language model for
    transformers, or ``endpoint``; without both it is SmolLM2-135M. ``prompt`` and ``examples`` are all that the model
    is told. A caption of more than ``max_caption_chars`` is cut after its last whole word before that. ``max_tokens``
    bounds the answer of ``model``; ``endpoint`` has its own.
    """

    captions: Annotated[tuple[str, ...], Field(min_length=1, max_length=9)] = CAPTIONERS
    model: str | None = None
    endpoint: EndpointConfig | None = None
    prompt: Annotated[str, Field(min_length=1)] = _PROMPT
    examples: tuple[Example, ...] = _EXAMPLES
    max_caption_chars: Annotated[int, Field(ge=20, le=10_000)] = 400
    max_tokens: Annotated[int, Field(ge=1, le=1024)] = 64

    def deciding(self) -> dict[str, Any]:
        """As for any network; where an endpoint answers, nothing of what would run on the worker."""
        unused = {"device", "dtype", "max_tokens"} if self.endpoint else set[str]()
        return {key: value for key, value in super().deciding().items() if key not in unused}

    @field_validator("captions")
    @classmethod
    def _each_once(cls, captions: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(captions)) != len(captions):
            raise ValueError("names a stage twice")
        return captions

    @model_validator(mode="before")
    @classmethod
    def _one_of_both(cls, data: Any) -> Any:
        if isinstance(data, dict):
            if data.get("model") and data.get("endpoint"):
                raise ValueError("name either `model` or `endpoint`")
            if not data.get("endpoint"):
                return {**data, "model": data.get("model") or _MODEL}
        return data


class FusedCaption(CaptionStage[FusedConfig]):
    """Looks at no pixels: ``frames`` is a digest of the `frames` of the captions it read."""

    name = "caption.fused"
    version = 1
    config_type = FusedConfig
    reads_pixels = False
    columns: ClassVar[tuple[Column, ...]] = (
        *CaptionStage.columns,
        Column(
            "invented",
            pa.list_(pa.string()),
            "",
            "content words of the sentence that are in no caption it read; endings are folded",
        ),
        Column("marked", pa.bool_(), "", "some word is invented"),
        *ANSWER_COLUMNS,
    )

    def __init__(self, config: FusedConfig) -> None:
        super().__init__(config)
        self.reads = config.captions
        if config.endpoint:
            self.packages = CLIENT
            self.resources = Resources(cpus=0.3, batch_size=4 * config.endpoint.concurrency, pool=True)
        else:
            self.packages = PACKAGES
            self.resources = net_resources(config, [config.model or _MODEL])

    def check_reads(self, above: Mapping[str, Stage[Any]]) -> None:
        """ConfigError unless every stage that it reads writes a caption tied to its frames."""
        check_captions(above, self.config.captions, f"{self.name}.captions")

    def check_environment(self) -> None:
        """ConfigError when the variable that is to hold the endpoint's key is not set."""
        if self.config.endpoint:
            self.config.endpoint.check_key(self.name)

    def model_digests(self) -> Mapping[str, str]:
        """The language model's files, where it runs on the worker."""
        return {} if self.config.endpoint else load_card(self.config.model or _MODEL).digests()

    def setup(self) -> None:
        """Load the language model, or connect to its endpoint; errors as ``LocalModel`` and ``Endpoint`` have them."""
        self._model: LanguageModel = self._made()

    def _made(self) -> LanguageModel:
        if self.config.endpoint:
            return Endpoint(self.config.endpoint)
        longest = self.chat(["word " * (self.config.max_caption_chars // 5)] * len(self.reads))
        model = LocalModel(self.config.model or _MODEL, self.config, self.config.max_tokens, longest=longest)
        model.setup()
        return model

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """The fused caption of one clip."""
        return only(self.score_batch([item]))

    def score_batch(self, items: Sequence[ClipItem]) -> list[Scored]:
        """Fused captions in the clips' order, or the error of the clip that has none."""
        return self._answered(items, self._model.ask(self._chats(items)))

    def process_batches(self, batches: Iterable[Sequence[ClipItem]]) -> Iterator[list[Cell]]:
        """As for any stage; what a model on the worker is asked next is prepared meanwhile."""
        model = self._model
        if not isinstance(model, LocalModel):
            yield from super().process_batches(batches)
            return
        for items, found in model.ahead(batches, self._chats):
            cells = self.cells_of(items, lambda items=items, found=found: self._answered(items, found()))
            self.waited_s = model.waited_s
            yield cells

    def chat(self, captions: Sequence[str]) -> Chat:
        """What the model is told: the prompt, the examples as if it had answered them, these captions."""
        said = [{"role": "system", "content": self.config.prompt}]
        for example in self.config.examples:
            said.append({"role": "user", "content": _numbered(example.captions)})
            said.append({"role": "assistant", "content": example.fused})
        cut = [cut_caption(caption, self.config.max_caption_chars) for caption in captions]
        return [*said, {"role": "user", "content": _numbered(cut)}]

    def _chats(self, items: Sequence[ClipItem]) -> list[Chat]:
        """What is asked about these clips, but for those without a caption to go by."""
        given = [self._given(item) for item in items]
        return [self.chat(each) for each in given if not isinstance(each, CurateError)]

    def _answered(self, items: Sequence[ClipItem], found: Sequence[Answer | Exception]) -> list[Scored]:
        """The columns of each clip, given the answers to `_chats` in their order, or why it has none."""
        remaining = iter(found)
        given = [self._given(item) for item in items]
        answers = [each if isinstance(each, CurateError) else next(remaining) for each in given]
        return [
            answer if isinstance(answer, Exception) else self._values(item, answer)
            for item, answer in zip(items, answers, strict=True)
        ]

    def _given(self, item: ClipItem) -> list[str] | CurateError:
        """The captions of the clip that say something."""
        untied = [name for name in self.reads if not {"caption", "frames"} <= set(item.cells[name])]
        if untied:
            return StageError(f"{', '.join(untied)} gave no `caption` with its `frames`", subject=item.clip.clip_id)
        found = [tidy(item.cells[name]["caption"]) for name in self.reads]
        return [text for text in found if text] or StageError("every caption is empty", subject=item.clip.clip_id)

    def _values(self, item: ClipItem, answer: Answer) -> Scored:
        caption = sentence(answer.text)
        if not caption:
            return StageError("the model answered without a caption", subject=item.clip.clip_id)
        cells = {name: item.cells[name] for name in self.reads}
        words = invented(caption, [values["caption"] for values in cells.values()])
        frames = joint_digest({name: values["frames"] for name, values in cells.items()})
        return {"caption": caption, "frames": frames, "invented": words, "marked": bool(words), **answer.values()}


def joint_digest(frames: Mapping[str, str]) -> str:
    """One digest for the frames that several captioners (by stage name) saw, 32 hex digits."""
    return hashlib.sha256(json.dumps(sorted(frames.items())).encode()).hexdigest()[:32]


def cut_caption(text: str, max_chars: int) -> str:
    """The text up to its last whole word within ``max_chars``; a longer first word is cut itself."""
    if len(text) <= max_chars:
        return text
    return text[: max_chars + 1].rpartition(" ")[0] or text[:max_chars]


def _numbered(captions: Sequence[str]) -> str:
    return "\n".join(f"{number}. {caption}" for number, caption in enumerate(captions, 1))
