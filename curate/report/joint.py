"""Counts of clips by all sliders at once: a sparse histogram that fits a page.

Clips that pass all that has no slider are counted by their coordinates on every axis. Where that comes to more cells
than a page can hold, there are first fewer stops, then fewer axes: those that drop the least stay as the selection has
them (*frozen*), and only clips that pass them are counted.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np

from curate.report.axes import FEWEST_STOPS, MOST_STOPS, Axis
from curate.report.judged import Judged

MOST_CELLS = 2_000_000
MOST_TEXT_BYTES = 10_000_000
MOST_KEY = 1 << 53
"""Whole numbers up to here are exact in JavaScript."""

_LEVELS = (MOST_STOPS, 24, FEWEST_STOPS)


@dataclass(frozen=True, slots=True)
class Joint:
    """``data`` is base64 of the cells (`pack`); ``axes`` are places in ``stops``, those missing are frozen."""

    axes: list[int]
    stops: list[list[float]]
    cells: int
    data: str


@dataclass(frozen=True, slots=True)
class Cells:
    """int64 arrays of one length: mixed-radix keys of the coordinates, ascending; clips; milliseconds of video."""

    keys: np.ndarray
    n: np.ndarray
    ms: np.ndarray


def count_joint(judged: Judged, axes: Sequence[Axis], fixed: Sequence[int]) -> Joint:
    """The finest joint counts that fit."""
    counting = _Counting(judged, axes, fixed)
    everything = list(range(len(axes)))
    try:
        for level in _LEVELS:
            found = counting.packed(everything, level)
            if found:
                return found
        order = sorted(everything, key=lambda i: (-_dropped(judged, axes[i]), i))
        best: Joint | None = None
        for count in range(1, len(axes) + 1):
            found = counting.packed(sorted(order[:count]), FEWEST_STOPS)
            if found is None:
                break
            best = found
        return best or counting.nothing()
    finally:
        judged.con.execute("DROP TABLE IF EXISTS fine")


def _dropped(judged: Judged, axis: Axis) -> int:
    """Clips that the axis drops as the selection has it."""
    bit = 1 << (judged.n_gates + axis.condition)
    return sum(g.n for g in judged.groups if not g.forgotten and (g.fails | g.errors) & bit)


class _Counting:
    def __init__(self, judged: Judged, axes: Sequence[Axis], fixed: Sequence[int]) -> None:
        self._con: duckdb.DuckDBPyConnection = judged.con
        self._axes = axes
        self._fine = [axis.stops(MOST_STOPS) for axis in axes]
        coordinates = [f"{axis.coordinate(stops)} AS c{i}" for i, (axis, stops) in enumerate(self._pairs())]
        listed = ", ".join([*coordinates, "count(*) AS n", "sum(seconds) AS seconds"])
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE fine AS SELECT {listed} FROM judged WHERE {judged.standing_sql(fixed)} "
            + (f"GROUP BY {', '.join(f'c{i}' for i in range(len(axes)))}" if axes else "")
        )

    def _pairs(self) -> list[tuple[Axis, list[float]]]:
        return list(zip(self._axes, self._fine, strict=True))

    def packed(self, free: Sequence[int], level: int) -> Joint | None:
        """The counts by these axes with so many stops each, the others frozen; None when they do not fit."""
        stops = [axis.stops(level) for axis in self._axes]
        key, size = "0::BIGINT", 1
        for i in free:
            lookup = self._axes[i].coarser(self._fine[i], stops[i])
            key = f"({key}) * {len(stops[i]) + 1} + ({lookup}::BIGINT[])[c{i} + 1]"
            size *= len(stops[i]) + 1
        if size > MOST_KEY:
            return None
        frozen = [i for i in range(len(stops)) if i not in free]
        passed = [f"c{i} > {self._axes[i].position(self._fine[i], self._axes[i].limit)}" for i in frozen]
        where = " AND ".join(["n > 0", *passed])
        self._con.execute(
            f"""CREATE OR REPLACE TEMP TABLE cells AS SELECT ({key})::BIGINT AS key, sum(n)::BIGINT AS n,
            round(sum(seconds) * 1000)::BIGINT AS ms FROM fine WHERE {where} GROUP BY 1"""
        )
        ((count,),) = self._con.execute("SELECT count(*) FROM cells").fetchall()
        if count > MOST_CELLS:
            return None
        found = self._con.sql("SELECT key, n, ms FROM cells ORDER BY key").fetchnumpy()
        data = pack(Cells(found["key"], found["n"], found["ms"]))
        return None if len(data) > MOST_TEXT_BYTES else Joint(list(free), stops, count, data)

    def nothing(self) -> Joint:
        """All axes frozen: one cell of what the selection keeps."""
        found = self.packed([], FEWEST_STOPS)
        assert found is not None
        return found


def pack(cells: Cells) -> str:
    """Cells as text: for each the varints of key minus the key before, clips, milliseconds; raw deflate; base64."""
    steps = np.diff(cells.keys, prepend=0)
    numbers = np.stack([steps, cells.n, cells.ms], axis=1).astype(np.uint64).ravel()
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return base64.b64encode(deflate.compress(_varints(numbers)) + deflate.flush()).decode()


def _varints(numbers: np.ndarray) -> bytes:
    """LEB128: seven bits a byte, the lowest first; the highest bit says that more follow."""
    lengths = np.ones(len(numbers), np.int64)
    for bits in range(7, 64, 7):
        lengths += numbers >= np.uint64(1) << np.uint64(bits)
    starts = np.cumsum(lengths) - lengths
    text = np.zeros(int(lengths.sum()), np.uint8)
    for place in range(int(lengths.max(initial=0))):
        has = lengths > place
        low = (numbers[has] >> np.uint64(7 * place)) & np.uint64(0x7F)
        more = (lengths[has] > place + 1).astype(np.uint8) << 7
        text[starts[has] + place] = low.astype(np.uint8) | more
    return text.tobytes()


def unpack(data: str) -> Cells:
    """The cells of `pack`."""
    text = zlib.decompress(base64.b64decode(data), -zlib.MAX_WBITS)
    numbers: list[int] = []
    value = shift = 0
    for byte in text:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            numbers.append(value)
            value = shift = 0
    table = np.array(numbers, np.int64).reshape(-1, 3)
    return Cells(np.cumsum(table[:, 0]), table[:, 1], table[:, 2])


def kept_by(cells: Cells, sizes: Sequence[int], positions: Sequence[int]) -> tuple[int, float]:
    """(clips, hours) with a coordinate above the position on every axis; ``sizes`` are coordinates an axis has."""
    keys, passed = cells.keys.copy(), np.ones(len(cells.keys), bool)
    for size, position in zip(reversed(sizes), reversed(positions), strict=True):
        passed &= keys % size > position
        keys //= size
    return int(cells.n[passed].sum()), float(cells.ms[passed].sum()) / 3_600_000
