"""What a training stage is: a YAML file in `pipelines/train/`, checked and complete.

    kind: video                                  # image | video | image-to-video
    data: {buckets: {...}, batch: 1536, ...}     # which clips, in which shapes
    objective: {kind: edm, p_mean: -1.2, p_std: 1.0}
    optimiser: {lr: 1.0e-4, ...}
    steps: 150000

A stage starts where another one ended (`curate train --init`); what a recipe does not say is said there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, field_validator

from curate.config import Config, parse_config
from curate.datafiles import parse_override, parse_yaml, put_value, read_text, recipe_path
from curate.errors import ConfigError
from curate.train.data.config import DataConfig

Kind = Literal["image", "video", "image-to-video"]
Precision = Literal["float32", "bfloat16"]

_Count = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(ge=0, le=1)]


class NoiseConfig(Config):
    """log sigma ~ N(p_mean, p_std^2)."""

    p_mean: float
    p_std: Annotated[float, Field(ge=0)]


class ObjectiveConfig(Config):
    """``edm``: the paper's, over continuous noise levels. ``discrete-v``: Stable Diffusion 2.1's own form."""

    kind: Literal["edm", "discrete-v"] = "edm"
    p_mean: float = -1.2
    p_std: Annotated[float, Field(ge=0)] = 1.0


class OptimiserConfig(Config):
    """AdamW. The paper gives the rate alone; betas, decay, warm-up and clipping are not published (SVD_SPEC 2.3).

    ``lr_scale``: factors on the rate for the parts spatial, temporal and vector; parts not named have 1. ``clip_norm``:
    largest norm of the gradient, over all parameters. The rate rises over ``warmup_steps`` and stays.
    """

    lr: Annotated[float, Field(gt=0)] = 1e-4
    lr_scale: dict[Literal["spatial", "temporal", "vector"], float] = Field(default_factory=dict)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 1000
    clip_norm: Annotated[float, Field(gt=0)] = 1.0

    def lr_at(self, step: int) -> float:
        """Learning rate of step number ``step``, the first being 0."""
        return self.lr * min(1.0, (step + 1) / (self.warmup_steps + 1))


class ValidationConfig(Config):
    """How training is judged, on clips of ``data.hold_out_sources`` films that it never sees, with averaged weights.

    ``sigmas``: loss at these noise levels, over ``clips`` clips, the same noise each time. ``samples``: so many clips
    are drawn as MP4 files (image-to-video stages), at each of the ``motions``.
    """

    every_steps: _Count = 1000
    sigmas: tuple[float, ...] = (0.05, 0.2, 0.7, 2.0, 7.0, 25.0)
    clips: _Count = 64
    samples: Annotated[int, Field(ge=0)] = 2
    motions: tuple[float, ...] = (20.0, 127.0, 230.0)
    sampling_steps: _Count = 25

    @field_validator("sigmas")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or any(value <= 0 for value in values):
            raise ValueError("give noise levels above 0")
        return values


class CheckpointConfig(Config):
    """``keep``: how many of the last checkpoints stay."""

    every_steps: _Count = 1000
    keep: _Count = 3


class RunConfig(Config):
    """How a stage runs on its machines: what may differ between runs that give the same.

    ``micro_batch``: clips that go through the network at once on a device; a device's share of the batch is so cut up,
    and gradients are summed. ``sharding``: ``fsdp`` divides parameters, gradients and optimiser over the devices,
    ``ddp`` copies them; ``auto`` is fsdp on several GPUs. ``workers``: processes that decode, for each device.
    ``attention``: ``auto`` takes PyTorch's own; ``xformers`` needs that package and a GPU.
    """

    micro_batch: _Count = 1
    gradient_checkpointing: bool = True
    compile: bool = False
    attention: Literal["auto", "sdpa", "xformers"] = "auto"
    sharding: Literal["auto", "ddp", "fsdp"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 4
    prefetch: _Count = 2
    log_every_steps: _Count = 10
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()


class TrainRecipe(Config):
    """One training stage, complete. ``network``: size of a network that starts at random (`models/nets/`).

    ``dropout``: how often a clip's text or image is withheld. ``augmentation``: noise on the first frame of an
    image-to-video stage. ``ema``: decay of the averaged weights, None for none.
    """

    placement: ClassVar[frozenset[str]] = frozenset({"run", "description", "steps"})

    name: str
    description: str = ""
    kind: Kind
    network: str = "svd"
    data: DataConfig
    objective: ObjectiveConfig = ObjectiveConfig()
    trainable: Literal["all", "spatial", "temporal", "time_embedding"] = "all"
    dropout: _Share = 0.15
    augmentation: NoiseConfig = NoiseConfig(p_mean=-3.0, p_std=0.5)
    optimiser: OptimiserConfig = OptimiserConfig()
    ema: Annotated[float, Field(gt=0, lt=1)] | None = 0.9999
    precision: Precision = "bfloat16"
    steps: _Count
    seed: int = 0
    run: RunConfig = RunConfig()

    def to_text(self) -> str:
        """The whole recipe as YAML, as a run stores it."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=False), sort_keys=False)


def load_train_recipe(name_or_file: str, overrides: Sequence[str] = ()) -> TrainRecipe:
    """Read a recipe by name or file and apply ``key=value`` overrides. ConfigError says what is wrong and where."""
    path = recipe_path(name_or_file, "train")
    return parse_train_recipe(read_text(path), str(path), overrides)


def parse_train_recipe(text: str, where: str, overrides: Sequence[str] = ()) -> TrainRecipe:
    """A recipe from its text; ``where`` names it in errors."""
    data: Any = parse_yaml(text, where)
    if not isinstance(data, dict):
        raise ConfigError("must hold keys such as name, kind, data, steps", subject=where)
    for override in overrides:
        key, value = parse_override(override)
        put_value(data, key.split("."), value, key)
    recipe = parse_config(TrainRecipe, data, "recipe")
    _check(recipe)
    return recipe


def _check(recipe: TrainRecipe) -> None:
    """ConfigError where keys do not go together."""
    frames = recipe.data.buckets.frames
    if recipe.kind == "image" and frames != (1,):
        raise ConfigError(f"an image stage reads single frames, not {frames}", subject="data.buckets.frames")
    if recipe.kind != "image" and frames[0] < 2:
        raise ConfigError("a video stage reads two frames or more", subject="data.buckets.frames")
    if recipe.kind == "image" and recipe.trainable not in {"spatial", "time_embedding"}:
        message = f"single frames teach the layers over time nothing, and {recipe.trainable!r} would decay them"
        raise ConfigError(message, subject="trainable", fix="Use spatial or time_embedding")
    if recipe.kind != "image-to-video" and not recipe.data.captions:
        raise ConfigError("a text stage needs captions", subject="data.captions")
    if recipe.kind != "image" and not recipe.data.motion:
        raise ConfigError("a video stage needs the motion score", subject="data.motion")
    if recipe.kind == "image-to-video" and recipe.objective.kind != "edm":
        raise ConfigError("an image-to-video stage is trained with `edm`", subject="objective.kind")
