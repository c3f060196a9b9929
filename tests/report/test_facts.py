"""The numbers of a report are those of the tables and of the selection."""

from __future__ import annotations

import json
import re
import uuid

import pyarrow.parquet as pq
import pytest
from corpus_kit import CorpusKit
from report_kit import HASHES, STAGES, facts_of, make, take_down, write_recipe

from curate.cli.report import print_report
from curate.config import parse_config
from curate.errors import ConfigError, CorpusError
from curate.job import select_again
from curate.marks import set_marks
from curate.query import RunTables, connect
from curate.report import write_report
from curate.report.facts import build_facts, chosen_selection
from curate.select import SelectConfig, load_funnel, select
from curate.stats import corpus_stats
from curate.storage import Place
from curate.tables import Corpus, read_parquet

SIZE = 20
"""Sources of the corpus of most tests; to make it again is cheap."""


def made(path):
    return make(path, SIZE, method="hash", on_failed="failed")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Nobody may change it."""
    return made(tmp_path_factory.mktemp("facts"))


@pytest.fixture(scope="module")
def facts(corpus):
    return facts_of(corpus)


def facts_in(uri):
    """The facts that a written report holds."""
    text = Place(uri).read_text()
    return json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)[1])


def rows_of(corpus, name="sel"):
    return read_parquet(corpus.selections().child(name, "selection.parquet")).to_pylist()


def test_it_is_json_and_says_what_it_is_of(corpus, facts):
    assert json.loads(json.dumps(facts, allow_nan=False)) == json.loads(json.dumps(facts))
    assert (facts["run_id"], facts["selection"], facts["recipe_name"]) == ("run-1", "sel", "kit")
    assert facts["commands"]["select"] == f"curate select {corpus.uri} --run run-1 --name NAME"
    assert facts["recipe"].startswith("name: kit")
    assert facts["judged_otherwise"] == 0


def test_counts_are_those_of_the_funnel(corpus, facts):
    funnel = load_funnel(corpus, "sel")
    for key in ("found", "kept", "dropped", "failed", "skipped"):
        assert facts["inputs"][key] == getattr(funnel.inputs, key)
        assert facts["clips"][key] == getattr(funnel.clips, key)
    assert facts["hours"] == pytest.approx(funnel.hours)
    for what in ("input_reasons", "clip_reasons"):
        told = [(r.verdict, r.reason, r.n) for r in getattr(funnel, what)]
        assert [(r["verdict"], r["reason"], r["n"]) for r in facts["funnel"][what]] == told
    assert facts["retention"]["ratio"] == pytest.approx(funnel.retention.ratio)
    assert (facts["retention"]["judged"], facts["retention"]["joint"]) == (
        funnel.retention.judged,
        funnel.retention.joint,
    )
    product = 1.0
    for axis in facts["retention"]["axes"]:
        product *= axis["share"]
    assert product == pytest.approx(funnel.retention.product)


def test_steps_of_the_funnel_lead_from_all_clips_to_those_kept(corpus, facts):
    steps, rows = facts["funnel"]["steps"], rows_of(corpus)
    assert [step["kind"] for step in steps] == ["unmeasured", "gate", *["condition"] * 8, "near-duplicate"]
    left, hours = facts["clips"]["found"], facts["hours"]["found"]
    for step in steps:
        left, hours = left - step["first"], hours - step["first_hours"]
        assert step["left"] == left and step["left_hours"] == pytest.approx(hours, abs=1e-9)
        assert step["only"] <= step["first"] <= step["failing"] + step["cell_failed"]
    assert left == facts["clips"]["kept"]
    by_name = {step["name"]: step for step in steps}
    for condition in load_funnel(corpus, "sel").conditions:
        step = by_name[condition.name]
        assert (step["failing"], step["cell_failed"]) == (condition.failing, condition.cell_failed)
        alone = [row for row in rows if row["verdict"] == "dropped" and row["failing"] == [condition.name]]
        assert step["only"] == len(alone)
    alike = [row for row in rows if row["failing"] == ["near-duplicate"]]
    assert by_name["near-duplicate"]["first"] == len(alike) > 0
    failed = sum(row["verdict"] == "failed" and row not in alike for row in rows)
    assert by_name["not measured"]["first"] == failed


def test_a_take_down_is_honoured_everywhere(tmp_path, facts):
    corpus, before = made(tmp_path), facts
    gone = {clip for clip, about in before["clip_facts"].items() if about["uri"] == "bucket/0/3.mp4"}
    take_down(corpus, "bucket/0/3.mp4")
    after = facts_of(corpus)
    assert gone and not gone & set(after["clip_facts"])
    assert not any(about["uri"] == "bucket/0/3.mp4" for about in after["clip_facts"].values())
    (step,) = [step for step in after["funnel"]["steps"] if step["kind"] == "take-down"]
    standing = [sum(facts["axes"][0]["alone_n"]) for facts in (before, after)]
    assert 0 < standing[0] - standing[1] <= step["first"]
    assert after["clips"]["found"] == before["clips"]["found"]
    reasons = {reason["reason"]: reason["n"] for reason in after["funnel"]["clip_reasons"]}
    assert reasons["forgotten"] == step["first"]
    inputs = [{reason["reason"] for reason in facts["funnel"]["input_reasons"]} for facts in (before, after)]
    assert inputs[1] - inputs[0] == {"forgotten"}
    for entry in after["distributions"]:
        assert sum(entry["all"]) == after["clips"]["found"] - step["first"]


def test_what_changed_since_the_selection_is_said(tmp_path, capsys):
    corpus = made(tmp_path)
    rule = json.loads(corpus.selections().child("sel", "funnel.json").read_text())["config"]
    rule["conditions"].append({"column": "mark.verdict", "not_in": ["drop"]})
    select(corpus, parse_config(SelectConfig, rule, "select"))
    kept = [row["clip_id"] for row in rows_of(corpus) if row["verdict"] == "kept"]
    dropped = next(row for row in rows_of(corpus) if row["failing"] == ["clip.duration_s"])
    set_marks(corpus, {**dict.fromkeys(kept[:2], "drop"), dropped["clip_id"]: "drop"})
    written = write_report(corpus, pictures=0)
    facts = facts_in(written.uri)
    assert facts["judged_otherwise"] == 2  # the third is dropped for its length as before
    assert facts["funnel"]["steps"][-1]["left"] == facts["clips"]["kept"] - 2
    assert (written.n_otherwise, written.again) == (2, facts["commands"]["again"])
    assert written.again.endswith("--name sel")
    print_report(written)
    told = " ".join(capsys.readouterr().err.split())
    assert "2 clips would be judged otherwise now" in told and "--name sel" in told
    select(corpus, parse_config(SelectConfig, rule, "select"))
    assert facts_of(corpus)["judged_otherwise"] == 0


def test_distributions_count_all_clips_and_those_kept(corpus, facts):
    found = {entry["title"]: entry for entry in facts["distributions"]}
    assert list(found) == [
        "Duration (s)",
        "Resolution (short side)",
        "Aspect (width to height, nearest)",
        "Frame rate (frames/s)",
        "Camera motion",
        "Source folder",
    ]
    for entry in found.values():
        assert sum(entry["all"]) == facts["clips"]["found"] and sum(entry["kept"]) == facts["clips"]["kept"]
        places = entry["labels"] if entry["kind"] == "bars" else entry["edges"][1:]
        assert len(places) == len(entry["all"]) == len(entry["kept"])
    with connect() as con:
        tables = RunTables(con, corpus, "run-1")
        wide = tables.wide_sql(["source.width_px", "source.height_px", "source.uri"])
        tall = con.sql(f'SELECT count(*) FROM ({wide}) WHERE "source.width_px" = 640').fetchall()
        folder = con.sql(f"""SELECT count(*) FROM ({wide}) WHERE "source.uri" LIKE 'bucket/1/%'""").fetchall()
    aspects, folders = found["Aspect (width to height, nearest)"], found["Source folder"]
    assert dict(zip(aspects["labels"], aspects["all"], strict=True))["4:3"] == tall[0][0]
    assert dict(zip(folders["labels"], folders["all"], strict=True))["bucket/1"] == folder[0][0]


def test_buckets_are_the_selections_and_the_rest_has_a_reason(tmp_path, facts):
    corpus = made(tmp_path)
    rule = json.loads(corpus.selections().child("sel", "funnel.json").read_text())["config"]
    plain = facts["buckets"]
    assert plain["rows"] == [] and [row["reason"] for row in plain["none"]] == [
        "the selection was made without buckets"
    ]
    config = parse_config(SelectConfig, rule, "select")
    funnel = select(corpus, config, bucket_of=lambda w, h, n, fps: "big" if w > 1000 else None)
    facts = facts_of(corpus)
    assert {row["bucket"]: row["n"] for row in facts["buckets"]["rows"]} == funnel.buckets
    n = sum(row["n"] for kind in ("rows", "none") for row in facts["buckets"][kind])
    assert n == facts["clips"]["kept"]
    hours = sum(row["hours"] for kind in ("rows", "none") for row in facts["buckets"][kind])
    assert hours == pytest.approx(facts["hours"]["kept"])
    select_again(corpus, "", ["export.buckets.frames=[97]"])
    told = {row["reason"] for row in facts_of(corpus)["buckets"]["none"]}
    assert told == {"bucket: smaller than 128 px on a side", "bucket: shorter than 97 frames"}


def test_scores_failures_and_time_are_those_of_the_statistics(corpus, facts):
    stats = corpus_stats(corpus)
    assert [(s["stage"], s["column"], s["n"]) for s in facts["scores"]] == [
        (s.stage, s.column, s.n) for s in stats.numbers
    ]
    assert {(s["stage"], s["column"]) for s in facts["categories"]} >= {("motion", "camera"), ("probe", "codec")}
    assert not any(entry["column"] == "caption" for entry in facts["categories"])
    assert [(f["stage"], f["error_class"], f["n"]) for f in facts["failures"]] == [
        (f.stage, f.error_class, f.n) for f in stats.failures
    ]
    assert {"motion", "probe"} <= {stage["stage"] for stage in facts["stages"]}
    assert sum(stage["share"] for stage in facts["stages"]) == pytest.approx(1)
    slowest = max(stats.seconds, key=lambda entry: entry.sum_s)
    assert facts["bottleneck"]["stage"] == slowest.stage


def test_another_runs_and_selections_are_found_by_name(tmp_path):
    corpus = make(tmp_path, 3)
    config = parse_config(SelectConfig, {"name": "other", "dedup": {"method": "none"}}, "select")
    select(corpus, config)
    assert chosen_selection(corpus, None, None).name == "other"
    assert chosen_selection(corpus, "run-1", "sel").name == "sel"
    everything = build_facts(corpus, chosen_selection(corpus, None, "other"), pictures=0).facts
    gated = [step["first"] for step in everything["funnel"]["steps"] if step["kind"] == "gate"]
    assert everything["axes"] == [] and [everything["clips"]["dropped"]] == gated
    assert everything["joint"]["cells"] == 1 and everything["retention"] is None
    command = everything["commands"]["select"]
    assert "--set 'select.conditions=[]'" in command or "--set select.conditions=[]" in command
    with pytest.raises(ConfigError, match="did you mean 'sel'"):
        chosen_selection(corpus, None, "sell")
    with pytest.raises(ConfigError, match="made over run run-1"):
        chosen_selection(corpus, "run-2", "sel")
    with pytest.raises(ConfigError, match="did you mean 'run-1'"):
        chosen_selection(corpus, "run-11", None)


def test_without_a_selection_it_says_how_to_make_one(tmp_path):
    kit = CorpusKit(tmp_path / "corpus", STAGES)
    kit.source("a.mp4")
    with pytest.raises(ConfigError, match=r"no selection to report on. Make one: `curate select "):
        chosen_selection(kit.write(), None, None)
    with pytest.raises(CorpusError, match="not a corpus"):
        chosen_selection(Corpus(str(tmp_path)), None, None)


def test_over_an_older_run_the_new_selection_gets_a_name_of_its_own(tmp_path):
    kit = CorpusKit(tmp_path / "corpus", STAGES)
    kit.source("a.mp4", [2.0])
    corpus = kit.write()
    kit.write("run-2")
    rule = {"name": "sel", "conditions": [], "dedup": {"method": "none"}}
    select(corpus, parse_config(SelectConfig, rule, "select"))
    with pytest.raises(ConfigError, match=r"`curate select \S+ --run run-1 --name NAME`"):
        chosen_selection(corpus, "run-1", None)


def test_a_selection_that_cannot_be_read_stops_no_other(tmp_path):
    corpus = make(tmp_path, 3)
    place = corpus.selections().child("torn", "funnel.json")
    for text in ("{", "{}", "[]", '{"inputs": 3}'):
        place.write_text(text)
        assert chosen_selection(corpus, None, None).name == "sel"
        with pytest.raises(CorpusError, match="cannot be read as a selection"):
            chosen_selection(corpus, None, "torn")
    corpus.selections().child("sel", "funnel.json").remove()
    with pytest.raises(ConfigError, match="no selection to report on; torn cannot be read"):
        chosen_selection(corpus, None, None)


@pytest.mark.parametrize("more", ["    api_key: '{{...}}'\n    auth: 'Bearer abcdef0123456789'\n", "  - ]broken\n"])
def test_a_recipe_with_secrets_or_none_at_all_stops_no_report(tmp_path, more):
    corpus = make(tmp_path, 3)
    place = corpus.runs().child("run-1", "recipe.yaml")
    secret = "api_key: sk-0123456789abcdef0123456789abcdef"
    place.write_text(f"{place.read_text()}about:\n  - {secret}\n{more}")
    facts = facts_of(corpus)
    assert "0123456789abcdef" not in json.dumps(facts) and facts["recipe"]
    assert bool(facts["commands"]) == ("broken" not in more)


def test_a_selection_of_other_clips_is_refused(tmp_path):
    corpus = make(tmp_path, 3)
    place = corpus.selections().child("sel", "selection.parquet")
    pq.write_table(read_parquet(place).slice(2), place.path)
    with pytest.raises(CorpusError, match="2 clips of run run-1 are not in selection 'sel'"):
        facts_of(corpus)


def test_a_run_without_clips_has_a_report(tmp_path):
    kit = CorpusKit(tmp_path / "corpus", STAGES)
    kit.input("notes.txt", "skipped", "not a video name")
    corpus = kit.write()
    rule = {"name": "sel", "conditions": [{"column": "motion.v2d_px16", "min": 1.0}], "dedup": {"method": "none"}}
    write_recipe(corpus, rule)
    select(corpus, parse_config(SelectConfig, rule, "select"))
    facts = facts_of(corpus)
    assert (facts["clips"]["found"], facts["joint"]["cells"], facts["distributions"]) == (0, 0, [])
    assert facts["axes"][0]["stops"] == [1.0] and facts["axes"][0]["alone_n"] == [0, 0]


def test_a_corpus_on_an_object_store_gets_its_report_there(corpus, facts):
    far = Corpus(f"memory://{uuid.uuid4().hex}/corpus")
    far.root.fs.put(f"{corpus.uri}/", f"{far.root.path}/", recursive=True)
    written = write_report(far, pictures=5)
    assert written.uri == f"{far.uri}/reports/sel.html"
    there, here = facts_in(written.uri), facts
    for key in ("clips", "joint", "funnel", "distributions", "scores", "retention"):
        assert there[key] == here[key]
    assert sum("missing" in picture for picture in there["pictures"].values()) == len(there["clip_facts"]) > 0


def test_secrets_in_messages_and_names_stay_out(tmp_path):
    kit = CorpusKit(tmp_path / "corpus", STAGES)
    kit.input("https://host/a.mp4?token=s3cr3t", "failed", "has no bytes: https://host/a.mp4?X-Amz-Signature=s3cr3t")
    kit.source("https://user:s3cr3t@host/b.mp4", [2.0])
    corpus = kit.write()
    rule = {"name": "sel", "conditions": [{"column": "clip.duration_s", "min": 1.0}], "dedup": {"method": "none"}}
    write_recipe(corpus, rule)
    select(corpus, parse_config(SelectConfig, rule, "select"))
    facts = facts_of(corpus)
    assert len(facts["clip_facts"]) == 1 and "s3cr3t" not in json.dumps(facts)


def test_pairs_of_near_duplicates_say_how_alike_they_are(corpus, facts):
    assert facts["duplicates"]["n"] == sum(row["duplicate_of"] is not None for row in rows_of(corpus))
    kept = {row["clip_id"]: row["duplicate_of"] for row in rows_of(corpus)}
    for pair in facts["duplicates"]["pairs"]:
        assert kept[pair["clip"]] == pair["kept"]
        assert len(pair["score"]) == len(HASHES) and set(pair["score"].values()) <= {0, 1, 2, 3}
