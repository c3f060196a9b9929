"""How shots are found, and which spans become clips."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from curate.config import Config

_PEERS = ("pyscenedetect-content", "pyscenedetect-adaptive", "pyscenedetect-threshold")
_NETWORKS = ("transnetv2", "cascade+transnetv2")
_WITHOUT_CUTS = ("fixed", "stride")

# Keys that came later than the rest, and the methods that know them (None: all that look for cuts).
_LATER: dict[str, tuple[str, ...] | None] = {
    "threshold": (*_PEERS, *_NETWORKS),
    "min_scene_frames": _PEERS,
    "min_content": ("pyscenedetect-adaptive",),
    "stride_s": ("stride",),
    "piece_s": None,
    "long_shots": None,
    "trim_s": None,
}

_DEFAULTS: dict[str, dict[str, float]] = {
    "threshold": {
        "pyscenedetect-content": 27.0,
        "pyscenedetect-adaptive": 3.0,
        "pyscenedetect-threshold": 12.0,
        **dict.fromkeys(_NETWORKS, 0.5),
    },
    "min_scene_frames": dict.fromkeys(_PEERS, 15),
    "min_content": {"pyscenedetect-adaptive": 15.0},
}
"""What the detectors take where nothing is set, by method."""


class CutConfig(Config):
    """How shots are found and which spans become clips.

    ``method``: a detector, or the cascade with what TransNet V2 finds beyond it.
    ``min_len_s``: shorter clips are dropped and counted. ``max_len_s``: longer shots are split (0: no limit); the
    remainder is kept when it reaches ``min_len_s``. ``fixed_s``: clip length of the methods ``fixed`` and ``stride``,
    which know no cuts and ignore ``max_len_s``. ``snap_to_key_frames``: both ends move inward to closed key frames
    (SVD_SPEC 1.3), so that a clip can be copied without encoding; the end of a source needs no key frame.

    ``fixed`` puts clip after clip, each as many whole frames as fit. ``stride`` follows the clock: clip k holds the
    frames that begin from k ``stride_s`` on (where not given, ``fixed_s``) and before ``fixed_s`` later.
    ``piece_s``: length of the pieces of shots longer than ``max_len_s``, where that is another. ``long_shots``:
    ``truncate`` keeps the first piece of such a shot alone. ``trim_s``: every shot, piece or remainder loses as much at
    either end before its length is judged.
    ``threshold``, ``min_scene_frames`` and ``min_content`` are those of PySceneDetect's detectors (``threshold`` also
    of TransNet V2), where not at the defaults of their authors.
    """

    method: Literal[
        "cascade",
        "transnetv2",
        "cascade+transnetv2",
        "pyscenedetect-content",
        "pyscenedetect-adaptive",
        "pyscenedetect-threshold",
        "fixed",
        "stride",
    ] = "cascade"
    min_len_s: float = Field(1.0, ge=0)
    max_len_s: float = Field(20.0, ge=0)
    fixed_s: float = Field(10.0, gt=0)
    snap_to_key_frames: bool = False
    stride_s: float | None = Field(None, gt=0)
    piece_s: float | None = Field(None, gt=0)
    long_shots: Literal["split", "truncate"] = "split"
    trim_s: float | None = Field(None, gt=0)
    threshold: float | None = Field(None, gt=0)
    min_scene_frames: int | None = Field(None, ge=1)
    min_content: float | None = Field(None, ge=0)

    def deciding(self) -> dict[str, Any]:
        """Keys that came later count where they change what is done: what was cut without them is still what it was."""
        return {name: value for name, value in super().deciding().items() if name not in _LATER or self._changes(name)}

    def _changes(self, name: str) -> bool:
        """Whether anything would be cut otherwise if the key were not set."""
        same = {"stride_s": self.fixed_s, "piece_s": self.max_len_s}
        if name == "long_shots":
            return self._is_set(name) and self.max_len_s > 0
        default = same[name] if name in same else _DEFAULTS.get(name, {}).get(self.method)
        return self._is_set(name) and getattr(self, name) != default

    def _is_set(self, name: str) -> bool:
        return getattr(self, name) != type(self).model_fields[name].default

    @model_validator(mode="after")
    def _keys_suit_the_method(self) -> CutConfig:
        for name, methods in _LATER.items():
            known = self.method in methods if methods is not None else self.method not in _WITHOUT_CUTS
            if self._is_set(name) and not known:
                raise ValueError(f"{name} says nothing to the method {self.method!r}")
        return self

    @model_validator(mode="after")
    def _lengths_agree(self) -> CutConfig:
        longest = min([length for length in (self.longest_s, self.piece_s) if length], default=0.0)
        left_s = longest - 2 * (self.trim_s or 0.0)
        if longest and self.min_len_s > left_s:
            raise ValueError(f"min_len_s {self.min_len_s:g} is above the longest clip, {left_s:g} s")
        if self.stride_s is not None and self.stride_s < self.fixed_s:
            raise ValueError(f"stride_s {self.stride_s:g} is below fixed_s {self.fixed_s:g}: clips never overlap")
        if self.piece_s is not None and not 0 < self.piece_s <= self.max_len_s:
            raise ValueError(f"piece_s {self.piece_s:g} is above max_len_s {self.max_len_s:g}")
        return self

    @property
    def knows_cuts(self) -> bool:
        """Whether pictures are looked at."""
        return self.method not in _WITHOUT_CUTS

    @property
    def longest_s(self) -> float:
        """The length at which pieces end, 0 for no limit."""
        return self.max_len_s if self.knows_cuts else self.fixed_s
