"""Near-duplicates by embeddings: exact, and in bounded memory whatever the number of clips.

Clips are taken in blocks from best to worst. A block meets the clips kept so far in one matrix product per range of
durations (those that match are at most one range apart), on the middle frame alone and in float32; what comes near the
threshold there is decided in float64 on all three frames. n clips of which k stay cost n * k / 2 products of vectors,
less by about a third of the number of ranges. The vectors may lie in a file: only blocks of them are in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from curate.select.dedup import comparable

Array = np.ndarray

_MIDDLE = 1
_BLOCK = 4096
"""Clips that meet those kept before at once."""
_CHUNK = 4096
"""Kept clips that are met at once: 64 MiB of float32 products."""
_PART = 256
"""Clips of a block that meet each other at once."""
_PAIRS = 256
"""Pairs that are decided at once: 14 MiB of float64 for embeddings of 768 numbers."""
_SLACK = 1e-4
"""More than a float32 product of two unit vectors of up to 1,500 numbers can be off."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Clips from best to worst. ``vectors`` float16 (n, 3, length): first, middle, last; the rest (n,).

    ``source``: equal numbers mean the same source. ``start_s``, ``duration_s``: float64.
    """

    vectors: Array
    source: Array
    start_s: Array
    duration_s: Array


@dataclass(frozen=True, slots=True)
class CosineRule:
    """When two clips match: all three cosines, in float64, are at least ``cosine``."""

    cosine: float = 0.95
    duration_tolerance: float = 0.1


def near_duplicates_by_embedding(clips: Embedded, rule: CosineRule) -> Array:
    """int64 (n,): position of the best kept clip that each clip matches and gives way to, -1 where it stays itself."""
    n = len(clips.source)
    kept_for = np.full(n, -1, np.int64)
    ranges = _ranges(clips.duration_s, rule.duration_tolerance)
    kept: defaultdict[int, list[Array]] = defaultdict(list)
    for start in range(0, n, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, n))
        for number, before in kept.items():
            rows = block[np.abs(ranges[block] - number) <= 1]
            if len(rows):
                _meet(clips, rule, rows, np.concatenate(before), kept_for)
        fresh = _meet_each_other(clips, rule, block[kept_for[block] < 0], kept_for)
        for number in np.unique(ranges[fresh]).tolist():
            kept[number].append(fresh[ranges[fresh] == number])
    return kept_for


def _ranges(duration_s: Array, tolerance: float) -> Array:
    """Number of the range of durations that each clip lies in: clips within the tolerance are at most one apart."""
    width = max(-np.log1p(-tolerance), 1e-6) * (1 + 1e-9)
    return np.floor(np.log(np.maximum(duration_s, 1e-9)) / width).astype(np.int64)


def _meet_each_other(clips: Embedded, rule: CosineRule, block: Array, kept_for: Array) -> Array:
    """Decides clips of a block that match none of those before it; gives the ones that stay."""
    fresh = np.empty(0, np.int64)
    for start in range(0, len(block), _PART):
        part = block[start : start + _PART]
        _meet(clips, rule, part, fresh, kept_for)
        part = part[kept_for[part] < 0]
        middle = _unit(clips, part)
        near = np.tril(middle @ middle.T >= rule.cosine - _SLACK, -1)
        for row in np.flatnonzero(near.any(axis=1)).tolist():
            others = part[near[row]]
            kept_for[part[row]] = _first_match(clips, rule, int(part[row]), others[kept_for[others] < 0])
        fresh = np.concatenate([fresh, part[kept_for[part] < 0]])
    return fresh


def _meet(clips: Embedded, rule: CosineRule, rows: Array, others: Array, kept_for: Array) -> None:
    """Notes for each of ``rows`` the first of ``others``, clips kept and in order, that it matches, if that comes
    before the one it matches already."""
    middle = _unit(clips, rows)
    for start in range(0, len(others), _CHUNK):
        chunk = others[start : start + _CHUNK]
        near = middle @ _unit(clips, chunk).T >= rule.cosine - _SLACK
        for row in np.flatnonzero(near.any(axis=1)).tolist():
            position = int(rows[row])
            known = int(kept_for[position])
            closer = chunk[near[row]] if known < 0 else chunk[near[row] & (chunk < known)]
            hit = _first_match(clips, rule, position, closer)
            kept_for[position] = known if hit < 0 else hit


def _unit(clips: Embedded, positions: Array) -> Array:
    """float32 (n, length): middle frames, of length 1 each; one of nothing but zeros stays so and matches nothing."""
    found = clips.vectors[positions, _MIDDLE].astype(np.float32)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.float32(1e-12))


def _first_match(clips: Embedded, rule: CosineRule, position: int, others: Array) -> int:
    """The first of ``others`` that the clip matches; -1 when it matches none."""
    here = np.full(len(others), position)
    others = others[comparable(clips, others, here, rule.duration_tolerance)]
    for part in _parts(others):
        hits = part[(cosines(clips, part, position) >= rule.cosine).all(axis=1)]
        if len(hits):
            return int(hits[0])
    return -1


def _parts(positions: Array) -> Iterator[Array]:
    for start in range(0, len(positions), _PAIRS):
        yield positions[start : start + _PAIRS]


def cosines(clips: Embedded, positions: Array, position: int) -> Array:
    """float64 (n, 3): cosines of the three frames of clips at ``positions`` with those of one clip."""
    a_n3d, b_3d = clips.vectors[positions].astype(np.float64), clips.vectors[position].astype(np.float64)
    lengths = np.linalg.norm(a_n3d, axis=2) * np.linalg.norm(b_3d, axis=1)
    return (a_n3d * b_3d).sum(axis=2) / np.maximum(lengths, 1e-24)
