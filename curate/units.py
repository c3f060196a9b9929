"""Exact time and readable quantities.

Time is an integer presentation time stamp (pts) with a rational time base; seconds are a derived view of it.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

HOUR_S = 3600.0


@lru_cache(maxsize=1024)
def parse_fraction(text: str) -> Fraction:
    """``"30000/1001"`` -> Fraction; raises ValueError on anything else than a ratio or a number."""
    return Fraction(text)


def fraction_text(value: Fraction) -> str:
    """Fraction -> ``"num/den"``, the form stored in tables."""
    return f"{value.numerator}/{value.denominator}"


def pts_to_s(pts: int, time_base: Fraction) -> Fraction:
    """Exact seconds of a pts."""
    return pts * time_base


def s_to_pts_ceil(seconds: Fraction, time_base: Fraction) -> int:
    """Smallest pts whose time is not before ``seconds``."""
    ticks = seconds / time_base
    return -((-ticks.numerator) // ticks.denominator)


def s_to_pts_floor(seconds: Fraction, time_base: Fraction) -> int:
    """Largest pts whose time is not after ``seconds``."""
    ticks = seconds / time_base
    return ticks.numerator // ticks.denominator


def exact(value: float | str | Fraction) -> Fraction:
    """Decimal seconds of a config (``0.1`` means one tenth, not its binary neighbour) as a Fraction."""
    return value if isinstance(value, Fraction) else Fraction(str(value))


def format_bytes(size_bytes: float) -> str:
    """``1536`` -> ``"1.5 KiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size_bytes) < 1024 or unit == "TiB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    raise AssertionError("unreachable")


def format_duration(seconds: float) -> str:
    """``3725.2`` -> ``"1h02m05s"``; below a minute one decimal."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}h{minutes:02d}m{secs:02d}s" if hours else f"{minutes}m{secs:02d}s"
