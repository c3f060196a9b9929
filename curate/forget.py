"""Take a source down: selection and export leave it out from now on, `verify` reports shards that still hold it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from curate.errors import CorpusError, UsageError
from curate.ingest.local import absolute_path
from curate.query import connect, run_query, sources_sql
from curate.shards.index import ShardIndex
from curate.shards.tombstones import add_tombstones
from curate.storage import is_remote
from curate.tables import Corpus, parquet_table

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was taken down: contents, every name they have, and the shard sets that hold them until exported again."""

    digests: tuple[str, ...]
    uris: tuple[str, ...]
    shard_sets: tuple[str, ...]


def forget(corpus: Corpus, uri_or_digest: str, reason: str) -> Forgotten:
    """Mark a content (by sha256, or by a name under which it was read) as taken down, under all its names.

    UsageError when the corpus knows no such source or no reason is given.
    """
    corpus.check()
    if not reason.strip():
        raise UsageError("a reason is needed", subject=uri_or_digest, fix="Say why the source is taken down")
    known = _names_by_digest(corpus)
    is_digest = bool(_DIGEST.fullmatch(uri_or_digest))
    names = {uri_or_digest} | (set() if is_remote(uri_or_digest) else {absolute_path(uri_or_digest)})
    digests = [uri_or_digest] if is_digest else [digest for digest, uris in known.items() if uris & names]
    if not digests or any(digest not in known for digest in digests):
        raise UsageError(
            "the corpus knows no such source", subject=uri_or_digest, fix="Give a URI or sha256 of its sources table"
        )
    add_tombstones(corpus, digests, "" if is_digest else uri_or_digest, reason)
    uris = {uri for digest in digests for uri in known[digest]}
    return Forgotten(tuple(sorted(digests)), tuple(sorted(uris)), tuple(_sets_with(corpus, set(digests))))


def _names_by_digest(corpus: Corpus) -> dict[str, set[str]]:
    with connect() as con:
        sql = "SELECT DISTINCT source_digest, uri FROM ({}) WHERE source_digest IS NOT NULL"
        rows = run_query(con, lambda: sql.format(sources_sql(con, corpus))).to_pylist()
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(row["source_digest"], set()).add(row["uri"])
    return names


def _sets_with(corpus: Corpus, digests: set[str]) -> list[str]:
    """Names of the finished shard sets that hold a clip of these contents."""
    return [name for name in corpus.root.child("shards").folders() if _holds(corpus, name, digests)]


def _holds(corpus: Corpus, name: str, digests: set[str]) -> bool:
    folder = corpus.shards(name)
    try:
        index = ShardIndex.read(folder)
    except CorpusError:
        return False
    for shard in index.shards:
        data = folder.child(*shard.sidecar.split("/")).read_bytes()
        held = parquet_table(data, ["source_digest"])["source_digest"].to_pylist()
        if not digests.isdisjoint(held):
            return True
    return False
