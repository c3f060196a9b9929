"""A whole job on S3, through a store that fails: the same corpus as on local disk, and nothing partial to be seen."""

from __future__ import annotations

import fsspec
import pytest
from cli_kit import curate, files_below, good_video, tables, write_recipe
from faulty_proxy import FAULTS, faulty_proxy
from s3_kit import BUCKET, CREDENTIALS, Watch, but_for_places, command, store

SHARE = 0.12
SEED = 20
CORPUS = f"s3://{BUCKET}/corpus"
NAMES = ("a.mp4", "deep/b.mp4")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3") / "bucket"
    (folder / "deep").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        good_video(folder / name, seed)
    return folder


@pytest.fixture(scope="module")
def local(bucket, tmp_path_factory):
    """(recipe, corpus of the same job on local disk)."""
    folder = tmp_path_factory.mktemp("local")
    recipe = write_recipe(folder)
    assert (
        curate(
            "run", bucket, "--recipe", recipe, "--out", folder / "corpus", "--engine", "inline", "--no-report"
        ).status
        == 0
    )
    return recipe, folder / "corpus"


@pytest.fixture
def s3(bucket):
    with store() as found:
        for name in NAMES:
            found.put(f"raw/{name}", (bucket / name).read_bytes())
        yield found


@pytest.fixture
def through(monkeypatch):
    """Point this process's S3 at an address."""

    def point(url: str) -> None:
        for key, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(key, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()

    yield point
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_job_on_a_store_that_fails_is_the_job_on_local_disk(s3, local, through):
    recipe, near = local
    with faulty_proxy(s3.address, seed=SEED, share=SHARE) as proxy, Watch(s3, "corpus/") as watch:
        args = ["--recipe", recipe, "--out", CORPUS, "--engine", "inline", "--no-report"]
        command("run", f"s3://{BUCKET}/raw", *args, url=proxy.url)
        through(proxy.url)
        verified = curate("verify", CORPUS, "--deep")
    assert verified.status == 0, verified.out
    assert watch.wrong == []
    assert watch.rounds > 10
    assert watch.sets_seen > 0
    assert sum(proxy.injected.values()) > 20
    assert set(proxy.injected) == set(FAULTS)
    through(s3.url)
    assert tables(CORPUS) == tables(near)
    assert but_for_places(s3.files("corpus/shards/")) == but_for_places(files_below(near / "shards"))
    assert (
        s3.get("corpus/selections/small/selection.parquet")
        == (near / "selections/small/selection.parquet").read_bytes()
    )


def test_compaction_on_a_store_that_fails_and_a_reader_meanwhile(s3, local, through):
    """Parts are merged over the same faulty way; what the tables say stays the same."""
    _, near = local
    for path in sorted((near / "tables").rglob("*.parquet")):
        s3.put(f"corpus/{path.relative_to(near)}", path.read_bytes())
    s3.put("corpus/corpus.json", (near / "corpus.json").read_bytes())
    with faulty_proxy(s3.address, seed=SEED, share=SHARE) as proxy, Watch(s3, "corpus/") as watch:
        through(proxy.url)
        ended = curate("compact", CORPUS)
    assert ended.status == 0, ended.err
    assert watch.wrong == []
    through(s3.url)
    assert len(s3.keys("corpus/tables/")) == 5
    assert tables(CORPUS) == tables(near)


def test_a_store_that_never_answers_ends_the_job_with_one_line(s3, local, through, tmp_path):
    """Every request fails: the job gives up after its retries and says so; nothing hangs."""
    recipe, _ = local
    with faulty_proxy(s3.address, seed=SEED, share=1.0, faults=("throttle",), in_a_row=10**6) as proxy:
        through(proxy.url)
        ended = curate("run", f"s3://{BUCKET}/raw", "--recipe", recipe, "--out", tmp_path / "c", "--engine", "inline")
    assert ended.status in {1, 2}
    assert ended.err.startswith("Error s3://")
    assert len(ended.err.splitlines()) == 1
