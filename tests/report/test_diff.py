"""The difference of two selections: counts as plain Python counts them, shifts of scores, other cuts, the page."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean

import pyarrow as pa
import pytest
from browser_kit import chromium, opened
from cli_kit import curate
from corpus_kit import CorpusKit
from export_kit import ExportKit
from report_kit import make, take_down

from curate.cli import console
from curate.cli.diff import print_difference
from curate.config import parse_config
from curate.report.diff import ELSEWHERE, MOST_IDS, Named, difference, parse_side, write_difference
from curate.select import SelectConfig, select
from curate.tables import Corpus, read_parquet
from curate.testing.footage import moving_texture, write_video

OTHER = [
    {"column": "text.area_max", "max": 0.7, "on_failed": "drop"},
    {"column": "quality.sharpness", "min": 0.3, "on_failed": "keep"},
    {"column": "motion.camera", "in": ["roll", "pan left"], "on_failed": "drop"},
]


def choose(corpus: Corpus, name: str, conditions: list[dict], run_id: str | None = None) -> None:
    rule = {"name": name, "conditions": conditions, "dedup": {"method": "none"}}
    select(corpus, parse_config(SelectConfig, rule, "select"), run_id=run_id)


def rows(corpus: Corpus, name: str) -> dict[str, dict]:
    table = read_parquet(corpus.selections().child(name, "selection.parquet"))
    return {row["clip_id"]: row for row in table.to_pylist()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    made = make(tmp_path_factory.mktemp("diff"), n_sources=12)
    choose(made, "other", OTHER)
    return made


def facts_of(one: tuple[Corpus, str | None], other: tuple[Corpus, str | None]) -> dict:
    found = difference(Named(*one), Named(*other)).facts
    json.dumps(found, allow_nan=False)
    return found


@pytest.mark.parametrize(("names"), [("sel", "other"), ("other", "sel")])
def test_what_moved_and_why_agrees_with_the_selections(corpus, names):
    found = facts_of(*((corpus, name) for name in names))
    a, b = (rows(corpus, name) for name in names)
    for which, here, there in (("left", a, b), ("entered", b, a)):
        moved = {clip for clip in a if here[clip]["verdict"] == "kept" != there[clip]["verdict"]}
        assert moved
        assert found[which]["n"] == len(moved)
        assert {clip for clip, _ in found[which]["clips"]} == moved
        reasons = Counter(there[clip]["reason"] for clip in moved)
        assert {row["reason"]: row["n"] for row in found[which]["reasons"]} == reasons
        failing = Counter(name for clip in moved for name in there[clip]["failing"])
        alone = Counter(there[clip]["failing"][0] for clip in moved if len(there[clip]["failing"]) == 1)
        told = {row["name"]: (row[which], row[f"{which}_only"]) for row in found["filters"]}
        assert {name: n for name, (n, _) in told.items() if n} == failing
        assert {name: n for name, (_, n) in told.items() if n} == alone
        assert set(found["samples"][which]) <= moved
        assert len({there[clip]["reason"] for clip in found["samples"][which]}) == min(len(reasons), 24)
    assert found["both"]["n"] == sum(a[clip]["verdict"] == b[clip]["verdict"] == "kept" for clip in a)
    assert found["known"] == {"both": len(a), "only_a": 0, "only_b": 0}
    sides = [found[side]["kept"]["n"] for side in ("a", "b")]
    assert sides[1] - sides[0] == found["entered"]["n"] - found["left"]["n"]
    assert all(row["same"] and not row["changed"] for row in found["numbers"])


def test_a_selection_does_not_differ_from_itself(corpus):
    found = facts_of((corpus, "sel"), (corpus, "sel"))
    assert (found["left"]["n"], found["entered"]["n"], found["filters"], found["thresholds"]) == (0, 0, [], [])
    assert all(row["a"] == row["b"] for row in found["numbers"])


def test_what_was_taken_down_is_kept_by_neither(tmp_path):
    corpus = make(tmp_path, n_sources=6)
    choose(corpus, "other", OTHER)
    before = facts_of((corpus, "sel"), (corpus, "other"))
    take_down(corpus, "bucket/0/0.mp4")
    after = facts_of((corpus, "sel"), (corpus, "other"))
    gone = {clip for clip, facts in before["clip_facts"].items() if facts["uri"] == "bucket/0/0.mp4"}
    assert gone and not gone & set(after["clip_facts"])
    assert after["b"]["kept"]["n"] - after["a"]["kept"]["n"] == after["entered"]["n"] - after["left"]["n"]
    assert after["a"]["kept"]["n"] + after["b"]["kept"]["n"] < before["a"]["kept"]["n"] + before["b"]["kept"]["n"]


def test_conditions_that_differ_are_told_in_words(corpus):
    told = {row["name"]: (row["a"], row["b"]) for row in facts_of((corpus, "sel"), (corpus, "other"))["thresholds"]}
    assert told["text.area_max"] == ("text.area_max above 0.5", "text.area_max above 0.7")
    assert told["clip.duration_s"] == ("clip.duration_s below 1.5", "")
    assert "motion.freeze_ratio" not in told


class Again(CorpusKit):
    """The same corpus after a model was changed: its stages `score` and `kind` have other fingerprints."""

    def fingerprint(self, stage: str) -> str:
        return super().fingerprint(f"{stage} again" if stage in {"score", "kind"} else stage)


SCORED = {"score": {"x": pa.float64(), "list": pa.list_(pa.float64())}, "kind": {"name": pa.string()}}
SCORED |= {"same": {"y": pa.float64()}}


def scored(path: Path) -> tuple[Corpus, list[str]]:
    """A corpus with two runs: x grows by 0.5 for clips of even number, the first clip is measured in one run alone."""
    for kind, run in ((CorpusKit, "run-1"), (Again, "run-2")):
        kit = kind(path, SCORED)
        clips = kit.source("a.mp4", [1.0] * 10)
        for n, clip in enumerate(clips):
            grown = 0.5 if run == "run-2" and n % 2 == 0 else 0.0
            if run == "run-1" or n:
                kit.cell("score", clip, x=n + grown, list=[float(n), grown])
            else:
                kit.failed("score", clip)
            kit.cell("kind", clip, name="new" if run == "run-2" and n < 3 else "old")
            kit.cell("same", clip, y=float(n))
        kit.write(run)
    return kit.corpus, clips


def test_scores_that_a_changed_model_shifted(tmp_path):
    corpus, clips = scored(tmp_path / "c")
    choose(corpus, "one", [{"column": "score.x", "min": 4}], "run-1")
    choose(corpus, "two", [{"column": "score.x", "min": 4}], "run-2")
    found = facts_of((corpus, "one"), (corpus, "two"))
    numbers = {row["column"]: row for row in found["numbers"]}
    shift = numbers["score.x"]
    assert (shift["same"], shift["changed"], shift["shift"]["n"]) == (False, 4, 9)
    assert shift["shift"]["mean"] == pytest.approx(mean([0.5] * 4 + [0.0] * 5))
    assert (shift["shift"]["min"], shift["shift"]["p50"], shift["shift"]["max"]) == (0.0, 0.0, 0.5)
    assert (shift["a"]["n"], shift["a"]["min"], shift["b"]["n"], shift["b"]["min"]) == (6, 4.0, 6, 4.5)
    assert (numbers["score.list"]["mean_of_list"], numbers["score.list"]["changed"]) == (True, 4)
    assert (numbers["same.y"]["same"], numbers["same.y"]["shift"]) == (True, None)
    (kind,) = found["categories"]
    assert (kind["column"], kind["n"], kind["changed"], kind["moves"]) == ("kind.name", 10, 3, [["old", "new", 3]])
    assert found["left"]["n"] == 0
    out = curate("diff", f"{corpus.uri}#one", "#two").out
    assert "score.x" in out and "kind.name: 3 of 10 changed: old to new (3)" in out
    assert clips[0] in rows(corpus, "two")


def print_narrow(facts: dict, monkeypatch, capsys, width: int = 80) -> str:
    monkeypatch.setattr(console.out, "width", width)
    print_difference(facts)
    return capsys.readouterr().out


def test_a_narrow_terminal_shows_whole_names_and_only_what_differs(corpus, monkeypatch, capsys):
    facts = facts_of((corpus, "sel"), (corpus, "other"))
    told = [row for row in facts["numbers"] if row["column"] in {"text.area_max", "motion.v2d_px16"}]
    assert len(told) == 2
    alike = {**told[1], "column": "quality.active_height_px", "b": {**told[1]["a"], "n": 1}}
    text = print_narrow({**facts, "numbers": [told[0], alike]}, monkeypatch, capsys)
    lines = text[text.index("scores of kept clips") :].splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in text
    a, b = (f"{told[0][side]['p50']:.4g}" for side in "ab")
    assert (lines[1].split()[:2], a in lines[1].split()) == ([told[0]["column"], "A"], True)
    assert (lines[2].split()[0], b in lines[2].split()) == ("B", True)
    assert lines[3] == "1 other score is spread alike." and "active_height" not in text


def test_differences_too_large_for_a_number_are_said_so(tmp_path):
    for kind, run, x in ((CorpusKit, "run-1", 1.7e308), (Again, "run-2", -1.7e308)):
        kit = kind(tmp_path / "c", {"score": {"x": pa.float64()}})
        for clip in kit.source("a.mp4", [1.0, 1.0]):
            kit.cell("score", clip, x=x)
        kit.write(run)
        choose(kit.corpus, run, [{"column": "score.x", "min": -1.75e308}], run)
    ended = curate("diff", f"{kit.corpus.uri}#run-1", "#run-2")
    assert ended.status == 0, ended.err
    assert re.search(r"score\.x +2 +0( +-){5} *\n", ended.out)


def test_a_run_whose_selection_was_replaced_is_judged_by_its_recipe(tmp_path):
    corpus, _ = scored(tmp_path / "c")
    rule = {"name": "s", "conditions": [{"column": "score.x", "min": 4}], "dedup": {"method": "none"}}
    choose(corpus, "s", rule["conditions"], "run-1")
    before = facts_of((corpus, "s"), (corpus, "s"))
    recipe = {"name": "r", "select": rule}
    corpus.runs().child("run-1", "recipe.yaml").write_text(json.dumps(recipe))
    choose(corpus, "s", [{"column": "score.x", "min": 4.2}], "run-2")
    files = sorted(Path(corpus.root.path).rglob("*"))
    found = json.loads(curate("diff", f"{corpus.uri}@run-1", corpus.uri, "--json").out)
    assert sorted(Path(corpus.root.path).rglob("*")) == files
    sides = [(found[side]["run_id"], found[side]["judged_now"]) for side in "ab"]
    assert sides == [("run-1", True), ("run-2", False)]
    assert found["a"]["kept"] == before["a"]["kept"]
    assert [row["name"] for row in found["thresholds"]] == ["score.x"]
    told = curate("diff", f"{corpus.uri}@run-1#s", "@run-2").out
    assert "over run run-1 (judged now, by its recipe)" in told
    for side, text in ((f"{corpus.uri}@run-9", "no run is called 'run-9'"), (f"{corpus.uri}@run-1#t", "'t'")):
        ended = curate("diff", side, corpus.uri)
        assert (ended.status, text in ended.err) == (2, True)


def test_corpora_without_a_common_clip_are_compared_by_their_distributions(tmp_path):
    corpora = []
    for number, (uri, shift) in enumerate((("a.mp4", 0.0), ("b.mp4", 10.0))):
        kit = (CorpusKit, Again)[number](tmp_path / f"c{number}", SCORED)
        if number:
            kit.fingerprint = defaultdict(lambda: "other", score="s", kind="k", same="y", probe="p").__getitem__
        for n, clip in enumerate(kit.source(uri, [1.0] * 5)):
            kit.cell("score", clip, x=n + shift, list=[])
            kit.cell("kind", clip, name="old")
            kit.cell("same", clip, y=0.0)
        corpora.append(kit.write())
        choose(corpora[-1], "s", [{"column": "score.x", "min": 1 + shift}])
    found = facts_of((corpora[0], None), (corpora[1], None))
    assert found["known"] == {"both": 0, "only_a": 5, "only_b": 5}
    assert (found["left"]["n"], found["entered"]["n"], found["both"]["n"]) == (4, 4, 0)
    assert [row["reason"] for row in found["left"]["reasons"]] == [ELSEWHERE]
    (x,) = [row for row in found["numbers"] if row["column"] == "score.x"]
    assert (x["shift"]["n"], x["a"]["p50"], x["b"]["p50"]) == (0, 2.0, 12.0)
    ended = curate("diff", corpora[0].uri, corpora[1].uri)
    assert ended.status == 0, ended.err
    assert (
        "0 clips are in both runs, 5 in A's alone, 5 in B's alone: their cuts were found in another way." in ended.out
    )


@pytest.mark.parametrize(
    ("sides", "told"),
    [
        (("{c}#nosuch", "#sel"), "no selection is called 'nosuch'"),
        (("{c}#", "#sel"), "names no selection behind #"),
        (("#sel", "{c}"), "names no corpus"),
        (("{c}", "{c}/nowhere"), "is not a corpus"),
    ],
)
def test_what_cannot_be_compared_is_refused(corpus, sides, told):
    ended = curate("diff", *(side.format(c=corpus.uri) for side in sides))
    assert ended.status in {1, 2}
    assert told in ended.err


def test_sides_are_named_by_corpus_and_selection(tmp_path):
    one = parse_side(f"{tmp_path}/a#b")
    assert one == Named(Corpus(f"{tmp_path}/a"), "b")
    assert parse_side("#c", one.corpus) == Named(one.corpus, "c")
    assert parse_side("s3://x/y") == Named(Corpus("s3://x/y"))
    assert parse_side(f"{tmp_path}/me@x/y@r-1#b") == Named(Corpus(f"{tmp_path}/me@x/y"), "b", "r-1")
    assert parse_side(f"{tmp_path}/me@x/y") == Named(Corpus(f"{tmp_path}/me@x/y"))
    assert parse_side("@r-1", one.corpus) == Named(one.corpus, None, "r-1")
    Corpus(f"{tmp_path}/a@b").create()
    assert parse_side(f"{tmp_path}/a@b") == Named(Corpus(f"{tmp_path}/a@b"))
    assert parse_side(f"{tmp_path}/a#b#c")[0].uri.endswith("a#b")


def test_json_for_other_programs(corpus):
    found = json.loads(curate("diff", f"{corpus.uri}#sel", "#other", "--json").out)
    assert found["left"]["n"] == facts_of((corpus, "sel"), (corpus, "other"))["left"]["n"]
    assert len(found["left"]["clips"]) <= MOST_IDS


ODD = "<img src=x onerror=window.pwned=1>.mp4"


def test_the_page_opens_from_disk_with_pictures_and_takes_names_for_text(tmp_path):
    write_video(tmp_path / ODD, moving_texture(40, 128, 72, (2.0, 0.0), 1))
    kit = ExportKit(tmp_path / "corpus")
    clips = kit.film(tmp_path / ODD, [0, 10, 20, 30, 40])
    corpus = kit.finish()
    choose(corpus, "slow", [{"column": "motion.v2d_px16", "max": 0.6}])
    choose(corpus, "fast", [{"column": "motion.v2d_px16", "min": 0.4, "name": "<script>window.pwned=1</script>"}])
    found = difference(Named(corpus, "slow"), Named(corpus, "fast"), pictures=8)
    assert write_difference(found, str(tmp_path / "diff.html")) == str(tmp_path / "diff.html")
    with chromium() as browser, opened(browser, (tmp_path / "diff.html").as_uri()) as page:
        assert page.locator("#left img").count() == 1
        assert page.locator("#entered img").count() == 2
        assert page.evaluate("[...document.images].every((one) => one.complete && one.naturalWidth > 100)")
        assert "<script>window.pwned=1</script>" in page.inner_text("#filters")
        page.click("#entered button.clip >> nth=0")
        assert ODD in page.inner_text("dialog")
        assert any(clip in page.inner_text("dialog pre") for clip in clips[2:])
        assert page.evaluate("window.pwned") is None
        page.set_viewport_size({"width": 360, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
