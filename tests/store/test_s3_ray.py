"""A job on Ray with input and corpus on S3, its driver killed in the middle: completed, it is the job on local disk."""

from __future__ import annotations

import random

import fsspec
import pytest
from cli_kit import curate, files_below, tables, verdicts, write_recipe
from s3_kit import BUCKET, CREDENTIALS, but_for_places, command, store
from soak.kill_kit import DRIVER, make_bucket
from soak.store_soak import CORPUS, killed

pytestmark = pytest.mark.ray

SEED = 9
"""Strikes when about half of the tables' parts are there."""


def test_a_ray_driver_killed_over_a_corpus_on_s3(tmp_path, monkeypatch):
    """The inline engine completes what its tables lack."""
    bucket, recipe, near = make_bucket(tmp_path / "bucket", 6), write_recipe(tmp_path), tmp_path / "corpus"
    assert curate("run", bucket, "--recipe", recipe, "--out", near, "--engine", "inline", "--no-report").status == 0
    with store() as s3:
        for path in bucket.iterdir():
            s3.put(f"raw/{path.name}", path.read_bytes())
        args = ["run", f"s3://{BUCKET}/raw", "--recipe", recipe, "--out", CORPUS, "--no-report"]
        assert killed(s3, args, s3.url, DRIVER, random.Random(SEED)) == "driver killed"
        assert s3.keys("corpus/tables/")
        assert not s3.keys("corpus/shards/")
        command(*args, "--engine", "inline", url=s3.url)
        for key, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3.url}.items():
            monkeypatch.setenv(key, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        assert tables(CORPUS) == tables(near)
        assert verdicts(CORPUS) == verdicts(near)
        checked = curate("verify", CORPUS, "--deep")
        assert checked.status == 0, checked.out
        assert but_for_places(s3.files("corpus/shards/")) == but_for_places(files_below(near / "shards"))
        chosen = "selections/small/selection.parquet"
        assert s3.get(f"corpus/{chosen}") == (near / chosen).read_bytes()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
