"""What a run wants of its machines besides recipe and sources, looked for before a video is read.

A cluster's other machines are not asked: what one of them lacks, its worker says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from curate.engine.pipeline import Pipeline, gpu_key
from curate.errors import ConfigError, MissingModelError
from curate.packages import Package, is_installed, not_installed
from curate.stage import Stage
from curate.weights.store import FileStatus, status_of


def check_ready(pipeline: Pipeline, *, here: bool) -> None:
    """MissingModelError or ConfigError, with what fixes it, when a stage that is to run could not be set up.

    ``here``: all workers run on this machine, so that its GPUs and its environment are theirs.
    """
    check_packages(pipeline)
    check_models(pipeline)
    if here:
        check_gpus(pipeline)
        for stage in _to_run(pipeline):
            stage.check_environment()


def check_packages(pipeline: Pipeline) -> None:
    """MissingModelError, with the one command that fixes it, when a package of any stage that is to run is not here."""
    lacking: dict[Package, list[str]] = {}
    for stage in _to_run(pipeline):
        for package in stage.packages:
            if not is_installed(package):
                lacking.setdefault(package, []).append(f"stage {stage.name}")
    if lacking:
        raise not_installed({package: ", ".join(stages) for package, stages in lacking.items()})


def check_models(pipeline: Pipeline) -> None:
    """MissingModelError, with the one command that fixes it, when weights of any stage that is to run are not here."""
    lacking: dict[str, set[str]] = {}
    for entry, stages in pipeline.models().items():
        card, _, file = entry.partition("/")
        status = status_of(card, file)
        if status is not FileStatus.OK:
            said = {"damaged"} if status is FileStatus.WRONG else set()
            lacking.setdefault(card, set()).update(said, (f"stage {stage}" for stage in stages))
    if lacking:
        needs = ", ".join(f"{card} ({', '.join(sorted(lacking[card]))})" for card in sorted(lacking))
        raise MissingModelError(
            f"weights are not on this machine: {needs}", fix=f"Run `curate models fetch {' '.join(sorted(lacking))}`"
        )


def check_gpus(pipeline: Pipeline) -> None:
    """ConfigError when a stage that is to run cannot do without a GPU and this machine has none."""
    demanding = [
        step.stage
        for step in pipeline.steps
        if step.stage.name in pipeline.requested
        and step.stage.resources.gpus > 0
        and not step.stage.resources.gpu_optional
    ]
    if not demanding or _n_gpus():
        return
    key = gpu_key(demanding[0])
    raise ConfigError(
        f"needs a GPU, and this machine has none that PyTorch can use (stage {', '.join(s.name for s in demanding)})",
        subject=key or f"stages.{demanding[0].name}",
        fix=f"Set {key}=auto, or run on a cluster with GPUs" if key else "Run on a cluster with GPUs",
    )


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _to_run(pipeline: Pipeline) -> Iterator[Stage[Any]]:
    for kind, stage, _ in pipeline.stages():
        if kind != "clip" or stage.name in pipeline.requested:
            yield stage
