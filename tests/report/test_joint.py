"""What the sliders count is what `curate select` keeps."""

from __future__ import annotations

import base64
import json
import random
import zlib
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_kit import CONDITIONS, facts_of, make, take_down

from curate.job import select_again
from curate.report import joint
from curate.report.joint import Cells, kept_by, pack, unpack


def made(path):
    corpus = make(path)
    take_down(corpus, "bucket/0/3.mp4")
    return corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tests make further selections in it."""
    return made(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def facts(corpus):
    return facts_of(corpus)


@pytest.fixture(scope="module")
def within(tmp_path_factory):
    """The facts where a page can hold so many cells, each counted once."""
    corpus = made(tmp_path_factory.mktemp("within"))

    @cache
    def counted(most):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(joint, "MOST_CELLS", most)
            return facts_of(corpus)

    return counted


def position(axis, stop):
    """Where a slider stands for a stop: coordinates above it are kept; -1 is off."""
    return stop if stop < 0 or axis["side"] == "min" else len(axis["stops"]) - 1 - stop


def counted(facts, stops):
    """(clips, hours) that the sliders keep; ``stops`` are places in an axis's stops, -1 is off."""
    free = [(facts["axes"][i], stops[i]) for i in facts["joint"]["axes"]]
    sizes = [len(axis["stops"]) + 1 for axis, _ in free]
    return kept_by(unpack(facts["joint"]["data"]), sizes, [position(axis, stop) for axis, stop in free])


def overrides(facts, stops):
    """What `--set` says of such positions: each limit that moved, or all conditions where one of them is off."""
    moved = [(axis, stop) for axis, stop in zip(facts["axes"], stops, strict=True) if stop != axis["start"]]
    own = {
        i: [s for a, s in zip(facts["axes"], stops, strict=True) if a["condition"] == i] for i in range(len(CONDITIONS))
    }
    off = {i for i, places in own.items() if places and max(places) < 0}
    if not off:
        cleared = [f"{axis['clear_key']}=null" for axis, _ in moved if axis["clear_key"]]
        values = ["null" if stop < 0 else repr(axis["stops"][stop]) for axis, stop in moved]
        return cleared + [f"{axis['set_key']}={value}" for (axis, _), value in zip(moved, values, strict=True)]
    conditions = [dict(condition) for condition in facts["conditions"]]
    for axis, stop in moved:
        conditions[axis["condition"]].pop((axis["percentile"] or {}).get("kind", ""), None)
        conditions[axis["condition"]][axis["side"]] = None if stop < 0 else axis["stops"][stop]
    left = [condition for i, condition in enumerate(conditions) if i not in off]
    return [f"select.conditions={json.dumps(left)}"]


def drawn(facts, seed):
    """A stop for each slider, -1 for off; for one half of the seeds near the mild end, where much is kept."""
    draw = random.Random(seed)
    reach = 0.3 if seed % 2 else 1.0
    stops = []
    for axis in facts["axes"]:
        last = len(axis["stops"]) - 1
        at = draw.randint(-1, max(0, round(reach * last)))
        stops.append(at if axis["side"] == "min" or at < 0 else last - at)
    for i, axis in enumerate(facts["axes"][1:], 1):
        before = facts["axes"][i - 1]
        # Select refuses a condition whose min is above its max; the sliders count that nothing measured passes it.
        if axis["condition"] == before["condition"] and axis["stops"][stops[i]] < before["stops"][stops[i - 1]]:
            stops[i] = -1
    return stops


@pytest.mark.parametrize("seed", range(20))
def test_sliders_count_what_select_keeps(corpus, facts, seed):
    stops = drawn(facts, seed)
    funnel = select_again(corpus, "", overrides(facts, stops), name="again")
    n, hours = counted(facts, stops)
    assert n == funnel.clips.kept
    assert hours == pytest.approx(funnel.hours["kept"], abs=facts["joint"]["cells"] / 3.6e6)
    # The same of a score that no condition names, on either side: alone, and with the recipe's thresholds.
    turn, which = divmod(seed, len(facts["other_scores"]))
    score, side = facts["other_scores"][which], ("min", "max")[turn % 2]
    stop = random.Random(seed).randrange(len(score["stops"]))
    passed = position({**score, "side": side}, stop) + 1
    condition = {**score["asked"], side: score["stops"][stop]}
    for kept, others in (("alone", []), ("with", facts["conditions"])):
        asked = [f"select.conditions={json.dumps([*others, condition])}"]
        funnel = select_again(corpus, "", asked, name="again")
        assert sum(score["sides"][side][f"{kept}_n"][passed:]) == funnel.clips.kept
        assert sum(score["sides"][side][f"{kept}_hours"][passed:]) == pytest.approx(funnel.hours.get("kept", 0))


def test_the_recipes_positions_keep_some_and_not_all(facts):
    start = counted(facts, [axis["start"] for axis in facts["axes"]])[0]
    off = counted(facts, [-1] * len(facts["axes"]))[0]
    standing = sum(facts["axes"][0]["alone_n"])
    assert 0 < start < off < standing < facts["clips"]["found"]
    assert start == facts["clips"]["kept"]


def test_one_slider_alone_counts_what_its_condition_alone_keeps(corpus, facts):
    for number, axis in enumerate(facts["axes"]):
        stop = number % len(axis["stops"])
        source = facts["conditions"][axis["condition"]]
        alone = {key: source[key] for key in ("column", "aggregate", "on_failed", "name") if key in source}
        alone[axis["side"]] = axis["stops"][stop]
        funnel = select_again(corpus, "", [f"select.conditions={json.dumps([alone])}"], name="alone")
        passed = position(axis, stop) + 1
        assert sum(axis["alone_n"][passed:]) == funnel.clips.kept
        assert sum(axis["alone_hours"][passed:]) == pytest.approx(funnel.hours["kept"])


def test_keys_lead_to_their_own_condition(facts):
    keys = {axis["label"]: (axis["set_key"], axis["clear_key"]) for axis in facts["axes"]}
    assert keys["little motion"] == ("little motion.min", "little motion.drop_lowest")
    # A name with an equals sign cannot be written, and of two conditions on a column the first one is found by it.
    assert keys["much.text=1"] == ("1.max", "1.drop_highest")
    assert keys["text.area_max"] == ("2.max", "")
    assert keys["quality.sharpness (at least)"] == ("quality.sharpness.min", "")


def test_what_does_not_fit_gets_fewer_stops_then_fewer_axes(facts, within):
    start = facts
    frozen: set[int] = set()
    for most in (start["joint"]["cells"] - 1, 60, 5, 1):
        facts = within(most)
        assert facts["joint"]["cells"] <= most
        assert all(len(axis["stops"]) <= 24 for axis in facts["axes"])
        frozen = {i for i, axis in enumerate(facts["axes"]) if axis["frozen"]}
        assert frozen == set(range(len(facts["axes"]))) - set(facts["joint"]["axes"])
        assert counted(facts, [axis["start"] for axis in facts["axes"]])[0] == start["clips"]["kept"]
    assert len(frozen) == len(start["axes"])


def test_axes_that_drop_most_are_kept_longest(within):
    facts = within(60)
    dropped = [sum(axis["alone_n"][: position(axis, axis["start"]) + 1]) for axis in facts["axes"]]
    free = facts["joint"]["axes"]
    own = {facts["axes"][i]["condition"] for i in free}
    others = [n for n, axis in zip(dropped, facts["axes"], strict=True) if axis["condition"] not in own]
    assert free and max(dropped[i] for i in free) >= max(others)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, 2**53 - 1), st.tuples(st.integers(1, 2**40), st.integers(0, 2**45)), max_size=40))
def test_packing_and_unpacking(cells):
    keys = np.array(sorted(cells), np.int64)
    rows = [cells[int(key)] for key in keys]
    made = Cells(keys, np.array([n for n, _ in rows], np.int64), np.array([ms for _, ms in rows], np.int64))
    found = unpack(pack(made))
    for one, other in ((found.keys, made.keys), (found.n, made.n), (found.ms, made.ms)):
        assert one.tolist() == other.tolist()


def test_the_packed_form_is_the_one_that_is_written_down():
    """docs/report.md: LEB128 of key steps, clips and milliseconds, raw deflate, base64."""
    data = pack(Cells(np.array([3, 303]), np.array([1, 200]), np.array([0, 16384])))
    assert zlib.decompress(base64.b64decode(data), -15) == bytes([3, 1, 0, 0xAC, 0x02, 0xC8, 0x01, 0x80, 0x80, 0x01])
