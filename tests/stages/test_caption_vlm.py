"""The vision-language captioner: a caption belongs to its own clip, whatever comes when and in which company."""

from __future__ import annotations

import functools
import sys
from fractions import Fraction

import numpy as np
import pytest
from endpoint_kit import FAULTS, Script, drawn, number_in, pictures_of, served, texts_of
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import MissingModelError
from curate.records import Clip, Outcome, Span
from curate.redaction import redacted
from curate.stage import ClipItem
from curate.stages.caption import endpoint as module
from curate.stages.caption.base import frames_digest
from curate.stages.caption.vlm import VlmCaption, VlmConfig
from curate.testing.contract import check_stage
from curate.view import View

KEY = "sk-very-secret-0123456789"
BASE = Fraction(1, 4)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)


def seen(asked):
    """The model of these tests names the numbers that it sees."""
    return "clip of " + " ".join(str(number_in(picture)) for picture in pictures_of(asked))


def stage(url, **more):
    endpoint = {"url": url, "model": "sees", "timeout_s": 5.0, "concurrency": 6, "retries": 1}
    endpoint |= {name: more.pop(name) for name in list(more) if name in module.EndpointConfig.model_fields}
    made = VlmCaption(VlmConfig.model_validate({"endpoint": endpoint, "frames": 2, **more}))
    made.setup()
    return made


def clip_of(facts, number, frames=None):
    """A clip whose two frames show its number, and a thousand more."""
    shown = [drawn(number), drawn(number + 1000)] if frames is None else frames
    pts = np.arange(len(shown), dtype=np.int64) + 10 * number
    view = View(np.array(shown), pts, BASE, np.zeros(len(shown), np.int64))
    name = Clip.of_span(f"{number:064x}", 0, BASE, Span(10 * number, 10 * number + 8))
    return ClipItem(name, facts, {"shown": view})


@pytest.fixture
def clip(clip_item):
    return functools.partial(clip_of, clip_item().facts)


def number_of(text):
    return int(text.split()[2])


def check_integrity(items, cells):
    for item, cell in zip(items, cells, strict=True):
        assert cell.key == item.clip.clip_id
        if cell.outcome is Outcome.OK:
            number = number_in(item.views["shown"].frames[0])
            assert cell.values["caption"] == f"clip of {number} {number + 1000}"
            assert cell.values["frames"] == frames_digest(item.views["shown"])


def test_a_cell_holds_caption_tie_and_counts(clip):
    with served(Script(seen)) as url:
        captioner = stage(url, prompt="Say what you see")
        (cell,) = captioner.process([clip(7)])
    assert cell.values == {
        "caption": "clip of 7 1007",
        "frames": frames_digest(clip(7).views["shown"]),
        "model": "sees-served",
        "prompt_tokens": 4 + 2 * 100,
        "completion_tokens": 4,
        "truncated": False,
    }


def test_what_the_model_is_shown(clip):
    script = Script(seen)
    with served(script) as url:
        stage(url, prompt="Say what you see").process([clip(3)])
    (asked,) = script.asked
    assert texts_of(asked) == ["Say what you see"]
    pictures = pictures_of(asked)
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 2
    assert np.abs(pictures[0].astype(int) - drawn(3)).mean() < 4
    assert [number_in(picture) for picture in pictures] == [3, 1003]


def test_a_frame_that_stands_twice_is_sent_once(clip):
    item = clip(3)
    view = item.views["shown"]
    same = View(view.frames[[0, 0]], view.pts[[0, 0]], BASE, view.groups)
    script = Script(seen)
    with served(script) as url:
        (cell,) = stage(url).process([ClipItem(item.clip, item.facts, {"shown": same})])
    assert len(pictures_of(script.asked[0])) == 1
    assert cell.values["frames"] == frames_digest(same)


@pytest.mark.parametrize(("frames", "points"), [(1, (0.5,)), (2, (0.25, 0.75)), (4, (0.125, 0.375, 0.625, 0.875))])
def test_frames_lie_in_the_middles_of_equal_parts(frames, points):
    endpoint = {"url": "http://127.0.0.1/v1", "model": "m"}
    spec = VlmCaption(VlmConfig.model_validate({"endpoint": endpoint, "frames": frames})).views()["shown"]
    assert spec.points == points


def test_a_clip_without_frames_or_an_answer_fails_alone_and_no_other_is_asked_again(clip):
    script = Script(seen, faults=lambda text, attempt: "busy" if number_of(text) == 2 else "")
    items = [clip(1), clip(2), clip(3, frames=np.zeros((0, 64, 64, 3), np.uint8)), clip(4)]
    with served(script) as url:
        cells = stage(url).process(items)
    assert [cell.outcome for cell in cells] == [Outcome.OK, Outcome.FAILED, Outcome.FAILED, Outcome.OK]
    assert [cell.failure.error_class for cell in cells[1:3]] == ["EndpointUnavailableError", "StageError"]
    check_integrity(items, cells)
    assert script.attempts == {"clip of 1 1001": 1, "clip of 2 1002": 2, "clip of 4 1004": 1}


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        (" A  dog\nruns . ", "A dog runs."),
        ('"A dog runs."', "A dog runs."),
        ("- A dog runs.", "A dog runs."),
        ("<think>I see a dog.</think>\n\nA dog runs.", "A dog runs."),
        ("I see a dog, so:\n</think>\nA dog runs.", "A dog runs."),
        ('"Stop" is written on a sign that says "go"', '"Stop" is written on a sign that says "go"'),
        ("3 dogs run.", "3 dogs run."),
    ],
)
def test_a_caption_is_one_clean_line(clip, answer, caption):
    with served(Script(lambda asked: answer)) as url:
        (cell,) = stage(url).process([clip(1)])
    assert cell.values["caption"] == caption


@pytest.mark.parametrize("thought", ["<think>What is it?</think>", "<think>Okay, the user wants a", "Hm.\n</think>\n"])
def test_thoughts_alone_are_no_caption(clip, thought):
    with served(Script(lambda asked: thought)) as url:
        (cell,) = stage(url).process([clip(1)])
    assert cell.failure.error_class == "StageError"
    assert "without a caption" in cell.failure.message


@settings(max_examples=10, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 900), min_size=1, max_size=16, unique=True),
    faults=st.dictionaries(
        st.tuples(st.integers(0, 15), st.integers(0, 1)), st.sampled_from([*FAULTS[:-2], "400"]), max_size=8
    ),
    delays=st.lists(st.integers(0, 40), min_size=16, max_size=16),
    splits=st.lists(st.integers(1, 6), min_size=16, max_size=16),
)
def test_a_caption_can_never_be_another_clips(clip_item, numbers, faults, delays, splits):
    place = {number: index for index, number in enumerate(numbers)}
    script = Script(
        seen,
        faults=lambda text, attempt: faults.get((place[number_of(text)], attempt), ""),
        delay_s=lambda text, attempt: delays[place[number_of(text)]] / 1000,
    )
    items = [clip_of(clip_item().facts, number) for number in numbers]
    cells, start = [], 0
    with served(script) as url:
        captioner = stage(url, timeout_s=2.0)
        for size in splits:
            batch = items[start : start + size]
            cells += captioner.process(batch) if batch else []
            start += size
    check_integrity(items, cells)
    lost = [
        index
        for index in range(len(numbers))
        if faults.get((index, 0)) == "400" or (faults.get((index, 0)) and faults.get((index, 1)))
    ]
    assert [index for index, cell in enumerate(cells) if cell.outcome is Outcome.FAILED] == lost


def test_the_key_is_in_no_cell_error_recipe_or_fingerprint(clip, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with served(Script(seen, key=KEY)) as url:
        captioner = stage(url, api_key_env="MY_KEY")
        (good,) = captioner.process([clip(1)])
        monkeypatch.setenv("MY_KEY", KEY + "-wrong")
        (bad,) = stage(url, api_key_env="MY_KEY").process([clip(1)])
    assert (good.outcome, bad.failure.error_class) == (Outcome.OK, "EndpointError")
    held = [good, bad, captioner.identity(), captioner.config.model_dump_json(), captioner.views()]
    assert KEY not in repr(held)
    assert "***" in bad.failure.message
    assert redacted(bad.failure.traceback) == bad.failure.traceback


def test_what_decides_the_caption_is_in_the_fingerprint_and_how_it_is_asked_is_not():
    endpoint = {"url": "http://127.0.0.1/v1", "model": "m"}

    def fingerprint(**more):
        config = {"endpoint": {**endpoint, **more.pop("endpoint", {})}, **more}
        return VlmCaption(VlmConfig.model_validate(config)).fingerprint({})

    own = fingerprint()
    for changed in ({"url": "http://127.0.0.1/v2"}, {"model": "n"}, {"seed": 1}, {"max_tokens": 9}, {"temperature": 1}):
        assert fingerprint(endpoint=changed) != own, changed
    for changed in ({"prompt": "?"}, {"frames": 5}, {"short_side_px": 64}, {"jpeg_quality": 5}):
        assert fingerprint(**changed) != own, changed
    for same in ({"concurrency": 3}, {"retries": 9}, {"timeout_s": 3}, {"api_key_env": "OTHER"}):
        assert fingerprint(endpoint=same) == own, same


def test_it_keeps_the_stage_contract():
    with served(Script(lambda asked: f"{len(pictures_of(asked))} frames of {pictures_of(asked)[0].shape}")) as url:
        check_stage(VlmCaption(VlmConfig.model_validate({"endpoint": {"url": url, "model": "m"}})))


def test_the_missing_client_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingModelError, match=r"curate-video\[endpoint\]"):
        stage("http://127.0.0.1:9/v1")
