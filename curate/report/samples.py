"""Which clips a report shows: at each limit, the best and the worst, some at random, captions, near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate.query import RunTables, identifier, literal
from curate.query.parts import id_text_sql
from curate.redaction import redacted
from curate.report.axes import Axis
from curate.report.judged import Judged, rows_of
from curate.tables import CLIPS

TEXT_CHARS = 600
"""Longer captions and messages are cut off."""

CLIP_COLUMNS = tuple(f"clip.{name}" for name in CLIPS.names)
"""A clip's own row."""

_ID = id_text_sql("clip")
_USUAL = 200


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many clips each part of a report shows, so that all together come to about ``pictures``."""

    near: int
    ends: int
    random: int
    captions: int
    pairs: int

    @classmethod
    def of(cls, pictures: int, n_axes: int) -> Sizes:
        """``pictures`` 0 shows as many clips as usual, without pictures."""
        n = pictures or _USUAL
        per_axis = min(24, n * 0.55 / max(1, n_axes))
        near, ends = max(1, int(per_axis * 0.3)), max(1, int(per_axis * 0.2))
        return cls(near, ends, max(1, int(n * 0.12)), max(1, int(n * 0.08)), max(1, int(n * 0.08)))


def axis_samples(judged: Judged, axis: Axis, sizes: Sizes) -> dict[str, Any]:
    """Clips just above and just below the limit, with the best and the worst value. Equal values are drawn by clip."""
    assert axis.limit is not None
    value, limit = f"v{axis.condition}", literal(axis.limit)
    above = f"{value} >= {limit}" if axis.side == "min" else f"{value} > {limit}"
    best, worst = ("DESC", "ASC") if axis.side == "min" else ("ASC", "DESC")
    near = [
        {"clip": clip, "side": "below"} for clip in _ids(judged, axis, f"NOT ({above})", f"{value} DESC", sizes.near)
    ]
    near.reverse()
    near += [{"clip": clip, "side": "above"} for clip in _ids(judged, axis, above, f"{value} ASC", sizes.near)]
    return {
        "near": near,
        "best": _ids(judged, axis, "TRUE", f"{value} {best}", sizes.ends),
        "worst": _ids(judged, axis, "TRUE", f"{value} {worst}", sizes.ends),
    }


def _ids(judged: Judged, axis: Axis, where: str, order: str, n: int) -> list[str]:
    value = f"v{axis.condition}"
    rows = judged.con.execute(
        f"""SELECT {_ID} FROM judged WHERE {judged.standing_sql()} AND isfinite({value}) AND NOT f{axis.condition}
        AND ({where}) ORDER BY {order}, hash(clip), clip LIMIT {n}"""
    ).fetchall()
    return [clip for (clip,) in rows]


def random_clips(judged: Judged, n: int, *, kept: bool = False) -> list[str]:
    """Clips drawn by their id: the same for the same corpus."""
    where = "verdict = 'kept'" if kept else "NOT forgotten"
    rows = judged.con.execute(f"SELECT {_ID} FROM ended WHERE {where} ORDER BY hash(clip), clip LIMIT {n}").fetchall()
    return [clip for (clip,) in rows]


def caption_columns(tables: RunTables) -> list[str]:
    """Columns that hold a caption."""
    return [f"{stage.name}.caption" for stage in tables.stages if "caption" in stage.columns]


def caption_samples(judged: Judged, n: int) -> list[str]:
    """Kept clips whose captions are shown: those whose captions disagree most, where that was measured."""
    if not caption_columns(judged.tables):
        return []
    return _disagreeing(judged, n) or random_clips(judged, n, kept=True)


def captions_of(tables: RunTables, rows: Mapping[str, dict[str, Any]], clips: Sequence[str]) -> list[dict[str, Any]]:
    """All captions of these clips, out of `shown_rows`."""
    columns = caption_columns(tables)
    scored = _score_columns(tables, columns)
    return [_captions_of(rows[clip], columns, scored, _disagreement(tables)) for clip in clips]


def _captions_of(
    row: dict[str, Any], columns: Sequence[str], scored: dict[str, str], disagreement: str
) -> dict[str, Any]:
    listed = []
    for name in columns:
        if row[name] is not None:
            frames = [value for value in row[scored[name]] or [] if value is not None] if scored[name] else []
            score = sum(frames) / len(frames) if frames else None
            listed.append({"column": name, "text": cut(row[name]), "score": score})
    measured = row[disagreement] if disagreement else None
    return {"clip": row["clip"], "disagreement": measured, "captions": listed, "chosen": cut(row[columns[-1]] or "")}


def _disagreement(tables: RunTables) -> str:
    stage = next((stage for stage in tables.stages if "disagreement" in stage.columns), None)
    return f"{stage.name}.disagreement" if stage else ""


def _score_columns(tables: RunTables, captions: Sequence[str]) -> dict[str, str]:
    """For each caption the column of its cosines with the frames: that of the last part of its stage's name."""
    stage = next((stage for stage in tables.stages if "disagreement" in stage.columns), None)
    names = {caption: caption.removesuffix(".caption").rpartition(".")[2] for caption in captions}
    return {
        caption: f"{stage.name}.{name}" if stage and name in stage.columns else "" for caption, name in names.items()
    }


def _disagreeing(judged: Judged, n: int) -> list[str]:
    name = _disagreement(judged.tables)
    if not name:
        return []
    stage, _, column = name.rpartition(".")
    cells = judged.tables.cells_sql(stage, ["key", "outcome", column])
    rows = judged.con.execute(
        f"""SELECT {_ID} FROM ({cells}) c JOIN ended ON clip = left(c.key, 32)::UUID
        WHERE c.outcome = 'ok' AND isfinite(c.{identifier(column)}) AND verdict = 'kept'
        ORDER BY c.{identifier(column)} DESC, hash(clip), clip LIMIT {n}"""
    ).fetchall()
    return [clip for (clip,) in rows]


def duplicate_pairs(judged: Judged, n: int) -> tuple[int, list[tuple[str, str]]]:
    """How many clips went for a better one that looks the same, and some of them beside it."""
    where = "NOT forgotten AND keeper IS NOT NULL AND keeper NOT IN (SELECT clip FROM judged WHERE forgotten)"
    ((count,),) = judged.con.execute(f"SELECT count(*) FROM judged WHERE {where}").fetchall()
    rows = judged.con.execute(
        f"""SELECT {_ID}, {id_text_sql("keeper")} FROM judged WHERE {where}
        ORDER BY hash(clip), clip LIMIT {n}"""
    ).fetchall()
    return count, rows


def _hash_columns(judged: Judged) -> dict[str, str]:
    """Columns of the hashes that the selection compared, by the frame."""
    dedup = judged.config.dedup
    if dedup.method_of({found.name for found in judged.tables.stages}) != "hash":
        return {}
    names = {frame: f"{dedup.stage}.phash_{frame}" for frame in ("first", "middle", "last")}
    return {frame: name for frame, name in names.items() if name in judged.tables.column_names()}


def likeness(judged: Judged, one: dict[str, Any], other: dict[str, Any]) -> dict[str, int]:
    """What the selection compared of two rows of `shown_rows`: bits that differ between the hashes of each frame."""
    pairs = {frame: (one[name], other[name]) for frame, name in _hash_columns(judged).items()}
    known = {frame: (a, b) for frame, (a, b) in pairs.items() if a is not None and b is not None}
    return {f"{frame} (bits of 64)": (a ^ b).bit_count() for frame, (a, b) in known.items()}


def shown_rows(judged: Judged, clips: Sequence[str]) -> dict[str, dict[str, Any]]:
    """All that the page says of these clips and their pictures need, read at once."""
    captions = caption_columns(judged.tables)
    scored = [name for name in _score_columns(judged.tables, captions).values() if name]
    hashes = _hash_columns(judged).values()
    columns = [*CLIP_COLUMNS, "source.uri", *captions, *scored, _disagreement(judged.tables), *hashes]
    return clip_rows(judged.tables, clips, [name for name in columns if name])


def clip_rows(tables: RunTables, clips: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Columns of some clips by their full names, and ``clip``; by clip, in the order of ``clips``."""
    if not clips:
        return {}
    only = ", ".join(f"'{clip}'::UUID" for clip in clips)
    tables.load("shown", columns, only=f"SELECT unnest([{only}])")
    rows = {row["clip"]: row for row in rows_of(tables.con, f"SELECT * REPLACE ({_ID} AS clip) FROM shown")}
    tables.con.execute("DROP TABLE shown")
    return {clip: rows[clip] for clip in clips}


def clip_facts(judged: Judged, rows: Mapping[str, dict[str, Any]], axes: Sequence[Axis]) -> dict[str, dict[str, Any]]:
    """What the page says of each clip that it shows, out of `shown_rows`."""
    if not rows:
        return {}
    captions = caption_columns(judged.tables)
    listed = ", ".join(f"'{clip}'::UUID" for clip in rows)
    numbers = "".join(f", v{i}" for i in sorted({axis.condition for axis in axes}))
    ends = rows_of(
        judged.con,
        f"SELECT {_ID} AS clip, verdict, reason, bucket{numbers} FROM ended WHERE clip IN ({listed})",
    )
    known = {row["clip"]: row for row in ends}
    found = {}
    for clip, row in rows.items():
        ending = known[clip]
        found[clip] = {
            "uri": redacted(row["source.uri"] or ""),
            "start_s": row["clip.start_s"],
            "end_s": row["clip.end_s"],
            "verdict": ending["verdict"],
            "reason": ending["reason"],
            "bucket": ending["bucket"],
            "values": dict(_values(ending, axes)),
            "caption": cut(row[captions[-1]] or "") if captions else "",
        }
    return found


def _values(row: dict[str, Any], axes: Sequence[Axis]) -> Iterator[tuple[str, float | None]]:
    """Values of the axes by the name of what is compared."""
    for axis in axes:
        yield axis.rule.measure, row[f"v{axis.condition}"]


def cut(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= TEXT_CHARS else f"{text[:TEXT_CHARS]}…"
