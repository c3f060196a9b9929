"""The report's page in Chromium: `python tests/bench/bench_page.py [--clips 10000 1000000 2100000] [--moves 30]`.

Makes facts of so many clips with six conditions and writes the page, or takes reports that are there (`--pages FILE`;
bench_report.py keeps some). Each is opened from disk; printed are: its size; seconds
until it is drawn first and until the sliders count all clips together, both from the beginning of navigation;
milliseconds that a move of a slider takes to count and to show (the middle and the longest of all moves), and until the
second frame after it; memory of the page's scripts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from bench_kit import machine, markdown

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser_kit import chromium
from facts_kit import AXES, Axis, make_facts
from playwright.sync_api import Browser

from curate.report.html import render

FREE = tuple(Axis(**{**vars(axis), "frozen": False}) for axis in AXES)

MOVES = """async (moves) => {
    const thresholds = await thresholdsSection.ready;
    const frame = () => new Promise(requestAnimationFrame);
    const took = [], shown = [];
    for (let i = 0; i < moves; i += 1) {
        const axis = i % thresholds.axes.length;
        const slider = document.getElementById(`axis-${axis}`);
        const began = performance.now();
        slider.value = (Number(slider.value) + 1 + i) % (thresholds.axes[axis].stops.length + 1);
        slider.dispatchEvent(new Event("input"));
        await frame();
        await frame();
        took.push(thresholds.took);
        shown.push(performance.now() - began);
    }
    return { took, shown };
}"""


def main() -> None:
    """Make pages of several sizes and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000, 1_000_000, 2_100_000])
    parser.add_argument("--moves", type=int, default=30)
    parser.add_argument("--pages", type=Path, nargs="+", help="Reports that are there, in place of made ones.")
    args = parser.parse_args()
    print(machine())
    heads = ["clips", "cells", "MB", "drawn s", "counting s", "move ms", "longest ms", "to frame ms", "scripts MB"]
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        pages = args.pages or [made(Path(folder, f"{n}.html"), n) for n in args.clips]
        rows = [measured(browser, path, args.moves) for path in pages]
    print(markdown(heads, rows))


def made(path: Path, n: int) -> Path:
    """A page of made facts."""
    facts = make_facts(n, n_stops=25, axes=FREE).facts
    path.write_text(render(json.loads(json.dumps(facts, default=float))), encoding="utf-8")
    return path


def measured(browser: Browser, path: Path, moves: int) -> list[str]:
    """One row of the table."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.resolve().as_uri())
    page.evaluate("thresholdsSection.ready")
    drawn = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN")
    counting = page.evaluate("performance.getEntriesByName('counting')[0].startTime")
    found = page.evaluate(MOVES, moves)
    memory = page.evaluate("performance.memory.usedJSHeapSize")
    n, cells = page.evaluate(
        "(({ clips, joint }) => [clips.found, joint.cells])(JSON.parse(document.getElementById('facts').textContent))"
    )
    page.close()
    return [
        f"{n:,}", f"{cells:,}", f"{path.stat().st_size / 1e6:.1f}", f"{drawn / 1000:.2f}",
        f"{counting / 1000:.2f}", f"{statistics.median(found['took']):.1f}", f"{max(found['took']):.1f}",
        f"{statistics.median(found['shown']):.1f}", f"{memory / 1e6:.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
