"""Metrics for Prometheus, served by the process that was called: what `RunState` knows, at the moment of the question.

Labels are the run, stages, error classes (`MOST_CLASSES` at most) and words of ours; never a source or a clip.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from curate.errors import UsageError
from curate.packages import needed, of_extra
from curate.watch.status import RunStatus

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

(_PACKAGE,) = of_extra("metrics", "prometheus_client")

Samples = Mapping[Any, float]
"""Values by those of the labels besides `run`."""


@contextmanager
def serving(status: Callable[[], RunStatus], host: str, port: int) -> Iterator[str]:
    """Serve the metrics while the block lasts; gives the address. Port 0 is any that is free.

    MissingModelError without the extra `metrics`, UsageError when it cannot listen there.
    """
    client = needed(_PACKAGE)
    try:
        server, thread = client.start_http_server(port, host.strip("[]"), registry(status))
    except (OSError, OverflowError) as error:
        fix = "Give another --metrics-port or --metrics-host"
        raise UsageError(f"cannot listen there: {error}", subject=f"{host}:{port}", fix=fix) from error
    try:
        yield _url(host, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _url(host: str, port: int) -> str:
    try:
        name = socket.gethostname() if ipaddress.ip_address(host.strip("[]")).is_unspecified else host
    except ValueError:
        name = host
    name = f"[{name}]" if ":" in name and not name.startswith("[") else name
    return f"http://{name}:{port}/metrics"


def registry(status: Callable[[], RunStatus]) -> CollectorRegistry:
    """What Prometheus' library serves: asks for the status at every scrape."""
    client = needed(_PACKAGE)

    class Collector:
        def collect(self) -> Iterator[Metric]:
            return metrics_of(status())

    made = client.CollectorRegistry(auto_describe=False)
    made.register(Collector())
    return made


def metrics_of(status: RunStatus) -> Iterator[Metric]:
    """The metrics of a run; none before it has begun."""
    if not status.run:
        return
    core: Any = needed(_PACKAGE, "core")

    def made(kind: type[Any], name: str, doc: str, labels: tuple[str, ...], samples: Samples) -> Metric:
        metric = kind(f"curate_{name}", doc, labels=("run", *labels))
        for values, value in samples.items():
            metric.add_metric((status.run, *values), value)
        return metric

    for name, doc, labels, samples in _counters(status):
        yield made(core.CounterMetricFamily, name, doc, labels, samples)
    for name, doc, labels, samples in _gauges(status):
        yield made(core.GaugeMetricFamily, name, doc, labels, samples)


def _counters(status: RunStatus) -> Iterator[tuple[str, str, tuple[str, ...], Samples]]:
    """Name without `_total`, what it counts, labels, values."""
    one, stages = (), status.stages.items()
    sources = {("ok",): status.sources_ok, ("failed",): status.sources_failed}
    yield "sources", "Sources that are done, by outcome.", ("outcome",), sources
    yield "quarantined_sources", "Sources given up because two passes died over them.", (), {one: status.quarantined}
    yield "clips", "Clips scored by a group of stages.", (), {one: status.clips}
    yield "clip_seconds", "Seconds of video in the clips scored.", (), {one: status.video_s}
    cells = {(name, kind): n for name, each in stages for kind, n in (("ok", each.ok), ("failed", each.failed))}
    yield "cells", "Cells computed, by stage and outcome.", ("stage", "outcome"), cells
    failures = {(each.stage, each.error_class): each.n for each in status.failures}
    yield "failures", "Failures by stage and error class.", ("stage", "error_class"), failures
    yield "read_bytes", "Size of the sources that were read.", (), {one: status.read_bytes}
    yield "written_bytes", "Size of the tables that were written.", (), {one: status.written_bytes}
    seconds = {(name,): each.seconds for name, each in stages}
    yield "stage_seconds", "Seconds that a stage's cells took, on all workers.", ("stage",), seconds
    device = {name: "gpu" if each.on_gpu else "cpu" for name, each in stages}
    labels, used = ("stage", "device"), [(name, each) for name, each in stages if each.items]
    busy = {(name, device[name]): each.busy_s for name, each in used}
    yield "stage_busy_seconds", "Seconds in which a stage's workers scored clips.", labels, busy
    waited = {(name, device[name]): each.waited_s for name, each in used}
    yield "stage_waiting_seconds", "Seconds in which a stage's workers had no clips.", labels, waited
    yield "passes", "Passes begun.", (), {one: status.the_pass.number}
    yield "passes_died", "Passes given up because workers died.", (), {one: status.passes_died}


def _gauges(status: RunStatus) -> Iterator[tuple[str, str, tuple[str, ...], Samples]]:
    """Name, what it says, labels, values."""
    one, the_pass = (), status.the_pass
    about = (status.recipe, status.engine, status.version)
    yield "run_info", "What runs; always 1.", ("recipe", "engine", "version"), {about: 1}
    yield "run_seconds", "Seconds since the run began.", (), {one: status.seconds}
    yield "run_step", "The step that goes on; always 1.", ("step",), {(status.step,): 1}
    yield "pass_sources", "Sources of the pass that goes on.", (), {one: the_pass.sources}
    queue = {("waiting",): the_pass.waiting, ("in_flight",): the_pass.in_flight}
    yield "queue_sources", "Sources of the pass that are being read, and others that are not done.", ("state",), queue
    left = {} if the_pass.left_s is None else {one: the_pass.left_s}
    yield "left_seconds", "Seconds until the sources of the pass are done, at its pace so far.", (), left
    share = {} if status.gpu_waiting_share is None else {one: status.gpu_waiting_share}
    yield "gpu_waiting_share", "Share of their time in which workers on GPUs had no clips, over the run.", (), share
    counts = {("nodes",): status.nodes, ("cpus",): status.cpus, ("gpus",): status.gpus}
    yield "machines", "Nodes, CPUs and GPUs that the engine has.", ("kind",), counts
    verdicts = {name: n for name, n in status.result.items() if name in {"kept", "dropped", "failed"}}
    selected = {(verdict,): n for verdict, n in verdicts.items()}
    yield "selected_clips", "Clips by the verdict of the selection.", ("verdict",), selected
