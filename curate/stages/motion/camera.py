"""One camera motion for a clip, from the similarities of its frame pairs.

Signs are the camera's: a pan is positive when the camera turns right (the content moves left), a tilt when it turns up
(the content moves down), a zoom when it goes in (the content grows), a roll when it turns clockwise (the content turns
anticlockwise).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.stages.motion.fit import rates, typical_rates, weighted_median
from curate.stages.motion.flow import PairMotion

MEAN_RADIUS = 0.3
"""Mean distance of a 16:9 picture's points from its centre, in widths: turns a zoom or roll rate into a mean speed."""

_SOUND = 0.5


@dataclass(frozen=True, slots=True)
class CameraMotion:
    """Rates of the camera over a clip; ``shake_width_s`` is the typical change of its speed from pair to pair."""

    label: str
    pan_width_s: float
    tilt_height_s: float
    zoom_per_s: float
    roll_deg_s: float
    shake_width_s: float
    inlier_share: float


def camera_motion(
    pairs: Sequence[PairMotion], aspect: float, *, static_width_s: float, dominant_share: float
) -> CameraMotion:
    """Aggregate pairs (at least one) of a picture that is ``aspect`` times as wide as high.

    Rates are medians over time, in which a pair counts by its inlier share. Below a median speed of ``static_width_s``
    (of the whole picture, widths/s) the camera is static; otherwise the strongest of pan, tilt, zoom and roll names it,
    unless its rate is less than ``dominant_share`` of the median speed: then the motion has no direction, and it is
    handheld.
    """
    dt_s = np.array([pair.dt_s for pair in pairs])
    fits = [pair.camera for pair in pairs]
    inliers = np.array([fit.inlier_share for fit in fits])
    shift, turn = rates(fits, dt_s)
    steady = typical_rates(fits, dt_s)
    speed = weighted_median(np.hypot(np.abs(shift), MEAN_RADIUS * np.abs(turn)), dt_s * inliers)
    strength = {
        "pan_right" if steady.shift.real < 0 else "pan_left": abs(steady.shift.real),
        "tilt_up" if steady.shift.imag > 0 else "tilt_down": abs(steady.shift.imag),
        "zoom_in" if steady.turn.real > 0 else "zoom_out": MEAN_RADIUS * abs(steady.turn.real),
        "roll": MEAN_RADIUS * abs(steady.turn.imag),
    }
    return CameraMotion(
        label=_label(strength, speed, static_width_s, dominant_share),
        pan_width_s=-steady.shift.real,
        tilt_height_s=steady.shift.imag * aspect,
        zoom_per_s=steady.turn.real,
        roll_deg_s=-math.degrees(steady.turn.imag),
        shake_width_s=_shake(shift, inliers, np.array([pair.at for pair in pairs])),
        inlier_share=float(np.average(inliers, weights=dt_s)),
    )


def _label(strength: dict[str, float], speed: float, static_width_s: float, dominant_share: float) -> str:
    if speed < static_width_s:
        return "static"
    strongest = max(strength, key=lambda label: strength[label])
    return strongest if strength[strongest] >= dominant_share * speed else "handheld"


def _shake(shift: np.ndarray, inliers: np.ndarray, at: np.ndarray) -> float:
    """Median change of velocity between neighbouring pairs that a camera motion explains, over the square root of 2."""
    sound = (inliers[1:] >= _SOUND) & (inliers[:-1] >= _SOUND) & (np.diff(at) == 1)
    return float(np.median(np.abs(np.diff(shift))[sound]) / math.sqrt(2)) if sound.any() else 0.0
