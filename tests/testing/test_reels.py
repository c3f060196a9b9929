"""Reels: what the truth says is what the frames show."""

import itertools
from collections import Counter
from fractions import Fraction

import cv2
import numpy as np
import pytest
from media_kit import digest

from curate.errors import ConfigError
from curate.media.decode import iter_frames
from curate.media.facts import read_facts
from curate.testing import scenes
from curate.testing.footage import write_video
from curate.testing.reel_edit import wipe_mask
from curate.testing.reel_footage import Shot, calm_stretches, gather_material
from curate.testing.reels import CLEAR_FRAMES, ENCODINGS, make_reel, read_truth, write_reel

SIZE = (96, 54)
ALL = {
    "hard": 3, "jump": 1, "short": 2, "dissolve": 3, "fade": 4, "wipe": 3,
    "flash": 3, "strobe": 2, "pan": 3, "static": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def material():
    """Takes of different pictures with a slow move, two of one scene."""
    takes = [np.stack(list(scenes.moving_texture(40, 128, 72, (1, 0), seed))) for seed in range(5)]
    return [Shot(frames, f"{i}.mp4", f"{i}.mp4#0", 25.0) for i, frames in enumerate(takes)]


@pytest.fixture(scope="module")
def reel(material):
    return make_reel(material, ALL, seed=4, size_px=SIZE)


@pytest.fixture(scope="module")
def frames(reel):
    return [frame.astype(np.float64) for frame in reel.frames()]


def soft_pan(n, seed):
    """A slow pan over a picture without fine detail."""
    return [cv2.GaussianBlur(frame, (0, 0), 5) for frame in scenes.moving_texture(n, 640, 360, (1, 0), seed)]


def step(frames, i):
    return float(np.abs(frames[i] - frames[i - 1]).mean())


def of(reel, *kinds):
    return [event for event in reel.events if event.kind in kinds]


def test_all_that_was_asked_for_is_there_and_apart(reel, frames):
    assert len(frames) == reel.n_frames
    counts = {kind: len(of(reel, kind)) for kind in ("hard", "jump", "short", "dissolve", "fade", "wipe")}
    assert counts == {"hard": 3, "jump": 1, "short": 4, "dissolve": 3, "fade": 4, "wipe": 3}
    assert Counter(d.kind for d in reel.distractors) == {"flash": 3, "strobe": 2, "pan": 3, "static": 2}
    for event in reel.events:
        for each in reel.distractors:
            apart = max(event.first - each.end, each.first - event.clean)
            assert apart >= (0 if each.kind == "static" else CLEAR_FRAMES - 1), (event, each)


def test_a_cut_is_the_step_between_its_two_frames(reel, frames):
    for event in of(reel, "hard", "short"):
        around = [step(frames, i) for i in range(event.first - 2, event.first + 3) if i != event.first]
        assert event.first == event.clean and step(frames, event.first) > 3 * np.median(around)


def test_a_jump_stays_on_its_scene_and_a_cut_leaves_it(material):
    reel = make_reel(material, {**ALL, "jump": 8}, seed=6, size_px=SIZE)
    kinds = [joint.kind for joint in reel.joints]
    same = [np.shares_memory(a.take.frames, b.take.frames) for a, b in itertools.pairwise(reel.scenes)]
    assert kinds.count("jump") == 8 and same == [kind == "jump" for kind in kinds]


def test_nearly_equal_pictures_are_never_cut_together(material):
    twins = [Shot(material[0].frames, f"{i}.mp4", f"{i}.mp4#0", 25.0) for i in range(3)]
    with pytest.raises(ConfigError, match="too little that is different"):
        make_reel(twins, {"hard": 1}, size_px=SIZE)


def test_a_pan_moves_in_its_frames_and_nowhere_else(material):
    still = [Shot(np.repeat(shot.frames[:1], 20, axis=0), shot.source, shot.scene, 25.0) for shot in material]
    reel = make_reel(still, {"pan": 4, "hard": 3}, seed=1, size_px=SIZE)
    frames = [frame.astype(np.int16) for frame in reel.frames()]
    moved = {i for i in range(1, len(frames)) if not np.array_equal(frames[i], frames[i - 1])}
    cuts = {event.first for event in reel.events}
    pans = [set(range(each.first, each.end + 1)) for each in reel.distractors]  # the blur is gone one frame later
    assert cuts <= moved <= cuts.union(*pans) and len(pans) == 4
    assert all(len(pan & moved) >= 0.8 * len(pan) - 1 for pan in pans)


def test_a_dissolve_is_the_blend_of_its_ends(reel, frames):
    for event in of(reel, "dissolve"):
        n = event.clean - event.first
        assert 4 <= n <= 48
        old, new = frames[event.first - 1], frames[event.clean]
        middle = frames[event.first + n // 2]
        apart = [float(np.abs(middle - end).mean()) for end in (old, new)]
        assert max(apart) < 0.9 * float(np.abs(old - new).mean())
        assert middle.std() < max(old.std(), new.std())


def test_a_fade_reaches_black_or_white_and_comes_back(reel, frames):
    ends = set()
    for event in of(reel, "fade"):
        inside = frames[event.first : event.clean]
        flat = [float(frame.mean()) for frame in inside if frame.std() == 0]
        assert flat and set(flat) <= {0.0, 255.0}
        ends |= set(flat)
        assert frames[event.first - 1].std() > 5 and frames[event.clean].std() > 5
        assert 0 < inside[0].std() < frames[event.first - 1].std() and inside[-1].std() < frames[event.clean].std()


def test_a_wipe_replaces_every_place_once_and_for_good():
    for seed in range(30):
        masks = np.stack([wipe_mask((54, 96), share, seed) for share in np.linspace(0, 1, 12)])
        assert (np.diff(masks, axis=0) >= 0).all() and (masks >= 0).all() and (masks <= 1).all()
        assert masks[0].mean() == 0 and masks[-1].mean() == 1
        assert 0.1 < masks[6].mean() < 0.95


def test_distractors_are_seen_and_end(reel, frames):
    for each in reel.distractors:
        before, after = frames[each.first - 1], frames[each.end]
        largest = max(step(frames, i) for i in range(each.first, each.end + 1))
        if each.kind == "static":
            assert max(step(frames, i) for i in range(each.first + 1, each.end)) < 2
        elif each.kind == "pan":
            assert largest > 3
        else:
            assert largest > 10 and np.abs(before - after).mean() < 0.5 * largest


def test_the_same_seed_gives_the_same_reel_and_another_one_does_not(material, reel):
    again, other = make_reel(material, ALL, seed=4, size_px=SIZE), make_reel(material, ALL, seed=5, size_px=SIZE)
    assert again.events == reel.events and other.events != reel.events
    assert all(np.array_equal(a, b) for a, b in zip(again.frames(), reel.frames(), strict=True))


@pytest.mark.parametrize("name", ENCODINGS)
def test_encoding_keeps_frames_time_stamps_and_truth(tmp_path, material, name):
    encoding = ENCODINGS[name]
    reel = make_reel(material, {"hard": 1, "dissolve": 1}, seed=2, rate=encoding.rate, size_px=SIZE, vfr=encoding.vfr)
    path = tmp_path / f"reel{encoding.suffix}"
    write_reel(path, reel, encoding)
    facts = read_facts(str(path))
    stamps = np.array([frame.pts for frame in iter_frames(str(path), facts)]) * float(facts.time_base_fraction)
    expected = np.array(reel.pts) / 90_000 if reel.pts else np.arange(reel.n_frames) / float(reel.rate)
    assert facts.vfr == encoding.vfr and len(stamps) == reel.n_frames
    assert np.abs(stamps - stamps[0] - expected).max() < 0.002
    assert read_truth(path) == (list(reel.events), list(reel.distractors))


def test_the_frames_of_a_file_are_those_of_the_reel(tmp_path, material):
    reel = make_reel(material, {"hard": 1}, seed=3, size_px=SIZE)
    write_video(tmp_path / "a.mp4", reel.frames(), options={"qp": "0", "crf": "0"}, pix_fmt="yuv444p")
    write_video(tmp_path / "b.mp4", reel.frames(), options={"qp": "0", "crf": "0"}, pix_fmt="yuv444p")
    facts = read_facts(str(tmp_path / "a.mp4"))
    first = [digest(frame) for frame in iter_frames(str(tmp_path / "a.mp4"), facts)]
    assert first == [digest(frame) for frame in iter_frames(str(tmp_path / "b.mp4"), facts)]
    cut = reel.events[0].first
    decoded = [f.av_frame.to_ndarray(format="rgb24") for f in iter_frames(str(tmp_path / "a.mp4"), facts)]
    for i, wanted in enumerate(reel.frames()):
        assert np.abs(decoded[i].astype(int) - wanted).mean() < 3, (i, cut)


def test_calm_stretches_leave_out_cuts_dissolves_and_black():
    quiet = [soft_pan(40, seed) for seed in range(4)]
    black = [np.zeros((360, 640, 3), np.uint8)] * 30
    dissolve = [cv2.addWeighted(quiet[1][-1], 1 - i / 20, quiet[2][0], i / 20, 0) for i in range(1, 20)]
    frames = [*quiet[0], *quiet[1], *dissolve, *quiet[2], *black, *quiet[3]]
    calm = calm_stretches(frames)
    edits = [(40, 40), (80, 99), (139, 169)]
    assert calm
    for first, end in calm:
        assert all(end <= a or first >= b for a, b in edits), (first, end)


def test_a_folder_without_usable_footage_is_a_clear_error(tmp_path):
    write_video(tmp_path / "flat.mp4", [np.full((54, 96, 3), 128, np.uint8)] * 30)
    with pytest.raises(ConfigError, match="no stretch of footage"):
        gather_material(tmp_path)


def test_a_folder_is_split_into_halves_by_film(tmp_path):
    for seed, name in enumerate(("anna.mp4", "bertaundwilli.mp4", "bertaundwilli.part2.mp4")):
        write_video(tmp_path / name, soft_pan(48, seed), Fraction(25), options={"preset": "ultrafast"})
    halves = [gather_material(tmp_path, half=half, size_px=(480, 270)) for half in ("report", "tune")]
    names = [{shot.source for shot in half} for half in halves]
    assert (
        sorted(names[0] | names[1]) == ["anna.mp4", "bertaundwilli.mp4", "bertaundwilli.part2.mp4"]
        and not names[0] & names[1]
    )
    assert {"bertaundwilli.mp4", "bertaundwilli.part2.mp4"} in names
