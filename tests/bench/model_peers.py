"""For each network of `svd`: the stage's configuration, and its library called as its own README does, clip by clip.

What differs is said here. CoCa's `generate` asserts beside transformers 5, so a plain loop over its forward stands in,
as wide as the stage's beam search (open_clip's own default is six rows wide). VideoBLIP has no package: transformers
generates for one clip with the small subclass that the stage has too. In what numbers: as the READMEs do on a GPU
(autocast for open_clip, half floats for BLIP-2, else float32), float32 on a CPU.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from clip_kit import add_head, mlp_head, write_open_clip
from model_kit import ModelKit
from PIL import Image
from tiny_models import byte_tokenizer

from curate.stage import ClipItem
from curate.stages.caption import video_blip
from curate.stages.caption.coca import CocaConfig
from curate.stages.caption.fused import CAPTIONERS, FusedCaption, FusedConfig
from curate.stages.caption.vblip import VblipConfig
from curate.stages.clip.card import FRAMES
from curate.weights.cards import load_card
from curate.weights.gguf import transformers_folder
from curate.weights.store import path_of

One = Callable[[ClipItem], object]
"""Does for one clip what the stage does."""


@dataclass(frozen=True)
class Subject:
    """A stage with random weights, and the library alone. ``embedding``: length of the vectors of `clip` it reads."""

    config: dict[str, Any]
    alone: Callable[[torch.device], One]
    embedding: int = 768


def clip(kit: ModelKit, folder: Path, small: bool) -> Subject:
    """ViT-L/14 with OpenAI's activation."""
    embedding = _open_clip(kit, folder, "ViT-B-32-quickgelu" if small else "ViT-L-14-quickgelu")

    def alone(device: torch.device) -> One:
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=device)
        model.eval()

        def one(item: ClipItem) -> None:
            for frame in item.views["ends"].frames:
                picture = preprocess(Image.fromarray(frame)).unsqueeze(0).to(device)
                with torch.no_grad(), torch.autocast(device.type, enabled=device.type == "cuda"):
                    found = model.encode_image(picture)
                    found /= found.norm(dim=-1, keepdim=True)
                found.float().cpu().numpy()

        return one

    return Subject({"model": "full"}, alone, embedding)


def similarity(kit: ModelKit, folder: Path, small: bool) -> Subject:
    """The text half of the same model."""
    embedding = _open_clip(kit, folder, "ViT-B-32-quickgelu" if small else "ViT-L-14-quickgelu")

    def alone(device: torch.device) -> One:
        model = open_clip.create_model(f"local-dir:{folder}", device=device).eval()
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

        def one(item: ClipItem) -> None:
            frames = torch.stack([torch.from_numpy(item.cells["clip"][name]).float() for name in FRAMES]).to(device)
            for name in (*CAPTIONERS, "caption.fused"):
                tokens = tokenizer([item.cells[name]["caption"]]).to(device)
                with torch.no_grad(), torch.autocast(device.type, enabled=device.type == "cuda"):
                    found = model.encode_text(tokens)
                    found /= found.norm(dim=-1, keepdim=True)
                (frames @ found.float().T).cpu().numpy()

        return one

    return Subject({"model": "full"}, alone, embedding)


def aesthetic(kit: ModelKit, folder: Path, small: bool) -> Subject:
    """LAION's second head; the library is the authors' few lines of torch."""
    add_head(kit, "full", mlp_head(768), folder, head="mlp", embedding=768, family="full")

    def alone(device: torch.device) -> One:
        nn, state = torch.nn, mlp_head(768)
        layers = [nn.Linear(768, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64)]
        head = nn.Sequential(*layers, nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1))
        head.load_state_dict({name.removeprefix("layers."): value for name, value in state.items()})
        head.eval().to(device)

        def one(item: ClipItem) -> None:
            for name in FRAMES:
                with torch.no_grad():
                    head(torch.from_numpy(item.cells["clip"][name]).float().to(device)).item()

        return one

    return Subject({"model": "full"}, alone)


def craft(kit: ModelKit, folder: Path, small: bool) -> Subject:
    """The real weights, which a package index has."""

    def alone(device: torch.device) -> One:
        import easyocr

        (weights,) = load_card("craft").files
        store = str(Path(path_of("craft", weights.name)).parent)
        options = {"recognizer": False, "download_enabled": False, "verbose": False, "model_storage_directory": store}
        reader = easyocr.Reader(["en"], gpu=device.type == "cuda", **options)
        return lambda item: [reader.detect(frame) for frame in item.views["ends"].frames]

    return Subject({"detector": "craft"}, alone)


def coca(kit: ModelKit, folder: Path, small: bool) -> Subject:
    """CoCa ViT-L/14. Every caption has its full length, which random weights would not give."""
    _open_clip(kit, folder, "coca_ViT-B-32" if small else "coca_ViT-L-14")
    config = CocaConfig(model="full", min_tokens=29)

    def alone(device: torch.device) -> One:
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=device)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        model.eval()

        def one(item: ClipItem) -> str:
            (frame,) = item.views["frames"].frames
            picture = preprocess(Image.fromarray(frame)).unsqueeze(0).to(device)
            ids = torch.full((config.beams, 1), tokenizer.sot_token_id, device=device)
            with torch.no_grad(), torch.autocast(device.type, enabled=device.type == "cuda"):
                latent, seen = (each.expand(config.beams, *each.shape[1:]) for each in model._encode_image(picture))
                while ids.shape[1] < config.max_tokens:
                    out = model(None, ids, image_latent=latent, image_embs=seen, output_labels=False)
                    ids = torch.cat([ids, out["logits"][:, -1:].argmax(dim=-1)], dim=1)
            return tokenizer.decode(ids[0].tolist())

        return one

    return Subject({"model": "full", "min_tokens": 29}, alone)


def vblip(kit: ModelKit, folder: Path, small: bool) -> Subject:
    """ViT-g, the Q-Former and OPT-2.7b, as Blip2Config has them by default but for the language model."""
    _write_vblip(folder, small)
    kit.add("full", folder, {"image_px": 224, "frames": 8})
    config = VblipConfig(model="full")

    def alone(device: torch.device) -> One:
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        loaded = video_blip.load(str(folder), device, dtype)
        how, prompt = loaded.how(config.beams, config.max_tokens), loaded.prompt_ids(config.prompt)

        def one(item: ClipItem) -> list[str]:
            pixels = loaded.pixels([item.views["frames"].frames]).to(device, dtype)
            with torch.no_grad():
                ids = loaded.model.answer(pixels, prompt, how)
            return loaded.tokenizer.batch_decode(ids, skip_special_tokens=True)

        return one

    return Subject({"model": "full"}, alone)


def fused(kit: ModelKit, folder: Path, small: bool) -> Subject:
    """SmolLM2-135M with its real weights, which a package index has."""
    config = FusedConfig()

    def alone(device: torch.device) -> One:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        place = transformers_folder(str(config.model))
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(place, local_files_only=True).to(device).eval()
        chat_of = FusedCaption(config).chat

        def one(item: ClipItem) -> str:
            chat = [dict(message) for message in chat_of([item.cells[name]["caption"] for name in CAPTIONERS])]
            asked = tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
            ).to(device)
            said = model.generate(**asked, max_new_tokens=config.max_tokens, do_sample=False)
            return tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)

        return one

    return Subject({}, alone)


SUBJECTS: dict[str, Callable[[ModelKit, Path, bool], Subject]] = {
    "text": craft,
    "clip": clip,
    "aesthetic": aesthetic,
    "caption.coca": coca,
    "caption.vblip": vblip,
    "caption.fused": fused,
    "clip.similarity": similarity,
}
"""By stage, in the order of the recipe: what makes it, in a folder of its own; small ones for a CPU."""


def _open_clip(kit: ModelKit, folder: Path, architecture: str) -> int:
    """A model of a built-in architecture with random weights; gives the length of its embeddings."""
    config = open_clip.get_model_config(architecture)
    write_open_clip(folder, {"model_cfg": config, "preprocess_cfg": {}})
    kit.add("full", folder, {"image_px": 224, "embedding": config["embed_dim"], "family": "full"})
    return config["embed_dim"]


def _write_vblip(folder: Path, small: bool) -> None:
    from transformers import Blip2Config, Blip2ForConditionalGeneration, BlipImageProcessor, OPTConfig

    folder.mkdir(parents=True)
    byte_tokenizer(folder, "</s> $A")
    layers, width, heads = (6, 512, 8) if small else (32, 2560, 32)
    text = OPTConfig(
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        vocab_size=50304,
    )
    sizes: dict[str, Any] = {}
    if small:
        vision = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6}
        qformer = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 6}
        sizes = {"vision_config": vision, "qformer_config": {**qformer, "encoder_hidden_size": 384}}
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32 if small else torch.bfloat16)
    model = Blip2ForConditionalGeneration(Blip2Config(text_config=text.to_dict(), **sizes))
    torch.set_default_dtype(torch.float32)
    _only_letters(model, folder)
    model.save_pretrained(folder)
    BlipImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)


def _only_letters(model: Any, folder: Path) -> None:
    """Every answer is letters up to its full length; else random weights say what is no text, or end at once."""
    from transformers import AutoTokenizer

    letters = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(list(string.ascii_lowercase))
    with torch.no_grad():
        words = model.get_output_embeddings().weight
        kept = words[letters].clone()
        words.zero_()
        words[letters] = kept
