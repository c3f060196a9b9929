"""Words of a fused caption that none of its inputs has: what the language model made up.

A comparison of words, not of meanings. Endings of plurals and verbs are folded ("dogs", "running", "sat"); words that
carry no content of their own are passed over (articles, prepositions, pronouns, auxiliaries, and what captions are
made of: "video", "shows"). A synonym counts as invented ("bicycle" for "bike"), a wrong relation between known words
does not ("a cat chases a dog" for "a dog chases a cat"). English only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_VOWEL = re.compile(r"[aeiouy]")

_FUNCTION_WORDS = frozenset(
    """
    a an the this that these those some any all both each every no none not nor neither either such same other another
    one's own more most much many few several lot lots very too also just only even still again then than so as if
    i me my mine you your yours he him his she her hers it its we us our ours they them their theirs who whom whose
    which what where when why how there here someone somebody something anyone anything nobody nothing oneself himself
    herself itself themselves and or but yet for while whereas because although though since until unless whether
    of in on at by with without within into onto from to toward towards up down out off over under above below between
    among through during before after against about around across along beside besides behind beyond near next upon
    is are was were be been being am has have had having do does did doing done can could will would shall should may
    might must let get gets got getting isn aren wasn weren doesn don didn hasn haven hadn won wouldn couldn shouldn
    front back together away
    """.split()  # noqa: SIM905 - a list of words reads best as one
)
_CAPTION_WORDS = frozenset(
    """
    video videos clip clips scene scenes footage frame frames image images picture pictures photo photos shot shots
    caption captions sentence description view viewer camera show shows showing shown showed depict depicts depicting
    depicted see sees seen seeing appear appears appearing appeared feature features featuring featured contain contains
    containing display displays displaying capture captures capturing captured describe describes
    """.split()  # noqa: SIM905
)
_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
_IRREGULAR = {
    form: word
    for word, forms in {
        "man": "men", "woman": "women", "child": "children", "person": "people persons", "foot": "feet",
        "tooth": "teeth", "mouse": "mice", "goose": "geese", "knife": "knives", "leaf": "leaves", "wolf": "wolves",
        "shelf": "shelves", "loaf": "loaves", "half": "halves", "life": "lives",
        "sit": "sat", "stand": "stood", "run": "ran", "ride": "rode ridden", "hold": "held", "eat": "ate eaten",
        "go": "goes went gone", "make": "made", "take": "took taken", "give": "gave given", "come": "came",
        "fall": "fell fallen", "fly": "flew flown", "throw": "threw thrown", "catch": "caught", "swim": "swam swum",
        "drive": "drove driven", "drink": "drank drunk", "sing": "sang sung", "sleep": "slept", "lie": "lay lain lying",
        "lay": "laid", "write": "wrote written", "speak": "spoke spoken", "wear": "wore worn", "hang": "hung",
        "break": "broke broken", "build": "built", "buy": "bought", "bring": "brought", "draw": "drew drawn",
        "feed": "fed", "fight": "fought", "find": "found", "grow": "grew grown", "hide": "hid hidden", "keep": "kept",
        "leave": "left", "meet": "met", "play": "played", "rise": "rose risen", "shake": "shook shaken",
        "shine": "shone", "shoot": "shot", "slide": "slid", "spin": "spun", "sweep": "swept", "swing": "swung",
        "tell": "told", "wake": "woke woken", "wind": "wound", "blow": "blew blown", "tie": "tying", "die": "dying",
    }.items()
    for form in forms.split()
}  # fmt: skip


def content_words(text: str) -> list[str]:
    """Words of a text that carry content, in lower case, each once, in the order they come."""
    found = [word.replace("’", "'") for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower())]
    bare = [word.partition("'")[0] for word in found]
    return [word for word in dict.fromkeys(bare) if _carries_content(word)]


def invented(fused: str, inputs: Sequence[str]) -> list[str]:
    """Content words of ``fused`` that share no form with any word of the inputs."""
    known: set[str] = set()
    for text in inputs:
        for word in content_words(text):
            known |= forms(word)
    return [word for word in content_words(fused) if not forms(word) & known]


def forms(word: str) -> frozenset[str]:
    """The word and the words that it may be an ending of; two words match when these overlap."""
    if word in _NUMBERS:
        return frozenset({str(_NUMBERS.index(word))})
    found = {word, _IRREGULAR.get(word, word)}
    for ending, instead in (("ies", ("y", "ie")), ("es", ("", "e")), ("s", ("",)), ("ied", ("y",))):
        if word.endswith(ending) and not word.endswith(("ss", "us", "is")):
            found |= _stems(word, ending, instead)
    for ending in ("ing", "ed"):
        if word.endswith(ending):
            found |= _stems(word, ending, ("", "e"))
    return frozenset(found)


def _stems(word: str, ending: str, instead: Sequence[str]) -> set[str]:
    """What may stand before an ending; a doubled consonant is single again ("running")."""
    stem = word[: -len(ending)]
    if len(stem) < 2 or not _VOWEL.search(stem):
        return set()
    single = {stem[:-1]} if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "aeiou" else set()
    return {stem + tail for tail in instead if len(stem + tail) > 2} | single


def _carries_content(word: str) -> bool:
    single = len(word) < 2 and not word.isdigit() and word.isascii()
    return not single and word not in _FUNCTION_WORDS and word not in _CAPTION_WORDS
