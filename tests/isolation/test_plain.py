"""What a child can say comes over as it is; nothing else is read, whatever the bytes."""

import errno
import json
import math
import random
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import pytest
from wire_kit import CLIP, FACTS, FILE, SPAN, answers, joined, made_error, made_view, mutated_bytes

from curate import errors
from curate.errors import DecodeError
from curate.isolation import plain
from curate.isolation.plain import ProtocolError, decode, encode
from curate.records import CutKind, Outcome, Span


def over(value):
    return decode(*joined(value))


def told(tree, buffers=b""):
    return decode(json.dumps(tree).encode(), memoryview(bytearray(buffers)))


VALUES = [
    None,
    True,
    0,
    -(1 << 63),
    (1 << 64) - 1,
    -0.0,
    5e-324,
    math.inf,
    "",
    "ä\x00😀\ud83d\ude00\udc80",
    "long 😀\udc80" * 5000,
    b"",
    b"a\xff",
    bytes(1 << 17),
    [],
    (),
    {},
    [1, [2, (3, {"a": [None]})]],
    list(range(1000)),
    [1 << 63] * 1000,
    [True, False] * 100,
    [0.1, math.inf] * 100,
    [True, 1] * 100,
    ["a"] * 100,
    {1: "a", "b": b"c", 2.5: None, None: 0},
    Fraction(-7, 3),
    CutKind.HARD,
    SPAN,
    CLIP,
    FACTS,
    FILE,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_plain_values_and_records_come_over_as_they_are(value):
    found = over(value)
    assert type(found) is type(value) and found == value and repr(found) == repr(value)


@pytest.mark.parametrize("dtype", sorted(plain._DTYPES))
def test_arrays_of_all_kinds_of_numbers_come_over(dtype):
    array = np.arange(24).reshape(2, 3, 4) % 2
    for ours in (array, array[::-1, :, ::2], array[:0], array[0, 0, :1].reshape(()), array.T, np.asfortranarray(array)):
        ours = ours.astype(dtype)  # noqa: PLW2901
        found = over(ours)
        assert (found.dtype, found.shape) == (ours.dtype, ours.shape) and np.array_equal(found, ours)
        assert found.flags.writeable


def test_numbers_of_numpy_come_over_as_pythons_and_other_byte_orders_as_ours():
    assert [type(over(value)) for value in (np.int8(1), np.float32(1), np.bool_(True), np.str_("a"))] == [
        int,
        float,
        bool,
        str,
    ]
    found = over(np.array([1, 2], ">i4"))
    assert found.dtype == np.int32 and found.tolist() == [1, 2]


def test_views_and_errors_come_over():
    view, found = made_view(), over(made_view())
    for name in ("frames", "pts", "groups"):
        assert np.array_equal(getattr(view, name), getattr(found, name))
    assert (found.time_base, found.px_scale) == (view.time_base, view.px_scale)
    error = over(made_error())
    assert type(error) is DecodeError
    assert vars(error) == vars(made_error()) and str(error) == str(made_error())
    assert over(OSError(errno.ENOENT, "none")).errno == errno.ENOENT
    assert type(over(OSError(errno.ENOENT, "none"))) is FileNotFoundError


def deep(n):
    value = 1
    for _ in range(n):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        1 << 64,
        object(),
        {1, 2},
        bytearray(b"a"),
        OrderedDict(a=1),
        Outcome.OK,
        ValueError("a"),
        DecodeError,
        1j,
        np.longdouble(1),
        np.array([None]),
        np.array(["a"]),
        np.array([1j]),
        np.zeros(1, "M8[s]"),
        np.zeros(1, [("a", "u1")]),
        Span(0, "1"),  # type: ignore[arg-type]
        dict.fromkeys(range(plain.MOST_KEYS + 1)),
        deep(100),
        ["a" * (1 << 14)] * 1025,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_cannot_be_said_is_an_error_of_the_one_who_says_it(value):
    with pytest.raises(TypeError):
        encode(value)


NUMBERS = np.dtype(np.int64).str
NONSENSE = [
    (["array", "|O", 1], bytes(8)),
    (["array", "O", 1], bytes(8)),
    (["array", "<M8[s]", 1], bytes(8)),
    (["array", ["|u1"], 1], b"a"),
    (["array", "|b1", 1], b"\x02"),
    (["array", "|u1", 2], b"a"),
    (["array", "|u1", -1], b"a"),
    (["array", "|u1", -1, -1], b"a"),
    (["array", "|u1", True], b"a"),
    (["array", "|u1", 0, 1 << 70], b""),
    (["array", "|u1", 0, 1 << 62, 1 << 62], b""),
    (["array", "|u1", *[1] * 100_000], b"a"),
    (["array", "|u1", *[(1 << 63) - 1] * 100_000], b"a"),
    (["array"], b""),
    (["array", "|u1", 1], b"ab"),
    (["list", ["bytes", 1], ["bytes", 1]], b"a"),
    (["bytes", -1], b"a"),
    (["bytes", 1.0], b"a"),
    (["text", 1], b"\xff"),
    (["numbers", "|u1", 1], b"a"),
    (["numbers", NUMBERS, -1], b""),
    (["numbers", "|b1", 1], b"\x07"),
    (["numbers", "|b1", plain.MOST_NUMBERS + 1], b""),
    (["fraction", "1e300000000"], b""),
    (["fraction", "1e300000000", 1], b""),
    (["fraction", 1, 0], b""),
    (["fraction", 1, 10**30], b""),
    (["fraction", 0.5, 1], b""),
    (10**30, b""),
    ({"a": 1}, b""),
    ([], b""),
    ([[]], b""),
    ([None], b""),
    (["dict", 1], b""),
    (["dict", ["list"], 1], b""),
    (["dict", ["fraction", 1, 2], 1], b""),
    (["dict", *([1 << 60, 1] * 1001)], b""),
    (["Span"], b""),
    (["Span", 0, 1, "hard"], b""),
    (["Span", 0, 1, ["CutKind", "none"]], b""),
    (["Span", *[None] * 7], b""),
    (["View", 1, 2, 3, 4, 5], b""),
    (["CutKind", ["list"]], b""),
    (["CutKind", "hard", "a"], b""),
    (["DecodeError", 1, "", "", None, ["list"]], b""),
    (["DecodeError", "", "", "", "a", ["list"]], b""),
    (["DecodeError", "", "", "", None, ["list", 1]], b""),
    (["DecodeError", "", "", "", None, "abc"], b""),
    (["OSError", 10**9, "", ["list"]], b""),
    (["OSError", 1, 2, ["list"]], b""),
    (["ProtocolError", "", "", "", None, ["list"]], b""),
    (["os.mkdir", "/nowhere"], b""),
    (["curate.records.Cell"], b""),
    (["_rebuild", "a"], b""),
    (["__class__"], b""),
]


@pytest.mark.parametrize(("tree", "buffers"), NONSENSE, ids=lambda part: repr(part)[:30])
def test_nonsense_is_refused(tree, buffers):
    with pytest.raises(ProtocolError):
        told(tree, buffers)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"1 2",
        b"[" * 5_000_000,
        b'["list",' * 100_000 + b"1" + b"]" * 100_000,
        b"9" * 100,
        b"9" * 5_000_000,
        b"0." + b"9" * 5_000_000,
        b'["fraction",' + b"9" * 5_000_000 + b",1]",
        b'{"a":' * 900 + b"1" + b"}" * 900,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_texts_that_are_deep_long_or_no_text_are_refused(text):
    with pytest.raises(ProtocolError):
        decode(text, memoryview(b""))


BAD_NODES = [None, True, -1, 1 << 62, 1 << 64, 1e308, "", "|u1", "|O", "list", "Clip", [], ["list"], ["tuple"], {}]
BAD_NODES += [["bytes", 5], ["array", "<f8", 3], ["numbers", NUMBERS, 9], ["fraction", 3, 0], ["View"], ["OSError", 2]]


def mutated_tree(tree, chance):
    """One node or so is another one, gone, or twice there."""
    if not isinstance(tree, list):
        return chance.choice(BAD_NODES)
    at = chance.randrange(len(tree) + 1)
    kind = chance.randrange(8)
    if at == len(tree):
        return [*tree, chance.choice(BAD_NODES)]
    if kind == 0:
        return tree[:at] + tree[at + 1 :]
    if kind == 1:
        return [*tree[:at], tree[at], *tree[at:]]
    if kind == 2:
        return chance.sample(tree, len(tree))
    return [*tree[:at], mutated_tree(tree[at], chance), *tree[at + 1 :]]


def test_mutated_answers_are_read_or_refused_and_nothing_else():
    chance = random.Random(4)
    real = [joined(answer) for answer in answers()]
    read = refused = 0
    for turn in range(6000):
        text, buffers = chance.choice(real)
        tree = json.dumps(mutated_tree(json.loads(text.decode("utf-8", "surrogatepass")), chance))
        text = tree.encode() if turn % 3 else mutated_bytes(text, chance)
        if turn % 7 == 0:
            buffers = buffers[: chance.randrange(len(buffers) + 1)]
        try:
            found = decode(text, buffers)
        except ProtocolError:
            refused += 1
        else:
            encode(found)  # it holds nothing that cannot be said
            read += 1
    assert read > 300 and refused > 3000


def test_every_error_class_and_every_record_has_its_place():
    names = {name for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, Exception)}
    assert names == set(plain._ERRORS)
    for name in names:
        assert type(over(getattr(errors, name)("a"))) is getattr(errors, name)
    for name, module in (plain._RECORDS | plain._ENUMS).items():
        found = plain._class(module, name)
        assert (found.__name__, found.__module__) == (name, module)
