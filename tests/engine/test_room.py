"""What a cluster must have before a run is packed on it, as `--wait-for` says it."""

from __future__ import annotations

import pytest

from curate.engine.room import Room
from curate.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "room"), [("CPU=64,GPU=2", Room(64, 2)), ("gpu=1", Room(0, 1)), (" CPU = 8 ", Room(8, 0))]
)
def test_what_to_wait_for_is_said_in_cpus_and_gpus(text, room):
    assert Room.parse(text) == room


@pytest.mark.parametrize(("room", "text"), [(Room(1), "1 CPUs"), (Room(0, 1), "1 GPUs"), (Room(), "nothing")])
def test_only_what_is_there_is_said(room, text):
    assert str(room) == text


@pytest.mark.parametrize("text", ["", "64", "CPU=64 GPU=2", "TPU=1", "CPU=-1", "CPU=1.5", "CPU=0", "CPU=1,"])
def test_what_names_no_room_is_refused(text):
    with pytest.raises(ConfigError, match="CPU=64,GPU=2"):
        Room.parse(text)
