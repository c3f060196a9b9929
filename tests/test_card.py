"""The dataset card: its numbers are those of the index and the funnel, and strangers' words stay words."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from export_kit import ExportKit, all_bytes, config, select
from markdown_it import MarkdownIt

from curate.errors import CorpusError
from curate.export import export
from curate.export.hub import clip_features, front_matter, size_category
from curate.export.markdown import code, fenced
from curate.export.plan import ExportPlan
from curate.export.provenance import Provenance
from curate.recipe import parse_recipe
from curate.select import SelectConfig
from curate.select import select as select_by_rule
from curate.shards.index import CARD_NAME, ShardIndex
from curate.shards.reader import ShardSet
from curate.tables import Corpus, parquet_table
from curate.testing.footage import moving_texture, write_video
from curate.units import format_duration
from curate.verify import leftovers, verify

CUTS = [0, 11, 20, 23, 40]
"""Clips of 11, 9, 3 and 17 frames: the third is shorter than any bucket."""

HOSTILE = (
    "</td><script>alert(1)</script> | ``x`` [a](javascript:1) \u202e\n---\nlicense: mit\n# Heading ![](//a.test/x)"
)
KEY = "note: |\n---\n'\""
RECIPE = """
name: kit
stages:
  - probe
  - cut
  - motion
  - quality
  - caption.vlm: {endpoint: {url: 'http://host:8000/v1', model: words}}
select: {name: best, conditions: [], dedup: {method: none}}
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for seed, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        write_video(folder / name, moving_texture(40, 192, 108, (2, 1), seed), gop=10)
    return folder


def made(films: Path, path: Path, **licences: str) -> Corpus:
    """Twelve clips of three films, of which the rule drops one each; one model, one stand-in."""
    kit = ExportKit(path)
    for name in ("a", "b", "c"):
        kit.film(films / f"{name}.mp4", CUTS, **{"License": licences[name]} if name in licences else {KEY: name})
    corpus = kit.finish()
    run = corpus.runs().child("run-1")
    run.child("recipe.yaml").write_text(parse_recipe(RECIPE, "kit").to_text())
    manifest = json.loads(run.child("manifest.json").read_text())
    models = {"text": {"pp-ocr-det/model.onnx": "0" * 64}, "motion": {"of-somebody/<b>": "1" * 64}}
    stand_ins = {"caption.template": "captions are sentences"}
    run.child("manifest.json").write_text(json.dumps({**manifest, "models": models, "stand_ins": stand_ins}))
    rule(corpus, 0.1)
    return corpus


def rule(corpus: Corpus, least: float) -> None:
    conditions = [
        {"column": "motion.v2d_px16", "min": least},
        {"name": "slow", "column": "motion.v2d_px16", "drop_lowest": 0.25},
    ]
    config = {"name": "best", "conditions": conditions, "dedup": {"method": "none"}}
    select_by_rule(corpus, SelectConfig.model_validate(config))


@pytest.fixture(scope="module")
def corpus(films, tmp_path_factory):
    found = made(films, tmp_path_factory.mktemp("card") / "corpus", a="CC-BY-4.0", b=HOSTILE)
    export(found, "best", config(shard_bytes=80_000))
    return found


def card_of(corpus: Corpus) -> str:
    return corpus.shards("best").child(CARD_NAME).read_text()


def rows(card: str, head: str) -> list[list[str]]:
    """Rows of the table whose first column is called so."""
    lines = card.split(f"\n| {head} |", 1)[1].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def counted(card: str, head: str, column: int) -> int:
    return sum(int(row[column].replace(",", "")) for row in rows(card, head))


def test_every_table_of_the_set_adds_up_to_its_clips(corpus):
    card, index = card_of(corpus), ShardIndex.read(corpus.shards("best"))
    assert index.n_clips == 6
    assert counted(card, "licence", 2) == counted(card, "read from", 2) == counted(card, "stored as", 2) == 6
    assert counted(card, "bucket (width x height x frames)", 1) == 6
    assert counted(card, "bucket (width x height x frames)", 3) == len(index.shards) > 1
    of_each = Counter(sample.facts["source_digest"] for sample in ShardSet.open(corpus.shards("best")).samples())
    assert [row[1:3] for row in rows(card, "licence")] == [["1", str(n)] for n in of_each.values()] == [["1", "2"]] * 3
    assert {row[0] for row in rows(card, "licence")} > {"`CC-BY-4.0`", "`unknown`"}


def test_the_funnel_is_that_of_the_selection(corpus):
    card = card_of(corpus)
    funnel = json.loads(corpus.selections().child("best", "funnel.json").read_text())
    verdicts = {row[0]: row[1:] for row in rows(card, "clips")}
    assert verdicts == {
        name: [str(funnel["clips"][name]), format_duration(3600 * funnel["hours"][name])]
        for name in ("found", "kept", "dropped", "failed")
    }
    assert counted(card, "what", 3) == funnel["clips"]["dropped"] + funnel["clips"]["failed"] == 3
    conditions = [[int(cell) for cell in row[2:]] for row in rows(card, "condition")]
    assert conditions == [[c["first"], c["failing"], c["cell_failed"]] for c in funnel["conditions"]]
    value = funnel["thresholds"][0]["value"]
    assert rows(card, "column") == [["`motion.v2d_px16`", "drop lowest 0.25", "12", f"{value:g}"]]
    assert "3 inputs were found: 3 kept, 0 dropped, 0 failed, 0 skipped" in card
    assert "3 clips that the selection keeps are left out: `bucket: shorter than 4 frames`" in card


def test_models_have_the_licences_of_their_cards(corpus):
    found = {row[0]: row for row in rows(card_of(corpus), "model")}
    assert found["`pp-ocr-det`"][1:3] == ["`text`", "`Apache-2.0`"]
    assert found["`of-somebody`"][1:3] == ["`motion`", "`unknown`"]
    assert "`caption.template`: `captions are sentences`" in card_of(corpus)


def test_the_recipe_runs_and_tells_no_place(corpus):
    text = re.search(r"^```yaml\n(.*?)^```", card_of(corpus), re.MULTILINE | re.DOTALL)[1]
    assert "host:8000" not in card_of(corpus)
    told = yaml.safe_load(text)
    assert told["stages"][-1]["caption.vlm"]["endpoint"]["url"] == "***"
    told["stages"].pop()
    recipe = parse_recipe(yaml.safe_dump(told), "card")
    assert recipe.select.conditions[0].min == 0.1
    assert recipe.export == config(shard_bytes=80_000)


def test_strangers_words_stay_words(corpus):
    head, body = card_of(corpus).removeprefix("---\n").split("\n---\n", 1)
    assert "license" not in yaml.safe_load(head)
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table"]).parse(body)
    inline = [child for token in tokens for child in token.children or ()]
    assert not {"html_block", "html_inline", "link_open", "image"} & {t.type for t in (*tokens, *inline)}
    titles = [after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]
    sections = ["Reading it", "Sources", "Licences", "Funnel", "Models", "Known limits", "Recipe"]
    assert titles == ["best", *sections]
    assert any("<script>alert(1)</script> ¦" in child.content for child in inline if child.type == "code_inline")


@pytest.mark.parametrize(
    "text", ["`", "``a`", "a|b", "\\|", "x\n\ny", "\x1b[2J", "a" * 500, "", " ", "</code>", "a\u2028b"]
)
def test_a_code_span_holds_any_text_on_one_line(text):
    line = f"| {code(text)} | 1 |"
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table"]).parse(f"| a | b |\n| --- | --- |\n{line}\n")
    cells = [token for token in tokens if token.type == "inline"][2:]
    assert len(cells) == 2
    assert {child.type for child in cells[0].children} <= {"code_inline", "text"}
    assert len(cells[0].children) == 1
    assert len(line) < 150


def test_a_fence_is_longer_than_any_in_its_text():
    tokens = MarkdownIt().parse(fenced("a: |\n  ````\n  # no heading", "yaml"))
    assert [(token.type, token.info) for token in tokens] == [("fence", "yaml")]


@pytest.mark.parametrize(
    ("licences", "field"),
    [
        (["CC BY 4.0"], {"license": "cc-by-4.0"}),
        (["Pexels licence, of 2021"], {"license": "other", "license_name": "pexels-licence-of-2021"}),
        (["***"], {"license": "other", "license_name": "other"}),
        (["CC / BY-4.0"], {"license": "other", "license_name": "cc-by-4.0"}),
        (["MIT", "CC0-1.0"], {}),
        (["MIT", ""], {}),
        ([""], {}),
        ([], {}),
    ],
)
def test_the_field_of_a_licence_is_there_where_all_clips_have_one(licences, field):
    empty = ShardIndex("", {}, "", {}, ())
    plan = ExportPlan({}, 0, (), {}, "", Provenance())
    head = yaml.safe_load(front_matter("x", plan, config(), empty, licences).strip("-"))
    assert {key: head[key] for key in head if key.startswith("license")} == field
    assert "configs" not in head


def test_features_of_columns_that_hold_several_values():
    inner = pa.struct([("a", pa.list_(pa.float32())), ("b", pa.string())])
    columns = pa.schema(
        [("x.lists", pa.list_(pa.list_(pa.uint64()))), ("x.structs", pa.list_(inner)), ("x.day", pa.date32())]
    )
    told = {feature.pop("name"): feature for feature in clip_features(columns)[-1]["struct"][-3:]}
    assert told == {
        "x.lists": {"list": {"list": "uint64"}},
        "x.structs": {"list": {"struct": [{"name": "a", "list": "float64"}, {"name": "b", "dtype": "string"}]}},
        "x.day": {"dtype": "string"},
    }


@pytest.mark.parametrize(
    ("n", "word"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (577_000_000, "100M<n<1B")]
)
def test_size_categories(n, word):
    assert size_category(n) == word


SECRET = "/films/ACME Corp/Secret project (unreleased)/take 1.mp4"


@pytest.fixture(scope="module")
def told(films, tmp_path_factory):
    """The card of three films and of inputs that failed or are twins, with names that nobody may know."""
    kit = ExportKit(tmp_path_factory.mktemp("told") / "corpus")
    twins = {"a": ({"license": "MIT"}, {"license": "CC0-1.0"}), "b": ({"license": "MIT", "licence": "GPL-3.0"}, {})}
    twins["c"] = ({"license": " MIT"}, {"licence": "mit"})
    for name, (own, of_twin) in twins.items():
        kit.film(films / f"{name}.mp4", CUTS, **own)
        digest = kit.inputs[-1]["source_digest"]
        kit.input(f"{SECRET}-{name}", "skipped", f"same content as {SECRET}", digest, **of_twin)
    kit.input("/x.mp4", "skipped", f"cannot be listed: no ACME Corp/Secret here, nor {SECRET}")
    kit.input("/y.mp4", "failed", "NotMediaError: Secret project is no video")
    kit.input("/z.mp4", "failed", "Secret project is empty")
    kit.source_rows[-1]["error_class"] = "EmptyFileError"
    kit.input("/w.mp4", "failed", "Secret project was retried")
    kit.source_rows[-1]["error_class"] = None
    corpus = kit.finish()
    manifest = corpus.runs().child("run-1", "manifest.json")
    lacks = {"captions": "no captioner here", "flow": f"weights at {SECRET}"}
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "lacks": lacks}))
    rule(corpus, 0.1)
    export(corpus, "best", config())
    return card_of(corpus)


def test_inputs_that_failed_or_are_twins_tell_no_names(told):
    assert {tuple(row[1:]) for row in rows(told, "what") if row[0] == "inputs"} == {
        ("skipped", "`same content as another source`", "3"),
        ("skipped", "`cannot be listed`", "1"),
        ("failed", "`NotMediaError`", "1"),
        ("failed", "`EmptyFileError`", "1"),
        ("failed", "`unknown`", "1"),
    }
    assert not re.search("ACME|Corp|Secret|take 1", told)


def test_what_the_recipe_lacks_stands_in_the_known_limits(told):
    limits = told.split("## Known limits")[1].split("## Recipe")[0]
    assert "- Not done: `captions: no captioner here`\n- Not done: `flow: weights at ***`\n" in limits


def test_all_licences_of_one_content_count(told):
    found = {row[0]: row[1:3] for row in rows(told, "licence")}
    assert found == {"`CC0-1.0 / MIT`": ["1", "2"], "`GPL-3.0 / MIT`": ["1", "2"], "`MIT`": ["1", "2"]}


def test_another_funnel_of_the_same_clips_gives_another_card_and_the_same_shards(films, tmp_path):
    own = tmp_path / "films"
    own.mkdir()
    for path in films.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    corpus = made(own, tmp_path / "corpus", a="MIT", b="MIT", c="MIT")
    export(corpus, "best", config())
    before = all_bytes(corpus.shards("best"))
    assert yaml.safe_load(card_of(corpus).split("---")[1])["license"] == "mit"
    rule(corpus, 0.2)
    for path in own.iterdir():
        path.unlink()
    report = export(corpus, "best", config())
    after = all_bytes(corpus.shards("best"))
    assert (report.reused, report.holes) == (False, ())
    assert {name for name in after if after[name] != before[name]} == {CARD_NAME, "index.json"}
    assert "below 0.2" in card_of(corpus)
    assert verify(corpus, "best") == []
    assert export(corpus, "best", config()).reused


@pytest.mark.parametrize("spoil", ["edit", "remove"])
def test_verify_knows_the_card(films, tmp_path, spoil):
    corpus = made(films, tmp_path / "corpus")
    export(corpus, "best", config())
    assert verify(corpus, "best", deep=True) == []
    assert leftovers(corpus, now_s=1e12) == []
    place = corpus.shards("best").child(CARD_NAME)
    place.write_text(card_of(corpus) + "!") if spoil == "edit" else place.remove()
    assert [(p.kind, p.subject) for p in verify(corpus, "best")] == [("file", CARD_NAME)]
    export(corpus, "best", config())
    assert verify(corpus, "best") == []


def test_a_set_of_before_there_was_a_card_is_whole_and_gets_one(films, tmp_path):
    corpus = made(films, tmp_path / "corpus")
    export(corpus, "best", config())
    folder = corpus.shards("best")
    old = json.loads(folder.child("index.json").read_text())
    del old["card_sha256"]
    folder.child("index.json").write_text(json.dumps(old))
    assert [p.message for p in verify(corpus, "best")] == ["is not named by the index"]
    folder.child(CARD_NAME).remove()
    assert verify(corpus, "best") == []
    export(corpus, "best", config())
    assert verify(corpus, "best") == []
    assert "# best" in card_of(corpus)


def test_a_selection_without_a_record_has_a_card_too(films, tmp_path):
    kit = ExportKit(tmp_path / "corpus")
    kit.film(films / "a.mp4", CUTS)
    corpus = kit.finish()
    select(corpus, kit.clip_ids, [])
    export(corpus, "best", config())
    card = card_of(corpus)
    assert "The selection kept no record of it." in card
    assert "0 clips of 0 videos" in card
    assert "configs" not in yaml.safe_load(card.split("---")[1])
    with pytest.raises(CorpusError):
        ShardIndex.from_json(json.dumps({"format": 1, "shards": [], "holes": [], "plan": 1, "other": 1}), "x")


LOADING = """
import json, socket, sys

def refused(*address):
    raise SystemExit(f"asked the network: {address}")

socket.socket.connect = socket.getaddrinfo = refused
from datasets import Video, load_dataset
from curate.media.playback import decode_fully

folder = sys.argv[1]
stream = load_dataset(folder, split="train", streaming=True).cast_column("mp4", Video(decode=False))
found = {s["__key__"]: [s["txt"], s["json"], decode_fully(s["mp4"]["bytes"]).n_frames] for s in stream}
whole = load_dataset(folder, split="train")
facts = load_dataset("parquet", data_files=folder + "/*/*.parquet", split="train")
bucket = load_dataset(folder, data_files=sys.argv[2] + "/*.tar", split="train")
kinds = {name: type(feature).__name__ for name, feature in whole.features.items()}
print(json.dumps({"found": found, "whole": whole["__key__"][:], "facts": facts["clip_id"][:],
                  "bucket": bucket["__key__"][:], "kinds": kinds}))
"""


def test_datasets_loads_the_folder(corpus, tmp_path):
    folder = corpus.shards("best")
    index = ShardIndex.read(folder)
    bucket = index.shards[0].bucket
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path), "TQDM_DISABLE": "1"}
    command = [sys.executable, "-c", LOADING, folder.path, bucket]
    done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    sidecars = [parquet_table(folder.child(*shard.sidecar.split("/")).read_bytes()) for shard in index.shards]
    wanted = {row["clip_id"]: row for table in sidecars for row in table.to_pylist()}
    assert set(told["found"]) == set(told["whole"]) == set(told["facts"]) == set(wanted)
    assert len(wanted) == len(told["whole"]) == index.n_clips
    for clip_id, (caption, facts, n_frames) in told["found"].items():
        row = wanted[clip_id]
        assert (caption, n_frames) == (row["caption"], row["n_frames"])
        assert facts == {key: value for key, value in row.items() if key not in {"video_offset_bytes", "video_bytes"}}
    assert set(told["bucket"]) == {clip_id for clip_id, row in wanted.items() if row["bucket"] == bucket}
    assert told["kinds"]["mp4"] == "Video"


def test_the_page_shows_a_card_as_it_is(corpus):
    page = (Path(__file__).parents[1] / "docs" / "dataset-card.md").read_text(encoding="utf-8")
    shown = [line.removeprefix("    ") for line in page.split("## An example")[1].splitlines()]
    card = card_of(corpus).splitlines()
    heads = [line for line, rule in itertools.pairwise(shown) if rule.startswith("| ---")]
    keys = [line for line in shown if re.fullmatch(r"\w+:", line)]
    assert [line for line in card if line.startswith("##")] == [line for line in shown if line.startswith("##")]
    assert (len(heads), len(keys)) == (8, 5)
    assert {*heads, *keys} <= set(card)
