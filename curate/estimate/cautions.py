"""What a forecast cannot know, in words."""

from __future__ import annotations

from collections.abc import Iterator

from curate.estimate.expect import Expectation
from curate.estimate.sample import LEAST_INPUTS
from curate.select.duplicates import NEAR_DUPLICATE

_SURE = 0.95
_BUSY = 0.7
"""CPU seconds of a second of a worker below which that is worth saying."""


def cautions(expected: Expectation) -> Iterator[str]:
    """One sentence for each."""
    yield from _of_the_sample(expected)
    yield from _of_the_load(expected)
    yield from _of_the_cluster(expected)
    if expected.bucket.is_whole:
        return
    if expected.measured.percentiles:
        names = ", ".join(expected.measured.percentiles)
        yield (
            f"Percentiles drop their share of all clips ({names}), each clip of the sample counted for those like it; "
            "the limit itself is known when all clips are scored"
        )
    funnel = expected.measured.funnel
    if funnel is not None and funnel.config.get("dedup", {}).get("method") != "none":
        yield from _of_duplicates(expected)


def _of_the_sample(expected: Expectation) -> Iterator[str]:
    n, n_all = len(expected.bucket.sample), expected.bucket.n
    if n == n_all:
        yield f"All {n} sources were tried: these are measurements, not estimates"
        return
    if n < LEAST_INPUTS:
        sources = "1 source says" if n == 1 else f"{n} sources say"
        more = min(4 * LEAST_INPUTS, n_all)
        yield f"Too few to be sure: {sources} little of {n_all}. Take more with `--sample {more}`"
    unseen = 1 - (1 - _SURE) ** (1 / n)
    yield f"What up to {unseen:.0%} of the sources have, a sample of {n} may lack: rare failures, rare reasons"
    if expected.survey.video_s is None:
        yield "Files were not read through (remote, or very many): only their sizes are known of those not tried"


def _of_the_load(expected: Expectation) -> Iterator[str]:
    """The clock is that of a machine as busy as this one was."""
    costs, totals = expected.costs, expected.totals
    if costs.cpu_share >= _BUSY:
        return
    scored_s = sum(expected.measured_seconds().values())
    all_s = scored_s + totals.values.get("work/writing", 0.0)
    share = (scored_s * costs.cpu_share + totals.values.get("cpu/writing", 0.0)) / all_s if all_s else 1.0
    yield (
        f"A worker had {share:.0%} of a CPU: other programs run here, or its storage is slow. Times on the clock are "
        "for such a machine, CPU-hours are not"
    )


def _of_the_cluster(expected: Expectation) -> Iterator[str]:
    unknown = [stage for lane in expected.layout.lanes for stage in lane.stages if not expected.is_known(lane, stage)]
    if unknown:
        yield (
            f"Not measured on a GPU: {', '.join(unknown)}. Hours leave them out, and GPU-hours are unknown; plan on a "
            "machine with such a GPU, or say `--device-speed STAGE=CLIPS_PER_S`"
        )
    asked = {step.stage.name for step in expected.pipeline.asked()}
    left = [step.stage.name for step in expected.pipeline.steps if step.stage.name not in asked]
    if left:
        yield f"Stages left out: {', '.join(left)}. No selection was made where it, or the export, reads them"


def _of_duplicates(expected: Expectation) -> Iterator[str]:
    n, n_all = len(expected.bucket.sample), expected.bucket.n
    found = expected.totals.values.get(f"clips/dropped/{NEAR_DUPLICATE}", 0.0) * n / n_all
    text = f"pairs of a sample are ({n}/{n_all})² of all pairs"
    if found:
        yield f"Near-duplicates grow faster than the bucket ({text}): clips kept are an upper bound"
    else:
        yield f"No near-duplicates in the sample, but {text}: clips kept are an upper bound"
