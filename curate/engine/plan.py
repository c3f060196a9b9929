"""What is missing from the tables is what a run must do: resume, retry, a new stage, a changed model are all this."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from curate.engine.again import Redo
from curate.engine.inputs import KnownSource, key_of, same_content
from curate.engine.pipeline import Pipeline, Step
from curate.engine.work import ClipWork, SourceWork
from curate.errors import transient_names
from curate.failures import INPUT
from curate.query import cells_sql, clips_sql
from curate.records import Clip, InputRef, Outcome, SourceFacts
from curate.stage import Stage
from curate.tables import Corpus, cell_schema, rows_of

Known = Mapping[tuple[str, int | None, str], KnownSource]


@dataclass
class CellState:
    """How one cell stands: there, failed for good, or to be done (``again``)."""

    outcome: Outcome
    attempt: int
    again: bool

    @property
    def is_done(self) -> bool:
        """Nothing to do: measured, or failed for a reason that another attempt would meet again."""
        return self.outcome is Outcome.OK or not self.again


@dataclass
class Planner:
    """Finds the missing work of one run over the tables as they are now.

    ``redo`` says which failures count as missing. By default those that may pass; where these count as done, they are
    recorded, and a later run does them again.
    """

    con: duckdb.DuckDBPyConnection
    corpus: Corpus
    pipeline: Pipeline
    refs: Sequence[InputRef]
    only_clips: frozenset[str] | None = None
    redo: Redo = field(default_factory=lambda: Redo(frozenset(transient_names())))

    def plan(self, known: Known) -> list[SourceWork]:
        """Work by source, in the order of the inputs; empty when the run is complete."""
        twins = same_content(self.refs, known)
        works: list[SourceWork] = []
        contents: dict[str, tuple[InputRef, KnownSource]] = {}
        for ref in self.refs:
            found = known.get(key_of(ref))
            if ref.cause or ref.uri in twins:
                continue
            if found is None:
                works.append(SourceWork(ref))
            elif found.digest is not None:
                contents[found.digest] = (ref, found)
            elif self.redo.takes(INPUT, found.error_class, found.run_id):
                works.append(SourceWork(ref, attempt=found.attempt + 1))
        if self.only_clips is not None:
            works = []
        works += self._known_contents(contents)
        order = {ref.uri: index for index, ref in enumerate(self.refs)}
        return sorted(works, key=lambda work: order[work.ref.uri])

    def _known_contents(self, contents: Mapping[str, tuple[InputRef, KnownSource]]) -> list[SourceWork]:
        if not contents:
            return []
        self.con.register("wanted", pa.table({"digest": list(contents)}))
        probes = self._states(self.pipeline.probe, self.pipeline.probe_fingerprint)
        cuts = self._states(self.pipeline.cut, self.pipeline.cut_fingerprint)
        counted = self._counted_sources()
        works, cut_done = [], []
        for digest, (ref, _) in contents.items():
            probe, cut = probes.get(digest), cuts.get(digest)
            attempt = 1 + max((state.attempt for state in (probe, cut) if state), default=0)
            failed_for_good = any(s and s.outcome is Outcome.FAILED and s.is_done for s in (probe, cut))
            found_all = probe and cut and probe.outcome is cut.outcome is Outcome.OK and digest in counted
            if found_all:
                cut_done.append(digest)
            elif not failed_for_good:
                works.append(SourceWork(ref, digest, attempt=attempt))
        if self.only_clips is not None:
            works = []
        return works + self._missing_cells(contents, cut_done)

    def _states(self, stage: Stage[Any], fingerprint: str) -> dict[str, CellState]:
        """State by key of the source cells of wanted digests."""
        cells = cells_sql(self.con, self.corpus, stage.name, fingerprint, cell_schema(stage))
        rows = self.con.execute(
            f"""select key, outcome, attempt, {self.redo.sql(stage.name)} from ({cells})
                where key in (select digest from wanted)"""
        ).fetchall()
        return {key: CellState(Outcome(outcome), attempt, again) for key, outcome, attempt, again in rows}

    def _clips(self) -> str:
        cut = self.pipeline.cut
        return clips_sql(self.con, self.corpus, cut.name, self.pipeline.cut_fingerprint, cell_schema(cut))

    def _counted_sources(self) -> set[str]:
        """Wanted digests whose clips count: an ok cut cell whose ``n_clips`` is their number (zero included)."""
        cut = self.pipeline.cut
        cells = cells_sql(self.con, self.corpus, cut.name, self.pipeline.cut_fingerprint, cell_schema(cut))
        rows = self.con.execute(
            f"""select key from ({cells}) cut left join
                (select source_digest, count(*) n from ({self._clips()}) group by 1) clips on clips.source_digest = key
                where outcome = 'ok' and key in (select digest from wanted) and coalesce(n, 0) = n_clips"""
        ).fetchall()
        return {key for (key,) in rows}

    def _missing_cells(
        self, contents: Mapping[str, tuple[InputRef, KnownSource]], digests: Sequence[str]
    ) -> list[SourceWork]:
        """Work of sources whose clips are known but lack cells of requested stages."""
        steps = [step for step in self.pipeline.steps if step.stage.name in self.pipeline.requested]
        self.con.register("wanted", pa.table({"digest": pa.array(digests, pa.string())}))
        missing: dict[str, frozenset[str]] = {}
        attempts: dict[tuple[str, str], int] = {}
        for step in steps:
            with_it: dict[frozenset[str], frozenset[str]] = {}  # many clips lack the same stages: they share one set
            for clip_id, attempt in self._missing_of(step):
                if self.only_clips is None or clip_id in self.only_clips:
                    others = missing.get(clip_id, frozenset())
                    missing[clip_id] = with_it.setdefault(others, others | {step.stage.name})
                    if attempt:
                        attempts[step.stage.name, clip_id] = attempt
        if not missing:
            return []
        clips = self._clip_works(missing, attempts)
        return self._by_source(contents, clips, attempts)

    def _missing_of(self, step: Step) -> Iterable[tuple[str, int | None]]:
        cells = cells_sql(self.con, self.corpus, step.stage.name, step.fingerprint, cell_schema(step.stage))
        return self.con.execute(
            f"""select clip_id, attempt from ({self._clips()}) left join ({cells}) on key = clip_id
                where source_digest in (select digest from wanted)
                and (outcome is null or (outcome = 'failed' and {self.redo.sql(step.stage.name)}))"""
        ).fetchall()

    def _clip_works(
        self, missing: Mapping[str, frozenset[str]], attempts: Mapping[tuple[str, str], int]
    ) -> list[ClipWork]:
        self.con.register("lacking", pa.table({"clip_id": list(missing)}))
        has, failed = self._values_of_lacking()
        rows = self.con.sql(f"select * from ({self._clips()}) where clip_id in (select clip_id from lacking)")
        works = []
        shared: dict[frozenset[str], frozenset[str]] = {}
        for row in rows_of(rows.to_arrow_table()):
            clip = Clip.from_row(row)
            values = has.get(clip.clip_id, {})
            tried = {name for name in missing[clip.clip_id] if (name, clip.clip_id) in attempts}
            in_vain = self._in_vain(tried, failed.get(clip.clip_id, set()))
            broken = in_vain | failed.get(clip.clip_id, set())
            todo = self._beyond_gates(missing[clip.clip_id] - in_vain, values, broken)
            if todo:
                lost = frozenset(broken)
                works.append(ClipWork(clip, shared.setdefault(todo, todo), values, shared.setdefault(lost, lost)))
        return works

    def _in_vain(self, tried: set[str], failed: set[str]) -> set[str]:
        """Stages that were tried and read a cell that failed for good, or that such a stage writes."""
        found: set[str] = set()
        for step in self.pipeline.steps:
            name = step.stage.name
            if name in tried and not (failed | found).isdisjoint(step.stage.reads):
                found.add(name)
        return found

    def _values_of_lacking(self) -> tuple[dict[str, dict[str, Any]], dict[str, set[str]]]:
        """Values that reads and gates need, and stages that failed for good, by clip that lacks a cell."""
        has: dict[str, dict[str, Any]] = defaultdict(dict)
        failed: dict[str, set[str]] = defaultdict(set)
        needed = self.pipeline.needed_values()
        for step in self.pipeline.steps:
            if step.stage.name not in needed:
                continue
            cells = cells_sql(self.con, self.corpus, step.stage.name, step.fingerprint, cell_schema(step.stage))
            rows = self.con.sql(f"select * from ({cells}) where key in (select clip_id from lacking)")
            names = [column.name for column in step.stage.columns]
            for row in rows_of(rows.to_arrow_table()):
                if row["outcome"] == Outcome.OK:
                    has[row["key"]][step.stage.name] = {name: row[name] for name in names}
                elif not self.redo.takes(step.stage.name, row["error_class"], row["run_id"]):
                    failed[row["key"]].add(step.stage.name)
        return has, failed

    def _beyond_gates(
        self, missing: frozenset[str], has: Mapping[str, Mapping[str, Any]], failed: set[str]
    ) -> frozenset[str]:
        """Missing stages less those below a gate that is known to fail: skipped, not missing."""
        steps = {step.stage.name: step for step in self.pipeline.steps}

        def closed(name: str) -> bool:
            gates = steps[name].gates
            return any((g.stage in has and not g.passes(has)) or g.stage in failed for g in gates)

        return frozenset(name for name in missing if not closed(name))

    def _by_source(
        self,
        contents: Mapping[str, tuple[InputRef, KnownSource]],
        clips: Sequence[ClipWork],
        attempts: Mapping[tuple[str, str], int],
    ) -> list[SourceWork]:
        groups: dict[str, list[ClipWork]] = defaultdict(list)
        for work in clips:
            groups[work.clip.source_digest].append(work)
        facts = self._facts(groups)
        works = []
        for digest, members in groups.items():
            members.sort(key=lambda work: work.clip.start_pts)
            tried = {
                (stage, work.clip.clip_id): attempts[stage, work.clip.clip_id]
                for work in members
                for stage in work.missing
                if (stage, work.clip.clip_id) in attempts
            }
            works.append(SourceWork(contents[digest][0], digest, facts[digest], tuple(members), attempts=tried))
        return works

    def _facts(self, digests: Iterable[str]) -> dict[str, SourceFacts]:
        probe = self.pipeline.probe
        self.con.register("facts_of", pa.table({"digest": list(digests)}))
        cells = cells_sql(self.con, self.corpus, probe.name, self.pipeline.probe_fingerprint, cell_schema(probe))
        rows = self.con.sql(f"select * from ({cells}) where outcome = 'ok' and key in (select digest from facts_of)")
        return {row["key"]: SourceFacts.from_cell(row) for row in rows_of(rows.to_arrow_table())}
