"""Which frames a cut detector is shown, and how those between are found."""

import numpy as np
import pytest
from media_kit import small

from curate.media import looks as looks_module
from curate.media.decode import iter_frames
from curate.media.looks import Looks
from curate.media.packets import Depth

FILES = {
    "h264.mp4": {"codec": "libx264", "options": {"bf": "3"}},
    "plain.mp4": {"codec": "libx264", "options": {"bf": "0"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2", "qscale": "3"}},
    "av1.mp4": {"codec": "libsvtav1"},
}


def shown(path, facts, wants, *, every=False, depth=Depth.REFERENCE):
    """All thumbs in order; ``wants`` says of a look whether the frames between are asked for."""
    out = []
    looks = Looks(path, facts, 64, every=every)
    with iter_frames(path, facts, depth=Depth.EVERY if every else depth) as frames:
        for frame in frames:
            look = looks.push(frame)
            if look is not None:
                for near in looks.nearer(look) if wants(look) else [look]:
                    out += looks.all_between(near) if near.skipped and wants(near) else [near]
        last = looks.last()
    return [*out, *([last] if last else [])], frames.trailing


@pytest.mark.parametrize("name", FILES)
def test_looks_and_what_they_skip_are_all_frames(tmp_path, name):
    path, facts = small(tmp_path / name, n=60, **FILES[name])
    all_pts = [frame.pts for frame in iter_frames(path, facts)]
    thumbs, trailing = shown(path, facts, lambda _: False)
    assert sorted([pts for t in thumbs for pts in (t.pts, *t.skipped)] + list(trailing)) == all_pts
    gaps_s = np.diff([t.pts for t in thumbs]) * float(facts.time_base_fraction)
    assert len(thumbs) <= 12 * facts.duration_s + 2 and gaps_s.max() <= 0.17


@pytest.mark.parametrize("depth", [Depth.REFERENCE, Depth.LIKELY, Depth.EVERY])
@pytest.mark.parametrize("name", FILES)
def test_frames_between_are_the_same_whether_held_or_decoded_again(tmp_path, name, depth):
    path, facts = small(tmp_path / name, n=60, **FILES[name])
    every, _ = shown(path, facts, lambda _: False, every=True)
    pictures = {t.pts: t.yuv for t in every}
    filled, trailing = shown(path, facts, lambda _: True, depth=depth)
    assert [t.pts for t in filled] + list(trailing) == list(pictures)
    assert all(not t.skipped and np.array_equal(t.yuv, pictures[t.pts]) for t in filled)


@pytest.mark.parametrize("name", FILES)
def test_looks_do_not_depend_on_how_much_is_decoded(tmp_path, name):
    path, facts = small(tmp_path / name, n=60, **FILES[name])
    few = [(t.pts, t.skipped) for t in shown(path, facts, lambda _: False)[0]]
    many = [(t.pts, t.skipped) for t in shown(path, facts, lambda _: False, depth=Depth.EVERY)[0]]
    at = 1 + max(i for i, (pts, _) in enumerate(few) if pts in dict(many))
    assert at > 5 and few[: at - 1] == many[: at - 1]


def test_large_frames_are_held_as_their_thumbs_alone(tmp_path, monkeypatch):
    path, facts = small(tmp_path / "a.mp4", n=40, **FILES["plain.mp4"])
    held, _ = shown(path, facts, lambda _: True)
    monkeypatch.setattr(looks_module, "HELD_PX", 0)
    slim, _ = shown(path, facts, lambda _: True)
    assert [t.pts for t in slim] == [t.pts for t in held]
    assert all(np.array_equal(a.yuv, b.yuv) for a, b in zip(slim, held, strict=True))


def test_much_decoding_again_is_called_wasteful(tmp_path):
    path, facts = small(tmp_path / "a.mp4", n=300, **FILES["mpeg4.mp4"])
    looks = Looks(path, facts, 64)
    with iter_frames(path, facts, depth=Depth.REFERENCE) as frames:
        for frame in frames:
            if (look := looks.push(frame)) is not None and look.skipped:
                looks.all_between(look)
    assert looks.wasteful


def test_few_whole_frames_are_held_between_two_looks(tmp_path, monkeypatch):
    path, facts = small(tmp_path / "a.mp4", n=40, **FILES["plain.mp4"])
    monkeypatch.setattr(looks_module, "LOOKS_PER_S", 1)
    monkeypatch.setattr(looks_module, "HELD_PX", 3 * 96 * 54)
    looks = Looks(path, facts, 64)
    with iter_frames(path, facts) as frames:
        for _ in range(20):
            looks.push(next(frames))
    whole = [held for held in looks._held.values() if not isinstance(held.picture, np.ndarray)]
    assert len(looks._held) == 19 and len(whole) == 3
