"""Language models as folders that transformers loads, GGUF files converted once.

Reading a GGUF file takes transformers half a minute and more each time, so the tensors are stored beside it as
safetensors, float32, just as transformers unpacks them:

    MODELS/<card>/converted-<digest>/{config.json, model.safetensors, tokenizer.json ...}
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from pathlib import Path
from typing import Any

from curate.errors import ModelFileError
from curate.packages import needed, of_extra
from curate.stage import boundary
from curate.storage import storage_error
from curate.weights.cards import load_card
from curate.weights.store import derived, folder_of

PACKAGES = of_extra("llm", "transformers", "gguf")

_WAY = "1"
"""Part of the digest: raise it when the conversion gives other files."""


def transformers_folder(card_name: str) -> str:
    """A folder with config, tokenizer and safetensors of a card's model.

    A card with a ``.gguf`` file is converted by the first worker that asks; several at once do it twice and keep one.
    Raises MissingModelError when files or the needed packages are not here, ModelFileError for a file of another kind.
    """
    card = load_card(card_name)
    folder = folder_of(card_name)
    packed = next((file for file in card.files if file.name.endswith(".gguf")), None)
    if packed is None:
        return folder
    digest = hashlib.sha256(f"{_WAY} {card.known(packed).sha256}".encode()).hexdigest()[:16]
    target = derived(card_name, f"converted-{digest}")
    if not target.is_dir():
        _install(Path(folder), packed.name, target)
    return str(target)


def _install(folder: Path, name: str, target: Path) -> None:
    """Convert under a temporary name; a folder of the right name is whole."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        _convert(folder, name, temporary)
        temporary.rename(target)
    except OSError as error:
        if not target.is_dir():  # else another worker was faster
            raise storage_error(error, str(target), writing=True) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _convert(folder: Path, name: str, target: Path) -> None:
    transformers, _ = (needed(package) for package in PACKAGES)  # the former reads such files with the latter
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    model = tokenizer = None
    absent: set[str] = set()
    with boundary() as caught:  # for a file of another kind its readers raise anything
        config = transformers.AutoConfig.from_pretrained(str(folder), gguf_file=name, local_files_only=True)
        model = _empty(config)
        state = load_gguf_checkpoint(str(folder / name), return_tensors=True, model_to_load=model)["tensors"]
        absent = set(model.load_state_dict(state, strict=False, assign=True).missing_keys)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), gguf_file=name, local_files_only=True)
    if isinstance(caught.error, MemoryError):
        raise caught.error
    if caught.error or model is None or tokenizer is None:
        raise ModelFileError(f"cannot be converted: {caught.error}", subject=str(folder / name)) from caught.error
    # What is missing may only be a second name of a tensor that is there (the output layer is mostly the embedding).
    if absent - set(model.all_tied_weights_keys):
        raise ModelFileError(f"lacks {', '.join(sorted(absent))}", subject=str(folder / name))
    model.tie_weights()
    model.save_pretrained(str(target))
    tokenizer.save_pretrained(str(target))


def _empty(config: Any) -> Any:
    """The model without memory for its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)
