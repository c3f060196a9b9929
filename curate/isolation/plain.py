"""Values as text and buffers: all that a child process can say.

Reading them makes plain values, arrays of numbers, and the records and errors of a fixed list, and nothing else: no
name in a message is looked up beyond that list. The text is JSON, in which an array is a tag and what belongs to it;
bytes, arrays, long texts and long lists of numbers lie one after the other in the buffers, each used once.
"""

from __future__ import annotations

import errno
import importlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from enum import Enum
from fractions import Fraction
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from curate import errors
from curate.errors import CurateError, EngineError

MOST_TEXT_BYTES: Final = 16 << 20
"""A longer text is nonsense: whatever may be large lies in the buffers."""

MOST_DEPTH: Final = 32
MOST_KEYS: Final = 1000
"""Of one dict: keys that share their hash cost the square of their number."""

MOST_NUMBERS: Final = 1 << 24
"""In all lists of a message that lie in the buffers: one list for each key frame of a day of video, and then some."""

_LONG_TEXT: Final = 1 << 14
_LONG_LIST: Final = 64
_LEAST_INT, _MOST_INT = -(1 << 63), (1 << 64) - 1
_MOST_DIGITS: Final = 40
_MOST_AXES: Final = 32

_RECORDS = {
    "SourceFacts": "curate.records",
    "Span": "curate.records",
    "Clip": "curate.records",
    "View": "curate.view",
    "ClipFile": "curate.media.encode",
    "Shown": "curate.media.playback",
}
_ENUMS = {"CutKind": "curate.records"}
_ERRORS = {name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, CurateError)}
_DTYPES = {np.dtype(code).str: np.dtype(code) for code in "?bhilqBHILQefd"}
_LIST_DTYPES = {bool: "|b1", int: np.dtype(np.int64).str, float: np.dtype(np.float64).str}


class ProtocolError(EngineError):
    """The other side said something that is not in the protocol."""


def encode(value: Any) -> tuple[bytes, list[memoryview]]:
    """Text and buffers of a value. TypeError when it holds what a child cannot say."""
    writer = _Writer()
    tree = writer.tree(value, 0)
    text = json.dumps(tree, ensure_ascii=False, check_circular=False, separators=(",", ":"))
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > MOST_TEXT_BYTES:
        raise TypeError(f"too much for a message: {len(data)} bytes beside the arrays")
    return data, writer.buffers


def decode(text: bytes | memoryview, buffers: memoryview) -> Any:
    """The value that was encoded; arrays are views of ``buffers``. ProtocolError."""
    try:
        tree = _JSON.decode(str(text, "utf-8", "surrogatepass"))
        reader = _Reader(buffers)
        value = reader.value(tree, 0)
        reader.end()
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ProtocolError(f"a message cannot be read: {type(error).__name__}: {str(error)[:200]}") from error
    return value


def _int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ProtocolError("a message holds an impossible number")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > _MOST_DIGITS:
        raise ProtocolError("a message holds an impossible number")
    return float(digits)


def _no_object(_: list[tuple[str, Any]]) -> Any:
    raise ProtocolError("a message holds an object of JSON")


_JSON = json.JSONDecoder(parse_int=_int, parse_float=_float, object_pairs_hook=_no_object)


class _Writer:
    """Makes the tree of a value, and puts aside what lies in the buffers."""

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []

    def tree(self, value: Any, depth: int) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        kind = type(value)
        if kind in {NoneType, bool, float}:
            return value
        if kind is int and _LEAST_INT <= value <= _MOST_INT:
            return value
        if kind is str:
            return value if len(value) <= _LONG_TEXT else self._bytes("text", value.encode("utf-8", "surrogatepass"))
        if depth >= MOST_DEPTH:
            raise TypeError("a value lies too deep in others to be sent")
        if kind is bytes:
            return self._bytes("bytes", value)
        if kind is Fraction:
            return ["fraction", self.tree(value.numerator, depth + 1), self.tree(value.denominator, depth + 1)]
        if kind is np.ndarray:
            return self._array(value)
        if kind in {list, tuple, dict}:
            return self._many(value, depth)
        return self._named(value, kind, depth)

    def _bytes(self, tag: str, data: bytes) -> list[Any]:
        self.buffers.append(memoryview(data))
        return [tag, len(data)]

    def _array(self, array: np.ndarray) -> list[Any]:
        native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        if native.dtype.str not in _DTYPES:
            raise TypeError(f"an array of {array.dtype} cannot be sent")
        if native.size:
            self.buffers.append(native.reshape(-1).view(np.uint8).data)
        return ["array", native.dtype.str, *array.shape]

    def _many(self, value: list[Any] | tuple[Any, ...] | dict[Any, Any], depth: int) -> list[Any]:
        if isinstance(value, dict):
            if len(value) > MOST_KEYS:
                raise TypeError(f"a dict of {len(value)} keys cannot be sent")
            pairs = (part for pair in value.items() for part in pair)
            return ["dict", *(self.tree(part, depth + 1) for part in pairs)]
        if isinstance(value, list) and len(value) > _LONG_LIST and len(kinds := set(map(type, value))) == 1:
            dtype = _LIST_DTYPES.get(kinds.pop())
            if dtype is not None and (dtype == "|b1" or dtype[1] == "f" or _in_int64(value)):
                if len(value) > MOST_NUMBERS:
                    raise TypeError(f"a list of {len(value)} numbers cannot be sent")
                self.buffers.append(np.array(value, dtype).view(np.uint8).data)
                return ["numbers", dtype, len(value)]
        return [type(value).__name__, *(self.tree(part, depth + 1) for part in value)]

    def _named(self, value: Any, kind: type, depth: int) -> list[Any]:
        name = kind.__name__
        parts: Sequence[Any]
        if _RECORDS.get(name) == kind.__module__:
            _check_record(value)
            parts = [getattr(value, field.name) for field in fields(value)]
        elif _ENUMS.get(name) == kind.__module__:
            parts = [value.value]
        elif _ERRORS.get(name) is kind:
            words = [str(word) for word in (value.message, value.subject, value.fix)]
            parts = [*words, value.peak_memory_bytes, _notes(value)]
        elif isinstance(value, OSError) and value.errno in errno.errorcode:
            name = "OSError"
            parts = [value.errno, str(value.strerror), _notes(value)]
        else:
            raise TypeError(f"{kind.__module__}.{kind.__qualname__} cannot be sent")
        return [name, *(self.tree(part, depth + 1) for part in parts)]


def _notes(error: BaseException) -> list[str]:
    return [str(note) for note in getattr(error, "__notes__", ())]


def _in_int64(value: list[int]) -> bool:
    return min(value) >= _LEAST_INT and max(value) < -_LEAST_INT


class _Reader:
    """Makes the value of a tree; buffers are taken in their order."""

    def __init__(self, buffers: memoryview) -> None:
        self._buffers = buffers
        self._at = 0
        self._n_numbers = 0

    def end(self) -> None:
        if self._at != self._buffers.nbytes:
            raise ProtocolError("a message's parts do not add up")

    def value(self, tree: Any, depth: int) -> Any:
        if isinstance(tree, int) and not _LEAST_INT <= tree <= _MOST_INT:
            raise ProtocolError("a message holds an impossible number")
        if not isinstance(tree, list):
            return tree
        if depth >= MOST_DEPTH:
            raise ProtocolError("a message is too deep")
        tag, *parts = tree
        if tag in _READERS:
            return _READERS[tag](self, *parts)
        found = [self.value(part, depth + 1) for part in parts]
        return found if tag == "list" else _made(tag, found)

    def _taken(self, n_bytes: Any) -> memoryview:
        if type(n_bytes) is not int or not 0 <= n_bytes <= self._buffers.nbytes - self._at:
            raise ProtocolError("a message's parts do not add up")
        self._at += n_bytes
        return self._buffers[self._at - n_bytes : self._at]

    def bytes(self, n_bytes: Any) -> bytes:
        return bytes(self._taken(n_bytes))

    def text(self, n_bytes: Any) -> str:
        return str(self._taken(n_bytes), "utf-8", "surrogatepass")

    def array(self, dtype_name: Any, *shape: Any) -> np.ndarray:
        dtype = _DTYPES[dtype_name]
        if len(shape) > _MOST_AXES or any(type(size) is not int or size < 0 for size in shape):
            raise ProtocolError("a message holds an impossible array")
        size = math.prod(shape)
        if size == 0:
            return np.empty(shape, dtype)
        data = np.frombuffer(self._taken(size * dtype.itemsize), np.uint8)
        if dtype.kind == "b" and int(data.max()) > 1:  # NumPy counts truth values by adding their bytes
            raise ProtocolError("a message holds an impossible array")
        return data.view(dtype).reshape(shape)

    def numbers(self, dtype_name: Any, size: Any) -> list[Any]:
        if dtype_name not in _LIST_DTYPES.values() or type(size) is not int:
            raise ProtocolError("a message holds an impossible list")
        self._n_numbers += size
        if self._n_numbers > MOST_NUMBERS:
            raise ProtocolError("a message holds too many numbers")
        return self.array(dtype_name, size).tolist()


_READERS: dict[str, Callable[..., Any]] = {
    "bytes": _Reader.bytes,
    "text": _Reader.text,
    "array": _Reader.array,
    "numbers": _Reader.numbers,
}


def _made(name: str, parts: list[Any]) -> Any:
    """What a tag makes of its parts."""
    if name == "tuple":
        return tuple(parts)
    if name == "dict":
        return _dict(parts)
    if name == "fraction":
        if [type(part) for part in parts] != [int, int] or parts[1] < 1:
            raise ProtocolError("a message holds an impossible fraction")
        return Fraction(*parts)
    if name in _RECORDS:
        record = _class(_RECORDS[name], name)(*parts)
        _check_record(record)
        return record
    if name in _ENUMS:
        return _class(_ENUMS[name], name)(*parts)
    if name in _ERRORS:
        return _error(_ERRORS[name], *parts)
    if name == "OSError":
        return _system_error(*parts)
    raise ProtocolError(f"a message holds {name[:100]!r}")


def _dict(parts: list[Any]) -> dict[Any, Any]:
    keys, values = parts[::2], parts[1::2]
    if len(keys) > MOST_KEYS or not all(isinstance(key, str | bytes | int | float | None) for key in keys):
        raise ProtocolError("a message holds an impossible dict")
    return dict(zip(keys, values, strict=True))


def _error(kind: type[CurateError], message: Any, subject: Any, fix: Any, peak_bytes: Any, notes: Any) -> CurateError:
    _check_texts([message, subject, fix])
    found = kind(message, subject=subject, fix=fix)
    if peak_bytes is not None:
        if type(peak_bytes) is not int:
            raise ProtocolError("a message holds an impossible error")
        found.peak_memory_bytes = peak_bytes
    return _with_notes(found, notes)


def _system_error(number: Any, text: Any, notes: Any) -> OSError:
    if type(number) is not int or number not in errno.errorcode:
        raise ProtocolError("a message holds an impossible error")
    _check_texts([text])
    return _with_notes(OSError(number, text), notes)


def _with_notes(error: Any, notes: Any) -> Any:
    if type(notes) is not list:
        raise ProtocolError("a message holds an impossible error")
    _check_texts(notes)
    for note in notes:
        error.add_note(note)
    return error


def _check_texts(values: list[Any]) -> None:
    if not all(type(value) is str for value in values):
        raise ProtocolError("a message holds an impossible error")


@cache
def _class(module: str, name: str) -> type[Any]:
    """A class of the fixed list; its module lies above this one, and is only imported when there is such a record."""
    return getattr(importlib.import_module(module), name)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _check_record(record: Any) -> None:
    """TypeError when a field's value is not of the type that its class declares."""
    for name, hint in _hints(type(record)).items():
        if not _fits(getattr(record, name), hint):
            raise TypeError(f"{type(record).__name__}.{name} is no {hint}")


def _fits(value: Any, hint: Any) -> bool:
    if type(value) is hint:  # most are, and taking a hint apart is slow
        return True
    if isinstance(value, np.generic):
        value = value.item()
    origin, of = get_origin(hint), get_args(hint)
    if origin in {UnionType, Union}:
        return any(_fits(value, one) for one in of)
    if origin is Literal:
        return value in of
    if origin is list:
        return type(value) is list and (set(map(type, value)) <= {of[0]} or all(_fits(part, of[0]) for part in value))
    if origin is tuple:
        return type(value) is tuple and len(value) == len(of) and all(map(_fits, value, of))
    if hint is float:
        return type(value) in {int, float}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return isinstance(value, hint)
    return type(value) is hint
