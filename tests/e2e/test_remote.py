"""Sources and corpora that are not on local disk: anything fsspec opens."""

from __future__ import annotations

import functools
import http.server
import threading
import uuid

import fsspec
import pytest

from curate.job import JobOptions, export_again, run_job, select_again
from curate.recipe import parse_recipe
from curate.stats import corpus_stats
from curate.tables import Corpus
from curate.testing.footage import write_video
from curate.testing.scenes import moving_texture
from curate.verify import verify
from curate.watch.listener import JobListener

RECIPE = """
name: small
stages: [probe, cut: {min_len_s: 0.5}, quality]
select: {name: small, dedup: {method: none}, conditions: [{column: quality.sharpness, min: 0}]}
export: {caption: "", motion: ""}
"""


class Quiet(JobListener):
    """Cares for nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bucket")
    for index in range(2):
        write_video(folder / f"{index}.mp4", moving_texture(50, 320, 192, (1, index), seed=index))
    return folder


@pytest.fixture
def server(folder):
    """The folder over HTTP on the loopback."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def test_http_sources_give_the_same_clips_as_files(tmp_path, folder, server):
    recipe = parse_recipe(RECIPE, "test")
    names = ["0.mp4", "1.mp4"]
    far = run_job([f"{server}/{name}" for name in names], recipe, JobOptions(str(tmp_path / "far"), "inline"), Quiet())
    near = run_job(
        [str(folder / name) for name in names], recipe, JobOptions(str(tmp_path / "near"), "inline"), Quiet()
    )
    assert far.funnel.clips == near.funnel.clips
    assert far.funnel.clips.kept == 2
    near_tars, far_tars = (sorted((tmp_path / name / "shards").rglob("*.tar")) for name in ("near", "far"))
    assert [tar.read_bytes() for tar in near_tars] == [tar.read_bytes() for tar in far_tars]


def test_a_missing_address_fails_alone(tmp_path, server):
    sources = tmp_path / "list.txt"
    sources.write_text(f"{server}/0.mp4\n{server}/nowhere.mp4\n")
    done = run_job([str(sources)], parse_recipe(RECIPE, "test"), JobOptions(str(tmp_path / "c"), "inline"), Quiet())
    assert (done.funnel.inputs.kept, done.funnel.inputs.failed) == (1, 1)


def test_a_corpus_on_an_object_store(folder):
    uri = f"memory://{uuid.uuid4().hex}/corpus"
    corpus = Corpus(uri)
    recipe = parse_recipe(RECIPE, "test")
    first = run_job([str(folder)], recipe, JobOptions(uri, "inline"), Quiet())
    assert first.export.n_clips == 2
    assert verify(corpus, "small", deep=True) == []
    assert corpus_stats(corpus).n_clips == 2
    again = run_job([str(folder)], recipe, JobOptions(uri, "inline"), Quiet())
    assert again.run.counts["sources_read"] == 0
    assert again.export.reused
    none = select_again(corpus, "", ["quality.sharpness.min=1e9"], name="none")
    assert none.clips.kept == 0
    assert export_again(corpus, "none", "", [], engine="inline", address=None).n_clips == 0
    left = fsspec.filesystem("memory").find(uri.removeprefix("memory://"))
    assert not [name for name in left if ".tmp" in name]
