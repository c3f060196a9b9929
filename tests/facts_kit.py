"""A corpus that was never measured, as the facts of its report, with hostile text everywhere."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from curate.report.joint import Cells, pack

HOSTILE = (
    "</script><img src=x onerror=owned=1><svg onload=owned=1>",
    "\u202egpj.tnecerrepxe\u202c \u2066right\u2069 to left עברית مرحبا",
    "<!--<script>owned=1</script>--> ]]> {{facts}} {{script}} ${owned=1} \\u003cscript>",
    "javascript:owned=1 \" onmouseover=\"owned=1\" ' onclick='owned=1'",
    "bell \x07 escape \x1b[31m line\nbreak, tab\t, \u2028 and \u2029, half \ud83d, \x85",
    "👩‍👩‍👧‍👦 🏳️‍🌈 é́́́ 漢字 &lt;b&gt; &amp; %00 ../../etc/passwd",
    "a" * 300,
)


@dataclass(frozen=True)
class Axis:
    """A condition on a made-up column: how its values are drawn and which threshold the recipe has."""

    label: str
    column: str
    side: str
    threshold: float
    scale: tuple[str, float, float]
    unit: str = ""
    aggregate: str = ""
    drop: float | None = None
    frozen: bool = False


AXES = (
    Axis("little motion", "motion.v2d_px16", "min", 0.8, ("lognormal", 0.6, 0.9), "px", drop=0.25),
    Axis("low aesthetics", "aesthetic.scores", "min", 4.6, ("normal", 5.1, 0.7), "", "mean", drop=0.25),
    Axis("text.area_max", "text.area_max", "max", 0.07, ("exponential", 0.03, 0), "share of the picture"),
    Axis("frozen picture", "motion.freeze_ratio", "max", 0.9, ("beta", 0.3, 1.5), "share"),
    Axis('black <b>frames</b> = "1"', "quality.black_ratio", "max", 0.2, ("beta", 0.2, 3), "share"),
    Axis("sharp enough", "quality.sharpness", "min", 12.0, ("lognormal", 3.4, 0.8), "", frozen=True),
)

OTHERS = (
    Axis("quality.contrast", "quality.contrast", "min", 0.2, ("beta", 2, 5), "share"),
    Axis("aesthetic.crops", "aesthetic.crops", "min", 5.0, ("normal", 5.0, 0.8), "", "mean"),
    Axis(HOSTILE[0], "quality.contrast", "min", 0.1, ("exponential", 0.1, 0)),
    Axis("motion.camera_px16", "motion.camera_px16", "min", 1.0, ("lognormal", 0.2, 1.1), "px"),
)
"""Scores of which the recipe asks nothing."""


@dataclass
class Made:
    """The facts and what they were counted from: clips by axis, each coordinate and each duration."""

    facts: dict[str, Any]
    coordinates: np.ndarray
    milliseconds: np.ndarray
    values: np.ndarray
    stands: np.ndarray
    free: list[int] = field(default_factory=list)

    def passing(self, positions: dict[int, int]) -> np.ndarray:
        """Which clips pass with these axes at these positions (coordinates above them), the others as in the recipe."""
        starts = [strictness(axis) for axis in self.facts["axes"]]
        at = [positions.get(i, starts[i]) for i in range(len(starts))]
        return self.stands & np.all([self.coordinates[:, i] > at[i] for i in range(len(at))], axis=0)

    def kept(self, positions: dict[int, int]) -> tuple[int, float]:
        passes = self.passing(positions)
        return int(passes.sum()), float(self.milliseconds[passes].sum()) / 3.6e6


def strictness(axis: dict[str, Any]) -> int:
    """The position of the recipe's threshold, counted from the mildest stop; -1 is off."""
    start, n = axis["start"], len(axis["stops"])
    return start if start < 0 or axis["side"] == "min" else n - 1 - start


def make_facts(n: int = 3000, seed: int = 1, n_stops: int = 17, axes: tuple[Axis, ...] = AXES) -> Made:
    """Facts of ``n`` clips; with more stops there are more cells."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=n)
    values = np.stack([_values(rng, axis, base) for axis in axes], axis=1)
    values[rng.random(values.shape) < 0.004] = np.nan
    milliseconds = np.round(rng.gamma(2.0, 2200, n) + 1000).astype(np.int64)
    stands = rng.random(n) > 0.01
    entries, coordinates = [], np.zeros((n, len(axes)), np.int64)
    for i, axis in enumerate(axes):
        entry, coordinates[:, i] = _axis(i, axis, values[:, i], milliseconds, stands, n_stops)
        entries.append(entry)
    free = [i for i, axis in enumerate(axes) if not axis.frozen]
    made = Made({}, coordinates, milliseconds, values, stands, free)
    counted = stands.copy()
    for i in set(range(len(axes))) - set(free):
        counted &= coordinates[:, i] > strictness(entries[i])
    sizes = [len(entries[i]["stops"]) + 1 for i in free]
    joint = _joint(coordinates[counted][:, free], milliseconds[counted], sizes)
    made.facts |= {"axes": entries, "joint": {"axes": free, **joint}}
    made.facts |= _rest(made, axes, rng)
    made.facts["other_scores"] = [_other(made, axis, np.random.default_rng(i)) for i, axis in enumerate(OTHERS)]
    made.facts["partial_scores"] = [{"column": "text.late", "measure": HOSTILE[2], "n": 12}]
    return made


def _other(made: Made, axis: Axis, rng: np.random.Generator) -> dict[str, Any]:
    values = _values(rng, axis, rng.normal(size=len(made.stands)))
    values[rng.random(len(values)) < 0.01] = np.nan
    entry, sides, recipe = {}, {}, made.passing({})
    for side in ("min", "max"):
        entry, at = _axis(0, replace(axis, side=side), values, made.milliseconds, made.stands, 17)
        size = len(entry["stops"]) + 1
        hours = np.bincount(at[recipe], made.milliseconds[recipe], size) / 3.6e6
        own = {"with_n": np.bincount(at[recipe], minlength=size).tolist(), "with_hours": hours.tolist()}
        sides[side] = own | {key: entry[key] for key in ("alone_n", "alone_hours")}
    name = "" if axis.label == axis.column else axis.label
    return {**entry, "sides": sides, "asked": {"column": axis.column, "aggregate": axis.aggregate, "name": name}}


def _values(rng: np.random.Generator, axis: Axis, base: np.ndarray) -> np.ndarray:
    kind, a, b = axis.scale
    n = len(base)
    if kind == "normal":
        return a + b * (0.5 * base + 0.85 * rng.normal(size=n))
    if kind == "lognormal":
        return np.exp(a + b * (0.5 * base + 0.85 * rng.normal(size=n)))
    if kind == "exponential":
        return np.where(rng.random(n) < 0.4, 0.0, rng.exponential(a, n)).clip(0, 1)
    return rng.beta(a, b, n)


def _axis(
    place: int, axis: Axis, values: np.ndarray, milliseconds: np.ndarray, stands: np.ndarray, n_stops: int
) -> tuple[dict[str, Any], np.ndarray]:
    known = values[~np.isnan(values)]
    quantiles = np.quantile(known, np.linspace(0.01, 0.99, n_stops - 1), method="nearest")
    stops = np.unique([*quantiles, axis.threshold])
    with np.errstate(invalid="ignore"):
        passes = values[:, None] >= stops if axis.side == "min" else values[:, None] <= stops
    coordinates = passes.sum(axis=1)
    size = len(stops) + 1
    counts, edges = np.histogram(known, 64)
    never = stands & (coordinates == 0)
    key = str(place) if "=" in axis.label else axis.label
    entry = {
        "label": axis.label, "column": axis.column, "aggregate": axis.aggregate,
        "measure": f"{axis.aggregate} of {axis.column}" if axis.aggregate else axis.column,
        "side": axis.side, "unit": axis.unit, "frozen": axis.frozen, "on_failed": "failed",
        "stops": stops.tolist(), "start": int(np.searchsorted(stops, axis.threshold)),
        "percentile": {"kind": "drop_lowest", "share": axis.drop} if axis.drop else None,
        "set_key": f"{key}.{axis.side}", "clear_key": f"{key}.drop_lowest" if axis.drop else "",
        "alone_n": np.bincount(coordinates[stands], minlength=size).tolist(),
        "alone_hours": (np.bincount(coordinates[stands], milliseconds[stands], size) / 3.6e6).tolist(),
        "never_n": int(never.sum()), "never_hours": float(milliseconds[never].sum() / 3.6e6),
        "edges": edges.tolist(), "counts": counts.tolist(), "min": known.min(), "max": known.max(),
        "median": float(np.median(known)), "n": len(known),
    }  # fmt: skip
    return entry, coordinates


def _joint(coordinates: np.ndarray, milliseconds: np.ndarray, sizes: list[int]) -> dict[str, Any]:
    keys = np.zeros(len(coordinates), np.int64)
    for i, size in enumerate(sizes):
        keys = keys * size + coordinates[:, i]
    cells, place = np.unique(keys, return_inverse=True)
    times = np.bincount(place, milliseconds, len(cells)).astype(np.int64)
    return {"cells": len(cells), "data": pack(Cells(cells, np.bincount(place, minlength=len(cells)), times))}


def _picture(rng: np.random.Generator) -> dict[str, Any]:
    """Something soft and coloured."""
    soft = cv2.resize(rng.random((4, 6, 3)).astype(np.float32), (240, 135), interpolation=cv2.INTER_CUBIC)
    strip = (soft * 255).clip(0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 60])
    source = f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
    return {"src": source, "width": strip.shape[1], "height": strip.shape[0]}


def _rest(made: Made, axes: tuple[Axis, ...], rng: np.random.Generator, shown: int = 8) -> dict[str, Any]:
    n, total_h = len(made.stands), float(made.milliseconds.sum() / 3.6e6)
    ids = [f"{i:032x}" for i in rng.integers(0, 2**62, n)]
    for i, (entry, axis) in enumerate(zip(made.facts["axes"], axes, strict=True)):
        order = np.argsort(made.values[:, i])[: entry["n"]]
        cut = int(np.searchsorted(made.values[order, i], axis.threshold))
        low, high = order[max(0, cut - shown) : cut], order[cut : cut + shown]
        entry["near"] = [{"clip": ids[k], "side": "below"} for k in low[::-1]]
        entry["near"] += [{"clip": ids[k], "side": "above"} for k in high]
        ends = [order[:shown], order[::-1][:shown]]
        entry["worst"], entry["best"] = [[ids[k] for k in end] for end in (ends if axis.side == "min" else ends[::-1])]
    kept_n, kept_h = made.kept({})
    duplicates = min(40, kept_n)
    funnel = _funnel(made, axes, duplicates)
    facts: dict[str, Any] = {
        "format": 1, "tool_version": "0.1.0", "created_at": "2026-11-22T00:30:00+00:00", "corpus": f"s3://bucket/{HOSTILE[0]}",
        "run_id": "20261122T002900-5fe1", "selection": "svd-small", "recipe_name": "svd-small",
        "inputs": {"found": 412, "kept": 366, "dropped": 21, "failed": 14, "skipped": 11},
        "clips": {"found": n, "kept": kept_n - duplicates, "dropped": n - kept_n + duplicates - 9, "failed": 9},
        "hours": {"found": total_h, "kept": kept_h * 0.99, "dropped": total_h - kept_h, "failed": total_h * 0.003},
        "stand_ins": {"caption.template": "no model has seen the clip"}, "lacks": {HOSTILE[1]: "by another model"},
        "funnel": funnel,
        "retention": {
            "judged": n - 40, "joint": kept_n / n, "product": kept_n / n / 1.34, "ratio": 1.34,
            "axes": [{"label": axis.label, "share": 0.6 + 0.06 * i} for i, axis in enumerate(axes)],
        },
        "fixed": [{"label": "source.vfr", "text": "source.vfr is True"}, {"label": HOSTILE[3], "text": HOSTILE[0]}],
        "conditions": [condition(entry) for entry in made.facts["axes"]] + [{"column": "source.vfr", "not_in": [True]}],
        "commands": {"select": "curate select s3://bucket/corpus --name mine"},
    }  # fmt: skip
    for i, entry in enumerate(made.facts["axes"]):
        entry["condition"] = i
    facts["fixed"][0]["condition"] = len(axes)
    chosen = [ids[i] for i in rng.permutation(n)[:48]]
    facts |= {"random": chosen[:12], **_words(chosen, rng), **_numbers(made, axes, rng), **_running()}
    facts["clip_facts"], facts["pictures"] = _clips(made, axes, ids, {*_listed(made, facts)}, rng)
    return facts


def condition(entry: dict[str, Any]) -> dict[str, Any]:
    """The recipe's condition behind an axis."""
    named = {"column": entry["column"], "name": "" if entry["label"] == entry["column"] else entry["label"]}
    if entry["aggregate"]:
        named["aggregate"] = entry["aggregate"]
    if entry["percentile"]:
        return named | {entry["percentile"]["kind"]: entry["percentile"]["share"]}
    return named | {entry["side"]: entry["stops"][entry["start"]]}


def _funnel(made: Made, axes: tuple[Axis, ...], duplicates: int) -> dict[str, Any]:
    hours = made.milliseconds / 3.6e6
    left = made.stands.copy()
    fails = np.stack([made.coordinates[:, i] <= strictness(made.facts["axes"][i]) for i in range(len(axes))], axis=1)
    alone = fails.sum(axis=1) == 1
    gone = ~made.stands
    steps = [_step("take-down", "taken down", "forgotten sources", gone, gone, gone, left, hours)]
    for i, axis in enumerate(axes):
        first = left & fails[:, i]
        left = left & ~fails[:, i]
        side = "below" if axis.side == "min" else "above"
        text = f"{axis.label} ({axis.column} {side} {axis.threshold:g})"
        steps.append(_step("condition", axis.label, text, first, fails[:, i], alone & fails[:, i], left, hours))
    gone = np.zeros(len(left), bool)
    gone[np.flatnonzero(left)[:duplicates]] = True
    left = left & ~gone
    steps.append(_step("near-duplicate", "near-duplicate", "looks like a better clip", gone, gone, gone, left, hours))
    reasons = [
        {"verdict": "dropped", "reason": step["text"], "n": step["first"], "hours": step["first_hours"]}
        for step in steps
    ]
    inputs = [
        {"verdict": "skipped", "reason": "same content as s3://bucket/films/first.mp4", "n": 7, "hours": 0.0},
        {"verdict": "skipped", "reason": "no video stream", "n": 4, "hours": 0.0},
        {"verdict": "failed", "reason": "DecodeError: " + HOSTILE[4], "n": 14, "hours": 0.0},
        {"verdict": "dropped", "reason": "no clip of at least 3 s", "n": 21, "hours": 0.6},
    ]
    return {"steps": steps, "input_reasons": inputs, "clip_reasons": reasons}


def _step(kind, name, text, first, failing, only, left, hours) -> dict[str, Any]:
    pairs = {"first": first, "failing": failing, "only": only, "left": left}
    found: dict[str, Any] = {"name": name, "kind": kind, "text": text, "cell_failed": 3 if kind == "condition" else 0}
    for key, mask in pairs.items():
        found |= {key: int(mask.sum()), f"{key}_hours": float(hours[mask].sum())}
    return found


def _words(chosen: list[str], rng: np.random.Generator) -> dict[str, Any]:
    columns = ["caption.coca.caption", "caption.vblip.caption", "caption.fused.caption"]
    texts = (
        "a man in a blue jacket walks along the harbour while boats move behind him",
        "two children throw a ball on a lawn; the camera follows the ball to the left",
        "a close view of hands kneading dough on a wooden table covered with flour",
        *HOSTILE,
        "word " * 2000,
    )
    captions = [
        {
            "clip": clip,
            "disagreement": None if i % 5 == 4 else float(rng.random()),
            "captions": [
                {"column": name, "text": texts[(i + k) % len(texts)], "score": float(rng.random()) if k < 2 else None}
                for k, name in enumerate(columns)
            ],
            "chosen": columns[i % 3],
        }
        for i, clip in enumerate(chosen[12:24])
    ]
    pairs = [
        {
            "clip": chosen[24 + i],
            "kept": chosen[34 + i],
            "score": {"hamming_first": i % 4, "hamming_last": 1, "cosine": 0.97},
        }
        for i in range(8)
    ]
    return {"captions": captions, "caption_columns": columns, "duplicates": {"n": 40, "pairs": pairs}}


def _numbers(made: Made, axes: tuple[Axis, ...], rng: np.random.Generator) -> dict[str, Any]:
    def bars(title: str, labels: list[str], shares: list[float]) -> dict[str, Any]:
        all_n = [int(len(made.stands) * share) for share in shares]
        return {"title": title, "kind": "bars", "labels": labels, "all": all_n, "kept": [int(x * 0.6) for x in all_n]}

    counts, edges = np.histogram(made.milliseconds / 1000, 40)
    distributions = [
        bars("Camera motion", ["static", "pan", "tilt", "zoom", "shake"], [0.31, 0.22, 0.08, 0.22, 0.17]),
        {"title": "Duration (s)", "kind": "histogram", "edges": edges.tolist(), "all": counts.tolist(),
         "kept": [int(c * 0.7) for c in counts]},
        bars("Resolution", ["1920x1080", "1280x720", "3840x2160", "720x576", "other"], [0.5, 0.25, 0.1, 0.1, 0.05]),
        bars("Aspect", ["16:9", "4:3", "9:16", "2.39:1"], [0.7, 0.15, 0.1, 0.05]),
        bars("Frame rate, frames/s", ["23.976", "25", "29.97", "60"], [0.3, 0.4, 0.2, 0.1]),
        bars("Source", [HOSTILE[0], HOSTILE[1], "films/", HOSTILE[6]], [0.6, 0.2, 0.15, 0.05]),
    ]  # fmt: skip
    names = {"p1": 1, "p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "p99": 99}
    scores = []
    for i, axis in enumerate(axes):
        known = made.values[~np.isnan(made.values[:, i]), i]
        counts, edges = np.histogram(known, 20)
        scores.append({
            "stage": axis.column.split(".")[0], "column": axis.column, "unit": axis.unit, "n": len(known),
            "failed": len(made.stands) - len(known), "min": known.min(), "max": known.max(), "edges": edges.tolist(),
            "counts": counts.tolist(), "percentiles": {k: float(np.percentile(known, q)) for k, q in names.items()},
        })  # fmt: skip
    categories = [
        {"stage": "motion", "column": "camera", "n": 2900, "failed": 4, "n_distinct": 6,
         "top": [["static", 930], ["pan", 610]]},
        {"stage": "text", "column": "words", "n": 500, "failed": 4, "n_distinct": 812,
         "top": [[text, 9 - i] for i, text in enumerate(HOSTILE)]},
    ]  # fmt: skip
    buckets = {
        "rows": [{"bucket": name, "n": 400, "hours": 2.5} for name in ("1024x576x25", "576x320x25", "320x576x14")],
        "none": [{"reason": "fewer frames than any bucket", "n": 31, "hours": 0.02},
                 {"reason": "smaller than any bucket", "n": 12, "hours": 0.01}],
    }  # fmt: skip
    return {"scores": scores, "categories": categories, "distributions": distributions, "buckets": buckets}


def _running() -> dict[str, Any]:
    failures = [
        {"stage": "probe", "error_class": "DecodeError", "n": 14, "transient": False, "examples": [
            {"uri": f"s3://bucket/{HOSTILE[i]}.mp4", "clip": None, "message": HOSTILE[i + 3]} for i in range(3)]},
        {"stage": "caption.endpoint", "error_class": "TimeoutError", "n": 3, "transient": True, "examples": [
            {"uri": "s3://bucket/films/long.mp4", "clip": "0" * 32, "message": "no answer within 60 s " * 200}]},
    ]  # fmt: skip
    stages = [
        ("probe", 0.02, None),
        ("cut", 0.11, 0.02),
        ("motion", 0.16, 0.2),
        ("text", 0.42, 0.01),
        ("caption.coca", 0.29, 0.4),
    ]
    return {
        "failures": failures,
        "stages": [
            {"stage": name, "n": 3000, "sum_s": share * 9000, "mean_s": share * 3, "max_s": share * 40, "share": share,
             "clips_per_s": 1 / (share * 3), "waited": waited} for name, share, waited in stages
        ],
        "bottleneck": {"stage": "text", "why": "its worker waited 1 % of the time and holds 42 % of all seconds"},
        "run": {"seconds": 5234.2, "started_at": "2026-11-21T23:00:00+00:00", "engine": "ray", "workers": 16},
        "recipe": f"name: svd-small # {HOSTILE[0]}\nstages:\n  - probe\n  - cut: {{min_len_s: 3.0}}\n",
        "versions": {"curate": "0.1.0", "torch": "2.15.0", "duckdb": "2.0.0", "python": "3.12.4"},
        "models": {"openclip-vit-l-14": "sha256:" + "9f" * 32, "coca-vit-b-32": "sha256:" + "0c" * 32},
        "fingerprints": {"probe": "a1" * 8, "cut": "b2" * 8, "motion": "c3" * 8, "text": "d4" * 8},
    }  # fmt: skip


def _listed(made: Made, facts: dict[str, Any]) -> list[str]:
    found = [*facts["random"], *(entry["clip"] for entry in facts["captions"])]
    for pair in facts["duplicates"]["pairs"]:
        found += [pair["clip"], pair["kept"]]
    for entry in made.facts["axes"]:
        found += [*(near["clip"] for near in entry["near"]), *entry["best"], *entry["worst"]]
    return found


def _clips(made: Made, axes, ids, listed, rng) -> tuple[dict[str, Any], dict[str, Any]]:
    about, pictures = {}, {}
    names = ["films/harbour.mp4", "films/kitchen in the morning.mov", *(f"{text}.mp4" for text in HOSTILE)]
    for i, clip in enumerate(ids):
        if clip not in listed:
            continue
        start = float(rng.random() * 4000)
        known = zip(made.facts["axes"], made.values[i], strict=True)
        values = {entry["measure"]: None if np.isnan(v) else float(v) for entry, v in known}
        fails = [e["label"] for k, e in enumerate(made.facts["axes"]) if made.coordinates[i, k] <= strictness(e)]
        about[clip] = {
            "uri": f"s3://bucket/{names[i % len(names)]}",
            "start_s": start, "end_s": start + made.milliseconds[i] / 1000,
            "verdict": "dropped" if fails else "kept", "reason": fails[0] if fails else "", "values": values,
            "caption": HOSTILE[i % len(HOSTILE)],
        }  # fmt: skip
        lost = i % 23 == 0
        pictures[clip] = {"missing": f"the source is gone: {HOSTILE[0]}"} if lost else _picture(rng)
    return about, pictures
