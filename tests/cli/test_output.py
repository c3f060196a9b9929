"""How tables look: nothing counted twice, nothing cut off, nothing forged."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from cli_kit import curate
from rich.console import Console

from curate.cli.progress import packed, watched
from curate.cli.tables import print_failures, print_funnel, print_stats, sparkline
from curate.engine.work import SourceWork, Summary
from curate.errors import EngineError
from curate.failures import FailureExample, FailureGroup
from curate.records import InputRef
from curate.select import ConditionCount, Funnel, Reason, Retention
from curate.stats import (
    BINS,
    PERCENTILES,
    CategoryStats,
    CorpusStats,
    NumberStats,
    SourceOutcome,
    StageSeconds,
)

NASTY = "[red]a[/red]\x1b[31m\n\u202eb\ud800.mp4"


def printed(show, *args, width=100):
    file = io.StringIO()
    show(Console(file=file, width=width, highlight=False), *args)
    return file.getvalue()


def number(stage, column, low=-1.234e-5, high=98765.4, failed=0):
    ranks = dict.fromkeys(PERCENTILES, 0.00012345)
    return NumberStats(stage, column, 12345, failed, low, high, ranks, [0.0] * (BINS + 1), [1] * BINS)


def stats(**more):
    parts = {
        "numbers": [number("probe", "rate_fps"), number("cut", "n_cuts"), number("motion", "camera_shake_width_s")],
        "categories": [],
        "failures": [],
        "seconds": [StageSeconds("motion", 10, 1.5, 0.15, 2.0)],
        "sources": [SourceOutcome("failed", "has no bytes", 2)],
    }
    parts["numbers"].append(number("clip", "duration_s"))
    return CorpusStats("run-1", 3, 5, 0.5, **{**parts, **more})


@pytest.mark.parametrize("width", [50, 60, 72, 80, 100, 120, 200])
def test_no_score_is_cut_off_or_broken_at_any_width(width):
    text = printed(print_stats, stats(), width=width)
    assert "…" not in text
    line = next(line for line in text.splitlines() if "camera_shake_width_s" in line)
    shown = line.split()
    assert shown[:2] == ["camera_shake_width_s", "12345"]
    assert "0.000123" in shown
    assert width < 60 or {"-1.23e-05", "98765"} < set(shown)
    assert all(len(line) <= width for line in text.splitlines() if not line.startswith("Run "))


def test_scores_of_clips_come_before_the_counts_of_the_cut():
    text = printed(print_stats, stats())
    assert text.index("duration_s") < text.index("camera_shake_width_s") < text.index("n_cuts")
    assert "rate_fps" not in text


def test_failed_cells_are_said_beside_their_stage():
    text = printed(print_stats, stats(numbers=[number("motion", "x", failed=3)]))
    assert "motion, 3 failed" in text


def test_sentences_are_no_classes():
    long = [("A steady pan to the right, with slow movement in the scene.", 3), ("A still.", 2)]
    entries = [
        CategoryStats("caption.template", "caption", 5, 0, 2, long),
        CategoryStats("motion", "camera", 40, 0, 12, [(f"kind{i}", 9 - i) for i in range(8)]),
    ]
    text = printed(print_stats, stats(categories=entries))
    assert "steady pan" not in text
    assert "kind0 9" in text
    assert "4 more" in text


def test_short_times_are_in_milliseconds():
    text = printed(print_stats, stats())
    assert text.splitlines()[-1].split() == ["motion", "10", "1.5s", "100%", "150", "ms", "2.0s"]


def test_the_pace_of_a_stage_is_told_where_the_run_computed_it():
    text = printed(print_stats, stats(seconds=[StageSeconds("clip", 10, 1.5, 0.15, 2.0, 1234.5, 0.256)]))
    assert text.splitlines()[-1].split()[-2:] == ["1234", "26%"]


def test_without_a_selection_the_inputs_are_told():
    assert "failed  has no bytes  2" in printed(print_stats, stats())


@pytest.fixture
def funnel(made):
    return Funnel.from_json((made[0] / "selections/small/funnel.json").read_text())


def test_what_independent_conditions_would_keep_stands_beside_what_they_keep(funnel):
    """The figures of the paper's 9.8 million clips: 2.3 million kept."""
    counts = [ConditionCount(name, "condition", name, 0, 0.0, 0, 0) for name in "ab"]
    paper = replace(funnel, conditions=counts, retention=Retention(9_800_000, 2.3 / 9.8, 0.75**3 * 0.5))
    text = printed(print_funnel, paper)
    assert "kept by all conditions 23.5% of 9800000; expected if they were independent 21.1% (ratio 1.11)" in text
    assert "independent" not in printed(print_funnel, replace(paper, conditions=counts[:1]))


def test_many_reasons_end_in_a_count(funnel):
    reasons = [Reason("failed", f"reason {i}", 100 - i) for i in range(30)]
    data = {**json.loads(funnel.to_json()), "input_reasons": [vars_of(reason) for reason in reasons]}
    text = printed(print_funnel, Funnel.from_json(json.dumps(data)))
    assert "reason 11 " in text
    assert "reason 12 " not in text
    assert "18 more reasons" in text
    assert str(sum(100 - i for i in range(12, 30))) in text


def vars_of(reason):
    return {"verdict": reason.verdict, "reason": reason.reason, "n": reason.n, "hours": reason.hours}


def test_names_can_neither_colour_nor_forge_a_line(funnel):
    data = {
        **json.loads(funnel.to_json()),
        "input_reasons": [vars_of(Reason("skipped", f"same content as {NASTY}", 1))],
    }
    group = FailureGroup("probe", "NotMediaError", 1, [FailureExample("k" * 64, f"/x/{NASTY}", NASTY)])
    funnel = Funnel.from_json(json.dumps(data))
    for text in (
        printed(print_funnel, funnel),
        printed(print_stats, stats(failures=[group])),
        printed(print_failures, [group]),
    ):
        assert "[red]a[/red]�[31m��b\\ud800.mp4" in text
        assert "\x1b" not in text
        text.encode()


def test_a_name_on_the_command_line_is_as_harmless():
    ended = curate("stats", "/nowhere/\x1b[31m[red]\nx")
    assert ended.status == 1
    assert ended.err.startswith("Error /nowhere/�[31m[red] x: is not a corpus")


def test_errors_of_the_machine_are_one_line_too(made, tmp_path):
    clip = pq.read_table(made[0] / "selections/small/selection.parquet")["clip_id"][0]
    png = tmp_path / "no/such/folder.png"
    ended = curate("show", made[0], clip, "--png", png)
    assert (ended.status, ended.err) == (1, f"Error {png}: does not exist. Check the spelling\n")


def test_sparkline_keeps_every_count():
    assert sparkline([0, 1, 100], 20) == " ▁█"
    assert sparkline([1] * 20, 10) == "█" * 10
    assert sparkline([0] * 19 + [1], 10) == " " * 9 + "█"
    assert sparkline([0, 0], 20) == "  "


def test_parts_are_packed_into_lines_that_fit():
    parts = ["sources 1/2", "clips 3", "failed 0"]
    assert packed(parts, 80) == ["sources 1/2 | clips 3 | failed 0"]
    assert packed(parts, 21) == ["sources 1/2 | clips 3", "failed 0"]
    assert packed(parts, 5) == parts


def test_progress_tells_again_and_why_a_pass_died():
    def show(out):
        with watched(out) as progress:
            progress.step("Starting Ray")
            progress.planned(1, [SourceWork(InputRef("a")), SourceWork(InputRef("b"))])
            progress.wrote(Summary(sources=1, clips=4, video_s=8.0, stage_seconds={"cut": 1.0, "text": 3.0}))
            progress.died(EngineError("a worker died reading [b]x.mp4"))
            progress.planned(2, [SourceWork(InputRef("b"))])
            progress.wrote(Summary(sources=1, failed_sources=1))

    lines = printed(show, width=40).splitlines()
    assert lines[:2] == ["Starting Ray ...", "2 sources to read"]
    assert lines[2].startswith("sources 1/2 | clips 4 | ")
    assert lines[2].endswith(" | failed 0 sources, 0 cells | slowest text (75% of the work)")
    assert lines[3] == "a worker died reading [b]x.mp4; planning again what is missing"
    assert lines[4] == "Pass 2: 1 sources to read again"
    assert lines[5].startswith("sources 1/1 | clips 0 |")
