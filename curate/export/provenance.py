"""What the corpus tells of a selection besides its clips, for the card of its shards."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.datafiles import parse_yaml
from curate.errors import ConfigError
from curate.query import RunTables, literal, run_query
from curate.redaction import redacted

UNKNOWN = "unknown"

LICENCE_KEYS = frozenset({"license", "licence"})
"""Columns of a source list that hold a licence, in any case of letters."""

_PLACES = re.compile(r"[\w+.-]+://[^\s'\"]*|(?<![^\s'\"=(\[,:])(?:~|[A-Za-z]:)?[/\\][^\s'\"]+")
"""Addresses, and paths from the root of a disk or of a home."""


@dataclass(frozen=True)
class Provenance:
    """``funnel`` is funnel.json as it is. ``recipe`` is the run's, parsed; ``models`` are stages by card, ``stand_ins``
    what stages could not do, by stage; ``licences`` those of the sources that have one, by digest.
    """

    funnel: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)


def read_provenance(run: RunTables, funnel: Mapping[str, Any], chosen: str) -> Provenance:
    """What a selection came from; ``chosen`` is SQL of the digests of its sources."""
    cards: dict[str, set[str]] = defaultdict(set)
    for stage, files in run.manifest.get("models", {}).items():
        for name in files:
            cards[name.partition("/")[0]].add(stage)
    models = {card: tuple(sorted(stages)) for card, stages in sorted(cards.items())}
    stand_ins = dict(sorted(run.manifest.get("stand_ins", {}).items()))
    return Provenance(funnel, _recipe(run), models, stand_ins, _licences(run, chosen))


def _licences(run: RunTables, chosen: str) -> dict[str, str]:
    """What the source list says, by digest; blank and "unknown" are none."""
    keys = [key for key in run.user_keys if key.casefold() in LICENCE_KEYS]
    if not keys:
        return {}
    values = ", ".join(f"nullif(trim(\"user\"[{literal(key)}]), '')" for key in keys)
    sql = f"""SELECT source_digest, coalesce({values}) AS licence FROM ({run.run_sources_sql()})
        WHERE source_digest IN ({chosen})"""
    rows = run_query(run.con, lambda: sql).to_pylist()
    found = {row["source_digest"]: " ".join((row["licence"] or "").split()) for row in rows}
    return {digest: text for digest, text in found.items() if text.casefold() not in {"", UNKNOWN}}


def _recipe(run: RunTables) -> Mapping[str, Any]:
    """The run's recipe; empty where none was kept that can be read."""
    place = run.corpus.runs().child(run.run_id, "recipe.yaml")
    if not place.exists():
        return {}
    try:
        data = parse_yaml(place.read_text(), place.uri)
    except ConfigError:
        return {}
    return data if isinstance(data, dict) else {}


def without_places(value: Any) -> Any:
    """The value with ``***`` for addresses, paths and secrets in all of its texts: a card says what, never where."""
    if isinstance(value, Mapping):
        return {key: without_places(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    return _PLACES.sub("***", redacted(value)) if isinstance(value, str) else value
