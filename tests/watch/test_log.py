"""The log for machines: what happened, with the ids that lead from a line to the tables, and no secret."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import pytest
from cli_kit import curate, good_video, write_recipe
from engine_kit import Luma, LumaConfig, Picky, PickyConfig, PooledDouble, pipeline
from watch_kit import lines, watched_run

from curate.config import Config
from curate.engine.inline import InlineEngine
from curate.engine.work import Ended, FailedCell, SourceWork, Summary
from curate.errors import EngineError
from curate.query import RunTables, connect
from curate.records import InputRef
from curate.tables import Corpus
from curate.watch.log import JsonLog
from curate.watch.watching import WatchOptions

PAGE = (Path(__file__).parents[2] / "docs" / "watch.md").read_text(encoding="utf-8")
TABLE = dict(re.findall(r"^\| `([a-z.]+)` \|[^|]*\| (.*) \|$", PAGE, re.MULTILINE))
KEYS = {event: set(re.findall(r"`(\w+)`", row)) for event, row in TABLE.items()}
"""Of each event, as the documentation lists them."""
EVERYWHERE = {"time", "level", "event", "run"}
SECRET = "hunter2hunter2"


class Dying(InlineEngine):
    """Its workers die over one source whenever it is read."""

    def run_pass(self, corpus, pipeline, works, *, run_id, single):
        healthy = [work for work in works if not work.ref.uri.endswith("b.mp4")]
        yield from super().run_pass(corpus, pipeline, healthy, run_id=run_id, single=single)
        self._in_flight = {work.ref.uri for work in works if work not in healthy}
        if self._in_flight:
            raise EngineError("a worker died")


@pytest.fixture(scope="module")
def told(bucket, tmp_path_factory) -> tuple[Path, list[dict]]:
    """A run in which a clip fails, a file is none, and workers die over another; and its log."""
    out = tmp_path_factory.mktemp("told")
    pipe = pipeline(Luma(LumaConfig()), Picky(PickyConfig(fails_above=1.5)), PooledDouble(Config()))
    watched_run(out / "c", bucket, pipe, engine=Dying(out), options=WatchOptions(log=str(out / "log")))
    return out / "c", lines(out / "log")


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> list[dict]:
    """The log of a whole job, appended to what was there."""
    out = tmp_path_factory.mktemp("job")
    (out / "log").write_text('{"event": "earlier"}\n')
    recipe = write_recipe(out)
    args = ["--recipe", recipe, "--out", out / "c", "--engine", "inline", "--no-report", "--log-json", out / "log"]
    assert curate("run", good_video(out / "a.mp4"), *args).status == 0
    first, *rest = lines(out / "log")
    assert first == {"event": "earlier"}
    return rest


def of(found: list[dict], event: str) -> list[dict]:
    return [each for each in found if each["event"] == event]


def test_every_event_and_key_is_in_the_documentation_and_no_other(told, job):
    found = [*told[1], *job]
    assert {each["event"] for each in found} == set(KEYS)
    for event, keys in KEYS.items():
        assert {key for each in of(found, event) for key in each} - EVERYWHERE <= keys, event
    for each in found:
        assert set(each) >= EVERYWHERE
        assert datetime.fromisoformat(each["time"]).tzinfo is not None
        assert each["level"] in {"info", "warning", "error"}


def test_it_begins_and_ends_with_the_run(told, job):
    for found in (told[1], job):
        assert [found[0]["event"], found[-1]["event"]] == ["run.began", "run.ended"]
        assert len({each["run"] for each in found}) == 1 and found[0]["run"]
    assert (job[-1]["state"], job[-1]["clips"], job[-1]["level"]) == ("complete", 1, "info")


def test_ids_lead_to_the_tables(told):
    out, found = told
    clips = [each for each in of(found, "cell.failed") if "clip" in each]
    assert {each["stage"] for each in clips} == {"picky"}
    with connect() as con:
        tables = RunTables(con, Corpus(str(out)), found[0]["run"])
        sql = tables.wide_sql(["clip.clip_id", "clip.source_digest", "source.uri", "picky.error_message"])
        rows = {row["clip.clip_id"]: row for row in con.sql(sql).to_arrow_table().to_pylist()}
    for each in clips:
        row = rows[each["clip"]]
        assert (each["source"], each["message"]) == (row["clip.source_digest"], row["picky.error_message"])
        assert row["source.uri"] in {
            done["uri"] for done in of(found, "source.done") if done["source"] == each["source"]
        }
        assert each["level"] == "warning"


def test_a_source_tells_how_it_ended(told, bucket):
    ended = {Path(each["uri"]).name: each for each in of(told[1], "source.done")}
    assert {name: each["outcome"] for name, each in ended.items()} == {
        "a.mp4": "ok",
        "b.mp4": "failed",
        "bad.mp4": "failed",
    }
    assert ended["a.mp4"]["clips"] == 3 and ended["a.mp4"]["seconds"] > 0
    assert ended["a.mp4"]["read_bytes"] == (bucket / "a.mp4").stat().st_size
    assert ended["bad.mp4"]["error_class"] == "NotMediaError" and ended["bad.mp4"]["level"] == "warning"
    assert ended["b.mp4"]["error_class"] == "WorkerDiedError"


def test_dead_passes_and_quarantine_are_told_as_errors(told):
    found = told[1]
    assert [each["level"] for each in of(found, "pass.died")] == ["error", "error"]
    assert [each["pass"] for each in of(found, "pass.planned")] == [1, 2]
    (given_up,) = of(found, "source.quarantined")
    assert given_up["uri"].endswith("b.mp4") and given_up["level"] == "error"


def test_bundles_add_up(told):
    bundles, ended = of(told[1], "bundle.written"), told[1][-1]
    assert sum(each["clips"] for each in bundles) == ended["clips"]
    assert sum(each["sources"] for each in bundles) == ended["sources_ok"] + ended["sources_failed"] == 3
    assert sum(each["failed"] for each in bundles) == len(of(told[1], "cell.failed"))


def test_the_job_tells_its_steps_and_what_came_of_them(job):
    assert [each["step"] for each in of(job, "step.began")] == ["Selecting", "Writing shards"]
    (selected,), (exported,) = of(job, "selection.made"), of(job, "export.written")
    assert (selected["found"], selected["kept"], exported["clips"], exported["shards"]) == (1, 1, 1, 1)


def test_no_secret_of_an_address_or_a_message_is_logged(tmp_path):
    uri = f"https://u:{SECRET}@host/a.mp4?X-Amz-Signature={SECRET}"
    with JsonLog(str(tmp_path / "log"), print) as log:
        log.wrote(
            Summary(
                ended={uri: Ended(error_class="StorageError", message=f"403 at {uri}")},
                failed=[FailedCell("cut", "d", "", "StorageError", f"Authorization: Bearer {SECRET}")],
            )
        )
        log.quarantined([SourceWork(InputRef(uri))], Summary())
        log.died(EngineError(f"cannot read {uri}"))
        log.step(f"Joining Ray at ray://u:{SECRET}@host:10001")
    text = (tmp_path / "log").read_text()
    assert SECRET not in text and text.count("***") >= 6


def test_a_name_of_any_characters_is_one_line_of_plain_ascii(tmp_path):
    name = "/v/\x1b[31m\n\u2028\u202e\ud800é.mp4"
    with JsonLog(str(tmp_path / "log"), print) as log:
        log.wrote(Summary(ended={name: Ended("d")}))
    first = (tmp_path / "log").read_bytes().decode("ascii").splitlines()[0]
    assert first.isprintable() and json.loads(first)["uri"] == name


def test_a_log_that_cannot_be_is_refused_before_anything_is_read(tmp_path):
    places = {
        "s3://bucket/log": "cannot grow on an object store",
        str(tmp_path / "no/log"): "No such file",
        str(tmp_path): "Is a directory",
    }
    for path, why in places.items():
        ended = curate("run", tmp_path, "--out", tmp_path / "c", "--engine", "inline", "--log-json", path)
        assert (ended.status, why in ended.err) == (2, True), ended
    assert not (tmp_path / "c").exists()


def test_a_disk_that_fills_up_ends_the_log_and_not_the_run():
    heard: list[str] = []
    with JsonLog("/dev/full", heard.append) as log:
        for _ in range(3):
            log.step("Selecting")
    assert len(heard) == 1 and heard[0].startswith("The log ends here, the run goes on: ")


def test_a_job_that_is_refused_is_told_too(tmp_path):
    ended = curate("run", tmp_path, "--out", tmp_path / "c", "--recipe", "no-such", "--log-json", tmp_path / "log")
    assert ended.status == 2
    (only,) = lines(tmp_path / "log")
    assert (only["event"], only["state"], only["error_class"], only["run"]) == (
        "run.ended",
        "failed",
        "ConfigError",
        "",
    )


def test_standard_error_takes_it_for_a_container(tmp_path):
    recipe = write_recipe(tmp_path)
    args = ["--recipe", recipe, "--out", tmp_path / "c", "--engine", "inline", "--no-report", "--log-json", "-"]
    ended = curate("run", good_video(tmp_path / "a.mp4"), *args)
    assert [json.loads(line)["event"] for line in ended.err.splitlines()][-1] == "run.ended"
    assert "is complete after" in ended.out
