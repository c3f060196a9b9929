"""Both of LAION's aesthetic heads as they were published: they load as a run loads them, and rate as written out here.

Not found by name, since users have not the files: `make test-real FOOTAGE=folder WEIGHTS=folder`.
"""

from __future__ import annotations

import hashlib
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch

from curate.errors import MissingModelError
from curate.records import Clip, Outcome, Span
from curate.stage import ClipItem
from curate.stages.aesthetic import Aesthetic, AestheticConfig
from curate.stages.clip.card import FRAMES
from curate.weights.cards import load_card
from curate.weights.store import FileStatus, location, verify

LINEAR, MLP = "laion-aesthetic-v1-l14", "laion-aesthetic-sac-logos-ava1-l14"
LENGTH = 768


@pytest.fixture(params=[LINEAR, MLP])
def head(request, real_weights, tmp_path, monkeypatch):
    """The stage with a head that was put into an empty store by hand; the bytes of its file."""
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "models"))
    card = load_card(request.param)
    (file,) = card.files
    stage = Aesthetic(AestheticConfig(model=card.name))
    with pytest.raises(MissingModelError, match=f"curate models fetch {card.name}"):
        stage.setup()
    place = location(card, file)
    place.parent.mkdir(parents=True)
    shutil.copyfile(real_weights / file.name, place)
    assert hashlib.sha256(place.read_bytes()).hexdigest() == file.sha256
    assert verify(card) == {file.name: FileStatus.OK}
    stage.setup()
    return stage, torch.load(real_weights / file.name, map_location="cpu", weights_only=True)


def by_hand(state, name, vectors_nd):
    """Ratings in double precision: the vector at length 1, then x times the transposed weight plus the bias, again
    and again; between the layers lie drop-outs, and nothing else."""
    order = [""] if name == LINEAR else [f"layers.{number}." for number in (0, 2, 4, 6, 7)]
    assert set(state) == {f"{prefix}{part}" for prefix in order for part in ("weight", "bias")}
    x_nd = vectors_nd.astype(np.float64) / np.linalg.norm(vectors_nd.astype(np.float64), axis=1, keepdims=True)
    for prefix in order:
        x_nd = x_nd @ state[f"{prefix}weight"].double().numpy().T + state[f"{prefix}bias"].double().numpy()
    return x_nd[:, 0]


def triples():
    """Three vectors each: random ones as `clip` stores them, single numbers, all alike, of other lengths than 1."""
    rng = np.random.default_rng(5)
    for _ in range(8):
        vectors = rng.normal(size=(3, LENGTH))
        yield (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    yield np.eye(LENGTH, dtype=np.float32)[[0, 400, 767]]
    yield -np.eye(LENGTH, dtype=np.float32)[[0, 400, 767]]
    yield np.ones((3, LENGTH), np.float16) * np.array([[1.0], [-1.0], [0.25]], np.float16)
    yield rng.normal(size=(3, LENGTH)).astype(np.float32) * 7


def item_of(vectors):
    clip = Clip.of_span("0" * 64, 0, Fraction(1, 90000), Span(0, 90000))
    return ClipItem(clip, None, {}, {"clip": dict(zip(FRAMES, vectors, strict=True))})


def test_ratings_are_those_computed_by_hand(head):
    """Single precision against double: within 1e-5 of numbers around 5."""
    stage, state = head
    given = list(triples())
    cells = stage.process([item_of(vectors) for vectors in given])
    assert {cell.outcome for cell in cells} == {Outcome.OK}
    found = np.array([cell.values["scores"] for cell in cells])
    expected = np.array([by_hand(state, stage.config.model, vectors) for vectors in given])
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-5)
    assert np.ptp(expected) > 0.5
