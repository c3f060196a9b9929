"""A caption by a vision-language model behind an OpenAI-compatible endpoint, from frames spread over the clip."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
from pydantic import Field

from curate.config import Config
from curate.errors import CurateError, StageError
from curate.stage import ClipItem, Column, Resources, Scored, only
from curate.stages.caption.base import CaptionStage, frames_digest
from curate.stages.caption.chat import ANSWER_COLUMNS, Answer, Chat, LanguageModel, answers, sentence
from curate.stages.caption.endpoint import PACKAGES, Endpoint, EndpointConfig
from curate.view import MASTER_SHORT_SIDE_PX, View, ViewSpec

_PROMPT = (
    "These are frames of one video clip in the order of time. Describe in one or two plain English sentences what is "
    "seen and what happens. Mention only what can be seen. Answer with the description alone."
)


class VlmConfig(Config):
    """What the model is shown and told: ``frames`` pictures as JPEG, in the middles of as many equal parts of the
    clip, then ``prompt``. A frame that stands for two parts of a short clip is sent once.
    """

    endpoint: EndpointConfig
    prompt: Annotated[str, Field(min_length=1)] = _PROMPT
    frames: Annotated[int, Field(ge=1, le=64)] = 4
    short_side_px: Annotated[int, Field(ge=32, le=MASTER_SHORT_SIDE_PX)] = 448
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 90


class VlmCaption(CaptionStage[VlmConfig]):
    """Asks for all clips of a batch at once; one that finds no answer fails alone."""

    name = "caption.vlm"
    version = 1
    config_type = VlmConfig
    packages = PACKAGES
    columns: ClassVar[tuple[Column, ...]] = (*CaptionStage.columns, *ANSWER_COLUMNS)

    def __init__(self, config: VlmConfig) -> None:
        super().__init__(config)
        self.resources = Resources(cpus=0.3, batch_size=4 * config.endpoint.concurrency, pool=True)

    def views(self) -> Mapping[str, ViewSpec]:
        """The frames that are shown."""
        points = tuple((number + 0.5) / self.config.frames for number in range(self.config.frames))
        return {"shown": ViewSpec(points=points, short_side_px=self.config.short_side_px)}

    def check_environment(self) -> None:
        """ConfigError when the variable that is to hold the key is not set."""
        self.config.endpoint.check_key(self.name)

    def setup(self) -> None:
        """Connect; EndpointUnavailableError when the key is not set, MissingModelError without the client."""
        self._model: LanguageModel = Endpoint(self.config.endpoint)

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """The caption of one clip."""
        return only(self.score_batch([item]))

    def score_batch(self, items: Sequence[ClipItem]) -> list[Scored]:
        """Captions in the clips' order, or the error of the clip that found none."""
        found = answers(self._model, [self._chat(item) for item in items])
        return [
            answer if isinstance(answer, Exception) else self._values(item, answer)
            for item, answer in zip(items, found, strict=True)
        ]

    def _values(self, item: ClipItem, answer: Answer) -> Scored:
        caption = sentence(answer.text)
        if not caption:
            return StageError("the model answered without a caption", subject=item.clip.clip_id)
        return {"caption": caption, "frames": frames_digest(item.views["shown"]), **answer.values()}

    def _chat(self, item: ClipItem) -> Chat | CurateError:
        view = item.views["shown"]
        if not len(view.frames):
            return StageError("the clip gave no frame", subject=item.clip.clip_id)
        pictures = [{"type": "image_url", "image_url": {"url": url}} for url in self._pictures(view)]
        return [{"role": "user", "content": [*pictures, {"type": "text", "text": self.config.prompt}]}]

    def _pictures(self, view: View) -> list[str]:
        """Each different frame of the view once, as a data URL."""
        by_pts = dict(zip(view.pts.tolist(), view.frames, strict=True))
        return [self._data_url(by_pts[pts]) for pts in sorted(by_pts)]

    def _data_url(self, frame: np.ndarray) -> str:
        """An RGB frame, uint8 (height, width, 3), as JPEG in a data URL."""
        done, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.config.jpeg_quality])
        if not done:
            raise StageError("a frame cannot be stored as JPEG", subject=self.name)
        return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
