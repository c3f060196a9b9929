"""Folders that are whole or not there, and models that are read whole or refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from curate.errors import ModelFileError, StorageError
from curate.train.codecs import Codec
from curate.train.encoders import Encoders
from curate.train.folders import atomic_folder
from curate.train.pipeline_folder import Pipeline, tiny_pipeline, tiny_text_encoder


def content(folder) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def write(folder, text: str) -> None:
    with atomic_folder(folder) as new:
        (new / "inner").mkdir()
        (new / "inner" / "a.txt").write_text(text)


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    folder = tmp_path / "deep" / "step-1"
    with atomic_folder(folder) as new:
        assert not folder.exists()
        assert new.parent == folder.parent
        (new / "a.txt").write_text("1")
    assert content(folder) == {"a.txt": "1"}
    write(folder, "2")
    assert content(folder) == {"inner/a.txt": "2"}
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_changes_nothing(tmp_path, error):
    folder = tmp_path / "a"
    write(folder, "old")
    with pytest.raises(error), atomic_folder(folder) as new:
        (new / "b.txt").write_text("half")
        raise error
    assert content(tmp_path) == {"a/inner/a.txt": "old"}
    assert list(tmp_path.iterdir()) == [folder]


KILLED = """
import os, pathlib, signal, sys
from curate.train.folders import atomic_folder
folder, at, real = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path.rename
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def dying(self, target):
    real(self, target)
    if at == "between":
        die()
pathlib.Path.rename = dying
with atomic_folder(folder) as new:
    (new / "a.txt").write_text("new")
    if at == "block":
        die()
"""


@pytest.mark.parametrize("at", ["block", "between"])
def test_a_process_that_is_killed_leaves_the_old_one_to_be_found(tmp_path, at):
    folder = tmp_path / "a"
    write(folder, "old")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(folder), at], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert folder.exists() == (at == "block")
    with pytest.raises(ZeroDivisionError), atomic_folder(folder):
        assert content(folder) == {"inner/a.txt": "old"}
        raise ZeroDivisionError
    assert content(tmp_path) == {"a/inner/a.txt": "old"}
    write(folder, "new")
    assert content(tmp_path) == {"a/inner/a.txt": "new"}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/a"), atomic_folder(tmp_path / "file" / "a"):
        pass


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    tiny_pipeline().save(folder)
    text = tiny_text_encoder()
    text.model.save_pretrained(folder / "text_encoder")
    text.tokenizer.save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture
def copy(model, tmp_path):
    return shutil.copytree(model, tmp_path / "model")


def test_a_pipeline_is_saved_whole_and_over_an_older_one(tmp_path):
    pipeline, folder = tiny_pipeline(), tmp_path / "model"
    with atomic_folder(folder) as new:  # as part of something larger
        pipeline.save(new)
        (new / "train.json").write_text("{}")
    assert {"model_index.json", "train.json", "unet"} <= {path.name for path in folder.iterdir()}
    pipeline.save(folder)
    assert not (folder / "train.json").exists()
    assert list(tmp_path.iterdir()) == [folder]


def test_a_pipeline_does_not_replace_what_is_none(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelFileError, match="holds something else"):
        tiny_pipeline().save(tmp_path)
    assert content(tmp_path) == {"thesis.txt": "years of work"}


def test_encoders_come_back_with_their_digests(model):
    tiny, loaded = Encoders.tiny(), Encoders.load(model).to("cpu", "video")
    tiny.text.encode(["what was encoded before leaves no trace in a digest"])
    digests = [(e.codec.digest, e.text.digest, e.image.digest) for e in (tiny, loaded)]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 3
    other = Encoders.tiny(seed=1)
    assert other.codec.digest == tiny.codec.digest
    assert (other.text.digest != tiny.text.digest) and (other.image.digest != tiny.image.digest)
    assert loaded.feature_extractor.image_mean == tiny.feature_extractor.image_mean


def test_a_digest_knows_what_pictures_and_texts_are_read_by(copy):
    before = Encoders.load(copy)
    path = copy / "feature_extractor" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_mean": [0.5, 0.5, 0.5]}))
    path = copy / "tokenizer" / "tokenizer.json"
    found = json.loads(path.read_text())
    words = found["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    path.write_text(json.dumps(found))
    after = Encoders.load(copy)
    assert after.codec.digest == before.codec.digest
    assert after.image.digest != before.image.digest
    assert after.text.digest != before.text.digest


def test_encoders_may_be_left_out(copy):
    for part in ("text_encoder", "tokenizer", "image_encoder", "feature_extractor"):
        shutil.rmtree(copy / part)
    found = Encoders.load(copy)
    assert (found.text, found.image, found.feature_extractor) == (None, None, None)


@pytest.mark.parametrize("part", ["vae", "tokenizer", "text_encoder", "image_encoder", "feature_extractor"])
def test_a_missing_part_is_named(copy, part):
    shutil.rmtree(copy / part)
    with pytest.raises(ModelFileError, match=part) as caught:
        Encoders.load(copy)
    assert str(copy) in str(caught.value)


WEIGHTS = {"vae": "diffusion_pytorch_model", "text_encoder": "model", "image_encoder": "model"}


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("harm", ["cut", "gone", "lacking", "shape", "config"])
def test_a_damaged_part_is_named_and_never_filled_up_with_random_weights(copy, part, harm):
    path = copy / part / f"{WEIGHTS[part]}.safetensors"
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif harm == "gone":
        path.unlink()
    elif harm == "config":
        (copy / part / "config.json").write_text("{")
    else:
        tensors = load_file(path)
        name = sorted(tensors)[0]
        whole = tensors.pop(name)
        tensors |= {name: whole[:-1].clone()} if harm == "shape" else {}
        save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelFileError, match=f"{part}.*weights" if harm == "lacking" else part):
        Encoders.load(copy)


def test_an_autoencoder_of_stable_diffusion_is_read_by_its_old_names(tmp_path):
    """The attention of its published files has the names of older versions of diffusers."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(block_out_channels=(32,))
    vae.save_pretrained(tmp_path / "vae")
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = {}
    for name, tensor in load_file(path).items():
        old = next((name.replace(new, old) for new, old in names.items() if new in name), name)
        tensors[old] = tensor
    assert len(set(tensors) - set(load_file(path))) == 16
    save_file(tensors, path, {"format": "pt"})
    assert Encoders.load(tmp_path).codec.digest == Codec(vae).digest


def test_a_network_without_all_its_weights_is_refused(copy):
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_in.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelFileError, match=r"'unet' lacks 1 weights of SpatioTemporalUNet, such as conv_in\.weight"):
        Pipeline.load(copy)
