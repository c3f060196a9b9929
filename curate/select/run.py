"""Making a selection: load the needed columns, judge every clip, remove near-duplicates, count, write.

Clips are told apart by the set of judges they fail, of which there are few; so verdicts, reasons and counts are worked
out once per set, and the tables carry a small code.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from curate.errors import ConfigError
from curate.query import RunTables, connect, identifier, last_run, listing_again, run_query
from curate.select.config import SelectConfig
from curate.select.duplicates import NEAR_DUPLICATE, remove_duplicates
from curate.select.funnel import ConditionCount, Counts, Funnel, Reason, Threshold, load_funnel
from curate.select.inputs import FORGOTTEN, count_inputs, forgotten_sql
from curate.select.judge import (
    Judge,
    bits_sql,
    check_missing,
    condition_judge,
    gate_judges,
    needed_columns,
    percentile,
    threshold_like,
)
from curate.select.output import Verdict, write_selection
from curate.select.retention import retention_of
from curate.storage import Place
from curate.tables import Corpus
from curate.units import HOUR_S

BucketOf = Callable[[int, int, int, float], str | None]
"""(width_px, height_px, n_frames, fps) -> name of the training bucket, or None."""

_SHAPE = ("source.width_px", "source.height_px", "source.rate_fps", "clip.n_frames")


@listing_again
def select(
    corpus: Corpus,
    config: SelectConfig,
    *,
    run_id: str | None = None,
    like: str | Funnel | None = None,
    bucket_of: BucketOf | None = None,
    bucket_config: dict[str, Any] | None = None,
    memory_bytes: int | None = None,
    folder: Place | None = None,
) -> Funnel:
    """Decide on every clip of a run (the last complete one) and write ``selections/<name>/``, or another ``folder``.

    ``like`` applies the absolute thresholds that an earlier selection (of this corpus, by name, or any) came to.
    ``bucket_config`` is kept with the selection: the rule of ``bucket_of``, for those who explain it later.
    Near-duplicates come last, among survivors. ConfigError for what cannot be asked, CorpusError where cells that are
    needed were not computed.
    """
    corpus.check()
    run_id = run_id or last_run(corpus)
    earlier = load_funnel(corpus, like) if isinstance(like, str) else like
    with closing(connect(memory_bytes=memory_bytes)) as con:
        into = folder or corpus.selections().child(config.name)
        return _Selecting(RunTables(con, corpus, run_id), config, earlier, bucket_of, bucket_config, into).run()


@dataclass
class _Group:
    """All clips that fail the same judges."""

    forgotten: bool
    fails: int
    errors: int
    n: int
    hours: float
    verdict: Verdict = field(default_factory=lambda: Verdict("kept"))


@dataclass
class _Selecting:
    tables: RunTables
    config: SelectConfig
    earlier: Funnel | None
    bucket_of: BucketOf | None
    bucket_config: dict[str, Any] | None
    into: Place
    judges: list[Judge] = field(default_factory=list)
    thresholds: list[Threshold] = field(default_factory=list)

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        return self.tables.con

    def run(self) -> Funnel:
        self._load()
        self._plan()
        groups = self._judge()
        verdicts = [group.verdict for group in groups] + remove_duplicates(self.tables, self.config.dedup)
        self._decide(groups)
        digest = write_selection(self.tables, self.into, verdicts)
        funnel = self._funnel(groups, verdicts, digest)
        self.into.child("funnel.json").write_text(funnel.to_json())
        return funnel

    def _load(self) -> None:
        """Table ``work``: the needed columns of every clip of the run."""
        columns = needed_columns(self.tables, [condition.column for condition in self.config.conditions])
        shape = list(_SHAPE) if self.bucket_of else []
        self.tables.load("work", ["clip.duration_s", *shape, *columns])

    def _plan(self) -> None:
        self.judges = gate_judges(self.tables)
        if len(self.judges) + len(self.config.conditions) > 63:
            raise ConfigError("more than 63 gates and conditions", subject=self.config.name)
        check_missing(self.tables, "work", self.judges)
        for condition in self.config.conditions:
            threshold = None
            if condition.share is not None and self.earlier:
                threshold = threshold_like(condition, self.earlier.thresholds, self.earlier.name)
            elif condition.share is not None:
                threshold = percentile(self.tables, "work", condition)
            self.thresholds += [threshold] if threshold else []
            self.judges.append(condition_judge(self.tables, "work", condition, threshold))
        check_missing(self.tables, "work", self.judges)

    def _judge(self) -> list[_Group]:
        """Table ``judged``: bit i of ``fails`` and ``errors`` belongs to judge i. Gives the groups of equal bits."""
        fails, errors = bits_sql(self.judges)
        shape = "".join(f", {identifier(name)}" for name in _SHAPE) if self.bucket_of else ""
        self.con.execute(
            f"""CREATE OR REPLACE TEMP TABLE judged AS SELECT clip, source, "clip.duration_s" AS seconds,
            source IN ({forgotten_sql(self.tables)}) AS forgotten, {fails} AS fails,
            {errors} AS errors{shape} FROM work"""
        )
        self.con.execute("DROP TABLE work")
        rows = self.con.execute(
            f"""SELECT forgotten, fails, errors, count(*), sum(seconds) / {HOUR_S} FROM judged
            GROUP BY ALL ORDER BY ALL"""
        ).fetchall()
        groups = [_Group(*row) for row in rows]
        for group in groups:
            group.verdict = self._verdict(group)
        return groups

    def _verdict(self, group: _Group) -> Verdict:
        """A taken-down source is dropped; a failed cell that counts fails the clip; else any failing judge drops it."""
        errors = [judge for i, judge in enumerate(self.judges) if group.errors >> i & 1]
        fatal = [judge for judge in errors if judge.on_failed == "failed"]
        either = [judge for i, judge in enumerate(self.judges) if (group.errors | group.fails) >> i & 1]
        failing = tuple(judge.name for judge in either)
        if group.forgotten:
            return Verdict("dropped", FORGOTTEN, (FORGOTTEN, *failing))
        if fatal:
            return Verdict("failed", fatal[0].failed_text, failing, fatal[0].name)
        if either:
            first = either[0]
            return Verdict("dropped", first.failed_text if first in errors else first.text, failing, first.name)
        return Verdict("kept")

    def _decide(self, groups: list[_Group]) -> None:
        """Table ``decided``: clip, source, seconds, code of its verdict, the clip kept in its place, bucket."""
        codes = pa.table(
            {
                "forgotten": [group.forgotten for group in groups],
                "fails": pa.array([group.fails for group in groups], pa.uint64()),
                "errors": pa.array([group.errors for group in groups], pa.uint64()),
                "code": pa.array(range(len(groups)), pa.int32()),
            }
        )
        self.con.register("codes", codes)
        bucket, join = self._buckets()
        survives = "d.clip IS NULL AND NOT j.forgotten AND j.fails = 0 AND j.errors = 0"
        self.con.execute(
            f"""CREATE OR REPLACE TEMP TABLE decided AS SELECT j.clip, j.source, j.seconds,
            coalesce(d.state + {len(groups)}, c.code)::INTEGER AS code, d.keeper,
            if({survives}, {bucket}, NULL)::VARCHAR AS bucket
            FROM judged j JOIN codes c USING (forgotten, fails, errors)
            LEFT JOIN duplicates d ON d.clip = j.clip {join}"""
        )
        self.con.execute("DROP TABLE judged")

    def _buckets(self) -> tuple[str, str]:
        """SQL of the bucket's name and the join that brings it: the rule is asked once per distinct shape."""
        if not self.bucket_of:
            return "NULL", ""
        names = [identifier(name) for name in _SHAPE]
        width, height, fps, counted = names
        frames = f"coalesce({counted}, round(seconds * {fps}))::BIGINT"
        shapes = self.con.sql(
            f"SELECT DISTINCT {width} AS w, {height} AS h, {frames} AS n, {fps} AS fps FROM judged ORDER BY ALL"
        ).to_arrow_table()
        buckets = [
            self.bucket_of(row["w"], row["h"], row["n"], row["fps"]) if None not in row.values() else None
            for row in shapes.to_pylist()
        ]
        self.con.register("shapes", shapes.append_column("bucket", pa.array(buckets, pa.string())))
        on = f"s.w = j.{width} AND s.h = j.{height} AND s.fps = j.{fps} AND s.n = {frames}"
        return "s.bucket", f"LEFT JOIN shapes s ON {on}"

    def _funnel(self, groups: list[_Group], verdicts: list[Verdict], digest: str) -> Funnel:
        rows = self.con.execute(
            f"SELECT code, count(*), sum(seconds) / {HOUR_S} FROM decided GROUP BY code ORDER BY code"
        ).fetchall()
        tally = [(verdicts[code], n, hours) for code, n, hours in rows]
        totals = {v: sum(n for verdict, n, _ in tally if verdict.verdict == v) for v in ("kept", "dropped", "failed")}
        hours = {v: sum(h for verdict, _, h in tally if verdict.verdict == v) for v in totals}
        together = retention_of(self.judges, groups)
        return Funnel(
            name=self.config.name,
            run_id=self.tables.run_id,
            digest=digest,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            config=self.config.model_dump(mode="json", by_alias=True, exclude_none=True),
            **self._inputs(verdicts),
            clips=Counts(found=sum(totals.values()), **totals),
            clip_reasons=_reasons(tally),
            hours={"found": sum(hours.values()), **hours},
            conditions=[self._count(i, judge, groups) for i, judge in enumerate(self.judges)],
            thresholds=self.thresholds,
            near_duplicates=sum(n for verdict, n, _ in tally if verdict.reason == NEAR_DUPLICATE),
            retention=together[0] if together else None,
            like=self.earlier.name if self.earlier else "",
            buckets=self._bucket_counts(),
            bucket_config=self.bucket_config,
        )

    def _inputs(self, verdicts: list[Verdict]) -> dict[str, Any]:
        names = pa.table(
            {
                "code": pa.array(range(len(verdicts)), pa.int32()),
                "verdict": pa.array([v.verdict for v in verdicts], pa.string()),
                "reason": pa.array([v.reason for v in verdicts], pa.string()),
            }
        )
        self.con.register("verdicts", names)
        counts, reasons = count_inputs(
            self.tables, "SELECT source, verdict, reason FROM decided JOIN verdicts USING (code)"
        )
        return {"inputs": counts, "input_reasons": reasons}

    def _bucket_counts(self) -> dict[str, int]:
        sql = "SELECT bucket, count(*) AS n FROM decided WHERE bucket IS NOT NULL GROUP BY 1 ORDER BY 1"
        return {row["bucket"]: row["n"] for row in run_query(self.con, lambda: sql).to_pylist()}

    def _count(self, index: int, judge: Judge, groups: list[_Group]) -> ConditionCount:
        first = [g for g in groups if g.verdict.decided_by == judge.name]
        return ConditionCount(
            name=judge.name,
            kind=judge.kind,
            text=judge.text,
            first=sum(g.n for g in first),
            first_hours=sum(g.hours for g in first),
            failing=sum(g.n for g in groups if g.fails >> index & 1),
            cell_failed=sum(g.n for g in groups if g.errors >> index & 1),
        )


def _reasons(tally: list[tuple[Verdict, int, float]]) -> list[Reason]:
    merged: dict[tuple[str, str], tuple[int, float]] = {}
    for verdict, n, hours in tally:
        if verdict.verdict != "kept":
            before = merged.get((verdict.verdict, verdict.reason), (0, 0.0))
            merged[verdict.verdict, verdict.reason] = (before[0] + n, before[1] + hours)
    listed = [Reason(verdict, reason, n, hours) for (verdict, reason), (n, hours) in merged.items()]
    return sorted(listed, key=lambda r: (-r.n, r.verdict, r.reason))
