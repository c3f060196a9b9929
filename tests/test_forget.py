"""`forget` takes a content down under all its names."""

from contextlib import closing

import pytest
from export_kit import ExportKit, config

from curate.errors import CorpusError, UsageError
from curate.export import export
from curate.forget import forget
from curate.ingest.spool import digest_of
from curate.query import connect, tombstones_sql
from curate.shards.tombstones import forgotten
from curate.tables import Corpus
from curate.testing.footage import moving_texture, write_video


@pytest.fixture
def corpus(tmp_path):
    film, twin, other = (tmp_path / name for name in ("a.mp4", "same content.mp4", "b.mp4"))
    for path, seed in ((film, 1), (other, 2)):
        write_video(path, moving_texture(20, 192, 108, (2, 1), seed))
    twin.write_bytes(film.read_bytes())
    kit = ExportKit(tmp_path / "corpus")
    kit.film(film, [0, 20], names=[twin])
    kit.film(other, [0, 20])
    return kit.finish()


def test_by_name_takes_the_content_down_under_all_its_names(corpus, tmp_path):
    export(corpus, "best", config())
    digest = digest_of(tmp_path / "a.mp4")
    done = forget(corpus, str(tmp_path / "a.mp4"), "take-down 17")
    assert done.digests == (digest,)
    assert done.uris == (str(tmp_path / "a.mp4"), str(tmp_path / "same content.mp4"))
    assert done.shard_sets == ("best",)
    assert forgotten(corpus) == {digest: "take-down 17"}


def test_by_digest_and_by_relative_path(corpus, tmp_path, monkeypatch):
    digest = digest_of(tmp_path / "b.mp4")
    assert forget(corpus, digest, "x").uris == (str(tmp_path / "b.mp4"),)
    monkeypatch.chdir(tmp_path)
    assert forget(corpus, "./b.mp4", "x").digests == (digest,)
    assert forget(corpus, "b.mp4", "x").shard_sets == ()


def test_twice_is_once(corpus, tmp_path):
    for _ in range(2):
        forget(corpus, str(tmp_path / "a.mp4"), "take-down 17")
    with closing(connect()) as con:
        assert len(con.sql(tombstones_sql(con, corpus)).fetchall()) == 1
    assert len(corpus.root.child("tables", "tombstones").files(".parquet")) == 1


@pytest.mark.parametrize("what", ["/nowhere/x.mp4", "0" * 64, "s3://bucket/x.mp4", ""])
def test_what_is_not_known_is_refused(corpus, what):
    with pytest.raises(UsageError, match="knows no such source"):
        forget(corpus, what, "reason")


def test_a_reason_is_needed(corpus, tmp_path):
    with pytest.raises(UsageError, match="reason"):
        forget(corpus, str(tmp_path / "a.mp4"), "  ")


def test_only_in_a_corpus(tmp_path):
    with pytest.raises(CorpusError):
        forget(Corpus(str(tmp_path / "none")), "x", "reason")
    assert not (tmp_path / "none").exists()
