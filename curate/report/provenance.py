"""What a run was: its failures, its time, its recipe, versions and models; and the units of its columns."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from curate.errors import is_transient
from curate.failures import FailureGroup
from curate.query import RunTables, described
from curate.redaction import redacted
from curate.report.samples import cut
from curate.stats import CorpusStats, StageSeconds

_ABOUT = ("started_at", "finished_at", "engine", "counts", "machine", "limit", "decode")
_CLIP_CHARS = 32
_FAILURE_CLASSES = 200


def units(tables: RunTables) -> dict[str, str]:
    """Units of columns by their full names."""
    return {name: about.unit for name, about in described(tables).items()}


def run_facts(tables: RunTables, stats: CorpusStats) -> dict[str, Any]:
    """Failures, time, recipe and versions of the run."""
    manifest = tables.manifest
    stages = _stages(stats)
    return {
        "failures": [_failure(group) for group in stats.failures[:_FAILURE_CLASSES]],
        "stages": stages,
        "bottleneck": _bottleneck(stages),
        "run": {"seconds": _seconds(manifest), **{name: manifest[name] for name in _ABOUT if name in manifest}},
        "recipe": redacted(recipe_text(tables)),
        "versions": {"curate": manifest.get("tool_version", ""), **manifest.get("libraries", {})},
        "models": {
            f"{stage}: {name}": digest
            for stage, files in manifest.get("models", {}).items()
            for name, digest in files.items()
        },
        "fingerprints": {stage.name: stage.fingerprint for stage in tables.stages},
    }


def recipe_text(tables: RunTables) -> str:
    """The run's recipe as YAML, with whatever secrets are in it; empty where none was kept."""
    place = tables.corpus.runs().child(tables.run_id, "recipe.yaml")
    return place.read_text() if place.exists() else ""


def _failure(group: FailureGroup) -> dict[str, Any]:
    examples = [
        {"uri": e.uri, "clip": e.key if len(e.key) == _CLIP_CHARS else "", "message": cut(e.message)}
        for e in group.examples
    ]
    return {
        "stage": group.stage,
        "error_class": group.error_class,
        "n": group.n,
        "transient": is_transient(group.error_class),
        "examples": examples,
    }


def _stages(stats: CorpusStats) -> list[dict[str, Any]]:
    total_s = sum(entry.sum_s for entry in stats.seconds) or 1.0
    return [_stage(entry, total_s) for entry in stats.seconds]


def _stage(entry: StageSeconds, total_s: float) -> dict[str, Any]:
    return {**asdict(entry), "share": entry.sum_s / total_s}


def _bottleneck(stages: list[dict[str, Any]]) -> dict[str, str] | None:
    """The stage that took most of the time."""
    if not stages:
        return None
    slowest = max(stages, key=lambda stage: stage["sum_s"])
    why = f"{slowest['share']:.0%} of the time of all stages"
    if slowest["clips_per_s"] is not None:
        rate, waited = slowest["clips_per_s"], slowest["waited"]
        why += f"; {rate:.3g} clips/s while a worker works, which waits {waited:.0%} of its time"
    return {"stage": slowest["stage"], "why": why}


def _seconds(manifest: dict[str, Any]) -> float | None:
    began, ended = manifest.get("started_at"), manifest.get("finished_at")
    if not began or not ended:
        return None
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
