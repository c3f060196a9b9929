"""What Prometheus gets: the counts of the run, few labels, no names of sources; and a dashboard that asks for nothing
else."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cli_kit import curate
from engine_kit import Luma, LumaConfig, Picky, PickyConfig, pipeline
from prometheus_client.parser import text_string_to_metric_families
from watch_kit import Quiet, watched_run

from curate.engine.inline import InlineEngine
from curate.errors import MissingModelError, UsageError
from curate.tables import Corpus
from curate.watch.metrics import serving
from curate.watch.state import RunState
from curate.watch.status import FailureStatus, PassStatus, RunStatus, StageStatus, statuses
from curate.watch.watching import WatchOptions

ROOT = Path(__file__).parents[2]
BOARD = json.loads((ROOT / "docker/grafana/curate.json").read_text())
CONFIG = yaml.safe_load((ROOT / "docker/prometheus.yml").read_text())
PAGE = (ROOT / "docs/watch.md").read_text()
(INSTALLED,) = importlib.util.find_spec("ray").submodule_search_locations
RAY_DASHBOARDS = Path(INSTALLED) / "dashboard/modules/metrics/dashboards"
RAY = {
    words[0]: set(words[1:]) | {"job", "instance"}
    for words in map(str.split, (ROOT / "tests/data/ray_metrics.txt").read_text().splitlines())
}
"""Metrics of Ray 2.60 with their labels: scraped from both nodes of docs/two-nodes.md, with ray[default]."""

FULL = RunStatus(
    "r",
    recipe="svd",
    engine="ray",
    version="1",
    step="Writing shards",
    seconds=60.0,
    the_pass=PassStatus(2, 10, 4, 1, 2, 3, 30, 99.0, 20.0),
    sources_ok=9,
    sources_failed=2,
    quarantined=1,
    passes_died=1,
    clips=40,
    video_s=120.0,
    read_bytes=1000,
    written_bytes=500,
    stages={"clip": StageStatus(39, 1, 4.0, 40, 3.0, 1.0, True), "cut": StageStatus(9, 0, 2.0)},
    failures=(FailureStatus("clip", "StageError", 1),),
    nodes=2,
    cpus=4.0,
    gpus=1.0,
    result={"kept": 30, "dropped": 9, "failed": 1, "shards": 3, "shard_bytes": 10},
)
"""A run that has everything there is to tell."""


def scraped(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples by name and labels, as Prometheus reads them."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        text = answer.read().decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for each in samples}


def value(found: dict, name: str, **labels: str) -> float:
    return found[f"curate_{name}", tuple(sorted(labels.items()))]


@pytest.fixture(scope="module")
def full() -> dict:
    with serving(lambda: FULL, "127.0.0.1", 0) as url:
        return scraped(url)


def test_all_that_is_known_is_served_in_numbers(full):
    assert value(full, "sources_total", run="r", outcome="failed") == 2
    assert value(full, "clips_total", run="r") == 40
    assert value(full, "cells_total", run="r", stage="clip", outcome="ok") == 39
    assert value(full, "failures_total", run="r", stage="clip", error_class="StageError") == 1
    assert value(full, "read_bytes_total", run="r") == 1000 and value(full, "written_bytes_total", run="r") == 500
    assert value(full, "stage_busy_seconds_total", run="r", stage="clip", device="gpu") == 3
    assert value(full, "stage_waiting_seconds_total", run="r", stage="clip", device="gpu") == 1
    assert value(full, "gpu_waiting_share", run="r") == 0.25
    assert value(full, "queue_sources", run="r", state="waiting") == 3
    assert value(full, "left_seconds", run="r") == 30
    assert value(full, "selected_clips", run="r", verdict="kept") == 30
    assert value(full, "run_step", run="r", step="Writing shards") == 1


def test_labels_are_few_and_none_is_a_name_of_a_source(full):
    labels = {key for _, pairs in full for key, _ in pairs}
    few = {"run", "stage", "outcome", "error_class", "device", "state", "step", "kind", "verdict"}
    assert labels == few | {"recipe", "engine", "version"}


def test_before_a_run_has_begun_there_is_nothing_to_tell():
    with serving(RunState().status, "127.0.0.1", 0) as url:
        assert scraped(url) == {}


class Scraper(Quiet):
    """Scrapes after each bundle, by the address that the state tells."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.found: list[dict] = []

    def wrote(self, summary):
        self.found.append(scraped(self.state.metrics_url))


def test_counters_only_grow_and_end_where_the_tables_do(tmp_path, bucket):
    state = RunState()
    scraper, pipe = Scraper(state), pipeline(Luma(LumaConfig()), Picky(PickyConfig(fails_above=1.5)))
    watched_run(tmp_path / "c", bucket, pipe, state=state, shown=scraper, options=WatchOptions(port=0))
    for before, after in zip(scraper.found, scraper.found[1:], strict=False):
        grown = {key: after[key] - n for key, n in before.items() if key[0].endswith("_total")}
        assert min(grown.values()) >= 0
    last, (status,) = scraper.found[-1], statuses(Corpus(str(tmp_path / "c")))
    names = {"run": status.run}
    assert value(last, "clips_total", **names) == 5
    assert value(last, "sources_total", **names, outcome="failed") == 1
    assert value(last, "cells_total", **names, stage="picky", outcome="failed") == 1
    assert value(last, "failures_total", **names, stage="probe", error_class="NotMediaError") == 1
    assert value(last, "queue_sources", **names, state="waiting") == 0
    assert value(last, "written_bytes_total", **names) == status.written_bytes
    assert str(bucket) not in str(last)
    with pytest.raises(OSError):
        scraped(state.metrics_url)


class Asked(InlineEngine):
    """Remembers which threads asked for what is in flight."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.by: set[str] = set()

    def in_flight(self) -> set[str]:
        self.by.add(threading.current_thread().name)
        return super().in_flight()


def test_a_scrape_does_not_wait_for_the_engine(tmp_path, bucket):
    """It may take long to answer: the thread that writes the status asks it now and then."""
    state, engine = RunState(), Asked(tmp_path)
    scraper = Scraper(state)
    options = WatchOptions(port=0)
    watched_run(
        tmp_path / "c", bucket, pipeline(Luma(LumaConfig())), engine=engine, state=state, shown=scraper, options=options
    )
    assert scraper.found and engine.by == {"status"}


def test_a_port_that_is_taken_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="cannot listen there"), serving(lambda: FULL, "127.0.0.1", port):
            pass
        ended = curate("run", tmp_path, "--out", tmp_path / "c", "--engine", "inline", "--metrics-port", port)
    assert (ended.status, "Give another --metrics-port" in ended.err) == (2, True)


def test_it_listens_on_this_machine_alone_unless_told():
    with serving(lambda: FULL, WatchOptions().host, 0) as url:
        assert url.startswith("http://127.0.0.1:")
    with serving(lambda: FULL, "0.0.0.0", 0) as url:
        assert url.startswith(f"http://{socket.gethostname()}:")


def test_without_its_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingModelError, match=r"curate-video\[metrics\]"), serving(lambda: FULL, "127.0.0.1", 0):
        pass


# --- What is made of it -----------------------------------------------------------------------------------------------


def expressions() -> Iterator[str]:
    for panel in BOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """(metric, labels of its own matchers) of an expression."""
    for match in re.finditer(r"\b((?:curate|ray)_\w+)(?:\{([^}]*)\})?", expression):
        yield match[1], set(re.findall(r"(\w+)\s*=", match[2] or ""))


def labels_by_metric(found: dict) -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for name, pairs in found:
        names.setdefault(name, set()).update(key for key, _ in pairs)
    return names


def test_the_dashboard_asks_for_what_is_there_and_shows_all_of_ours(full):
    """Names and labels: of ours against a scrape, of Ray's against one too, or, of GPUs, against its own dashboard."""
    known = labels_by_metric(full) | RAY
    panels_of_ray = (RAY_DASHBOARDS / "default_dashboard_panels.py").read_text()
    shown = set()
    for expression in expressions():
        by = {label for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(", ")}
        for metric, labels in asked(expression):
            shown.add(metric)
            if metric in known:
                assert labels | by <= known[metric], expression
            else:
                assert re.search(rf"\b{metric}\b", panels_of_ray) and not labels | by, expression
    assert {name for name in shown if name.startswith("curate_")} == set(labels_by_metric(full))
    assert len({name for name in shown if name.startswith("ray_")}) > 10


def test_the_dashboard_is_one_that_grafana_can_lay_out():
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"] and panel["targets"], panel
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert [each["name"] for each in BOARD["templating"]["list"]] == ["datasource", "run"]


def test_prometheus_asks_a_run_and_a_node_of_ray_where_the_pages_say_they_are():
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in CONFIG["scrape_configs"]}
    assert targets == {"curate": ["127.0.0.1:9102"], "ray": ["127.0.0.1:8090"]}
    assert "--metrics-port 9102" in PAGE and "--metrics-export-port 8090" in PAGE


def test_every_metric_is_documented_with_its_labels(full):
    rows = re.findall(r"^\| `(curate_\w+)` \| ([^|]*) \| [^|]+ \|$", PAGE, re.MULTILINE)
    told = {name: set(re.findall(r"`(\w+)`", labels)) | {"run"} for name, labels in rows}
    assert told == labels_by_metric(full)
    shown = re.findall(r"^(curate_\w+)\{(.*)\} [\d.e+]+$", PAGE, re.MULTILINE)
    assert shown and all(set(re.findall(r'(\w+)="', labels)) == told[name] for name, labels in shown)
