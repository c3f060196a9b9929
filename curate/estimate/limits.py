"""The limits that percentiles come to in the whole bucket, as far as a sample tells them.

`drop_lowest: 0.25` drops a quarter of all clips. A sample holds more of long sources than the bucket does, so a quarter
of its own clips is not a quarter of those that they stand for: each clip counts for as many as its source does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from curate.query import RunTables
from curate.select import Condition, Funnel, SelectConfig, Threshold, select
from curate.select.judge import column_kind, condition_judge, needed_columns, number_sql
from curate.storage import Place


def selection_of_bucket(tables: RunTables, made: Funnel, weights: Mapping[str, float], folder: Place) -> Funnel:
    """The selection ``made`` of a sample once more, into ``folder``, with the limits that the bucket's percentiles come
    to. ``weights``: by the first 32 digits of a source's digest, how many sources it stands for."""
    config = SelectConfig.model_validate(made.config)
    asked = [condition for condition in config.conditions if condition.share is not None]
    tables.load("ranked", needed_columns(tables, [condition.column for condition in asked]))
    pairs = zip(asked, made.thresholds, strict=True)
    limits = [_limit_of_bucket(tables, condition, own, weights) for condition, own in pairs]
    # Without a name: the limits are no earlier selection's, and reasons should not say so.
    earlier = replace(made, name="", thresholds=limits)
    return select(tables.corpus, config, run_id=tables.run_id, like=earlier, folder=folder)


def _limit_of_bucket(
    tables: RunTables, condition: Condition, own: Threshold, weights: Mapping[str, float]
) -> Threshold:
    if own.value is None or condition.share is None:
        return own
    judge = condition_judge(tables, "ranked", condition, own)
    value = number_sql(condition, column_kind(tables.con, "ranked", judge.column))
    rows = tables.con.execute(
        f"""SELECT {value}, replace(source::VARCHAR, '-', '') FROM ranked
        WHERE {judge.above} AND {judge.outcome} = 'ok' AND {value} IS NOT NULL ORDER BY ALL"""
    ).fetchall()
    values, stand_for = np.array([row[0] for row in rows]), np.array([weights[row[1]] for row in rows])
    if condition.drop_lowest is None:
        return replace(own, value=-limit_of(-values, stand_for, condition.share))
    return replace(own, value=limit_of(values, stand_for, condition.share))


def limit_of(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The lowest value that is kept where this share of all weight is dropped from the lowest on. The clip on the
    border goes to the side that most of its weight lies on, and clips of the same value stay together."""
    order = np.argsort(values, kind="stable")
    middles = np.cumsum(weights[order]) - weights[order] / 2
    first = int(np.searchsorted(middles, share * weights.sum()))
    return float(values[order][min(first, len(order) - 1)])
