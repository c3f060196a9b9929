"""What the paper's data set would cost: the tables of docs/scaling.md, from what was measured and what is assumed.

    python tests/bench/cost_model.py

Sizes of the data set are the paper's. Rates are those of docs/benchmarks.md; `MEASURED` holds what
`bench_scale.py` printed. Whatever else goes in stands in `ASSUMED`, with its reason.
"""

from __future__ import annotations

from bench_kit import markdown

HOUR_S = 3600.0
YEAR_S = 365.25 * 24 * HOUR_S
GIB = 2**30

CLIPS, CLIPS_YEARS = 577e6, 212.09
KEPT, KEPT_YEARS = 152e6, 50.64
FRAMES_PER_S = {"all": 28.1, "kept": 28.6}
"""The paper: clips and years of video before and after selection; the rates follow from its mean numbers of frames."""

ASSUMED = {
    "clips of a source": (5, "as in the generated tables; the paper does not say"),
    "size and codec": ("720p, H.264 with B-frames", "the paper does not say; 1080p costs 2.5 times the analysis"),
    "bit rate of sources": (2_500_000, "bit/s, common for such video"),
    "tables of clip cells": (9, "stages of `svd` behind `cut`"),
    "GPU": ("A100", "312 TFLOP/s in bfloat16, the paper's GPU"),
    "share of the GPU's peak": (0.3, "not measured: no GPU was at hand"),
    "memory of the driver": (64, "GiB"),
}

PASS_MS = 0.80 * 1.84
"""CPU of the analysis pass a frame at 720p (docs/benchmarks.md, "The analysis pass": full decode, and its multiple)."""
DECODE_MS = 1.84
TEXT_S, FEATURES_S = 3 * 0.022, 0.017
"""CPU a clip of the recipe `embedded` (docs/benchmarks.md, "Parts")."""
ENCODE_FRAMES_PER_S = 320 * (854 * 480) / (1280 * 720)
"""`veryfast` (docs/benchmarks.md, "Parts": 280 to 365 at 854x480), by the number of pixels."""
BITS_PER_PIXEL = 0.13
"""At crf 18 (`curate.export.plan`, measured on 480p film)."""
EMBEDDING_BYTES = 4_600
"""Three vectors of 768 numbers, a clip (docs/benchmarks.md, "Selection")."""

TFLOP = {
    "text (CRAFT)": (0.69 * 0.19 / 0.33, "measured: rate and share of peak"),
    "clip (ViT-L/14, 3 pictures)": (3 * 2 * 304e6 * 257 / 1e12, "2 x weights x tokens"),
    "caption.coca (ViT-L/14, 1 picture, 60 words)": ((2 * 304e6 * 257 + 2 * 330e6 * 60) / 1e12, "2 x weights x tokens"),
    "caption.vblip (ViT-g, 8 pictures; OPT-2.7B, 266 + 160 words)": (
        (2 * 986e6 * 257 * 8 + 2 * 2.65e9 * (266 + 160)) / 1e12,
        "2 x weights x tokens",
    ),
    "caption.fused (SmolLM2-135M)": (0.31 * 0.19 / 0.92, "measured: rate and share of peak"),
    "clip.similarity (3 sentences)": (3 * 2 * 85e6 * 77 / 1e12, "2 x weights x tokens"),
}
"""Work of a clip in the networks of `svd`."""

MEASURED: dict[str, dict[int, tuple[float, float]]] = {
    "inputs": {10**5: (0.0, 0.16), 10**6: (0.4, 0.22), 10**7: (4.0, 0.79)},
    "plan-unread": {10**5: (0.4, 0.22), 10**6: (1.2, 0.33), 10**7: (13.2, 1.28)},
    "plan-done": {10**5: (1.1, 0.32), 10**6: (8.5, 0.80), 10**7: (140.2, 4.45)},
    "plan-new-stage": {10**5: (4.9, 0.47), 10**6: (38.4, 2.34)},
    "select": {10**5: (0.8, 0.31), 10**6: (7.4, 0.57), 10**7: (94.0, 1.33)},
    "stats": {10**5: (0.8, 0.26), 10**6: (6.9, 0.48), 10**7: (81.1, 1.23)},
    "export-plan": {10**5: (2.2, 0.36), 10**6: (20.9, 0.99), 10**7: (299.9, 6.79)},
    "compact": {10**5: (0.0, 0.13), 10**6: (4.3, 0.31), 10**7: (46.4, 0.31)},
    "compact-small": {10**5: (1.2, 0.26), 10**6: (16.0, 0.33), 10**7: (183.0, 0.51)},
}
"""(CPU s, peak GiB) by step of `bench_scale.py` and number of clips."""

BOUNDS = {"select", "stats", "export-plan"}
"""Steps whose CPU time grew faster than the rows up to the largest size: their line is a lower bound."""

OBSERVED = {"stats": 30e6}
"""Values of one column that a step took. It ended in out of memory at 60 million, within the 1 GiB that DuckDB is
given, whatever the driver has. `report` takes the same quantiles."""

KEPT_OF_BENCH = 1 / 5
"""The share of clips that the selection of the bench keeps; the memory and time of `export-plan` go with kept clips."""

KEPT_GROWTH = {"export-plan": KEPT / CLIPS / KEPT_OF_BENCH}
"""What a line is to be multiplied by, where more of the paper's clips are kept than of the bench's."""

TABLE_BYTES = {"clips": 34.5, "cells of one score": 27.5, "one selection": 17.6}
"""Bytes a row on disk of the generated tables at a million clips: mostly ids, which nothing makes smaller."""

CHANGES = {
    "inputs": "plan by ranges of the listing: inputs stay in a table, not in a list",
    "plan-unread": "as for `inputs`",
    "plan-done": "an anti-join in DuckDB instead of dictionaries of sources; only what is missing leaves it",
    "plan-new-stage": "work made range by range of sources while the pass runs, not before it",
    "select": "nothing up to one machine: DuckDB spills; beyond, one selection a range of ids, thresholds first",
    "stats": "quantiles by counting into bins, twice, instead of holding all values",
    "export-plan": "clips stay in Arrow, in the order of their hashes; tasks made one after the other",
}


def slope(step: str) -> tuple[float, float]:
    """(CPU s, bytes) of one more clip, between the two largest sizes."""
    (n1, (cpu1, gib1)), (n2, (cpu2, gib2)) = sorted(MEASURED[step].items())[-2:]
    return (cpu2 - cpu1) / (n2 - n1), max(0.0, gib2 - gib1) * GIB / (n2 - n1)


def paper_clips(step: str, clips: float) -> float:
    """Clips of the bench that make as much work for a step as so many of the paper's."""
    return clips * KEPT_GROWTH.get(step, 1.0)


def at(step: str, clips: float) -> tuple[float, float]:
    """(CPU s, GiB) at so many clips, on the line through the two largest sizes."""
    n, (cpu, gib) = max(MEASURED[step].items())
    cpu_s, size = slope(step)
    return cpu + cpu_s * (clips - n), gib + size * (clips - n) / GIB


def most_clips(step: str, gib: float) -> float:
    """Clips of the paper's kind at which a step stops: its line fills so much memory, or it was seen to give up above.

    Infinite where it does not grow.
    """
    n, (_, found) = max(MEASURED[step].items())
    size = slope(step)[1]
    on_line = n + (gib - found) * GIB / size if size else float("inf")
    return min(on_line / KEPT_GROWTH.get(step, 1.0), OBSERVED.get(step, float("inf")))


def number(value: float) -> str:
    """Three digits: ``577 M``, ``1.86 M``, ``76,800``."""
    for unit, name in ((1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def steps() -> str:
    """What was measured."""
    sizes = sorted({n for found in MEASURED.values() for n in found})
    heads = ["step", *(f"{n:,} clips: CPU s" for n in sizes), *(f"{n:,}: peak GiB" for n in sizes)]
    rows = []
    for step, found in MEASURED.items():
        cells = [f"{found[n][0]:g}" if n in found else "-" for n in sizes]
        rows.append([f"`{step}`", *cells, *(f"{found[n][1]:.2f}" if n in found else "-" for n in sizes)])
    return markdown(heads, rows)


def assumptions() -> str:
    """What is assumed, and why."""
    return markdown(
        ["assumed", "value", "why"],
        [[name, value if isinstance(value, str) else f"{value:,}", why] for name, (value, why) in ASSUMED.items()],
    )


LOWER_BOUND = "the same line; it grew 12 to 14 times for 10 times the rows: a lower bound"


def origin_of(step: str) -> str:
    """Where the cost of a step in one process is from."""
    line = LOWER_BOUND if step in BOUNDS else "the line through the last two sizes"
    return f"{line}; for {KEPT / CLIPS:.0%} kept" if step in KEPT_GROWTH else line


def work() -> str:
    """Hours of processors."""
    frames = CLIPS_YEARS * YEAR_S * FRAMES_PER_S["all"]
    kept_frames = KEPT_YEARS * YEAR_S * FRAMES_PER_S["kept"]
    gpu = sum(flops for flops, _ in TFLOP.values()) / 312 / ASSUMED["share of the GPU's peak"][0]
    encode_s = 1 / ENCODE_FRAMES_PER_S + DECODE_MS / 1e3
    found = [
        (
            "analysis pass: probe, cuts, motion, quality, all views",
            frames * PASS_MS / 1e3,
            "CPU",
            f"{number(frames)} frames",
        ),
        (
            "`text` by PP-OCR and `features` (recipe `embedded`)",
            CLIPS * (TEXT_S + FEATURES_S),
            "CPU",
            f"{number(CLIPS)} clips",
        ),
        ("networks of `svd`", CLIPS * gpu, "GPU", f"{sum(f for f, _ in TFLOP.values()):.2g} TFLOP a clip"),
        ("shards: decode and encode again", kept_frames * encode_s, "CPU", f"{number(kept_frames)} frames"),
        *(
            (f"`{step}`, one process", at(step, paper_clips(step, CLIPS))[0], "CPU", origin_of(step))
            for step in MEASURED
            if step in {"plan-new-stage", "select", "stats", "export-plan", "compact-small"}
        ),
    ]
    at_once = {"CPU": 1000, "GPU": 100}
    rows = []
    for what, seconds, kind, origin in found:
        many = 1 if what.endswith("one process") else at_once[kind]
        took = f"{number(seconds / many / 24 / HOUR_S)} days on {many:,}"
        least = "at least " if origin.startswith(LOWER_BOUND) else ""
        rows.append([what, f"{least}{number(seconds / HOUR_S)} {kind}-hours", f"{least}{took}", origin])
    return markdown(["work", "cost", "takes", "of"], rows)


def networks() -> str:
    """What a clip costs in each network."""
    total = sum(flops for flops, _ in TFLOP.values())
    rows = [[name, f"{flops:.2g}", f"{flops / total:.0%}", origin] for name, (flops, origin) in TFLOP.items()]
    return markdown(["network", "TFLOP a clip", "share", "origin"], rows)


def storage() -> str:
    """Bytes, rows and files."""
    sources = CLIPS / ASSUMED["clips of a source"][0]
    tables = ASSUMED["tables of clip cells"][0]
    raw = CLIPS_YEARS * YEAR_S * ASSUMED["bit rate of sources"][0] / 8
    shards = KEPT_YEARS * YEAR_S * FRAMES_PER_S["kept"] * 1280 * 720 * BITS_PER_PIXEL / 8
    clip_rows = TABLE_BYTES["clips"] + tables * TABLE_BYTES["cells of one score"]
    n_shards = shards / (256 << 20)
    parts = sources / 64 * (tables + 4)
    found = [
        ("sources", raw, f"{number(sources)} files"),
        ("shards", shards, f"{number(n_shards)} tars of 256 MiB and as many sidecars"),
        ("`index.json` of the set", n_shards * 430, "430 bytes a shard"),
        ("clips and cells of single scores", CLIPS * clip_rows, f"{number(CLIPS * (1 + tables))} rows"),
        ("embeddings of `clip`", CLIPS * EMBEDDING_BYTES, f"{number(CLIPS)} rows"),
        ("one selection", CLIPS * TABLE_BYTES["one selection"], f"{number(CLIPS)} rows"),
        ("parts before compaction", 0.0, f"{number(parts)} files, one a table and 64 sources"),
        ("parts after it", 0.0, f"{number(CLIPS / 500_000 * (tables + 1))} files of 500,000 rows"),
    ]
    return markdown(
        ["what", "bytes", "rows or files"], [[w, f"{number(b)}B" if b else "the same", o] for w, b, o in found]
    )


def breaking() -> str:
    """Which step stops first, on the line of its memory or where it was seen to stop."""
    memory_gib = ASSUMED["memory of the driver"][0]
    rows = []
    for step in sorted(CHANGES, key=lambda step: most_clips(step, memory_gib)):
        size = slope(step)[1] * KEPT_GROWTH.get(step, 1.0)
        most = most_clips(step, memory_gib)
        told = number(most) if most < 1e12 else "no end in sight"
        told += " (seen; not at 60 M)" if most == OBSERVED.get(step) else ""
        memory = number(at(step, paper_clips(step, CLIPS))[1])
        name = f"`{step}`, `report`" if step == "stats" else f"`{step}`"
        rows.append([name, f"{size:,.0f}", f"{memory} GiB", told, CHANGES[step]])
    heads = ["step", "bytes a clip", f"at {number(CLIPS)} clips", f"clips in {memory_gib} GiB", "the change"]
    return markdown(heads, rows)


TABLES = {
    "Measured": steps,
    "Assumed": assumptions,
    "Work": work,
    "Networks": networks,
    "Storage": storage,
    "Breaks": breaking,
}


def main() -> None:
    """Print all tables."""
    for title, table in TABLES.items():
        print(f"{title}\n\n{table()}\n")


if __name__ == "__main__":
    main()
