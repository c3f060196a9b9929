"""The Ray engine: groups become Ray Data operators, streaming, with back-pressure, restarts and a watch on lost nodes.

    from_items -> DecodeOperator pool -> [ GroupOperator pool ]* -> WriterOperator pool -> acknowledgements

Rows between operators are {kind, payload}: ``tables`` pass through to the writer, ``clips`` go to the next group.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.exceptions import ExecutionTimeoutError, SystemException
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from curate.engine.analyse import Analyser, GroupScorer
from curate.engine.pack import Packing, pack
from curate.engine.pipeline import Pipeline
from curate.engine.ray_registry import Registry, ping, register
from curate.engine.ray_start import RayOptions, ask_for, first_line, start_ray, wait_for
from curate.engine.ray_writer import Batch, WriterOperator
from curate.engine.room import Room
from curate.engine.work import Bundle, Machines, SourceWork, Summary, TableBundle
from curate.errors import (
    DeviceLostError,
    DeviceMemoryError,
    EngineError,
    StorageError,
    TransientStorageError,
    causes,
)
from curate.isolation import Limits
from curate.stage import boundary
from curate.tables import Corpus

RETRIES = 3
"""Restarts of an actor and repeats of its tasks; Ray's own default is for ever (DESIGN section 6)."""

NODE_GRACE_S = 20.0
"""How long a lost node's workers may take to come back elsewhere before the pass is given up and planned anew."""

PING_TIMEOUT_S = 15.0

WATCH_TIMEOUT_S = 15.0
"""For what is in flight, while a pass goes on: who watches takes an older answer."""


def _hide_gpus() -> None:
    """What was given no GPU must not use one: Ray leaves them in sight, and every decoder would take the first."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _rows(bundles: Iterator[Bundle]) -> Iterator[Batch]:
    for bundle in bundles:
        kind = "tables" if isinstance(bundle, TableBundle) else "clips"
        yield {"kind": np.array([kind]), "payload": np.array([pickle.dumps(bundle, protocol=5)], dtype=object)}


@contextmanager
def _ends_without_its_gpu(registry: Any, worker: str) -> Iterator[None]:
    """A worker that lost its GPU ends, for Ray to start it anew and repeat what it was at."""
    try:
        yield
    except DeviceLostError as error:
        ray.get(registry.on_death.remote(worker, str(error)))
        os._exit(1)  # nothing gentler makes Ray start it again


class DecodeOperator:
    """Group 0 as a Ray Data actor."""

    def __init__(
        self, pipeline: Pipeline, limits: Limits | None, run_id: str, registry: Any, bundle_bytes: int
    ) -> None:
        _hide_gpus()
        worker = register(registry)
        self._scratch = tempfile.TemporaryDirectory(prefix="curate-")
        self._analyser = Analyser(
            pipeline,
            Path(self._scratch.name),
            host=socket.gethostname(),
            run_id=run_id,
            on_source=lambda event, uri: ray.get(registry.on_source.remote(event, uri, worker)),
            limits=limits,
            bundle_bytes=bundle_bytes,
        )

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Blocks of sources in, bundles out as they fill."""
        for payload in batch["payload"]:
            yield from _rows(self._analyser.analyse(pickle.loads(payload)))


class GroupOperator:
    """A later group as a Ray Data actor."""

    def __init__(self, pipeline: Pipeline, group: int, run_id: str, registry: Any) -> None:
        if not ray.get_gpu_ids():
            _hide_gpus()
        self._worker = register(registry)
        self._registry = registry
        self._group = GroupScorer(pipeline, group, host=socket.gethostname(), run_id=run_id)

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Clips in, bundles out; tables pass through."""
        for kind, payload in zip(batch["kind"], batch["payload"], strict=True):
            if kind == "tables":
                yield {"kind": np.array([kind]), "payload": np.array([payload], dtype=object)}
            else:
                with _ends_without_its_gpu(self._registry, self._worker):
                    yield from _rows(self._group.process(pickle.loads(payload)))


class RayEngine:
    """Runs passes on a local or an existing Ray."""

    name = "ray"

    def __init__(self, options: RayOptions, limits: Limits | None = None) -> None:
        self._limits, self._asked = limits, options.room is not None
        self._started = not ray.is_initialized()
        self._dashboard_url = start_ray(options) if self._started else ""
        if options.room is not None:
            wait_for(options.room)
        self._registry: Any = None
        self._machines = _machines(_nodes(check=False), self._dashboard_url)
        self._asking = threading.Lock()
        self._seen: set[str] = set()
        self._ended_over: set[str] | None = None

    def open(self) -> None:
        """Nothing to start: this process is a part of Ray already."""

    def run_pass(
        self, corpus: Corpus, pipeline: Pipeline, works: Sequence[SourceWork], *, run_id: str, single: bool
    ) -> Iterator[Summary]:
        """Give a summary for every bundle written; EngineError when the pass died (`in_flight` says over what)."""
        self._registry = Registry.options(scheduling_strategy=_on_node(_this_node())).remote()
        self._seen, self._ended_over = set(), None
        nodes = _nodes(check=single)
        self._machines = _machines(nodes, self._dashboard_url)
        if not any(node.get("GPU") for node in nodes):
            pipeline = pipeline.without_gpus()
        packing = pack(pipeline, nodes, len(works), single=single)
        watch = _NodeWatch(self._registry)
        reason, lost, ours = "", "", None
        try:
            _configure(works)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*ray_remote_args")  # no other way yet to bound retries
                dataset = self._dataset(corpus, pipeline, works, packing, run_id)
            _keep_logs_off_the_terminal()
            for batch in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
                for payload in batch["summary"]:
                    yield pickle.loads(payload)
        except (RayError, ExecutionTimeoutError, SystemException) as error:
            lost, ours = self._ask_for("last_words", ""), _own_error(error)
            reason = lost or first_line(error)
        finally:
            watch.stop()
            dataset = None
        if reason:
            # Raised here and not above: a chained traceback would keep the dead pass's actors, and so its CPUs.
            self._end_workers()
            if ours is not None and not ours.transient:
                raise ours  # another pass would meet it again
            # Neither a table that could not be written nor a GPU is a fault of the sources.
            blameless = ours is not None or lost
            self._ended_over = set() if blameless else set(self._ask_for("in_flight", []))
            if ours is not None:
                raise EngineError(f"a pass died: {ours.message}", subject=ours.subject, fix=ours.fix)
            raise EngineError(f"a pass died: {reason}", fix="See the Ray logs of the workers")

    def _end_workers(self) -> None:
        gc.collect()
        _kill(self._ask_for("workers_on", [], None))

    def _ask_for(self, what: str, otherwise: Any, *args: Any) -> Any:
        """What the registry knows, however long that takes; ``otherwise`` if it is dead: then that ended the pass, and
        nothing else is to blame."""
        with suppress(RayActorError):
            return ray.get(getattr(self._registry, what).remote(*args))
        return otherwise

    def in_flight(self) -> set[str]:
        """URIs of sources that are being read, or were when the pass died. Any thread may ask.

        While a pass goes on this is the last answer if there is no new one in time.
        """
        if self._ended_over is None:
            with self._asking, suppress(GetTimeoutError, RayActorError):
                if (registry := self._registry) is not None:
                    found = set(ray.get(registry.in_flight.remote(), timeout=WATCH_TIMEOUT_S))
                    if registry is self._registry:
                        self._seen = found
        return set(self._seen if self._ended_over is None else self._ended_over)

    def machines(self) -> Machines:
        """The nodes as they were when the last pass began."""
        return self._machines

    def close(self) -> None:
        """Stop the Ray that this engine started; a cluster that grew for it may shrink again."""
        with self._asking:
            self._registry = None  # who asks from now on would start a new Ray
            self._seen = set()
            if self._asked:
                with boundary():  # a cluster that is gone by now has nothing to give back
                    ask_for(Room())
            if self._started:
                ray.shutdown()

    def _dataset(
        self, corpus: Corpus, pipeline: Pipeline, works: Sequence[SourceWork], packing: Packing, run_id: str
    ) -> Any:
        blocks = [works[i : i + packing.sources_per_block] for i in range(0, len(works), packing.sources_per_block)]
        rows = [{"payload": pickle.dumps(block, protocol=5)} for block in blocks]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        # A block is a row wherever it comes from an operator; for one on a GPU Ray Data will not do without a number.
        common: dict[str, Any] = {"batch_size": 1, "ray_remote_args_fn": _bounded_retries}
        dataset = dataset.map_batches(
            DecodeOperator,
            fn_constructor_args=(pipeline, self._limits, run_id, self._registry, packing.bundle_bytes),
            compute=ActorPoolStrategy(size=packing.decoders, max_tasks_in_flight_per_actor=1),
            num_cpus=packing.decoder_cpus,
            **common,
        )
        for group, pool in enumerate(packing.pools, start=1):
            dataset = dataset.map_batches(
                GroupOperator,
                fn_constructor_args=(pipeline, group, run_id, self._registry),
                compute=ActorPoolStrategy(size=pool.workers),
                num_cpus=pool.cpus,
                num_gpus=pool.gpus or None,
                **common,
            )
        return dataset.map_batches(
            WriterOperator,
            fn_constructor_args=(corpus, self._registry),
            compute=ActorPoolStrategy(size=packing.writers),
            num_cpus=packing.writer_cpus,
            **common,
        )


def _bounded_retries() -> dict[str, int]:
    return {"max_restarts": RETRIES, "max_task_retries": RETRIES}


def _configure(works: Sequence[SourceWork]) -> None:
    """Ray Data's settings for a pass: every yielded row is a block, no block may be lost, slow files are no hang."""
    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.target_min_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    largest_bytes = max((work.ref.size_bytes or 0 for work in works), default=0)
    context.execution_no_progress_timeout_s = 1800 + largest_bytes / 100_000
    context.log_internal_stack_trace = False
    context.raise_original_map_exception = True


def _keep_logs_off_the_terminal() -> None:
    """Ray Data's messages go to its log files alone; what a user must know comes from us."""
    for name in ("ray.data", "ray"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.CRITICAL + 1)


def _nodes(*, check: bool) -> list[Mapping[str, float]]:
    """Resources of the nodes; ``check`` asks each for a sign of life, for Ray takes a while to notice a lost one. Not
    the one that we are on: the answer would be a process to start."""
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    others = alive.keys() - {_this_node()} if check else set()
    if others:
        pings = {ping.options(scheduling_strategy=_on_node(node)).remote(): node for node in others}
        answered, _ = ray.wait(list(pings), num_returns=len(pings), timeout=PING_TIMEOUT_S)
        lost = others - {pings[reference] for reference in answered if _is_well(reference)}
        alive = {node: has for node, has in alive.items() if node not in lost}
    return list(alive.values())


def _machines(nodes: Sequence[Mapping[str, float]], dashboard_url: str) -> Machines:
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    return Machines(len(nodes), cpus, gpus, dashboard_url)


def _kill(workers: Sequence[bytes]) -> None:
    """For good."""
    for worker in workers:
        ray.kill(pickle.loads(worker), no_restart=True)


def _is_well(reference: Any) -> bool:
    try:
        return ray.get(reference)
    except RayError:
        return False


def _this_node() -> str:
    return ray.get_runtime_context().get_node_id()


def _on_node(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _own_error(error: BaseException) -> StorageError | DeviceMemoryError | None:
    """The reason when a table could not be written, or a model did not fit."""
    for each in causes(error):
        carried = getattr(each, "cause", None)  # Ray's own errors have there what the worker raised
        for found in (each, *(causes(carried) if isinstance(carried, BaseException) else ())):
            for kind in (DeviceMemoryError, TransientStorageError, StorageError):
                if isinstance(found, kind):
                    return kind(found.message, subject=found.subject, fix=found.fix)
    return None


class _NodeWatch:
    """Ends workers that a lost node took along and that found no place elsewhere: their tasks would wait for ever."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=10)

    def _loop(self) -> None:
        lost_since: dict[str, float] = {}
        while not self._stopped.wait(2.0):
            try:
                dead = [node["NodeID"] for node in ray.nodes() if not node["Alive"]]
                for node in dead:
                    lost_since.setdefault(node, time.monotonic())
                overdue = [node for node, since in lost_since.items() if time.monotonic() - since > NODE_GRACE_S]
                _kill(ray.get(self._registry.workers_on.remote(overdue)) if overdue else [])
            except RayError:
                continue
