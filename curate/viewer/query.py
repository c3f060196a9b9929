"""What the page asks for, checked, and as SQL. Names are looked up among the columns there are; values are literals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from curate.config import Config, nearest, parse_config
from curate.errors import ConfigError
from curate.query import identifier, literal
from curate.select.config import Condition, Scalar
from curate.select.judge import condition_sql
from curate.viewer.columns import SELECTION, ColumnInfo

MOST_CLIPS = 200
"""Clips in one answer."""

_MOST_OFFSET = 1 << 53
"""What a browser counts to exactly; DuckDB takes no more than 63 bits."""

_ABSOLUTE = ("min", "max", "one_of", "not_in")
_SORTABLE = ("number", "numbers", "text", "truth")


class Filter(Config):
    """What a clip must fulfil in one column: ``min`` and/or ``max``, ``in``, ``not_in``, ``contains`` (text, whatever
    its case) or ``has`` (a value, or none). Lists of numbers are judged by their mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    column: str
    min: float | None = None
    max: float | None = None
    one_of: tuple[Scalar, ...] | None = Field(None, alias="in", min_length=1, max_length=500)
    not_in: tuple[Scalar, ...] | None = Field(None, min_length=1, max_length=500)
    contains: str | None = Field(None, min_length=1, max_length=300)
    has: bool | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        ranged = self.min is not None or self.max is not None
        others = (self.one_of, self.not_in, self.contains, self.has)
        if ranged + sum(value is not None for value in others) != 1:
            raise ValueError("give exactly one of min/max, in, not_in, contains, has")
        return self

    def sql(self, column: ColumnInfo) -> str:
        """Boolean SQL, never null; ConfigError where it does not suit the column."""
        name = identifier(self.column)
        if self.has is not None:
            empty = f"{name} IS NULL" + (f" OR len({name}) = 0" if column.kind in {"list", "numbers"} else "")
            return f"NOT ({empty})" if self.has else f"({empty})"
        if self.contains is not None:
            return contains_sql(column, self.contains)
        given = {key: getattr(self, key) for key in _ABSOLUTE if getattr(self, key) is not None}
        ranged = self.min is not None or self.max is not None
        aggregate = "mean" if ranged and column.kind == "numbers" else None
        if ranged and column.kind not in {"number", "numbers"}:
            raise ConfigError("min and max need numbers", subject=self.column)
        asked = parse_config(Condition, {"column": self.column, "aggregate": aggregate, **given}, self.column)
        return condition_sql(asked, column.kind)


class Ask(Config):
    """A question for clips: all ``filters``, every word of ``search`` in some caption or text read in the picture."""

    filters: tuple[Filter, ...] = Field((), max_length=32)
    search: str = Field("", max_length=300)
    sort: str = ""
    """A column; else the order of the sources. Clips without a value come last either way."""
    descending: bool = False
    offset: int = Field(0, ge=0, le=_MOST_OFFSET)
    limit: int = Field(48, ge=1, le=MOST_CLIPS)
    show: tuple[str, ...] = Field((), max_length=8)
    """Further columns of the answer."""
    selection: str = ""
    """The selection whose verdicts are told with the clips."""

    def columns(self, known: Mapping[str, ColumnInfo]) -> list[str]:
        """All columns that the answer is made of; ConfigError, with the nearest name, for one that is not known."""
        searched = [name for name, column in known.items() if column.searched] if self.search.strip() else []
        verdict = [SELECTION + self.selection] if self.selection else []
        names = [*(each.column for each in self.filters), *([self.sort] if self.sort else [])]
        names = list(dict.fromkeys([*names, *self.show, *verdict, *searched]))
        return [known_column(known, name).name for name in names]

    def where(self, known: Mapping[str, ColumnInfo]) -> str:
        """Boolean SQL of the clips that are asked for."""
        parts = [each.sql(known[each.column]) for each in self.filters]
        texts = [column for column in known.values() if column.searched]
        for word in self.search.split():
            parts.append("(" + (" OR ".join(contains_sql(column, word) for column in texts) or "FALSE") + ")")
        return " AND ".join(parts) or "TRUE"

    def order(self, known: Mapping[str, ColumnInfo]) -> str:
        """SQL of the order; the same for the same tables, since ids tell ties apart."""
        natural = f"place, {identifier('clip.start_s')}, clip"
        if not self.sort:
            return natural
        column = known[self.sort]
        if column.kind not in _SORTABLE:
            raise ConfigError("clips cannot be sorted by such a column", subject=self.sort)
        value = f"list_avg({identifier(column.name)})" if column.kind == "numbers" else identifier(column.name)
        direction: Literal["DESC", "ASC"] = "DESC" if self.descending else "ASC"
        nan = f"isnan({value}::DOUBLE), " if column.kind in {"number", "numbers"} else ""
        return f"{nan}{value} {direction} NULLS LAST, {natural}"


def known_column(known: Mapping[str, ColumnInfo], name: str) -> ColumnInfo:
    """The column of this name; ConfigError names the nearest."""
    if name not in known:
        raise ConfigError(f"there is no column {name!r}, {nearest(name, known)}")
    return known[name]


def contains_sql(column: ColumnInfo, text: str) -> str:
    """SQL: the text, or one of the list, holds these letters, whatever their case."""
    name, wanted = identifier(column.name), literal(text.lower())
    if column.kind == "list":
        return f"coalesce(len(list_filter({name}::VARCHAR[], lambda each: contains(lower(each), {wanted}))) > 0, FALSE)"
    if column.kind not in {"text", "unknown"}:
        raise ConfigError("only text contains text", subject=column.name)
    return f"coalesce(contains(lower({name}::VARCHAR), {wanted}), FALSE)"
