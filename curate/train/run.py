"""A training stage from its recipe to its checkpoints: the one loop.

    OUT/recipe.yaml        what is trained, complete
    OUT/log.jsonl          numbers (and tensorboard/)
    OUT/samples/step-N/    clips drawn from held-out first frames
    OUT/checkpoints/       `curate.train.checkpoint`
    OUT/model/             the finished model, as diffusers opens it

The same command goes on where a run was stopped or killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from curate.errors import ConfigError, TrainingError
from curate.shards.reader import ShardSet
from curate.storage import Place
from curate.train.checkpoint import Checkpoints
from curate.train.data.catalogue import Catalogue
from curate.train.data.loader import Loader
from curate.train.data.worker import Ahead, Sources
from curate.train.devices import device_facts, mfu, tensor_cores
from curate.train.distributed import World, joined, shards, spread
from curate.train.examples import Examples
from curate.train.folders import atomic_folder, check_writable, remove_folder, resolved
from curate.train.latents import sources_in
from curate.train.logs import Log, Window
from curate.train.motion import MotionCalibration
from curate.train.network import Parameters, SpatioTemporalUNet, set_trainable
from curate.train.objective import EDM, Objective
from curate.train.parts import Parts, named_encoders, start
from curate.train.plan import fitting, step_flops
from curate.train.recipe import TrainRecipe
from curate.train.recompute import compile_units, recompute_units
from curate.train.step import Report, Step
from curate.train.validation import Validation

__all__ = ["Finished", "Job", "train"]

Row = Mapping[str, float]

_MOST_OUTSIDE = 0.2
"""Share of the clips outside of the motion calibration from which on a warning is given. Ours."""


@dataclass(frozen=True)
class Job:
    """What is asked for. ``data``: a shard set. ``init`` and ``encoders``: see `curate.train.parts`. ``latents``: what
    `curate latents` wrote, or empty. ``on_row`` is told of every row of the log, with the number of steps taken;
    ``on_step`` of every step, on all ranks."""

    recipe: TrainRecipe
    data: str
    out: Path
    init: str = ""
    encoders: str = ""
    latents: str = ""
    device: str = "auto"
    on_row: Callable[[int, Row], None] = lambda _step, _row: None
    on_start: Callable[[Mapping[str, Any]], None] = lambda _facts: None
    on_step: Callable[[int, Report, Step], None] = lambda _step, _report, _state: None


@dataclass(frozen=True)
class Finished:
    """How a run ended. ``stopped``: by a signal, after a checkpoint. ``model`` is None then."""

    step: int
    stopped: bool
    model: Path | None
    is_first: bool = True


def train(job: Job) -> Finished:
    """Run a stage to its end, or until it is asked to stop. StorageError, before anything is loaded, when ``out``
    cannot be written."""
    check_writable(job.out)
    with joined(job.device) as world, _stop_signals() as stop:
        divided = world.size > 1 and shards(job.recipe.run.sharding, world.device.type)
        with fitting(job.recipe, sharded=divided), tensor_cores(world.device):
            return _Run(job, world, stop).run()


class _Run:
    """One process of a run."""

    def __init__(self, job: Job, world: World, stop: threading.Event) -> None:
        self._job, self._world, self._stop = job, world, stop
        self._recipe = recipe = job.recipe
        if world.device.type == "cpu" and recipe.precision == "bfloat16":
            text = "PyTorch's bfloat16 on a CPU crashes, or gives numbers that are none"
            raise ConfigError(text, subject="precision", fix="Use --set precision=float32")
        self._checkpoints = Checkpoints(job.out / "checkpoints", recipe.run.checkpoint.keep, world)
        facts = self._known()
        self._taken: int = facts["step"] if facts else 0
        self._parts = self._start(facts)
        self._encoders = self._encoders_of(facts)
        data = ShardSet.open(Place(job.data))
        catalogue = Catalogue.read(data, recipe.data)
        self._warnings: list[str] = []
        if recipe.kind != "image":
            self._parts = replace(self._parts, calibration=self._calibrated(catalogue))
        self._largest = max(catalogue.buckets, key=lambda bucket: (bucket.width_px * bucket.height_px, bucket.frames))
        self._peak = device_facts(world.device, recipe.precision).peak_flops
        codec, counts = self._parts.encoders.codec, catalogue.counts()
        self._flops = step_flops(recipe, self._parts.unet.config, codec.factor, counts) if self._peak else 0
        self._sources = self._precomputed()
        self._examples = Examples(recipe, self._parts.encoders, self._parts.calibration)
        self._step = self._made()
        self._loader = self._reading(catalogue)
        self._validation = self._judge(data)
        if facts:
            self._checkpoints.load(self._step, self._taken)
            self._loader.resume(facts["loader"])
        self._about_start(catalogue)

    def run(self) -> Finished:
        """Every step that is left."""
        recipe, world = self._recipe, self._world
        log = Log(self._job.out, world, self._taken)
        if world.is_first:
            (self._job.out / "recipe.yaml").write_text(recipe.to_text())
            self._checkpoints.clean()
            if self._taken < recipe.steps:  # the model of a run that is to go on is that of its last checkpoint
                remove_folder(self._job.out / "model")
        if not self._taken:
            self._validate(log)
        window = Window(_quantile(self._examples.objective), world, self._loader.stall)
        stopped = False
        while self._taken < recipe.steps and not stopped:
            report = self._advance()
            self._job.on_step(self._taken, report, self._step)
            window.add(report)
            last = self._taken == recipe.steps
            # Many ranks stop by what the step told all of them; one that is alone need not take another step for it.
            stopped = report.stops or (world.size == 1 and self._stop.is_set())
            if last or stopped or self._taken % recipe.run.log_every_steps == 0:
                self._write(log, window.row(report))
            with window.aside():
                if last or self._taken % recipe.run.validation.every_steps == 0:
                    self._validate(log)
                if last or stopped or self._taken % recipe.run.checkpoint.every_steps == 0:
                    self._save(self._loader.state())
        self._loader.close()
        log.close()
        model = None if self._taken < recipe.steps else self._finish()
        return Finished(self._taken, stopped and model is None, model, world.is_first)

    def _advance(self) -> Report:
        """The next step. One that is not finite is not taken: what was before it is kept, and all ranks say so."""
        before = self._loader.state()
        try:
            report = self._step(self._taken, next(self._loader), self._stop.is_set)
        except TrainingError:
            self._save(before)
            raise
        self._taken += 1
        return report

    def _known(self) -> dict[str, Any] | None:
        """What the last checkpoint says; ConfigError when it is of another run."""
        facts = self._world.first(self._checkpoints.facts() if self._world.is_first else None)
        if facts is None:
            return None
        ours = self._recipe.deciding()
        different = sorted(key for key in ours if facts["recipe"].get(key) != ours[key])
        different += ["--init"] * bool(self._job.init and facts["init"] != resolved(self._job.init))
        different += ["--latents"] * (facts["latents"] != resolved(self._job.latents))
        if different:
            raise self._another_run(different)
        return facts

    def _encoders_of(self, facts: Mapping[str, Any] | None) -> dict[str, str]:
        """Digests of those that the run began with; ConfigError when others are named now."""
        kind, named = self._recipe.kind, self._job.encoders
        if facts is None:
            return self._parts.encoders.digests(kind) if self._world.is_first else {}
        if named:
            now = named_encoders(named, self._parts.unet.config["cross_attention_dim"]).digests(kind)
            if any(facts["encoders"][part] != digest for part, digest in now.items()):
                raise self._another_run(["--encoders"])
        return facts["encoders"]

    def _another_run(self, different: Sequence[str]) -> ConfigError:
        what = ", ".join(different)
        text = f"holds a run of another recipe or start: {what} differ{'s' if len(different) == 1 else ''}"
        return ConfigError(text, subject=str(self._job.out), fix="Name another --out")

    def _start(self, facts: Mapping[str, Any] | None) -> Parts:
        if facts is None:
            return start(self._recipe, self._job.init, self._job.encoders)
        return start(self._recipe, str(self._checkpoints.path(facts["step"]) / "model"))

    def _calibrated(self, catalogue: Catalogue) -> MotionCalibration:
        """That of the stage before, whose unit the clips must have, or the clips' own."""
        scores, given = catalogue.motion_scores(), self._parts.calibration
        column = catalogue.motion_measured(self._recipe.data.motion)
        if given is None:
            return MotionCalibration.of_scores(scores, column)
        given.check_unit(column)
        if (share := given.share_outside(scores)) > _MOST_OUTSIDE:
            text = f"{share:.0%} of the clips move less or more than all that the stage before saw: bucket 0 or 255"
            self._warnings.append(text)
        return given

    def _precomputed(self) -> Sources:
        if not self._job.latents:
            return Sources()
        encoders, to_video = self._parts.encoders, self._recipe.kind == "image-to-video"
        image, text = (encoders.image, None) if to_video else (None, encoders.text)
        found = sources_in(Place(self._job.latents), encoders.codec, image, text)
        if not found.latents:
            lacking = (
                f"{self._job.latents} holds no latents of this run's autoencoder: films are encoded in every epoch"
            )
            self._warnings.append(f"{lacking}. `curate latents` with this run's encoders encodes them once")
        return replace(found, first=bool(found.latents) and to_video)

    def _made(self) -> Step:
        recipe, world, unet = self._recipe, self._world, self._parts.unet
        set_trainable(unet, recipe.trainable)
        nn.Module.to(unet, world.device)
        unet.train()
        self._parts.encoders.to(world.device, recipe.kind)
        if recipe.run.attention == "xformers":
            _take_xformers(unet, world)
        if recipe.run.compile:
            compile_units(unet)
        if recipe.run.gradient_checkpointing:
            recompute_units(unet)
        network = spread(unet, world, recipe.run.sharding, recipe.precision)
        return Step(recipe, network, self._examples, world)

    def _reading(self, catalogue: Catalogue) -> Loader:
        run, world = self._recipe.run, self._world
        ahead = Ahead(run.workers, run.prefetch, pin=world.device.type == "cuda")
        return Loader(
            catalogue, self._recipe.data, rank=world.rank, world=world.size, ahead=ahead, sources=self._sources
        )

    def _judge(self, data: ShardSet) -> Validation | None:
        recipe = self._recipe
        if not recipe.data.hold_out_sources:
            return None
        one = recipe.data.model_copy(update={"batch": 1, "on_empty": "report"})
        held_out = Catalogue.read(data, one, held_out=True)
        return Validation(recipe, held_out, self._parts, self._examples, self._world, self._sources)

    def _about_start(self, catalogue: Catalogue) -> None:
        """Tell what begins."""
        counts = Parameters.of(self._parts.unet)
        facts = {
            "resumed_at": self._taken,
            "clips": catalogue.n_clips,
            "buckets": catalogue.counts(),
            "left_out": dict(catalogue.left_out),
            "precomputed": self._sources.found,
            "warnings": self._warnings,
            "parameters": counts,
            "world": self._world,
        }
        if self._world.is_first:
            self._job.on_start(facts)

    def _write(self, log: Log, found: tuple[dict[str, float], float]) -> None:
        row, step_s = found
        if self._peak is not None:
            row["mfu"] = mfu(self._flops, step_s, self._world.size, self._peak)
        log.write(self._taken, row)
        if self._world.is_first:
            self._job.on_row(self._taken, row)

    def _validate(self, log: Log) -> None:
        if self._validation is None:
            return
        row = self._validation.losses(self._step)
        if self._recipe.kind == "image-to-video":
            folder = self._job.out / "samples" / f"step-{self._taken:08d}"
            for name, flow, frames, fps in self._validation.samples(self._step, folder):
                row[f"sample/{name}/flow_width_s"] = flow
                log.clip(f"sample/{name}", frames, fps, self._taken)
        log.write(self._taken, row)
        if self._world.is_first:
            self._job.on_row(self._taken, row)

    def _save(self, loader: Mapping[str, Any]) -> None:
        if self._checkpoints.steps()[-1:] == [self._taken]:
            return
        facts = {
            "step": self._taken,
            "loader": loader,
            "recipe": self._recipe.deciding(),
            "init": resolved(self._job.init),
            "latents": resolved(self._job.latents),
            "encoders": self._encoders,
            "data": self._job.data,
        }
        self._checkpoints.save(self._step, facts, self._export)

    def _export(self, folder: Path, state: Mapping[str, Tensor] | None) -> None:
        about = {
            "step": self._taken,
            **self._largest._asdict(),
            "recipe": self._recipe.model_dump(mode="json"),
            "data": self._job.data,
        }
        self._parts.save(folder, self._recipe.kind, state, about)

    def _finish(self) -> Path:
        """The last checkpoint's model under a name of its own, without a copy of its bytes."""
        model = self._job.out / "model"
        if self._world.is_first:
            newest = self._checkpoints.path(self._taken) / "model"
            with atomic_folder(model) as unfinished:
                shutil.copytree(newest, unfinished, copy_function=_linked, dirs_exist_ok=True)
        self._world.wait()
        return model


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copyfile(source, target)


def _take_xformers(unet: SpatioTemporalUNet, world: World) -> None:
    if find_spec("xformers") is None or world.device.type != "cuda":
        text = "xformers needs its package and a GPU"
        raise ConfigError(text, subject="run.attention", fix="Run `pip install 'curate-video[xformers]'`, or use sdpa")
    unet.enable_xformers_memory_efficient_attention()


def _quantile(objective: Objective) -> Callable[[float], float] | None:
    return objective.noise.quantile if isinstance(objective, EDM) else None


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Set by Ctrl-C and SIGTERM, so that a step is finished and kept; the second time they act as usual."""
    asked = threading.Event()
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: object) -> None:
        asked.set()
        signal.signal(number, usual[signal.Signals(number)])

    for number in usual:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
