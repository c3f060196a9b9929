"""The main job: everything that can be refused is refused before a video is read; what is asked for is what is done."""

from __future__ import annotations

from pathlib import Path

import job_kit
import pytest
from job_kit import Heard, table_files

from curate.errors import ConfigError, CorpusError, MissingModelError, StorageError, UsageError
from curate.job import JobOptions, JobResult, check_memory, export_again, run_job, select_again
from curate.query import last_run
from curate.recipe import Recipe, build, load_recipe, parse_recipe
from curate.tables import Corpus, read_parquet
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture, static_texture

RECIPE = """
name: small
stages: [probe, cut: {min_len_s: 0.5, max_len_s: 1}, quality, motion]
select:
  name: small
  conditions: [{column: quality.contrast, min: 0}, {column: motion.freeze_ratio, max: 0.5, name: frozen}]
  dedup: {method: none}
export: {caption: "", preset: ultrafast, buckets: {short_sides_px: [64], multiple_px: 32, frames: [8]}}
"""

WITHOUT_QUALITY = RECIPE.replace("quality, motion", "motion").replace("{column: quality.contrast, min: 0}, ", "")


def recipe(*overrides: str, text: str = RECIPE) -> Recipe:
    return parse_recipe(text, "test", overrides)


def do(sources, out: Path, chosen: Recipe | None = None, **options) -> tuple[JobResult, Heard]:
    return job_kit.do(sources, out, chosen or recipe(), **options)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> Path:
    """Two moving films and a still one, 96x64, of 1, 1 and 2 seconds."""
    folder = tmp_path_factory.mktemp("bucket")
    write_video(folder / "a.mp4", moving_texture(30, 96, 64, (1, 0), seed=1))
    write_video(folder / "b.mp4", moving_texture(30, 96, 64, (0, 1), seed=2))
    write_video(folder / "still.mp4", static_texture(60, 96, 64, seed=3))
    (folder / "notes.txt").write_text("no video")
    return folder


def nothing_was_read(out: Path) -> bool:
    return not (out / "tables").exists() and not (out / "runs").exists()


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "corpus"


def test_a_job_scores_selects_and_exports(bucket, out):
    result, heard = do([bucket], out)
    assert heard.steps == ["Selecting", "Writing shards"]
    assert (result.funnel.inputs.found, result.funnel.inputs.kept) == (4, 2)
    assert (result.funnel.clips.kept, result.funnel.clips.dropped) == (2, 2)
    assert (result.export.n_clips, result.export.left_out) == (2, {})


def test_a_second_run_reads_nothing_and_writes_no_shard(bucket, out):
    do([bucket], out)
    result, heard = do([bucket], out)
    assert heard.works == [] and result.export.reused
    assert len(Corpus(str(out)).run_ids()) == 2


def test_clips_whose_frames_would_not_fit_a_worker_are_refused(bucket, out):
    for overrides in (["cut.max_len_s=0"], ["cut.max_len_s=100000"]):
        with pytest.raises(ConfigError, match=r"cut\.max_len_s: clips of up to .* 256.0 MiB are allowed"):
            do([bucket], out, recipe(*overrides))
    assert nothing_was_read(out)
    check_memory(build(load_recipe("embedded")))


def test_missing_weights_are_named_with_the_one_command_that_fetches_them(bucket, out, tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "nowhere"))
    with pytest.raises(MissingModelError) as caught:
        do([bucket], out, load_recipe("embedded"))
    assert "efficientnet-lite0 (stage features), pp-ocr-det (stage text)" in str(caught.value)
    assert "`curate models fetch efficientnet-lite0 pp-ocr-det`" in str(caught.value)
    assert nothing_was_read(out)


def test_weights_of_stages_that_are_not_asked_for_are_not_missed(bucket, out, tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_MODELS", str(tmp_path / "nowhere"))
    result, _ = do([bucket / "a.mp4"], out, load_recipe("embedded"), only_stages=("quality",))
    assert result.run.counts["cells_failed"] == 0
    assert (result.funnel, result.export) == (None, None)


@pytest.mark.parametrize(
    ("overrides", "text", "words"),
    [
        (["select.conditions.0.column=quality.contrst"], RECIPE, "did you mean 'quality.contrast'?"),
        (["select.conditions.0.column=user.licence"], RECIPE, "no column 'user.licence'"),
        (["select.dedup.method=hash"], RECIPE, "'features.phash_first'"),
        (["select.dedup.method=auto"], RECIPE, "'features.phash_first'"),
        (["select.dedup.method=embedding"], RECIPE, "'clip.first'"),
        (["export.caption=caption.template.caption"], RECIPE, "export.caption"),
        (["export.columns=[text.area_max]"], RECIPE, "export.columns"),
        (["export.crop=letterbox"], WITHOUT_QUALITY, "export.crop"),
    ],
)  # fmt: skip
def test_a_column_that_the_run_will_not_have_is_refused_before_hours_of_scoring(bucket, out, overrides, text, words):
    with pytest.raises(ConfigError) as caught:
        do([bucket], out, recipe(*overrides, text=text))
    assert words in str(caught.value) and caught.value.fix
    assert nothing_was_read(out)


def test_columns_of_an_export_that_there_will_not_be_are_no_matter(bucket, out):
    result, _ = do([bucket], out, recipe("export.columns=[text.area_max]"), export=False)
    assert result.funnel is not None and result.export is None


def test_columns_of_a_source_list_can_be_asked_for(bucket, out, tmp_path):
    (tmp_path / "list.csv").write_text(f"path,licence\n{bucket}/a.mp4,CC0\n{bucket}/b.mp4,none\n")
    chosen = recipe("select.conditions=[{column: user.licence, in: [CC0]}]", "export.columns=[user.Licence]")
    result, _ = do([tmp_path / "list.csv"], out, chosen)
    assert (result.funnel.clips.found, result.funnel.clips.kept) == (2, 1)


@pytest.mark.parametrize(
    ("sources", "options", "error", "words"),
    [
        ([], {}, UsageError, "no sources given"),
        (["{bucket}"], {"engine": "spark"}, UsageError, "no engine is called 'spark'"),
        (["{bucket}"], {"only_stages": ("qualty",)}, ConfigError, "did you mean 'quality'?"),
        ([], {"where": "best"}, CorpusError, "is not a corpus"),
        (["{bucket}"], {"where": "best"}, ConfigError, "no selection is called 'best'"),
    ],
)
def test_what_cannot_be_done_is_refused(bucket, out, sources, options, error, words):
    names = [source.format(bucket=bucket) for source in sources]
    with pytest.raises(error) as caught:
        run_job(names, recipe(), JobOptions(str(out), **{"engine": "inline", **options}), Heard())
    assert words in str(caught.value)
    assert nothing_was_read(out)


def test_a_place_that_cannot_be_written_is_found_out_first(bucket, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        do([bucket], tmp_path / "file" / "corpus")


def names_of(corpus: Corpus) -> list[str]:
    rows = read_parquet(corpus.runs().child(last_run(corpus), "inputs.parquet")).to_pylist()
    return [Path(row["uri"]).name for row in rows]


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Forty inputs that cost nothing to read."""
    folder = tmp_path_factory.mktemp("many")
    for index in range(40):
        (folder / f"{index:02}.mp4").write_bytes(b"no film %d" % index * (index + 1))
    return folder


def sampled(many: Path, out: Path, **options) -> list[str]:
    do([many], out, recipe(), export=False, **options)
    return names_of(Corpus(str(out)))


def test_a_sample_is_a_share_that_depends_on_its_seed_alone(many, tmp_path):
    first = sampled(many, tmp_path / "a", sample=0.25)
    assert len(first) == len(set(first)) == 10 and first == sorted(first)
    assert sampled(many, tmp_path / "b", sample=0.25) == first
    assert sampled(many, tmp_path / "c", sample=0.25, seed=1) != first
    assert len(sampled(many, tmp_path / "d", sample=0.0001)) == 1
    assert len(sampled(many, tmp_path / "e", sample=1.0)) == 40


def test_a_limit_takes_the_first_inputs_after_the_sample(many, tmp_path):
    assert sampled(many, tmp_path / "a", limit=3) == ["00.mp4", "01.mp4", "02.mp4"]
    ten = sampled(many, tmp_path / "b", sample=0.25)
    assert sampled(many, tmp_path / "c", sample=0.25, limit=4) == ten[:4]


def test_the_manifest_says_what_the_inputs_were_limited_to(many, tmp_path):
    sampled(many, tmp_path / "a", sample=0.5, seed=7, limit=2)
    corpus = Corpus(str(tmp_path / "a"))
    assert corpus.manifest(last_run(corpus))["limit"] == {"limit": 2, "sample": 0.5, "seed": 7, "where": ""}


def test_costly_stages_for_a_selection_take_the_inputs_of_the_last_run(bucket, out):
    result, _ = do([bucket], out, recipe(text=WITHOUT_QUALITY))
    assert result.funnel.clips.kept == 2
    later, heard = do([], out, recipe(), where="small")
    assert (later.funnel, later.export) == (None, None)
    assert heard.computed == {"quality"}
    assert sorted(Path(work.ref.uri).name for work in heard.works) == ["a.mp4", "b.mp4"]
    assert names_of(Corpus(str(out))) == ["a.mp4", "b.mp4", "notes.txt", "still.mp4"]
    assert later.run.counts["inputs"] == {"ok": 3, "skipped": 1}


def test_a_part_of_the_stages_is_computed_without_a_selection(bucket, out):
    result, heard = do([bucket], out, only_stages=("qual*",))
    assert (result.funnel, result.export) == (None, None) and heard.steps == []
    result, heard = do([bucket], out)
    assert heard.computed == {"motion"} and result.funnel.clips.found == 4


def test_selecting_and_exporting_again_follow_the_recipe_of_the_run(bucket, out):
    do([bucket], out, export=False)
    corpus = Corpus(str(out))
    strict = select_again(corpus, "", ["frozen.max=-1"], name="strict")
    assert (strict.name, strict.clips.kept) == ("strict", 0)
    loose = select_again(corpus, "", ["motion.freeze_ratio.max=1"], name="loose")
    assert loose.clips.kept == 4
    report = export_again(corpus, "loose", "", ["export.name=all"], engine="inline", address=None)
    assert (report.name, report.n_clips) == ("all", 4)
    again = export_again(corpus, "", "", [], engine="inline", address=None)
    assert (again.name, again.n_clips) == ("small", 2)
    with pytest.raises(ConfigError, match="no selection is called 'lose', did you mean 'loose'"):
        export_again(corpus, "lose", "", [], engine="inline", address=None)


def test_a_run_with_another_threshold_computes_no_cell(bucket, out):
    do([bucket], out)
    before = table_files(out)
    result, heard = do([bucket], out, recipe("select.conditions.frozen.max=1"))
    assert heard.works == [] and result.funnel.clips.kept == 4 and result.export.n_clips == 4
    assert table_files(out) == before
