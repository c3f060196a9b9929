"""Clips on their way to another group: full batches, within a limit of memory, none held for long."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from engine_kit import Double, FaultConfig, LosesGpu, Luma, LumaConfig, PooledDouble, TooLarge, all_cells, pipeline, run

from curate.config import Config
from curate.engine import forward as forward_module
from curate.engine.forward import BATCHES_A_BUNDLE, HOLD_S, LEAST_CLIPS, Forward, largest_batch
from curate.engine.score import OpenClip
from curate.errors import DeviceLostError, DeviceMemoryError
from curate.records import Clip, Span
from curate.stage import Resources
from curate.testing.footage import moving_texture, write_video
from curate.view import View

BASE = Fraction(1, 25)


def clip(number: int, n_bytes: int = 100) -> OpenClip:
    view = View(np.zeros((1, 1, n_bytes), np.uint8), np.zeros(1, np.int64), BASE, np.zeros(1, np.int64))
    found = Clip.of_span("d" * 64, 0, BASE, Span(25 * number, 25 * number + 25))
    return OpenClip(found, None, {"a/v": view, "b/v": view}, frozenset({"a"}))  # type: ignore[arg-type]


def sent(forward: Forward, clips: list[OpenClip], attempts=None) -> list[list[str]]:
    """Ids by bundle that are sent while clips come, and at last the rest."""
    found = []
    for each in clips:
        forward.add(each, attempts or {})
        if (bundle := forward.due()) is not None:
            found.append(bundle)
    found.append(forward.take())
    assert forward.take() is None
    return [[item.clip.clip_id for item, _ in bundle.items] for bundle in found if bundle]


def ids(clips: list[OpenClip]) -> list[str]:
    return [each.clip.clip_id for each in clips]


@pytest.mark.parametrize("batch", [1, 5, 8, 32])
def test_bundles_are_several_full_batches_and_every_clip_is_in_one(batch):
    clips = [clip(number) for number in range(500)]
    bundles = sent(Forward(frozenset({"a/v"}), batch), clips)
    assert [each for bundle in bundles for each in bundle] == ids(clips)
    sizes = {len(bundle) for bundle in bundles[:-1]}
    assert len(sizes) == 1
    (size,) = sizes
    assert size % batch == 0 and size >= max(LEAST_CLIPS, BATCHES_A_BUNDLE * batch)


def test_within_the_limit_of_memory_as_many_full_batches_as_fit():
    clips = [clip(number, 1000) for number in range(100)]
    bundles = sent(Forward(frozenset({"a/v"}), 8, most_bytes=20_000), clips)
    assert [len(bundle) for bundle in bundles] == [16] * 6 + [4]
    assert [len(bundle) for bundle in sent(Forward(frozenset({"a/v"}), 32, most_bytes=20_000), clips)] == [20] * 5


def test_what_has_waited_long_enough_is_sent_as_it_is(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(forward_module.time, "monotonic", lambda: now)
    forward = Forward(frozenset(), 8)
    forward.add(clip(0), {})
    now += HOLD_S / 2
    forward.add(clip(1), {})
    assert forward.due() is None
    now += HOLD_S / 2
    bundle = forward.due()
    assert bundle is not None and len(bundle.items) == 2
    forward.add(clip(2), {})
    assert forward.due() is None, "it has not waited yet"


def test_a_bundle_has_the_views_that_are_asked_for_and_the_attempts_at_its_own_clips():
    clips = [clip(number) for number in range(40)]
    attempts = {("a", each.clip.clip_id): number for number, each in enumerate(clips)}
    forward = Forward(frozenset({"b/v"}), 8, shared=True)
    for each in clips:
        forward.add(each, {**attempts, ("other", each.clip.clip_id): 7})
    bundle = forward.due()
    assert bundle is not None and len(bundle.items) == 40
    assert bundle.attempts == attempts
    item, work = bundle.items[3]
    assert set(item.views) == {"b/v"} and item.clip == work.clip == clips[3].clip
    assert not np.shares_memory(item.views["b/v"].frames, clips[3].pixels["b/v"].frames)


class Seen(PooledDouble):
    """Remembers the sizes of its batches."""

    name = "seen"
    resources = Resources(cpus=0.5, pool=True, batch_size=4)
    sizes: list[int]

    def setup(self) -> None:
        self.sizes = []

    def score_batch(self, items):
        self.sizes.append(len(items))
        return super().score_batch(items)


@pytest.fixture(scope="module")
def short_films(tmp_path_factory):
    """Fourteen of a clip each."""
    folder = tmp_path_factory.mktemp("short")
    for number in range(14):
        write_video(folder / f"{number}.mp4", moving_texture(20, 64, 48, (1, 0), seed=number))
    return folder


def test_clips_of_short_films_share_batches_and_get_the_same_values(tmp_path, short_films):
    """Inline a batch of four was padded from one film's single clip."""
    together, luma = Seen(Config()), Luma(LumaConfig())
    assert largest_batch(pipeline(luma, together)) == 4
    run(tmp_path / "together", short_films, pipeline(luma, together))
    assert together.sizes == [4, 4, 4, 2]
    run(tmp_path / "alone", short_films, pipeline(luma, Double(Config())))
    found = all_cells(tmp_path / "together", pipeline(luma, together))["seen"]
    assert found == all_cells(tmp_path / "alone", pipeline(luma, Double(Config())))["double"]


def test_a_lost_gpu_ends_an_inline_run_and_the_next_one_goes_on(tmp_path, short_films):
    pipe = pipeline(Luma(LumaConfig()), LosesGpu(FaultConfig(marker=str(tmp_path / "lost"))))
    with pytest.raises(DeviceLostError, match=r"stage loses: .*unspecified launch failure"):
        run(tmp_path / "c", short_films, pipe)
    run(tmp_path / "c", short_films, pipe)
    cells = all_cells(tmp_path / "c", pipe)["loses"]
    assert [row[2] for row in cells] == ["ok"] * 14


def test_a_model_without_room_ends_a_run_and_fails_no_clip(tmp_path, short_films):
    pipe = pipeline(Luma(LumaConfig()), TooLarge(FaultConfig()))
    with pytest.raises(DeviceMemoryError, match=r"stage too_large: .*no room"):
        run(tmp_path / "c", short_films, pipe)
    cells = all_cells(tmp_path / "c", pipe)
    assert cells["too_large"] == []
    assert len(cells["luma"]) == 14, "what was done is kept"
