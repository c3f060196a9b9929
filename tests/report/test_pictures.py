"""Pictures of real films; what cannot be shown says why, and never stops the report."""

from __future__ import annotations

import base64
import itertools
import os
import time

import cv2
import numpy as np
import pytest
from export_kit import ExportKit
from file_server_kit import serving

from curate.config import parse_config
from curate.errors import StorageError
from curate.forget import forget
from curate.ingest.spool import spooled
from curate.isolation import Limits
from curate.media import still
from curate.media.facts import read_facts
from curate.records import Clip, InputRef, Span
from curate.report import pictures, write_report
from curate.report.facts import build_facts, chosen_selection
from curate.report.pictures import take_pictures
from curate.select import SelectConfig, select
from curate.testing.footage import write_video

COLOURS = {"red": (250, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 250), "black": (5, 5, 5)}


def film(path, *colours, size=(96, 160), frames=12):
    """Shots of one colour each."""
    shots = ([np.full((*size, 3), COLOURS[name], np.uint8)] * frames for name in colours)
    write_video(path, itertools.chain(*shots))
    return path


def corpus_of(kit):
    corpus = kit.write()
    rule = {"name": "sel", "conditions": [{"column": "motion.v2d_px16", "min": 0.4}], "dedup": {"method": "none"}}
    select(corpus, parse_config(SelectConfig, rule, "select"))
    return corpus


def shown(corpus, n=200, limits=None, **options):
    found = build_facts(corpus, chosen_selection(corpus, None, None), pictures=n, **options)
    return take_pictures(found.wanted, list(found.facts["clip_facts"]), found.reasons, limits=limits)


def colour_of(picture):
    data = base64.b64decode(picture["src"].removeprefix("data:image/webp;base64,"))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert pixels.shape == (picture["height"], picture["width"], 3)
    mean = pixels.reshape(-1, 3).mean(0)
    return min(COLOURS, key=lambda name: np.abs(mean - COLOURS[name]).sum())


@pytest.fixture
def kit(tmp_path):
    return ExportKit(tmp_path / "corpus")


def test_each_clip_is_shown_by_a_frame_of_its_own(tmp_path, kit):
    one = kit.film(film(tmp_path / "a.mp4", "red", "green", "blue"), [0, 12, 24, 36])
    two = kit.film(film(tmp_path / "tall.mp4", "blue", "red", size=(480, 270)), [0, 12, 24])
    found = shown(corpus_of(kit))
    colours = {clip: colour_of(found[clip]) for clip in found}
    assert colours == dict(zip([*one, *two], ["red", "green", "blue", "blue", "red"], strict=True))
    assert {(p["width"], p["height"]) for clip, p in found.items() if clip in two} == {(101, 180)}
    assert {(p["width"], p["height"]) for clip, p in found.items() if clip in one} == {(160, 96)}


def test_a_long_clip_is_shown_by_a_key_frame_near_its_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(still, "_MOST_DECODED_PX", 0)
    path = film(tmp_path / "a.mp4", "red", "green", "blue", frames=30)
    facts = read_facts(str(path))
    clip = Clip.of_span("d", 0, facts.time_base_fraction, Span(facts.start_pts, facts.end_pts))
    middle = (clip.start_pts + clip.end_pts) // 2
    assert still._wanted(facts, clip) in facts.key_frames_pts
    assert abs(still._wanted(facts, clip) - middle) < 0.35 * (clip.end_pts - clip.start_pts)
    data, width_px, height_px = still.clip_still(str(path), facts, clip, 240, 180)
    assert data[8:12] == b"WEBP" and (width_px, height_px) == (160, 96)


def test_what_is_gone_changed_or_broken_says_so(tmp_path, kit):
    shots = {"gone": "red", "changed": "green", "broken": "blue", "fine": "black"}
    films = [film(tmp_path / f"{name}.mp4", colour, "red") for name, colour in shots.items()]
    gone, changed, broken, fine = (kit.film(path, [0, 12, 24]) for path in films)
    corpus = corpus_of(kit)
    (tmp_path / "gone.mp4").unlink()
    film(tmp_path / "changed.mp4", "blue", frames=20)
    data = (tmp_path / "broken.mp4").read_bytes()
    before = (tmp_path / "broken.mp4").stat()
    (tmp_path / "broken.mp4").write_bytes(data[:48] + bytes(len(data) - 48))
    os.utime(tmp_path / "broken.mp4", ns=(before.st_atime_ns, before.st_mtime_ns))
    found = shown(corpus)
    assert [found[clip]["missing"] for clip in gone] == ["its source is gone since it was listed"] * 2
    assert {found[clip]["missing"] for clip in changed} == {"its source is no longer the content that was scored"}
    assert all("missing" in found[clip] for clip in broken)
    assert [colour_of(found[clip]) for clip in fine] == ["black", "red"]
    assert str(tmp_path) not in " ".join(p.get("missing", "") for p in found.values())


def test_a_second_name_of_the_same_content_will_do(tmp_path, kit):
    path, twin = film(tmp_path / "a.mp4", "red"), tmp_path / "twin.mp4"
    twin.write_bytes(path.read_bytes())
    (clip,) = kit.film(path, [0, 12], names=[twin])
    corpus = corpus_of(kit)
    path.unlink()
    assert colour_of(shown(corpus)[clip]) == "red"


def test_remote_sources_are_fetched_once_and_only_so_much_of_them(tmp_path, kit, monkeypatch):
    data = film(tmp_path / "a.mp4", "red", "green").read_bytes()
    with serving({"a.mp4": data}) as server:
        clips = kit.film(tmp_path / "a.mp4", [0, 12, 24])
        for row in (*kit.inputs, *kit.source_rows):
            row.update(uri=f"{server.uri}/a.mp4", version="")
        corpus = corpus_of(kit)
        found = shown(corpus)
        assert [colour_of(found[clip]) for clip in clips] == ["red", "green"]
        fetched = len(server.gets())
        assert fetched <= 2  # fsspec opens it, then reads it
        monkeypatch.setattr(pictures, "MOST_FETCHED_BYTES", len(data) - 1)
        assert all("too large to be fetched" in picture["missing"] for picture in shown(corpus).values())
        assert len(server.gets()) == fetched


def test_number_size_and_time_are_bounded(tmp_path, kit, monkeypatch):
    kit.film(film(tmp_path / "a.mp4", "red", "green", "blue"), [0, 12, 24, 36])
    corpus = corpus_of(kit)
    assert [sorted(p) for p in shown(corpus, 0).values()] == [["missing"]] * 3
    some = shown(corpus, 2)
    assert ["src" in picture for picture in some.values()] == [True, True, False]
    monkeypatch.setattr(pictures, "MOST_TEXT_BYTES", len(next(iter(some.values()))["src"]))
    assert ["src" in picture for picture in shown(corpus).values()] == [True, False, False]
    monkeypatch.setattr(pictures, "MOST_S", -1.0)
    assert {picture["missing"] for picture in shown(corpus).values()} == {pictures._TOO_LATE}


def test_clips_of_an_open_source_wait_no_longer_than_all_pictures_may_take(tmp_path, kit, monkeypatch):
    kit.film(film(tmp_path / "a.mp4", "red", "green", "blue"), [0, 12, 24, 36])
    corpus = corpus_of(kit)
    monkeypatch.setattr(pictures, "MOST_S", 30.0)
    began_s, real, limits = time.monotonic(), pictures._picture, []

    def slow(sandbox, *rest):
        limits.append(sandbox.limits)
        found = real(sandbox, *rest)
        monkeypatch.setattr(pictures.time, "monotonic", lambda: began_s + 60)  # as if it had taken a minute
        return found

    monkeypatch.setattr(pictures, "_picture", slow)
    found = shown(corpus, limits=Limits(memory_bytes=3_000_000_000))
    assert [p.get("missing", "") for p in found.values()] == ["", pictures._TOO_LATE, pictures._TOO_LATE]
    assert [(limit.memory_bytes, limit.least_s) for limit in limits] == [(3_000_000_000, 20.0)]


def test_a_copy_breaks_off_when_time_is_up(tmp_path):
    data = film(tmp_path / "a.mp4", "red").read_bytes()
    with serving({"a.mp4": data}) as server:
        ref = InputRef(f"{server.uri}/a.mp4", len(data), "")
        with pytest.raises(StorageError, match="in time"), spooled(ref, tmp_path, deadline_s=time.monotonic() - 1):
            pass
        with spooled(ref, tmp_path, deadline_s=time.monotonic() + 60) as file:
            assert file.size_bytes == len(data)


def test_a_source_that_was_taken_down_is_not_shown(tmp_path, kit):
    path = film(tmp_path / "a.mp4", "red")
    kit.film(path, [0, 12])
    fine = kit.film(film(tmp_path / "b.mp4", "blue"), [0, 12])
    corpus = corpus_of(kit)
    forget(corpus, str(path), "asked to")
    assert list(shown(corpus)) == fine


def test_the_whole_report_lies_in_one_file(tmp_path, kit):
    kit.film(film(tmp_path / "a.mp4", "red", "green"), [0, 12, 24])
    corpus = corpus_of(kit)
    written = write_report(corpus, out=str(tmp_path / "my report.html"))
    text = (tmp_path / "my report.html").read_text()
    assert written.size_bytes == len(text.encode()) and (written.n_shown, written.n_pictures) == (2, 2)
    assert text.count("data:image/webp;base64,") >= 2 and "http://" not in text.replace("http://www.w3.org", "")
