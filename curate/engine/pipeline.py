"""A pipeline: the stages of a run in order, with their fingerprints, gates and places of work.

    sources -> [ decode + CPU stages ] -> [ pool stage ]* -> table writer
                 group 0                    groups 1..n

Group 0 holds every stage that needs no worker of its own. Each stage with ``resources.pool`` or a GPU starts a group,
one that can do without a GPU only where there is one; stages that read its cells, or lie below a gate on them, work in
the same group right after it. Stages that a run does not ask for start none.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from curate.config import Config, nearest
from curate.errors import ConfigError
from curate.stage import ClipStage, CutStage, ProbeStage, Stage


@dataclass(frozen=True, slots=True)
class Gate:
    """An absolute condition: stages below it run only for clips that pass. A failed or missing value does not pass."""

    stage: str
    column: str
    min: float | None = None
    max: float | None = None
    one_of: tuple[Any, ...] = ()
    none_of: tuple[Any, ...] = ()

    def passes(self, cells: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether a clip with these cell values goes on."""
        value = cells.get(self.stage, {}).get(self.column)
        if value is None:
            return False
        low = self.min is None or value >= self.min
        high = self.max is None or value <= self.max
        return low and high and (not self.one_of or value in self.one_of) and value not in self.none_of

    def to_manifest(self, after_index: int) -> dict[str, Any]:
        """The gate as manifests and queries know it: it applies to stages beyond ``after_index``."""
        return {
            "after_index": after_index,
            "column": f"{self.stage}.{self.column}",
            "min": self.min,
            "max": self.max,
            "in": list(self.one_of),
            "not_in": list(self.none_of),
        }


@dataclass(frozen=True)
class Step:
    """A clip stage at its place: its fingerprint, the gates above it, the group of workers it belongs to.

    ``digests``: of the model files that the fingerprint counts with, for the workers to compare with their own.
    """

    stage: ClipStage[Any]
    fingerprint: str
    gates: tuple[Gate, ...]
    group: int
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pipeline:
    """What a run computes. Light and picklable: weights are loaded by ``setup`` on the workers.

    ``requested`` names the clip stages to compute, with all that they read or stand below.
    """

    probe: ProbeStage[Any]
    probe_fingerprint: str
    cut: CutStage[Any]
    cut_fingerprint: str
    steps: tuple[Step, ...]
    requested: frozenset[str]
    cut_digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_groups(self) -> int:
        """Number of groups of workers; group 0 always exists."""
        return 1 + max((step.group for step in self.steps), default=0)

    def group(self, number: int) -> tuple[Step, ...]:
        """Steps of one group that are to run, in order."""
        return tuple(step for step in self.asked() if step.group == number)

    def asked(self) -> tuple[Step, ...]:
        """Steps that are to run, in order."""
        return tuple(step for step in self.steps if step.stage.name in self.requested)

    def without_gpus(self) -> Pipeline:
        """The same work where there is no GPU: stages that can do without one lose their workers of their own."""
        return replace(self, steps=_grouped(self.steps, self.requested, gpus=False))

    def stages(self) -> list[tuple[str, Stage[Any], str]]:
        """(kind, stage, fingerprint) of all stages in order."""
        clip_stages: list[tuple[str, Stage[Any], str]] = [("clip", s.stage, s.fingerprint) for s in self.steps]
        return [("probe", self.probe, self.probe_fingerprint), ("cut", self.cut, self.cut_fingerprint), *clip_stages]

    def manifest_stages(self) -> list[dict[str, Any]]:
        """The stages as manifests list them."""
        return [
            {
                "name": s.name,
                "kind": kind,
                "fingerprint": fp,
                "columns": [c.name for c in s.columns],
                "version": s.version,
            }
            for kind, s, fp in self.stages()
        ]

    def manifest_gates(self) -> list[dict[str, Any]]:
        """The gates as manifests list them, each once."""
        found: dict[Gate, int] = {}
        for index, step in enumerate(self.steps):
            for gate in step.gates:
                found.setdefault(gate, index + 1)
        return [gate.to_manifest(after) for gate, after in found.items()]

    def models(self) -> dict[str, list[str]]:
        """Model files (``card/file``) that stages which are to run need -> the names of those stages."""
        found: dict[str, list[str]] = {}
        for kind, stage, _ in self.stages():
            for entry in stage.model_digests() if kind != "clip" or stage.name in self.requested else ():
                found.setdefault(entry, []).append(stage.name)
        return found

    def needed_values(self) -> set[str]:
        """Names of stages whose cell values other stages or gates read."""
        reads = {name for step in self.steps for name in step.stage.reads}
        return reads | {gate.stage for step in self.steps for gate in step.gates}


def gpu_key(stage: Stage[Any]) -> str:
    """The key of the recipe that asks for a GPU at any price; empty where the stage is made so."""
    configs = [("", stage.config), *((f"{name}.", value) for name, value in stage.config if isinstance(value, Config))]
    keys = [f"{stage.name}.{at}device" for at, config in configs if getattr(config, "device", "") == "cuda"]
    return keys[0] if keys else ""


def build_pipeline(items: Sequence[Stage[Any] | Gate], only: Sequence[str] = ()) -> Pipeline:
    """Stages and gates in recipe order -> pipeline. ConfigError when the order or a reference is wrong.

    ``only`` limits the clip stages to compute to those whose name one of the patterns matches.
    """
    probes = [item for item in items if isinstance(item, ProbeStage)]
    cuts = [item for item in items if isinstance(item, CutStage)]
    if len(probes) != 1 or len(cuts) != 1:
        raise ConfigError("a recipe needs exactly one `probe` and one `cut` stage", subject="stages")
    probe, cut = probes[0], cuts[0]
    probe_fp = probe.fingerprint({})
    cut_fp = cut.fingerprint({probe.name: probe_fp})
    steps = _steps(items)
    requested = _requested(steps, only)
    steps = _grouped(steps, requested, gpus=True)
    return Pipeline(probe, probe_fp, cut, cut_fp, steps, requested, dict(cut.model_digests()))


def _requested(steps: Sequence[Step], only: Sequence[str]) -> frozenset[str]:
    by_name = {step.stage.name: step for step in steps}
    for pattern in only:
        if not fnmatch.filter(by_name, pattern):
            raise ConfigError(f"no stage is called {pattern!r}, {nearest(pattern, by_name)}", subject="--stages")
    todo = [name for name in by_name if not only or any(fnmatch.fnmatch(name, pattern) for pattern in only)]
    found: set[str] = set()
    while todo:
        step = by_name[todo.pop()]
        if step.stage.name not in found:
            found.add(step.stage.name)
            todo += [*step.stage.reads, *(gate.stage for gate in step.gates)]
    return frozenset(found)


def _steps(items: Sequence[Stage[Any] | Gate]) -> Sequence[Step]:
    steps: list[Step] = []
    gates: tuple[Gate, ...] = ()
    for item in items:
        known = {step.stage.name: step for step in steps}
        if isinstance(item, Gate):
            _check_gate(item, known)
            gates = (*gates, item)
        elif isinstance(item, ClipStage):
            _check_stage(item, known)
            reads = {name: known[name].fingerprint for name in item.reads}
            steps.append(Step(item, item.fingerprint(reads), gates, 0, dict(item.model_digests())))
    if items and isinstance(items[-1], Gate):
        raise ConfigError(
            f"the gate on {items[-1].stage}.{items[-1].column} has no stage below it",
            subject="stages",
            fix="Make it a condition of `select`, or put it above the stages that it is to save",
        )
    return steps


def _grouped(steps: Sequence[Step], requested: frozenset[str], *, gpus: bool) -> tuple[Step, ...]:
    """The steps with their groups, with GPUs or on machines that have none; group 0 for those that do not run."""
    groups: dict[str, int] = {}
    last_group = 0
    for step in steps:
        needs = step.stage.resources
        if step.stage.name not in requested:
            groups[step.stage.name] = 0
        elif needs.pool or (needs.gpus > 0 and (gpus or not needs.gpu_optional)):
            last_group += 1
            groups[step.stage.name] = last_group
        else:
            above = [groups[name] for name in step.stage.reads] + [groups[gate.stage] for gate in step.gates]
            groups[step.stage.name] = max(above, default=0)
    return tuple(replace(step, group=groups[step.stage.name]) for step in steps)


def _check_gate(gate: Gate, known: Mapping[str, Step]) -> None:
    if gate.stage not in known:
        hint = nearest(gate.stage, known) if known else "no stage stands above it"
        raise ConfigError(f"a gate reads {gate.stage!r}, which no stage above it writes; {hint}", subject="stages")
    columns = {column.name: column.dtype for column in known[gate.stage].stage.columns}
    if gate.column not in columns:
        raise ConfigError(f"stage {gate.stage!r} has no column {gate.column!r}, {nearest(gate.column, columns)}")
    dtype = columns[gate.column]
    ranged = gate.min is not None or gate.max is not None
    if pa.types.is_nested(dtype) or (ranged and not (pa.types.is_integer(dtype) or pa.types.is_floating(dtype))):
        raise ConfigError(
            f"a gate cannot judge {gate.stage}.{gate.column}, which holds {dtype}",
            subject="stages",
            fix="`min` and `max` need numbers, `in` and `not_in` single values",
        )


def _check_stage(stage: ClipStage[Any], known: Mapping[str, Step]) -> None:
    if stage.name in known:
        raise ConfigError("stands twice in the recipe", subject=f"stages.{stage.name}")
    absent = [name for name in stage.reads if name not in known]
    if absent:
        raise ConfigError(
            f"reads the cells of {', '.join(absent)}, which must stand above it in the recipe",
            subject=f"stages.{stage.name}",
        )
    stage.check_reads({name: known[name].stage for name in stage.reads})
