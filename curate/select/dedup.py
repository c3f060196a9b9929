"""Near-duplicates by perceptual hashes, without comparing all pairs.

Two hashes within Hamming distance h agree in at least one of h+1 bands of bits. So clips that match share a band of
the first hash and a band of the last one: (h+1)^2 sorts by such a pair of bands find all candidates. Small groups are
compared pair by pair; in a large one (the same title card a hundred thousand times) a clip is compared with those
already kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Protocol

import numpy as np

_SMALL = 8
"""Groups up to this size are compared pair by pair: at most 3.5 pairs a clip."""

_CHUNK = 1024
"""Kept clips of a large group that are compared with a clip at once."""

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Clips from best to worst. ``hashes`` uint64 (n, 3): first, middle, last; the rest (n,).

    ``flat``: never matches. ``source``: equal numbers mean the same source. ``start_s``, ``duration_s``: float64.
    """

    hashes: Array
    flat: Array
    source: Array
    start_s: Array
    duration_s: Array


@dataclass(frozen=True, slots=True)
class Rule:
    """When two clips match."""

    hamming: int = 3
    duration_tolerance: float = 0.1

    def matches(self, clips: Fingerprints, a: Array, b: Array) -> Array:
        """bool: whether clips at positions ``a`` and ``b`` (arrays of one shape) match."""
        differing = popcount(clips.hashes[a] ^ clips.hashes[b])
        near = (differing <= self.hamming).all(axis=-1) & ~clips.flat[a] & ~clips.flat[b]
        return near & comparable(clips, a, b, self.duration_tolerance)


class Spans(Protocol):
    """Clips as `Fingerprints` has them, whatever they are compared by."""

    @property
    def source(self) -> Array:
        """(n,): equal numbers mean the same source."""
        ...

    @property
    def start_s(self) -> Array:
        """float64 (n,)."""
        ...

    @property
    def duration_s(self) -> Array:
        """float64 (n,)."""
        ...


def comparable(clips: Spans, a: Array, b: Array, duration_tolerance: float) -> Array:
    """bool: whether clips at positions ``a`` and ``b`` are of like length, and overlap where they are of one source."""
    length_a, length_b = clips.duration_s[a], clips.duration_s[b]
    near = np.abs(length_a - length_b) <= duration_tolerance * np.maximum(length_a, length_b)
    start_a, start_b = clips.start_s[a], clips.start_s[b]
    overlap = (start_a < start_b + length_b) & (start_b < start_a + length_a)
    return near & ((clips.source[a] != clips.source[b]) | overlap)


def popcount(words: Array) -> Array:
    """Number of set bits of each uint64, as uint8."""
    m1, m2, m4 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
    words = words - ((words >> np.uint64(1)) & m1)
    words = (words & m2) + ((words >> np.uint64(2)) & m2)
    words = (words + (words >> np.uint64(4))) & m4
    return ((words * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)


def near_duplicates(clips: Fingerprints, rule: Rule) -> Array:
    """int64 (n,): position of a kept clip that each clip matches and gives way to, -1 where it stays itself."""
    n = len(clips.flat)
    edges = np.empty(0, np.int64)
    in_group: list[Array] = []
    n_large = 0
    for members, starts, sizes in _groups(clips, rule.hamming):
        small = sizes <= _SMALL
        edges = np.union1d(edges, _small_edges(clips, rule, members, starts[small], sizes[small]))
        spots = _ranges(starts[~small], sizes[~small])
        groups = np.repeat(np.arange(n_large, n_large + len(starts[~small])), sizes[~small])
        in_group.append(np.stack([members[spots], groups]).astype(np.int32))
        n_large += int((~small).sum())
    position, group = np.concatenate(in_group, axis=1) if in_group else np.empty((2, 0), np.int32)
    edges = np.union1d(edges, _overlap_edges(clips, rule, np.unique(position)))
    worse, better = np.divmod(edges, max(n, 1))
    return _greedy(clips, rule, _Lists.of(worse, better, n), _Lists.of(position, group, n))


@dataclass(frozen=True, slots=True)
class _Lists:
    """A list of numbers for each position, in two flat arrays."""

    bounds: Array
    values: Array

    @classmethod
    def of(cls, position: Array, values: Array, n: int) -> _Lists:
        order = np.argsort(position, kind="stable")
        return cls(np.searchsorted(position[order], np.arange(n + 1)), values[order])

    def __getitem__(self, position: int) -> list[int]:
        return self.values[self.bounds[position] : self.bounds[position + 1]].tolist()

    def used(self) -> Array:
        """Positions whose list is not empty."""
        return np.flatnonzero(np.diff(self.bounds))


def _groups(clips: Fingerprints, hamming: int) -> Iterator[tuple[Array, Array, Array]]:
    """Groups with the same key, once per pair of bands: (members, starts, sizes), members rising in each."""
    candidates = np.flatnonzero(~clips.flat)
    first, last = clips.hashes[candidates, 0], clips.hashes[candidates, 2]
    for low in _bands(first, hamming):
        for high in _bands(last, hamming):
            key = low ^ (high * np.uint64(0x9E3779B97F4A7C15))
            order = np.argsort(key, kind="stable")
            ordered = key[order]
            edges = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
            sizes = np.diff(edges)
            shared = sizes > 1
            yield candidates[order], edges[:-1][shared], sizes[shared]


def _bands(hashes: Array, hamming: int) -> list[Array]:
    """hamming+1 bands that cover the 64 bits, each shifted to the low end."""
    edges = [64 * i // (hamming + 1) for i in range(hamming + 2)]
    widths = [(low, high - low) for low, high in pairwise(edges)]
    return [(hashes >> np.uint64(low)) & np.uint64((1 << width) - 1) for low, width in widths]


def _ranges(starts: Array, sizes: Array) -> Array:
    """The numbers start .. start+size-1 of each range, one range after another."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))


def _small_edges(clips: Fingerprints, rule: Rule, members: Array, starts: Array, sizes: Array) -> Array:
    """Matching pairs inside the groups, coded as worse * n + better."""
    found = [np.empty(0, np.int64)]
    for gap in range(1, _SMALL):
        starts, sizes = starts[sizes > gap], sizes[sizes > gap]
        left = _ranges(starts, sizes - gap)
        found.append(_edges(clips, rule, members[left], members[left + gap]))
    return np.concatenate(found)


def _overlap_edges(clips: Fingerprints, rule: Rule, positions: Array) -> Array:
    """Matching pairs of one source with overlapping spans, among clips in large groups (seldom any)."""
    order = positions[np.lexsort((clips.start_s[positions], clips.source[positions]))]
    source, start_s = clips.source[order], clips.start_s[order]
    end_s = start_s + clips.duration_s[order]
    found = [np.empty(0, np.int64)]
    left = np.arange(len(order))
    for gap in range(1, len(order)):
        left = left[left + gap < len(order)]
        right = left + gap
        left = left[(source[left] == source[right]) & (start_s[right] < end_s[left])]
        if not len(left):
            break
        found.append(_edges(clips, rule, order[left], order[left + gap]))
    return np.concatenate(found)


def _edges(clips: Fingerprints, rule: Rule, a: Array, b: Array) -> Array:
    match = rule.matches(clips, a, b)
    better, worse = np.minimum(a[match], b[match]), np.maximum(a[match], b[match])
    return worse.astype(np.int64) * len(clips.flat) + better


def _greedy(clips: Fingerprints, rule: Rule, better_of: _Lists, groups_of: _Lists) -> Array:
    """From best to worst: a clip that matches one already kept goes."""
    kept_for = np.full(len(clips.flat), -1, np.int64)
    kept_in: dict[int, dict[int, list[int]]] = defaultdict(dict)
    for position in np.union1d(better_of.used(), groups_of.used()).tolist():
        source, groups = int(clips.source[position]), groups_of[position]
        match = next((b for b in better_of[position] if kept_for[b] < 0), -1)
        for group in groups:
            if match < 0:
                others = (kept for owner, kept in kept_in[group].items() if owner != source)
                match = _first_match(clips, rule, position, chain.from_iterable(others))
        kept_for[position] = match
        if match < 0:
            for group in groups:
                kept_in[group].setdefault(source, []).append(position)
    return kept_for


def _first_match(clips: Fingerprints, rule: Rule, position: int, kept: Iterator[int]) -> int:
    """The first of ``kept`` that matches the clip; -1 when none does."""
    while chunk := list(islice(kept, _CHUNK)):
        others = np.array(chunk, np.int64)
        hits = np.flatnonzero(rule.matches(clips, others, np.full(len(others), position)))
        if len(hits):
            return chunk[int(hits[0])]
    return -1
