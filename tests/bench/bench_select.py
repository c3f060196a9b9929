"""Wall time and peak memory of `select` over generated tables.

    python tests/bench/bench_select.py [--sizes 100000 1000000 10000000] [--dedup-sizes 1000000] [--part-rows 100000]

Each case runs in a process of its own; peak is its largest resident set. Four percentile thresholds over the cells of
four stages (1 % failed), five clips a source; with ``dedup`` also perceptual hashes, every fifth clip a near-duplicate.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.select import SelectConfig, select
from curate.tables import CLIPS, INPUTS, Corpus

STAGES = {"motion": "v2d_px16", "quality": "sharpness", "text": "area_max", "clip": "similarity"}
CONDITIONS = [
    {"column": "motion.v2d_px16", "drop_lowest": 0.25},
    {"column": "quality.sharpness", "drop_lowest": 0.25},
    {"column": "text.area_max", "drop_highest": 0.25},
    {"column": "clip.similarity", "drop_lowest": 0.5},
]
CLIPS_PER_SOURCE = 5
FINGERPRINT = "0123456789abcdef"
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def hex_strings(raw):
    """uint8 (n, k) -> n strings of 2k hex digits."""
    n, width = len(raw), raw.shape[1] * 2
    text = np.empty((n, width), np.uint8)
    text[:, 0::2], text[:, 1::2] = _HEX[raw >> 4], _HEX[raw & 15]
    offsets = np.arange(n + 1, dtype=np.int32) * width
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text.tobytes()))


def tail(n, failed=None):
    """Bookkeeping columns of n cells."""
    outcome = pa.array(np.where(failed, "failed", "ok")) if failed is not None else pa.repeat("ok", n)
    nulls = pa.nulls(n, pa.string())
    return {
        "outcome": outcome,
        "error_class": nulls,
        "error_message": nulls,
        "error_traceback": nulls,
        "attempt": pa.array(np.ones(n, np.int32)),
        "seconds": pa.array(np.full(n, 0.1)),
        "host": pa.repeat("host", n),
        "run_id": pa.repeat("r", n),
    }


def write(folder, name, columns):
    path = Path(folder.path)
    path.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path / name, compression="zstd")


def generate(corpus, n_clips, part_rows, hashes):
    """A complete run over n_clips clips."""
    corpus.create()
    rng = np.random.default_rng(7)
    digests = rng.integers(0, 256, (-(-n_clips // CLIPS_PER_SOURCE), 32), np.uint8)
    words = rng.integers(0, 2**63, (n_clips, 3), np.uint64) if hashes else np.empty((0, 3), np.uint64)
    for start in range(0, n_clips if hashes else 0, 5):
        words[start] = words[0 if start == 0 else start - 4] ^ np.uint64(1 << (start % 63))
    for start in range(0, n_clips, part_rows):
        n = min(part_rows, n_clips - start)
        write_clips(corpus, rng, digests, start, n, words)
    write_sources(corpus, digests, n_clips)
    write_run(corpus, digests, hashes)


def write_clips(corpus, rng, digests, start, n, words):
    name = f"part-{start:012d}.parquet"
    ids = hex_strings(rng.integers(0, 256, (n, 16), np.uint8))
    number = np.arange(start, start + n)
    begin = (number % CLIPS_PER_SOURCE) * 5.0
    zeros, text = pa.array(np.zeros(n, np.int64)), pa.repeat("hard", n)
    columns = {
        "clip_id": ids,
        "source_digest": hex_strings(digests[number // CLIPS_PER_SOURCE]),
        "stream": zeros.cast(pa.int32()),
        "start_pts": zeros,
        "end_pts": zeros,
        "time_base": pa.repeat("1/1000", n),
        "start_s": pa.array(begin),
        "end_s": pa.array(begin + 5.0),
        **dict.fromkeys(["start_kind", "end_kind", "start_detector", "end_detector"], text),
        "n_frames": pa.array(np.full(n, 150, np.int64)),
    }
    write(corpus.clips(FINGERPRINT), name, {key: columns[key] for key in CLIPS.names})
    common = rng.random(n)
    for stage, column in STAGES.items():
        order = rng.permutation(n)
        values = {"key": ids.take(pa.array(order)), column: (0.3 * common + 0.7 * rng.random(n))[order]}
        write(corpus.cells(stage, FINGERPRINT), name, {**values, **tail(n, rng.random(n) < 0.01)})
    if len(words):
        part = words[start : start + n]
        hashes = {f"phash_{at}": part[:, i] for i, at in enumerate(("first", "middle", "last"))}
        flat = {"phash_flat": np.zeros(n, bool)}
        write(corpus.cells("features", FINGERPRINT), name, {"key": ids, **hashes, **flat, **tail(n)})


def write_sources(corpus, digests, n_clips):
    n = len(digests)
    keys = hex_strings(digests)
    counts = np.minimum(CLIPS_PER_SOURCE, n_clips - np.arange(n) * CLIPS_PER_SOURCE).astype(np.int32)
    facts = {"width_px": pa.repeat(1280, n), "height_px": pa.repeat(720, n), "rate_fps": pa.repeat(25.0, n)}
    write(corpus.cells("probe", FINGERPRINT), "part-0.parquet", {"key": keys, **facts, **tail(n)})
    write(corpus.cells("cut", FINGERPRINT), "part-0.parquet", {"key": keys, "n_clips": counts, **tail(n)})


def write_run(corpus, digests, hashes):
    n = len(digests)
    run = corpus.runs().child("r")
    columns = {
        "uri": hex_strings(digests[:, :16]),
        "size_bytes": pa.repeat(1, n).cast(pa.int64()),
        "version": pa.repeat("1", n),
        "source_digest": hex_strings(digests),
        "outcome": pa.repeat("ok", n),
        "cause": pa.repeat("", n),
        "user": pa.nulls(n, INPUTS.field("user").type),
    }
    write(run, "inputs.parquet", columns)
    columns_of = {"probe": ["width_px", "height_px", "rate_fps"], "cut": ["n_clips"]}
    columns_of |= {stage: [column] for stage, column in STAGES.items()}
    if hashes:
        columns_of["features"] = ["phash_first", "phash_middle", "phash_last", "phash_flat"]
    stages = [
        {"name": name, "kind": name if name in {"probe", "cut"} else "clip", "fingerprint": FINGERPRINT, "columns": c}
        for name, c in columns_of.items()
    ]
    manifest = {"run_id": "r", "recipe": "bench", "complete": True, "stages": stages, "gates": []}
    run.child("manifest.json").write_text(json.dumps(manifest))


def measure(uri, dedup):
    """Run one selection here and print its figures as JSON."""
    method = {"method": "hash" if dedup else "none", **({"keep": "quality.sharpness"} if dedup else {})}
    config = SelectConfig.model_validate({"name": "bench", "conditions": CONDITIONS, "dedup": method})
    began, cpu = time.perf_counter(), time.process_time()
    funnel = select(Corpus(uri), config)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "wall_s": round(time.perf_counter() - began, 1),
                "cpu_s": round(time.process_time() - cpu, 1),
                "peak_gib": round(usage.ru_maxrss / 2**20, 2),
                "kept": funnel.clips.kept,
                "near_duplicates": funnel.near_duplicates,
            }
        )
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--dedup-sizes", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--part-rows", type=int, default=100_000)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], options.measure[1] == "dedup")
        return
    cases = [(n, False) for n in options.sizes] + [(n, True) for n in options.dedup_sizes]
    for n_clips, dedup in cases:
        with tempfile.TemporaryDirectory() as folder:
            generate(Corpus(folder), n_clips, options.part_rows, dedup)
            what = "dedup" if dedup else "thresholds"
            command = [sys.executable, __file__, "--measure", folder, what]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"{n_clips:>10,} clips, {what}: {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
