"""The model hub by its own client, against a server on loopback that answers as the hub does, faults included."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cli_kit import Ended, curate
from file_server_kit import COMMIT, FileServer, serving
from huggingface_hub import constants

CONFIG = b'{"width": 8}\n'
WEIGHTS = os.urandom(3 << 20)
REPOSITORY = "org/model/resolve/main"
KEY = "hf_verysecret1234567890"


@dataclass
class Machine:
    """Runs `curate models` as a user of that hub would."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    server: FileServer

    def models(self, *args: str | Path) -> Ended:
        ended = curate("models", *args)
        assert "verysecret" not in ended.out + ended.err
        return ended

    def file(self, name: str, data: bytes) -> Path:
        return self.folder / "models" / "hubbed" / hashlib.sha256(data).hexdigest()[:16] / name

    def cut_off(self) -> None:
        self.monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def card_text(**weights: object) -> str:
    spec = "hf:org/model@main#"
    files = [
        {"name": "config.json", "sources": [f"{spec}config.json"]},
        {"name": "model.safetensors", "sources": [f"{spec}model.safetensors"], **weights},
    ]
    about = {"purpose": "p", "licence": "MIT", "input": "i", "output": "o", "memory_bytes": 1, "needed_by": []}
    return yaml.safe_dump({"name": "hubbed", "files": files, **about})


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "hubbed.yaml").write_text(card_text())
    monkeypatch.setenv("CURATE_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("CURATE_MIRROR", raising=False)
    files = {f"{REPOSITORY}/config.json": CONFIG, f"{REPOSITORY}/model.safetensors": WEIGHTS}
    with serving(files, large={f"/{REPOSITORY}/model.safetensors"}) as server:
        # Where HF_ENDPOINT and HF_HOME would put them: the client reads its environment once, when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", server.uri)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "".join((server.uri, *template[1:])))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield Machine(tmp_path, monkeypatch, server)


def test_the_settings_of_the_hubs_client_are_those_of_its_user(machine):
    """In a process of its own, by the environment."""
    home = {
        "HF_HOME": str(machine.folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": KEY,
    }
    command = [sys.executable, "-m", "curate.cli.main", "models", "fetch", "hubbed"]
    env = {**os.environ, **home, "HF_ENDPOINT": machine.server.uri}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "verysecret" not in done.stdout + done.stderr
    assert machine.file("model.safetensors", WEIGHTS).read_bytes() == WEIGHTS
    assert machine.server.tokens == {f"org Bearer {KEY}"}  # and no other host got it


def test_files_without_a_known_digest_are_trusted_on_first_use_and_held_to_it(machine):
    fetched = machine.models("fetch", "hubbed")
    assert fetched.status == 0, fetched.err
    assert fetched.out.count("trusted on first use") == 2
    assert machine.file("config.json", CONFIG).read_bytes() == CONFIG
    assert machine.file("model.safetensors", WEIGHTS).read_bytes() == WEIGHTS
    found = json.loads((machine.folder / "models/hubbed/found/model.safetensors.json").read_text())
    assert found["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert (found["size_bytes"], found["origin"]) == (len(WEIGHTS), f"hf:org/model@{COMMIT}#model.safetensors")
    again = machine.models("fetch", "hubbed")
    assert again.out.count("already here") == 2
    verified = machine.models("verify", "hubbed")
    assert verified.status == 0
    for text in (verified.out, machine.models("list").out):
        assert f"hubbed/config.json: trusted on first use, sha256 {hashlib.sha256(CONFIG).hexdigest()}" in text


@pytest.mark.parametrize(("name", "old"), [("config.json", CONFIG), ("model.safetensors", WEIGHTS)])
def test_another_file_of_that_name_on_the_hub_is_refused_from_then_on(machine, name, old):
    machine.models("fetch", "hubbed")
    machine.server.files[f"/{REPOSITORY}/{name}"] = old[:-1] + b"?"
    machine.file(name, old).unlink()
    assert "missing" in machine.models("verify", "hubbed").out
    refused = machine.models("fetch", "hubbed")
    assert refused.status == 1
    assert f"where {hashlib.sha256(old).hexdigest()} is wanted" in refused.err
    assert f"remove {machine.folder / 'models/hubbed/found'} to trust what the model hub gives now" in refused.err
    assert not machine.file(name, old[:-1] + b"?").exists()


def test_a_large_file_that_broke_off_is_gone_on_with(machine):
    part = machine.folder / f"models/hubbed/.model.safetensors.{hashlib.sha256(WEIGHTS).hexdigest()[:16]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS[: 1 << 20])
    machine.server.faults += ["", "break:500000"]
    fetched = machine.models("fetch", "hubbed")
    assert fetched.status == 0, fetched.err
    assert machine.file("model.safetensors", WEIGHTS).read_bytes() == WEIGHTS
    ranges = [line.rpartition("bytes=")[2] for line in machine.server.gets() if "safetensors" in line]
    assert ranges == [f"{1 << 20}-"] * 2  # what broke off was less than one of the client's blocks
    assert not part.exists()


def test_a_digest_of_the_card_is_compared_before_anything_is_downloaded(machine):
    (machine.folder / "cards" / "hubbed.yaml").write_text(card_text(sha256="1" * 64, size_bytes=len(WEIGHTS)))
    refused = machine.models("fetch", "hubbed")
    assert refused.status == 1
    assert f"has sha256 {hashlib.sha256(WEIGHTS).hexdigest()}, where 1111" in refused.err
    assert not [line for line in machine.server.gets() if "safetensors" in line]


def test_what_the_hub_does_not_have_or_guards_is_told(machine):
    del machine.server.files[f"/{REPOSITORY}/config.json"]
    missing = machine.models("fetch", "hubbed")
    assert (missing.status, "404" in missing.err, "Traceback" in missing.err) == (1, True, False)
    machine.cut_off()
    offline = machine.models("fetch", "hubbed")
    assert (offline.status, "offline" in offline.err.lower()) == (1, True)


def test_the_hubs_own_cache_serves_without_a_network(machine):
    """A machine whose user has the model from another tool already."""
    root = machine.folder / "hf/hub/models--org--model"
    for name, data in (("config.json", CONFIG), ("model.safetensors", WEIGHTS)):
        path = root / "snapshots" / COMMIT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    machine.cut_off()
    fetched = machine.models("fetch", "hubbed")
    assert fetched.status == 0, fetched.err
    assert machine.file("model.safetensors", WEIGHTS).read_bytes() == WEIGHTS
    assert machine.server.asked == []


def test_a_bundle_takes_what_was_found_along(machine):
    machine.models("fetch", "hubbed")
    bundled = machine.models("bundle", str(machine.folder / "usb"), "hubbed")
    assert bundled.status == 0, bundled.err
    machine.cut_off()
    machine.monkeypatch.setenv("CURATE_MODELS", str(machine.folder / "elsewhere"))
    machine.monkeypatch.setenv("CURATE_CARDS", str(machine.folder / "usb" / "cards"))
    fetched = machine.models("fetch", "hubbed", "--mirror", str(machine.folder / "usb"))
    assert fetched.status == 0, fetched.err
    assert "trusted on first use" in fetched.out
    machine.monkeypatch.setenv("CURATE_MODELS", str(machine.folder / "usb"))
    assert machine.models("verify", "hubbed").status == 0
