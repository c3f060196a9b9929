"""Everything a report shows, as plain JSON: counted in the tables, nothing measured anew (docs/report.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from curate import __version__
from curate.config import nearest, parse_config
from curate.datafiles import parse_yaml
from curate.errors import ConfigError, CorpusError
from curate.failures import shell_word
from curate.query import RunTables, connect, last_run, listing_again
from curate.redaction import redacted
from curate.report.axes import Axis, axis_facts, find_axes, fixed_conditions
from curate.report.distributions import buckets, distributions
from curate.report.joint import count_joint
from curate.report.judged import Judged, judge_clips
from curate.report.pictures import Wanted, plan_pictures
from curate.report.provenance import recipe_text, run_facts, units
from curate.report.samples import (
    Sizes,
    axis_samples,
    caption_columns,
    caption_samples,
    captions_of,
    clip_facts,
    cut,
    duplicate_pairs,
    likeness,
    random_clips,
    shown_rows,
)
from curate.report.scores import other_scores
from curate.report.steps import clip_counts, funnel_steps, judged_otherwise, retention
from curate.select import Funnel, SelectConfig, load_funnel
from curate.stats import CorpusStats, run_stats
from curate.tables import Corpus

FORMAT = 1
PICTURES = 200

Step = Callable[[str], None]
"""Hears of a step that begins."""


@dataclass(frozen=True, slots=True)
class Found:
    """The facts, in the order of ``facts["clip_facts"]`` the clips that are shown, and what their pictures need."""

    facts: dict[str, Any]
    wanted: list[Wanted]
    reasons: dict[str, str]


def silent(*_what: object) -> None:
    """Tells nobody."""


def chosen_selection(corpus: Corpus, run_id: str | None, name: str | None) -> Funnel:
    """The named selection, else the latest over the run (the last complete one). ConfigError where there is none."""
    corpus.check()
    if name is not None:
        funnel = load_funnel(corpus, name)
        if run_id not in {None, funnel.run_id}:
            raise ConfigError(f"selection {name!r} was made over run {funnel.run_id}, not {run_id}")
        return funnel
    known = corpus.run_ids()
    if run_id is not None and run_id not in known:
        hint = nearest(run_id, known) if known else "there is none"
        raise ConfigError(f"no run is called {run_id!r}, {hint}", subject=corpus.uri)
    # Over an older run a selection of the usual name would take the place of the one over the last run.
    which = f" --run {shell_word(run_id)} --name NAME" if run_id else ""
    run_id = run_id or last_run(corpus)
    over, unreadable = _selections_over(corpus, run_id)
    if not over:
        but = f"; {', '.join(unreadable)} cannot be read" if unreadable else ""
        fix = f"Make one: `curate select {shell_word(redacted(corpus.uri))}{which}`"
        raise ConfigError(f"run {run_id} has no selection to report on{but}", subject=redacted(corpus.uri), fix=fix)
    return max(over, key=lambda funnel: (funnel.created_at, funnel.name))


def _selections_over(corpus: Corpus, run_id: str) -> tuple[list[Funnel], list[str]]:
    """The selections over a run, and the names of those that cannot be read."""
    over, unreadable = [], []
    for name in corpus.selections().folders():
        if not corpus.selections().child(name, "funnel.json").exists():
            continue
        try:
            funnel = load_funnel(corpus, name)
        except CorpusError:
            unreadable.append(name)
            continue
        if funnel.run_id == run_id:
            over.append(funnel)
    return over, unreadable


@listing_again
def build_facts(
    corpus: Corpus,
    funnel: Funnel,
    *,
    pictures: int = PICTURES,
    addresses: Mapping[str, str] | None = None,
    memory_bytes: int | None = None,
    step: Step = silent,
) -> Found:
    """The report of one selection, but for its pictures. Counting happens in DuckDB, within ``memory_bytes``."""
    with closing(connect(memory_bytes=memory_bytes)) as con:
        tables = RunTables(con, corpus, funnel.run_id)
        step("Counting scores")
        stats = run_stats(tables)
        step("Counting clips")
        judged = judge_clips(tables, funnel)
        facts = {**_head(judged, stats), **_counts(judged), "retention": retention(judged)}
        facts["judged_otherwise"] = judged_otherwise(judged)
        step("Counting for the sliders")
        axes, known = find_axes(judged), units(tables)
        sizes = Sizes.of(pictures, len(axes))
        facts |= _thresholds(judged, axes, sizes, known)
        facts |= other_scores(judged, axes, stats.numbers, known)
        step("Choosing clips")
        facts |= {**_scores(stats, tables, known), "distributions": distributions(judged), "buckets": buckets(judged)}
        shown, rows = _shown(judged, sizes, facts["axes"])
        facts |= {**shown, "clip_facts": clip_facts(judged, rows, axes)}
        wanted, reasons = plan_pictures(tables, rows, pictures, addresses)
        facts |= {"pictures": {}, **run_facts(tables, stats), "commands": _commands(judged)}
        return Found(_plain(facts), wanted, reasons)


def _head(judged: Judged, stats: CorpusStats) -> dict[str, Any]:
    manifest, funnel = judged.tables.manifest, judged.funnel
    return {
        "format": FORMAT,
        "tool_version": __version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "corpus": redacted(judged.tables.corpus.uri),
        "run_id": funnel.run_id,
        "selection": funnel.name,
        "selected_at": funnel.created_at,
        "recipe_name": manifest.get("recipe", ""),
        "stand_ins": stats.stand_ins,
        "lacks": stats.lacks,
    }


def _counts(judged: Judged) -> dict[str, Any]:
    counts = clip_counts(judged)
    reasons = {name: counts.pop(name) for name in ("input_reasons", "clip_reasons")}
    return {**counts, "funnel": {"steps": [asdict(step) for step in funnel_steps(judged)], **reasons}}


def _thresholds(judged: Judged, axes: Sequence[Axis], sizes: Sizes, known: Mapping[str, str]) -> dict[str, Any]:
    fixed = fixed_conditions(judged, axes)
    joint = count_joint(judged, axes, fixed)
    listed = []
    for i, (axis, stops) in enumerate(zip(axes, joint.stops, strict=True)):
        facts = axis_facts(judged, axis, stops, unit=known.get(axis.rule.column, ""), frozen=i not in joint.axes)
        listed.append({**facts, **axis_samples(judged, axis, sizes)})
    gates, conditions = judged.judges[: judged.n_gates], judged.judges[judged.n_gates :]
    return {
        "axes": listed,
        "fixed": [{"label": judge.name, "text": judge.text} for judge in [*gates, *(conditions[i] for i in fixed)]],
        "conditions": judged.conditions,
        "joint": {"axes": joint.axes, "cells": joint.cells, "data": joint.data},
    }


def _scores(stats: CorpusStats, tables: RunTables, known: Mapping[str, str]) -> dict[str, Any]:
    numbers = [
        {**asdict(entry), "unit": known.get(f"{entry.stage}.{entry.measured[0]}", "")} for entry in stats.numbers
    ]
    texts = {name.rpartition(".")[0] for name in caption_columns(tables)}
    categories = [
        {**asdict(entry), "top": [[cut(value), n] for value, n in entry.top]}
        for entry in stats.categories
        if not (entry.stage in texts and entry.column == "caption")
    ]
    return {"scores": numbers, "categories": categories}


def _shown(
    judged: Judged, sizes: Sizes, axes: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Which clips are shown and why, and all that is known of them: those at the limits first, one axis after the
    other."""
    captioned, random = caption_samples(judged, sizes.captions), random_clips(judged, sizes.random)
    n_pairs, pairs = duplicate_pairs(judged, sizes.pairs)
    near = [[entry["clip"] for entry in axis["near"]] for axis in axes]
    ends = [[*axis["best"], *axis["worst"]] for axis in axes]
    rows = shown_rows(judged, list(dict.fromkeys(chain(*near, random, captioned, *pairs, *ends))))
    alike = [{"clip": one, "kept": other, "score": likeness(judged, rows[one], rows[other])} for one, other in pairs]
    facts = {
        "captions": captions_of(judged.tables, rows, captioned),
        "caption_columns": caption_columns(judged.tables),
        "duplicates": {"n": n_pairs, "pairs": alike},
        "random": random,
    }
    return facts, rows


def _commands(judged: Judged) -> dict[str, str]:
    """``select`` selects as this selection did, to be completed with limits and a name; ``again`` replaces it.

    None of them where the run's recipe, which selecting reads, is not one that this version understands.
    """
    tables = judged.tables
    words = ["curate", "select", shell_word(redacted(tables.corpus.uri)), "--run", shell_word(tables.run_id)]
    try:
        recipe = parse_yaml(recipe_text(tables) or "{}", "recipe.yaml") or {}
        own = parse_config(SelectConfig, recipe.get("select"), "select")
    except ConfigError:
        return {}
    asked = {"conditions": judged.conditions, "dedup": judged.funnel.config.get("dedup")}
    for key, value in asked.items():
        if value is not None and getattr(own, key) != getattr(parse_config(SelectConfig, {key: value}, "select"), key):
            words += ["--set", shell_word(f"select.{key}={json.dumps(value, ensure_ascii=True)}")]
    text = " ".join([*words, "--name"])
    return {"select": f"{text} NAME", "again": f"{text} {shell_word(judged.funnel.name)}"}


def _plain(value: Any) -> Any:
    """JSON knows no infinity and no NaN: they become null."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
