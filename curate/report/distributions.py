"""What all clips are like against those that are kept: length, size, shape, frame rate, camera, source; buckets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.config import parse_config
from curate.query import literal
from curate.redaction import redacted
from curate.report.judged import KEPT, Judged, rows_of
from curate.shards.buckets import BucketsConfig, bucket_of
from curate.units import HOUR_S

_DURATION_BINS = 32
_MOST_BARS = 12
_SIDES_PX = (0, 240, 360, 480, 720, 1080, 1440, 2160)
_RATES = (10, 15, 20, 23.99, 24.5, 25.5, 29.98, 30.5, 48.5, 50.5, 60.5)
_ASPECTS = ("9:16", "3:4", "1:1", "4:3", "16:9", "2:1", "21:9")


def distributions(judged: Judged) -> list[dict[str, Any]]:
    """Bars and histograms of clips that were not taken down, all and kept."""
    found = [_durations(judged)]
    if {"width_px", "height_px"} <= set(judged.facts):
        found.append(_bars(judged, "Resolution (short side)", _side_sql(), [_side(i) for i in range(len(_SIDES_PX))]))
        found.append(_bars(judged, "Aspect (width to height, nearest)", _aspect_sql(), list(_ASPECTS)))
    if "rate_fps" in judged.facts:
        found.append(_most_frequent(judged, "Frame rate (frames/s)", "round(rate_fps, 2)::VARCHAR"))
    if "camera" in judged.facts:
        found.append(_most_frequent(judged, "Camera motion", "camera"))
    found.append(_sources(judged))
    return [entry for entry in found if sum(entry["all"])]


def _durations(judged: Judged) -> dict[str, Any]:
    where = "NOT forgotten AND isfinite(seconds)"
    ((low, high),) = judged.con.execute(f"SELECT min(seconds), max(seconds) FROM judged WHERE {where}").fetchall()
    if low is None:
        return {"title": "Duration (s)", "kind": "histogram", "edges": [], "all": [], "kept": []}
    step = (high - low) / _DURATION_BINS
    place = f"least({_DURATION_BINS - 1}, floor((seconds - {literal(low)}) / {literal(step)}))" if step else "0"
    rows = judged.con.execute(
        f"SELECT ({place})::INTEGER, count(*), count(*) FILTER (WHERE {KEPT}) FROM ended WHERE {where} GROUP BY 1"
    ).fetchall()
    found = {place: (n, kept) for place, n, kept in rows}
    counts = [found.get(i, (0, 0)) for i in range(_DURATION_BINS)]
    edges = [low + i * step for i in range(_DURATION_BINS)] + [high]
    return {"title": "Duration (s)", "kind": "histogram", "edges": edges, **_both(counts)}


def _both(counts: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    return {"all": [n for n, _ in counts], "kept": [kept for _, kept in counts]}


def _counted(judged: Judged, value: str) -> list[tuple[Any, int, int]]:
    return judged.con.execute(
        f"""SELECT {value} AS value, count(*) AS n, count(*) FILTER (WHERE {KEPT}) FROM ended
        WHERE NOT forgotten GROUP BY 1 ORDER BY n DESC, value"""
    ).fetchall()


def _bars(judged: Judged, title: str, value: str, labels: Sequence[str]) -> dict[str, Any]:
    """``value`` is SQL of a place in ``labels``; empty bars at both ends are left out."""
    found = {place: (n, kept) for place, n, kept in _counted(judged, value) if place is not None}
    used = [i for i in range(len(labels)) if i in found]
    places = range(used[0], used[-1] + 1) if used else range(0)
    counts = [found.get(i, (0, 0)) for i in places]
    return {"title": title, "kind": "bars", "labels": [labels[i] for i in places], **_both(counts)}


def _most_frequent(judged: Judged, title: str, value: str) -> dict[str, Any]:
    rows = _counted(judged, value)
    shown, rest = rows[:_MOST_BARS], rows[_MOST_BARS:]
    labels = ["not measured" if value is None else str(value)[:80] for value, _, _ in shown]
    counts = [(n, kept) for _, n, kept in shown]
    if rest:
        labels.append(f"{len(rest)} others")
        counts.append((sum(n for _, n, _ in rest), sum(kept for _, _, kept in rest)))
    return {"title": title, "kind": "bars", "labels": labels, **_both(counts)}


def _side(i: int) -> str:
    if i == 0:
        return f"below {_SIDES_PX[1]} px"
    if i == len(_SIDES_PX) - 1:
        return f"{_SIDES_PX[i]} px and more"
    return f"{_SIDES_PX[i]} to {_SIDES_PX[i + 1] - 1} px"


def _side_sql() -> str:
    passed = " + ".join(f"(least(width_px, height_px) >= {side})::INTEGER" for side in _SIDES_PX[1:])
    return f"({passed})"


def _aspect_sql() -> str:
    """The place of the nearest aspect, by the logarithm."""
    distances = []
    for i, aspect in enumerate(_ASPECTS):
        width, height = map(int, aspect.split(":"))
        distances.append(f"{{'d': abs(ln(width_px / height_px) - ln({width} / {height})), 'i': {i}}}")
    return f"if(least(width_px, height_px) > 0, least({', '.join(distances)}).i, NULL)"


def _sources(judged: Judged) -> dict[str, Any]:
    """The folders that most clips come from."""
    named = f"""SELECT left(source_digest, 32)::UUID AS source, regexp_replace(uri, '/[^/]*$', '') AS folder
        FROM ({judged.tables.run_sources_sql()})"""
    rows = judged.con.sql(
        f"""SELECT n.folder, sum(c.n) AS n, sum(c.kept) FROM (SELECT source, count(*) AS n,
        count(*) FILTER (WHERE {KEPT}) AS kept FROM ended WHERE NOT forgotten GROUP BY 1) c
        JOIN ({named}) n USING (source) GROUP BY 1 ORDER BY n DESC, 1"""
    )
    shown = rows.limit(_MOST_BARS).fetchall()
    ((folders, every, kept),) = judged.con.execute(
        f"SELECT count(*), sum(n), sum(kept) FROM ({rows.sql_query()}) AS t(folder, n, kept)"
    ).fetchall()
    labels = [redacted(folder or "")[:200] for folder, _, _ in shown]
    counts = [(int(n), int(kept)) for _, n, kept in shown]
    if folders > len(shown):
        labels.append(f"{folders - len(shown)} others")
        counts.append((int(every) - sum(n for n, _ in counts), int(kept) - sum(k for _, k in counts)))
    return {"title": "Source folder", "kind": "bars", "labels": labels, **_both(counts)}


def buckets(judged: Judged) -> dict[str, Any]:
    """Kept clips by training bucket, and why the others are in none."""
    rows = rows_of(
        judged.con,
        f"""SELECT bucket, count(*) AS n, sum(seconds) / {HOUR_S} AS hours FROM ended
        WHERE {KEPT} AND bucket IS NOT NULL GROUP BY 1 ORDER BY n DESC, 1""",
    )
    return {"rows": rows, "none": _no_bucket(judged)}


def _no_bucket(judged: Judged) -> list[dict[str, Any]]:
    if not {"width_px", "height_px", "rate_fps"} <= set(judged.facts):
        return []
    rule = judged.funnel.bucket_config
    config = None if rule is None else parse_config(BucketsConfig, rule, f"selection {judged.funnel.name}")
    counted = "n_frames" if "n_frames" in judged.facts else "NULL"
    shapes = judged.con.execute(
        f"""SELECT width_px, height_px, coalesce({counted}, round(seconds * rate_fps))::BIGINT AS frames, count(*),
        sum(seconds) / {HOUR_S} FROM ended WHERE {KEPT} AND bucket IS NULL GROUP BY 1, 2, 3"""
    ).fetchall()
    found: dict[str, tuple[int, float]] = {}
    for width_px, height_px, frames, n, hours in shapes:
        reason = "its size or length is not known"
        if None not in {width_px, height_px, frames}:
            reason = _why_none(width_px, height_px, frames, config)
        before = found.get(reason, (0, 0.0))
        found[reason] = (before[0] + n, before[1] + hours)
    listed = [{"reason": reason, "n": n, "hours": hours} for reason, (n, hours) in found.items()]
    return sorted(listed, key=lambda row: (-row["n"], row["reason"]))


def _why_none(width_px: int, height_px: int, frames: int, config: BucketsConfig | None) -> str:
    """In the words of the rule that the selection went by."""
    if config is None:
        return "the selection was made without buckets"
    return bucket_of(width_px, height_px, frames, config)[1] or "the selection's rule of buckets was another"
