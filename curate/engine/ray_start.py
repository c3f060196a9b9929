"""Starting Ray on this machine or joining a cluster, quietly and with an end to waiting."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from curate.engine.room import Room
from curate.errors import ClusterError, EngineError
from curate.stage import boundary

CONNECT_TIMEOUT_S = 10.0
ROOM_TIMEOUT_S = 1800.0
"""How long nodes may take to come: a cloud's machine with a GPU, an image of gigabytes and its start take a while."""


@dataclass(frozen=True)
class RayOptions:
    """How to reach Ray. ``address`` None starts one here; ``num_cpus`` limits that one. ``room`` is what a cluster must
    have before anything is placed on it."""

    address: str | None = None
    num_cpus: int | None = None
    object_store_bytes: int | None = None
    room: Room | None = None


def start_ray(options: RayOptions) -> str:
    """Start or join, and give the address of Ray's dashboard, if it has one.

    EngineError with what to do when that fails.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else the core worker writes warnings to our terminal
    quiet: Mapping[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with _stderr_put_aside():
        if options.address:
            _check_answers(options.address)
            try:
                joined = ray.init(address=options.address, **quiet)
            except ConnectionError as error:
                raise _no_ray(options.address) from error
            return _url(getattr(joined, "dashboard_url", ""))
        else:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray of our own reports to nobody
            # "local": without it Ray joins RAY_ADDRESS or whatever Ray was last started here, alive or dead.
            size = {"num_cpus": options.num_cpus, "object_store_memory": options.object_store_bytes}
            with boundary() as caught:
                ray.init(address="local", include_dashboard=False, **size, **quiet)
            if caught.error is not None:
                fix = "Try again with more memory or less load, or use --engine inline"
                raise EngineError(f"Ray did not start: {first_line(caught.error)}", fix=fix) from caught.error
    return ""


def _url(host_and_port: str | None) -> str:
    return f"http://{host_and_port}" if host_and_port else ""


def wait_for(room: Room, timeout_s: float = ROOM_TIMEOUT_S) -> None:
    """Ask the cluster's autoscaler, if it has one, for this much, and wait; ClusterError when it does not come.

    Ray Data's pools have the size that the nodes had when they were packed, so nothing else makes a cluster grow.
    """
    deadline, there = time.monotonic() + timeout_s, Room()
    ask_for(room)
    try:
        while True:
            has = ray.cluster_resources()
            there = Room(int(has.get("CPU", 0)), int(has.get("GPU", 0)))
            if there.cpus >= room.cpus and there.gpus >= room.gpus:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(1.0)
    finally:
        if there.cpus < room.cpus or there.gpus < room.gpus:
            ask_for(Room())
    raise ClusterError(
        f"the cluster has {there} after {timeout_s / 60:.0f} min, asked for were {room}",
        fix="See why nodes do not come, raise what the cluster may grow to, or ask for less with `--wait-for`",
    )


def ask_for(room: Room) -> None:
    """Tell the autoscaler what must be there, in the place of what was said before; ``Room()`` gives it all back."""
    from ray.autoscaler.sdk import request_resources

    request_resources(num_cpus=room.cpus, bundles=[{"GPU": 1}] * room.gpus)


def _check_answers(address: str) -> None:
    """Ray itself tries for ten minutes before it says that nobody listens.

    ``auto`` means RAY_ADDRESS, else the Ray last started on this machine, whose address Ray leaves in a file.
    """
    if address == "auto":
        last = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
        address = os.environ.get("RAY_ADDRESS") or (last.read_text().strip() if last.exists() else "")
        if not address:
            raise _no_ray("auto")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
        except OSError as error:
            raise _no_ray(address) from error


def _no_ray(address: str) -> EngineError:
    fix = "Start it with `ray start --head`, check the address, or leave --address out to use a Ray of its own"
    return EngineError(f"no Ray answers at {address}", fix=fix)


@contextmanager
def _stderr_put_aside() -> Iterator[None]:
    """Ray's native code greets on standard error while it starts; errors come as exceptions all the same."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a descriptor is wanted
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def first_line(error: BaseException) -> str:
    """The first line of an error that says something."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
