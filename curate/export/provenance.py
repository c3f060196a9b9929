"""What the corpus tells of a selection besides its clips, for the card of its shards."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.datafiles import parse_yaml
from curate.errors import ConfigError
from curate.query import RunTables, literal, run_query, sources_sql
from curate.redaction import redacted

UNKNOWN = "unknown"

LICENCE_KEYS = frozenset({"license", "licence"})
"""Columns of a source list that hold a licence, in any case of letters."""

BETWEEN_LICENCES = " / "
"""Between the licences of one content that has several."""

_PLACE = re.compile(
    r"[\w+.-]+://"
    r"|(?<![\w.])(?:~[\w.-]*|[A-Za-z]:)[/\\]"
    r"|(?<!\w)[/\\](?=\S)"
    r"|(?<![\w.])(?:[\w-]+\.)+[A-Za-z][\w-]+/"
    r"|(?<![\w.-])[\w-][\w.-]*:\d{1,5}/|(?<![\w.-])(?:[A-Za-z][\w.-]+|\d+(?:\.\d+){3}):\d{2,5}(?!\w)"
)
"""How an address begins, or a path from the root of a disk or of a home: names in it hold blanks, so none tells its
end."""

_RELATIVE = re.compile(
    r"\w\\\w|\w/[^\s/]*/|\w/\S*\.[a-z]\w{1,4}\b|\w\.(?:mp4|m4v|mov|mkv|webm|avi|mpe?g|mts|m2ts|wmv|flv|tar|csv|parquet)\b",
    re.IGNORECASE,
)
"""A path from some folder, or the name of a file. Nothing tells where it begins."""

_ERROR = re.compile(r"[A-Z]\w*Error(?=: |$)")
_FIXED = (("same content as ", "same content as another source"), ("cannot be listed: ", "cannot be listed"))
"""Causes that go on with somebody's words, and what is told of them."""
_OWN_WORDS = ("every clip failed", "other reasons")
"""How reasons of failed inputs begin that are no messages of errors."""


@dataclass(frozen=True)
class Provenance:
    """``funnel`` is funnel.json as it is. ``recipe`` is the run's, parsed; ``models`` are stages by card, ``stand_ins``
    what stages could not do, by stage; ``lacks`` is what the run did not do of a published recipe, with the reason;
    ``licences`` are those of the sources that have one, by digest; ``errors`` classes of failed inputs by message.
    """

    funnel: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


def read_provenance(run: RunTables, funnel: Mapping[str, Any], chosen: str) -> Provenance:
    """What a selection came from; ``chosen`` is SQL of the digests of its sources."""
    cards: dict[str, set[str]] = defaultdict(set)
    for stage, files in run.manifest.get("models", {}).items():
        for name in files:
            cards[name.partition("/")[0]].add(stage)
    return Provenance(
        funnel=funnel,
        recipe=_recipe(run),
        models={card: tuple(sorted(stages)) for card, stages in sorted(cards.items())},
        stand_ins=dict(sorted(run.manifest.get("stand_ins", {}).items())),
        lacks=dict(run.manifest.get("lacks", {})),
        licences=_licences(run, chosen),
        errors=_errors(run),
    )


def _licences(run: RunTables, chosen: str) -> dict[str, str]:
    """What the source list says, by digest; blank and "unknown" are none.

    One content may stand there under several names, of which all but one are skipped, and in columns of both
    spellings: all that is said of it counts.
    """
    said = [spellings for key, spellings in run.user_spellings.items() if key.casefold() in LICENCE_KEYS]
    keys = [key for spellings in said for key in spellings]
    if not keys:
        return {}
    values = ", ".join(f'"user"[{literal(key)}]' for key in keys)
    sql = f"""SELECT DISTINCT source_digest, unnest([{values}]) AS licence FROM ({run.inputs_sql()})
        WHERE source_digest IN ({chosen}) ORDER BY ALL"""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in run_query(run.con, lambda: sql).to_pylist():
        text = " ".join((row["licence"] or "").split())
        if text.casefold() not in {"", UNKNOWN}:
            found[row["source_digest"]].setdefault(text.casefold(), text)
    return {digest: BETWEEN_LICENCES.join(texts.values()) for digest, texts in found.items()}


def _errors(run: RunTables) -> dict[str, str]:
    """Classes of the errors of failed inputs by message: inputs keep the message alone."""
    names = ["error_class", "error_message"]
    told = [run.cells_sql(stage.name, ["key", *names]) for stage in (run.probe, run.cut)]
    told.append(sources_sql(run.con, run.corpus))
    errors = " UNION ".join(f"SELECT {', '.join(names)} FROM ({rows}) WHERE error_class IS NOT NULL" for rows in told)
    sql = f"""SELECT cause, min(error_class) AS name FROM ({run.inputs_sql()}) JOIN ({errors}) ON error_message = cause
        WHERE outcome = 'failed' GROUP BY cause"""
    return {row["cause"]: row["name"] for row in run_query(run.con, lambda: sql).to_pylist()}


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


def told_reason(reason: str, errors: Mapping[str, str], *, failed_input: bool) -> str:
    """Why a clip or an input ended as it did, without names of files: of a failed input the class of its error."""
    if failed_input and not reason.startswith(_OWN_WORDS):
        found = _ERROR.match(reason)
        return errors.get(reason) or (found[0] if found else UNKNOWN)
    return next((told for start, told in _FIXED if reason.startswith(start)), None) or without_places(reason)


def without_places(value: Any) -> Any:
    """The value with ``***`` in all of its texts for secrets, and from the first address or path on for all that
    follows: a card says what, never where.
    """
    if isinstance(value, Mapping):
        return {key: without_places(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    return _without_place(redacted(value)) if isinstance(value, str) else value


def _without_place(text: str) -> str:
    found = _PLACE.search(text)
    head = text[: found.start()] if found else text
    return "***" if _RELATIVE.search(head) else head + ("***" if found else "")
