"""A sentence made of measured facts only: a stand-in where no captioning model has run.

It names the camera's movement, confident ImageNet classes, the pace and text in the picture. It is no description,
and every row says so in ``is_stand_in``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curate.config import Config
from curate.stage import ClipItem, ClipStage, Column, Resources

_SHOTS = {
    "static": "static shot",
    "pan_left": "pan to the left",
    "pan_right": "pan to the right",
    "tilt_up": "tilt upwards",
    "tilt_down": "tilt downwards",
    "zoom_in": "zoom in",
    "zoom_out": "zoom out",
    "roll": "shot with a rolling camera",
    "handheld": "handheld shot",
}
_CAMERA_PACED = {"pan_left", "pan_right", "tilt_up", "tilt_down", "zoom_in", "zoom_out"}
_STILL_SHARE = 0.9
_PLURAL = {"binoculars", "parallel bars", "sunglasses", "swimming trunks"}
_SOUNDS_LIKE_YOU = ("uni", "eu")


class TemplateConfig(Config):
    """Bins of the words used. Speeds are in picture widths a second, areas in shares of the frame.

    A camera below ``slow_width_s`` is slow, from ``fast_width_s`` on fast. Objects below ``still_width_s`` are not
    mentioned, then the same two bounds part slow from fast. Text is mentioned from ``text_share`` on, and a class
    from ``class_probability`` on: most names that `features` gives below it were wrong on real footage.
    """

    still_width_s: Annotated[float, Field(ge=0)] = 0.005
    slow_width_s: Annotated[float, Field(ge=0)] = 0.05
    fast_width_s: Annotated[float, Field(ge=0)] = 0.2
    text_share: Annotated[float, Field(ge=0, le=1)] = 0.005
    class_probability: Annotated[float, Field(ge=0, le=1)] = 0.5


class TemplateCaption(ClipStage[TemplateConfig]):
    """Composes a caption from the cells of motion, features and text; looks at no pixels."""

    name = "caption.template"
    version = 1
    config_type = TemplateConfig
    reads = ("motion", "features", "text")
    reads_pixels = False
    stand_in = "captions are sentences made of measured facts; no captioning model has seen a clip"
    resources = Resources(cpus=0.1, memory_bytes=16 << 20)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("caption", pa.string(), "", "one English sentence of measured facts"),
        Column("is_stand_in", pa.bool_(), "", "always true: no captioning model has seen the clip"),
        Column("source", pa.string(), "", "always 'template'"),
    )

    def score(self, item: ClipItem) -> Mapping[str, Any]:
        """The sentence for one clip."""
        features = item.cells["features"]
        named = zip(features["classes"], features["class_probs"], strict=True)
        classes = [name for name, probability in named if probability >= self.config.class_probability]
        caption = self.sentence(item.cells["motion"], classes, item.cells["text"]["area_max"])
        return {"caption": caption, "is_stand_in": True, "source": "template"}

    def sentence(self, motion: Mapping[str, Any], classes: list[str], text_share: float) -> str:
        """One sentence from the `motion` cell, the confident classes and the largest share of text."""
        shot = with_article(self._shot(motion))
        seen = f" showing {_joined([with_article(name) for name in classes])}" if classes else ""
        extras = [*self._movement(motion), *self._text(text_share)]
        rest = f", with {_joined(extras)}" if extras else ""
        return f"{shot[0].upper()}{shot[1:]}{seen}{rest}."

    def _shot(self, motion: Mapping[str, Any]) -> str:
        if motion["slideshow"] >= _STILL_SHARE:
            return "slideshow of still pictures"
        if motion["freeze_ratio"] >= _STILL_SHARE:
            return "still picture"
        camera = motion["camera"]
        shot = _SHOTS.get(camera, "shot")
        return f"{self._pace(motion['speed_width_s'])} {shot}" if camera in _CAMERA_PACED else shot

    def _movement(self, motion: Mapping[str, Any]) -> list[str]:
        still = max(motion["slideshow"], motion["freeze_ratio"]) >= _STILL_SHARE
        speed_width_s = motion["object_speed_width_s"]
        if still or speed_width_s < self.config.still_width_s:
            return []
        return [f"{self._pace(speed_width_s)} movement in the scene"]

    def _pace(self, speed_width_s: float) -> str:
        if speed_width_s < self.config.slow_width_s:
            return "slow"
        return "fast" if speed_width_s >= self.config.fast_width_s else "steady"

    def _text(self, share: float) -> list[str]:
        if share < self.config.text_share:
            return []
        return [f"text over about {max(1, round(100 * share))} % of the picture"]


def with_article(name: str) -> str:
    """``espresso`` -> ``an espresso``, ``unicycle`` -> ``a unicycle``; plurals stay as they are."""
    low = name.lower()
    if low in _PLURAL:
        return name
    vowel = low.startswith(("a", "e", "i", "o", "u", "hourglass")) and not low.startswith(_SOUNDS_LIKE_YOU)
    return f"{'an' if vowel else 'a'} {name}"


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
