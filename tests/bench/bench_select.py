"""Wall time and peak memory of `select` over generated tables.

    python tests/bench/bench_select.py [--sizes 100000 1000000 10000000] [--dedup-sizes 1000000] [--part-rows 100000]
        [--embedding-sizes 10000 100000]

Each case runs in a process of its own; peak is its largest resident set. Four percentile thresholds over the cells of
four stages (1 % failed), five clips a source; with ``dedup`` also perceptual hashes, every fifth clip a near-duplicate.
With ``embedding`` no thresholds, so that every clip is compared: three embeddings of 768 numbers a clip, every fifth
clip a near-duplicate, clips of 1 to 20 s; with ``embedding-one-length`` all of 5 s, which is the worst there is.
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
FRAMES = ("first", "middle", "last")
LENGTH = 768
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


def generate(corpus, n_clips, part_rows, what):
    """A complete run over n_clips clips."""
    hashes = what == "dedup"
    corpus.create()
    rng = np.random.default_rng(7)
    digests = rng.integers(0, 256, (-(-n_clips // CLIPS_PER_SOURCE), 32), np.uint8)
    words = rng.integers(0, 2**63, (n_clips, 3), np.uint64) if hashes else np.empty((0, 3), np.uint64)
    for start in range(0, n_clips if hashes else 0, 5):
        words[start] = words[0 if start == 0 else start - 4] ^ np.uint64(1 << (start % 63))
    for start in range(0, n_clips, part_rows):
        n = min(part_rows, n_clips - start)
        ids = write_clips(corpus, rng, digests, start, n, words, what)
        if what.startswith("embedding"):
            write_embeddings(corpus, rng, ids, start)
    write_sources(corpus, digests, n_clips)
    write_run(corpus, digests, what)


def write_embeddings(corpus, rng, ids, start):
    """Unit vectors that share a part, as those of CLIP do: cosines of unlike clips lie about 0.5."""
    common = np.random.default_rng(1).normal(size=(3, LENGTH)).astype(np.float32)
    vectors = common + rng.normal(size=(len(ids), 3, LENGTH)).astype(np.float32)
    # The first clip of a source is like the last one of the source before: within a source nothing overlaps.
    copies = vectors[CLIPS_PER_SOURCE::CLIPS_PER_SOURCE]
    copies[:] = vectors[CLIPS_PER_SOURCE - 1 :: CLIPS_PER_SOURCE][: len(copies)]
    copies += rng.normal(size=copies.shape).astype(np.float32) * 0.2
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    offsets = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * LENGTH)
    columns = {
        name: pa.ListArray.from_arrays(offsets, pa.array(vectors[:, i].astype(np.float16).ravel()))
        for i, name in enumerate(FRAMES)
    }
    write(corpus.cells("frames", FINGERPRINT), f"part-{start:012d}.parquet", {"key": ids, **columns, **tail(len(ids))})


def write_clips(corpus, rng, digests, start, n, words, what):
    name = f"part-{start:012d}.parquet"
    ids = hex_strings(rng.integers(0, 256, (n, 16), np.uint8))
    number = np.arange(start, start + n)
    begin = (number % CLIPS_PER_SOURCE) * 25.0
    # A near-duplicate is as long as the clip before it, which it is like.
    length_s = (
        1 + 19 * (((number - (number % CLIPS_PER_SOURCE == 0)) * 0.6180339887) % 1)
        if what in {"embedding", "lengths"}
        else 5.0
    )
    zeros, text = pa.array(np.zeros(n, np.int64)), pa.repeat("hard", n)
    columns = {
        "clip_id": ids,
        "source_digest": hex_strings(digests[number // CLIPS_PER_SOURCE]),
        "stream": zeros.cast(pa.int32()),
        "start_pts": zeros,
        "end_pts": zeros,
        "time_base": pa.repeat("1/1000", n),
        "start_s": pa.array(begin),
        "end_s": pa.array(begin + length_s),
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
    return ids


def source_facts(n):
    """Columns of n probe cells: 720p H.264 of 125 s at 25 frames/s with a key frame every ten seconds."""
    at = np.arange(0, 125, 10, dtype=np.int64) * 1000
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * len(at))
    words = {
        "container": "mov",
        "codec": "h264",
        "pix_fmt": "yuv420p",
        "sar": "1/1",
        "rate": "25",
        "time_base": "1/1000",
    }
    numbers = {"stream": 0, "bit_depth": 8, "width_px": 1280, "height_px": 720, "coded_width_px": 1280}
    numbers |= {"coded_height_px": 720, "rotation_deg": 0}
    large = {"start_pts": 0, "end_pts": 125_000, "n_frames": 3125, "bit_rate_bps": 2_500_000}
    return {
        **{name: pa.repeat(value, n) for name, value in words.items()},
        **{name: pa.repeat(value, n).cast(pa.int32()) for name, value in numbers.items()},
        **{name: pa.repeat(value, n).cast(pa.int64()) for name, value in large.items()},
        **{name: pa.repeat(value, n) for name, value in {"rate_fps": 25.0, "duration_s": 125.0}.items()},
        **{name: pa.repeat(value, n) for name, value in {"vfr": False, "has_pts": True}.items()},
        "key_frames_pts": pa.ListArray.from_arrays(offsets, pa.array(np.tile(at, n))),
        "key_frames_closed": pa.ListArray.from_arrays(offsets, pa.array(np.ones(n * len(at), bool))),
        "streams_json": pa.repeat(json.dumps([{"index": 0, "type": "video", "codec": "h264", "size": [1280, 720]}]), n),
    }


def write_sources(corpus, digests, n_clips):
    n = len(digests)
    keys = hex_strings(digests)
    counts = np.minimum(CLIPS_PER_SOURCE, n_clips - np.arange(n) * CLIPS_PER_SOURCE).astype(np.int32)
    write(corpus.cells("probe", FINGERPRINT), "part-0.parquet", {"key": keys, **source_facts(n), **tail(n)})
    write(corpus.cells("cut", FINGERPRINT), "part-0.parquet", {"key": keys, "n_clips": counts, **tail(n)})
    read = {"size_bytes": pa.repeat(1, n).cast(pa.int64()), "version": pa.repeat("1", n), "source_digest": keys}
    write(corpus.sources(), "part-0.parquet", {"uri": hex_strings(digests[:, :16]), **read, **tail(n)})


def write_run(corpus, digests, what):
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
    columns_of = {"probe": list(source_facts(0)), "cut": ["n_clips"]}
    columns_of |= {stage: [column] for stage, column in STAGES.items()}
    if what.startswith("embedding"):
        columns_of["frames"] = list(FRAMES)
    if what == "dedup":
        columns_of["features"] = ["phash_first", "phash_middle", "phash_last", "phash_flat"]
    stages = [
        {"name": name, "kind": name if name in {"probe", "cut"} else "clip", "fingerprint": FINGERPRINT, "columns": c}
        for name, c in columns_of.items()
    ]
    manifest = {"run_id": "r", "recipe": "bench", "complete": True, "stages": stages, "gates": []}
    run.child("manifest.json").write_text(json.dumps(manifest))


def measure(uri, what):
    """Run one selection here and print its figures as JSON."""
    dedup = {"thresholds": {"method": "none"}, "dedup": {"keep": "quality.sharpness"}}
    embedding = {"method": "embedding", "embedding_stage": "frames"}
    conditions = CONDITIONS if what in dedup else []
    config = SelectConfig.model_validate(
        {"name": "bench", "conditions": conditions, "dedup": dedup.get(what, embedding)}
    )
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
    parser.add_argument("--embedding-sizes", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--part-rows", type=int, default=100_000)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    cases = [(n, "thresholds") for n in options.sizes] + [(n, "dedup") for n in options.dedup_sizes]
    cases += [(n, what) for n in options.embedding_sizes for what in ("embedding", "embedding-one-length")]
    for n_clips, what in cases:
        with tempfile.TemporaryDirectory() as folder:
            generate(
                Corpus(folder), n_clips, min(options.part_rows, 20_000) if "embed" in what else options.part_rows, what
            )
            command = [sys.executable, __file__, "--measure", folder, what]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"{n_clips:>10,} clips, {what}: {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
