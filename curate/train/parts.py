"""Where the networks of a stage come from, and the folder in which it leaves them.

    from nothing                   a network of the recipe's size (``network``), with encoders
    Stable Diffusion (2D UNet)     inflated: stage I
    an earlier text stage          as it is, or widened for image-to-video
    image-to-video                 as it is

Encoders come from the same folder where it has them: text stages keep `vae`, `text_encoder` and `tokenizer`,
image-to-video stages are whole pipelines of diffusers. Others are named by ``--encoders``; "tiny": random ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from curate.errors import ConfigError, ModelFileError
from curate.train.costs import clip_weight_bytes, weight_bytes
from curate.train.encoders import CLIP_PARTS, Encoders
from curate.train.folders import MOTION, TRAINED, load_part, reading, resolve_model
from curate.train.inflate import inflate, neutralise, widen
from curate.train.motion import MotionCalibration
from curate.train.network import SpatioTemporalUNet, build_unet, drawn_from, preset_config
from curate.train.pipeline_folder import Pipeline
from curate.train.recipe import Kind, TrainRecipe

__all__ = ["Parts", "clip_bytes", "codec_factor", "named_encoders", "network_config", "start"]

_TINY = "tiny"
_PAPERS = "svd"
_SCHEDULER = "scheduler"


@dataclass(frozen=True)
class Parts:
    """The network that learns, on the CPU in float32, with the encoders beside it."""

    unet: SpatioTemporalUNet
    encoders: Encoders
    calibration: MotionCalibration | None = None
    """Of the stage before, whose motion buckets this one goes on with."""

    def save(self, folder: Path, kind: Kind, state: Mapping[str, Tensor] | None, about: Mapping[str, Any]) -> None:
        """Write a folder that diffusers opens, with ``state`` for the network's own; ``about`` goes beside."""
        folder.mkdir(parents=True, exist_ok=True)
        encoders = self.encoders
        if kind == "image-to-video":
            assert encoders.image is not None
            pipeline = Pipeline(self.unet, encoders.codec, encoders.image, encoders.feature_extractor)
            pipeline.save(folder, state)
        else:
            self.unet.plain(state).save_pretrained(folder / "unet")
            encoders.save(folder)
        (folder / TRAINED).write_text(json.dumps(dict(about), indent=1) + "\n")
        if self.calibration is not None:
            (folder / MOTION).write_text(self.calibration.to_json())


def start(recipe: TrainRecipe, init: str = "", encoders: str = "") -> Parts:
    """The parts that a stage begins with. ConfigError or ModelFileError when something is missing or does not fit.

    What begins at random (a whole network, or the layers over time of an inflated one) is drawn from the recipe's seed.
    """
    folder = resolve_model(init) if init else None
    if not (init or encoders or recipe.network.startswith(_TINY)):
        raise ConfigError("a network that starts at random needs encoders", subject="--encoders", fix="Name a folder")
    with drawn_from(int.from_bytes(hashlib.sha256(f"init|{recipe.seed}".encode()).digest()[:4], "big")):
        unet = _network(recipe, folder)
        found = _encoders(folder, encoders, unet.config["cross_attention_dim"])
    unet.register_to_config(num_frames=recipe.data.buckets.frames[-1])
    _check(recipe, unet, found)
    return Parts(unet, found, _calibration(folder))


def named_encoders(named: str, width: int) -> Encoders:
    """Those of ``--encoders``; ``width``: of the embeddings of tiny ones."""
    return Encoders.tiny(width) if named == _TINY else Encoders.load(resolve_model(named))


def network_config(recipe: TrainRecipe, init: str = "") -> dict[str, Any]:
    """The configuration of the network that `start` gives, without loading it."""
    if not init:
        config = preset_config(recipe.network)
        return config if _wide(recipe) else {**config, "in_channels": config["out_channels"]}
    config = _config(resolve_model(init))
    if config["_class_name"] == "UNet2DConditionModel":
        with torch.device("meta"):
            image: Any = UNet2DConditionModel.from_config(config)
            config = dict(inflate(image).config)
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    return {**config, "in_channels": 2 * config["out_channels"]} if _wide(recipe) else config


def codec_factor(recipe: TrainRecipe, init: str = "", encoders: str = "") -> int:
    """Pixels along one side of a latent, by the autoencoder that `start` would take, without loading it; that of
    Stable Diffusion where none is named."""
    if _is_tiny(recipe, init, encoders):
        return 1
    if not (init or encoders):
        return 8
    config = _config(resolve_model(encoders or init), "vae")
    return 2 ** (len(config["block_out_channels"]) - 1)


def clip_bytes(recipe: TrainRecipe, init: str = "", encoders: str = "") -> int:
    """Bytes of the CLIP model that the stage needs, in float32, by its configuration where `start` would take it from;
    of the paper's where no folder has it."""
    part = CLIP_PARTS[recipe.kind]
    folders = [resolve_model(name) for name in (encoders, init) if name not in {"", _TINY}]
    if (folder := next((one for one in folders if (one / part).is_dir()), None)) is not None:
        return clip_weight_bytes(_config(folder, part))
    if _is_tiny(recipe, init, encoders):
        tiny = Encoders.tiny(network_config(recipe, init)["cross_attention_dim"])
        return weight_bytes(tiny.clip(recipe.kind))
    return clip_weight_bytes(preset_config(_PAPERS, part))


def _is_tiny(recipe: TrainRecipe, init: str, encoders: str) -> bool:
    """Whether codec and encoders are those of `Encoders.tiny`."""
    return encoders == _TINY or (not (init or encoders) and recipe.network.startswith(_TINY))


def _wide(recipe: TrainRecipe) -> bool:
    return recipe.kind == "image-to-video"


def _network(recipe: TrainRecipe, folder: Path | None) -> SpatioTemporalUNet:
    if folder is None:
        unet = build_unet(recipe.network, concat=_wide(recipe))
        if recipe.kind == "image":
            neutralise(unet)
        return unet
    if _config(folder)["_class_name"] == "UNet2DConditionModel":
        if recipe.kind != "image":
            text = "holds an image network; a video stage starts from an image stage"
            raise ConfigError(text, subject=str(folder), fix="Train an image stage from it first")
        _check_prediction(folder)
        return inflate(load_part(UNet2DConditionModel, folder, "unet"), recipe.data.buckets.frames[-1])
    unet: SpatioTemporalUNet = load_part(SpatioTemporalUNet, folder, "unet")
    given, wanted = unet.config["in_channels"], unet.config["out_channels"] * (2 if _wide(recipe) else 1)
    if given > wanted:
        text = f"its network takes {given} channels, one of a text stage {wanted}: it is of an image-to-video stage"
        raise ConfigError(text, subject=str(folder), fix="Start from a text stage")
    return unet if given == wanted else widen(unet, wanted)


def _check_prediction(folder: Path) -> None:
    """ConfigError when an image network was taught to predict something else than v: by its scheduler's file, in which
    noise is what is not named. A folder without a scheduler is taken at its word."""
    if not (folder / _SCHEDULER).is_dir():
        return
    with reading(folder, _SCHEDULER) as part:
        found = json.loads((part / "scheduler_config.json").read_text(encoding="utf-8")).get("prediction_type")
    if found != "v_prediction":
        text = (
            f"its network predicts {found or 'epsilon'}, and here v is trained: all that it learned would be unlearned"
        )
        fix = "Start from Stable Diffusion 2.1 of 768 pixels, which predicts v (not 2.1-base)"
        raise ConfigError(text, subject=str(folder), fix=fix)


def _config(folder: Path, part: str = "unet") -> dict[str, Any]:
    with reading(folder, part) as found:
        return json.loads((found / "config.json").read_text(encoding="utf-8"))


def _encoders(folder: Path | None, named: str, width: int) -> Encoders:
    if named == _TINY or (not named and folder is None):
        return named_encoders(_TINY, width)
    own = Encoders.load(folder) if folder is not None and (folder / "vae").is_dir() else None
    if not named:
        if own is None:
            raise ModelFileError("has no autoencoder in `vae`", subject=str(folder), fix="Name one with --encoders")
        return own
    given = named_encoders(named, width)
    if own is None:
        return given
    return replace(given, text=given.text or own.text, image=given.image or own.image)


def _check(recipe: TrainRecipe, unet: SpatioTemporalUNet, encoders: Encoders) -> None:
    """ConfigError where parts do not fit together."""
    wide = _wide(recipe)
    if encoders.clip(recipe.kind) is None:
        need = "`image_encoder` and `feature_extractor`" if wide else "`text_encoder` and `tokenizer`"
        text = f"{'an image-to-video' if wide else 'a text'} stage needs {need}, and the folder it starts from has none"
        raise ConfigError(text, subject="--encoders", fix="Name a folder of diffusers that has them")
    if wide and not isinstance(encoders.codec.vae, AutoencoderKLTemporalDecoder):
        text = "an image-to-video pipeline has an autoencoder with a temporal decoder; this one is for images"
        raise ConfigError(text, subject="--encoders", fix="Name the folder of a video pipeline")
    if encoders.codec.channels != unet.config["out_channels"]:
        text = f"latents have {encoders.codec.channels} channels, the network {unet.config['out_channels']}"
        raise ConfigError(text, subject="--encoders")
    wanted = unet.config["cross_attention_dim"]
    given = encoders.image_width if wide else encoders.text_width
    if given != wanted:
        text = f"embeddings of {'images' if wide else 'texts'} have {given} numbers, the network takes {wanted}"
        raise ConfigError(text, subject="--encoders")
    factor = encoders.codec.factor * 2 ** (len(unet.config["block_out_channels"]) - 1)
    sides = recipe.data.buckets.short_sides_px
    if any(side % factor for side in (*sides, recipe.data.buckets.multiple_px)):
        text = f"sides must be multiples of {factor} for this network and autoencoder"
        raise ConfigError(text, subject="data.buckets", fix=f"Set data.buckets.multiple_px={factor}")


def _calibration(folder: Path | None) -> MotionCalibration | None:
    path = folder / MOTION if folder is not None else None
    if path is None or not path.is_file():
        return None
    return MotionCalibration.from_json(path.read_text(encoding="utf-8"), str(path))
