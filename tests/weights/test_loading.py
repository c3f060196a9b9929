"""Weights are tensors: whatever else a file holds is refused, and nothing in it runs."""

import os
import pickle
import random
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from curate.errors import ModelFileError, StorageError
from curate.weights.loading import load_state

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


def same(found):
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_checkpoints(tmp_path, wrap):
    torch.save(wrap(STATE), tmp_path / "w.pt")
    assert same(load_state(str(tmp_path / "w.pt")))


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert same(load_state(str(tmp_path / "w.safetensors")))


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    canary = tmp_path / "canary"
    torch.save({"a": Evil(canary)}, tmp_path / "w.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil(canary), protocol=2))
    for name in ("w.pt", "plain.pt"):
        with pytest.raises(ModelFileError, match="tensors alone"):
            load_state(str(tmp_path / name))
    assert not canary.exists()


@pytest.mark.parametrize(("name", "data"), [("w.safetensors", b"no"), ("w.pt", b"no"), ("w.pt", b"")])
def test_damage_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelFileError, match=name):
        load_state(str(tmp_path / name))


def test_something_else_than_tensors_is_refused(tmp_path):
    torch.save({"a": 3}, tmp_path / "w.pt")
    with pytest.raises(ModelFileError, match="something else"):
        load_state(str(tmp_path / "w.pt"))


@pytest.mark.parametrize("new", [True, False], ids=["zip", "pickle"])
def test_whatever_damage_does_the_file_is_named(tmp_path, new):
    torch.save(STATE, tmp_path / "whole.pt", _use_new_zipfile_serialization=new)
    whole, draw = (tmp_path / "whole.pt").read_bytes(), random.Random(0)
    path = tmp_path / "w.pt"
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(3):
            data[draw.randrange(min(len(data), 900))] = draw.randrange(256)
        path.write_bytes(data)
        try:
            load_state(str(path))
        except ModelFileError as error:
            refused += error.subject == str(path)
    assert refused > 50


def test_a_file_that_is_not_there_is_no_damage(tmp_path):
    for name in ("w.pt", "w.safetensors"):
        with pytest.raises(StorageError, match="does not exist"):
            load_state(str(tmp_path / name))


def test_tensors_that_lay_on_a_gpu_come_to_the_cpu(tmp_path):
    """As LAION's second head does: its tensors say that they belong on ``cuda:0``."""
    torch.save(STATE, tmp_path / "cpu.pt")
    with zipfile.ZipFile(tmp_path / "cpu.pt") as archive, zipfile.ZipFile(tmp_path / "gpu.pth", "w") as moved:
        for item in archive.namelist():
            data = archive.read(item)
            moved.writestr(item, data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"))
    assert b"cuda:0" in (tmp_path / "gpu.pth").read_bytes()
    assert same(load_state(str(tmp_path / "gpu.pth")))
