"""Weights are tensors: whatever else a file holds is refused, and nothing in it runs."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from curate.errors import ModelFileError
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
