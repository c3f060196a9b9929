"""The error tree: every error travels between processes whole, and says what to do."""

from __future__ import annotations

import pickle

import pytest
import torch

from curate import errors
from curate.errors import CurateError, StorageError, causes, is_device_lost, is_transient, transient_names


def tree(cls: type[CurateError] = CurateError) -> list[type[CurateError]]:
    below = [found for child in cls.__subclasses__() for found in tree(child)]
    return [cls, *below]


OURS = [cls for cls in tree() if cls.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling(cls):
    error = cls("went wrong", subject="a.mp4", fix="Try again")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (again.message, again.subject, again.fix) == ("went wrong", "a.mp4", "Try again")
    assert str(again) == str(error)


def test_the_tree_drawn_in_the_module_is_the_tree():
    lines = [line for line in errors.__doc__.splitlines() if "Error" in line]
    drawn = [line.strip("│├└─ ").split()[0] for line in lines]
    assert sorted(drawn) == sorted(cls.__name__ for cls in OURS)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CurateError("is wrong"), "is wrong"),
        (CurateError("is wrong", subject="a.mp4"), "a.mp4: is wrong"),
        (CurateError("is wrong", fix="Mend it"), "is wrong. Mend it"),
        (CurateError("is wrong", subject="a.mp4", fix="Mend it"), "a.mp4: is wrong. Mend it"),
    ],
)
def test_an_error_says_what_is_concerned_and_what_to_do(error, text):
    assert str(error) == text


def test_transient_names_are_those_of_classes_that_say_so():
    ours = {cls.__name__ for cls in OURS if cls.transient}
    assert ours == {
        "TransientStorageError",
        "TruncatedReadError",
        "NoRoomError",
        "DependencyError",
        "SourceChangedError",
        "MissingModelError",
        "EndpointUnavailableError",
    }
    assert ours <= set(transient_names())
    assert not {"StorageError", "DecodeError", "StageError", "WorkerDiedError", "ValueError"} & set(transient_names())


@pytest.mark.parametrize("error", [TimeoutError, ConnectionResetError, BrokenPipeError, MemoryError])
def test_errors_of_the_machine_are_transient_under_their_own_names(error):
    assert is_transient(error.__name__)


def test_a_plug_in_may_add_a_transient_error():
    class EndpointBusyError(StorageError):
        transient = True

    assert is_transient("EndpointBusyError")
    assert is_transient(type(EndpointBusyError("busy")).__name__)


def test_a_lost_gpu_is_known_by_its_cause_also_where_causes_go_in_a_circle():
    lost = torch.AcceleratorError("CUDA error: unspecified launch failure")
    wrapped, other = StorageError("a library's word for it"), StorageError("no GPU at all")
    wrapped.__cause__, other.__cause__ = lost, other
    assert is_device_lost(wrapped) and not is_device_lost(other)
    assert list(causes(wrapped)) == [wrapped, lost] and list(causes(other)) == [other]
    lost.error_code = 2  # out of memory: the process can go on
    assert not is_device_lost(wrapped)
