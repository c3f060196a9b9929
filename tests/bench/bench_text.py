"""The two text detectors side by side: `python tests/bench/bench_text.py FOLDER [--frames 8] [--short-side 320]`.

Takes frames spread evenly over each video, as the stage `text` sees them, and prints for each detector milliseconds of
CPU a frame and the share of the picture inside boxes; then how far the two agree. `easyocr` is `Reader.detect` called
with one frame after the other. On a GPU the milliseconds are wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import easyocr
import numpy as np
import torch
from bench_kit import machine, markdown

from curate.media.facts import read_facts
from curate.media.views import sample_spans
from curate.records import Clip, Span
from curate.stages.text import TextConfig, covered_share
from curate.stages.text.craft import CARD, Craft
from curate.stages.text.ppocr import PpOcr
from curate.view import ViewSpec
from curate.weights.cards import load_card
from curate.weights.store import path_of

RULE = 0.07
"""Text area above which the paper drops a clip."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--short-side", type=int, default=320)
    args = parser.parse_args()
    config = TextConfig(short_side_px=args.short_side)
    craft = Craft(config.craft)
    ppocr = PpOcr(config.short_side_px, config.min_probability, config.core_probability, config.unclip_ratio)
    for each in (craft, ppocr):
        each.setup()
    (weights,) = load_card(CARD).files
    folder = str(Path(path_of(CARD, weights.name)).parent)
    options = {"recognizer": False, "download_enabled": False, "verbose": False, "model_storage_directory": folder}
    reader = easyocr.Reader(["en"], gpu=torch.cuda.is_available(), **options)
    rows, pairs = [], []
    for path in sorted(each for each in args.folder.iterdir() if each.suffix in {".mp4", ".mkv", ".mov", ".webm"}):
        frames = sampled(path, args.frames, args.short_side)
        ours, craft_ms = timed(craft.detect, frames)
        _, naive_ms = timed(lambda each: [reader.detect(frame) for frame in each], frames)
        other, ppocr_ms = timed(ppocr.detect, frames)
        areas = np.array([[covered_share(each, *frames.shape[1:3]) for each in found] for found in (other, ours)])
        pairs.append(areas)
        size = f"{frames.shape[2]}x{frames.shape[1]}"
        costs = (f"{ms:.0f}" for ms in (ppocr_ms, craft_ms, naive_ms))
        rows.append([path.name, size, str(len(frames)), *costs, *(f"{each.mean():.4f}" for each in areas)])
    print(f"{machine()}; {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}\n")
    heads = ["file", "size", "frames", "ppocr, ms", "craft, ms", "easyocr, ms", "ppocr, mean area", "craft, mean area"]
    print(markdown(heads, rows))
    low, high = np.hstack(pairs)
    same = ((low > RULE) == (high > RULE)).sum()
    some = ((low > 0) == (high > 0)).sum()
    print(f"\nOf {low.size} frames both say text or none in {some}, and above or below {RULE:.0%} in {same}.")
    print(f"Above {RULE:.0%}: ppocr {(low > RULE).sum()}, craft {(high > RULE).sum()}.")
    print(f"Largest difference of the areas {np.abs(low - high).max():.3f}, mean {np.abs(low - high).mean():.4f}.")


def sampled(path: Path, n: int, short_side_px: int) -> np.ndarray:
    """uint8 (n, height, width, 3): frames spread evenly over a video."""
    facts = read_facts(str(path))
    clip = Clip.of_span("0" * 64, facts.stream, facts.time_base_fraction, Span(facts.start_pts, facts.end_pts))
    spec = ViewSpec(points=tuple((i + 0.5) / n for i in range(n)), short_side_px=short_side_px)
    ((_, views),) = sample_spans(str(path), facts, [clip], {"all": spec})
    return views["all"].frames


def timed(detect: Callable[[np.ndarray], list], frames: np.ndarray) -> tuple[list, float]:
    """What was found, and milliseconds a frame after one call to warm up."""
    detect(frames[:1])
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    began = clock()
    found = detect(frames)
    return found, (clock() - began) / len(frames) * 1e3


if __name__ == "__main__":
    main()
