"""Clips a second of one core: the trainer's loader beside plain webdataset with PyAV, the same frames in each.

    python tests/bench/bench_loader.py FILE [--clips 16] [--seconds 4] [--bucket 576x320x14] [--repeats 5]

Clips are cut out of the file one after the other and encoded as export does (x264 `veryfast`, crf 18, key frames every
48, no B-frames), then written to shards of four. A turn reads every clip once, single-threaded in this process, by each
contestant in turn; CPU time is the process's own. All give uint8 frames of the bucket's size:

- curate: `Loader` without workers, in the shuffled order of an epoch
- webdataset, PyAV: shard after shard; every frame up to the window's last is decoded, those of the window become RGB,
  then OpenCV scales (area) and the middle is cut out, as a loader is usually written
- webdataset, PyAV, careful: seeks to the key frame before the window, and lets the scaler of FFmpeg scale and convert

The windows are those that the loader drew; that the pictures are the same is checked. Last, both with two workers.
"""

from __future__ import annotations

import argparse
import functools
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import torch
import webdataset
from bench_kit import machine, markdown, middle

from curate.shards.buckets import Bucket
from curate.shards.index import INDEX_NAME, ShardEntry, ShardIndex
from curate.shards.reader import ShardSet
from curate.shards.writer import SIDECAR, Sample, build_shard
from curate.storage import Place
from curate.testing.footage import write_video
from curate.train.data.catalogue import Catalogue
from curate.train.data.clip import Window
from curate.train.data.config import DataConfig
from curate.train.data.loader import Loader
from curate.train.data.worker import Ahead

AS_EXPORTED = {"options": {"preset": "veryfast", "crf": "18", "bf": "0"}, "gop": 48}
PER_SHARD = BATCH = 4
SAME = 4.0
"""Mean difference, of 255, between pictures that two scalers made of one frame; neighbouring frames differ by more."""

Windows = dict[str, Window]


def footage(path: Path, n_clips: int, seconds: float) -> Iterator[tuple[Fraction, list[np.ndarray]]]:
    """(rate, frames) of one clip after the other; the film is begun again where it ends."""
    found = 0
    while found < n_clips:
        with av.open(str(path)) as container:
            rate = Fraction(container.streams.video[0].average_rate)
            frames = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
            while found < n_clips and len(own := list(islice(frames, round(seconds * rate)))) == round(seconds * rate):
                found += 1
                yield rate, own


def shard_set(folder: Path, path: Path, n_clips: int, seconds: float) -> ShardSet:
    samples: list[Sample] = []
    for number, (rate, frames) in enumerate(footage(path, n_clips, seconds)):
        file, clip_id = folder / "clip.mp4", f"{number:032x}"
        write_video(file, frames, rate, **AS_EXPORTED)
        facts = {name: None for name in SIDECAR.names if not name.startswith("video_")}
        size = {"width_px": frames[0].shape[1], "height_px": frames[0].shape[0], "n_frames": len(frames)}
        facts |= {"clip_id": clip_id, "fps": float(rate), "motion_score": 1.0, "mode": "encode", **size}
        samples.append(Sample(clip_id, file.read_bytes(), "", facts))
    entries = []
    for at in range(0, n_clips, PER_SHARD):
        shard, stem = build_shard(samples[at : at + PER_SHARD], pa.table({})), f"{at:06d}"
        (folder / f"{stem}.tar").write_bytes(shard.tar)
        (folder / f"{stem}.parquet").write_bytes(shard.sidecar)
        digest, size = shard.sha256, len(shard.tar)
        entries.append(ShardEntry(f"{stem}.tar", digest, size, shard.count, "", f"{stem}.parquet", "", 0))
    (folder / INDEX_NAME).write_text(ShardIndex("bench", {}, "", {}, tuple(entries)).to_json())
    return ShardSet.open(Place(str(folder)))


def usual(video: bytes, window: Window, bucket: Bucket) -> np.ndarray:
    wanted = range(window.start, window.last + 1, window.stride)
    with av.open(io.BytesIO(video)) as container:
        container.streams.video[0].thread_count = 1
        decoded = enumerate(islice(container.decode(video=0), window.last + 1))
        frames = [frame.to_ndarray(format="rgb24") for at, frame in decoded if at in wanted]
    return np.stack([cropped(cv2.resize(f, covering(f, bucket), interpolation=cv2.INTER_AREA), bucket) for f in frames])


def careful(video: bytes, window: Window, bucket: Bucket) -> np.ndarray:
    wanted = range(window.start, window.last + 1, window.stride)
    out = []
    with av.open(io.BytesIO(video)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        one = 1 / (stream.average_rate * stream.time_base)
        container.seek(int(window.start * one), stream=stream)
        for frame in container.decode(stream):
            at = round(frame.pts / one)
            if at in wanted:
                size_px = covering(np.empty((frame.height, frame.width, 0)), bucket)
                out.append(cropped(frame.reformat(*size_px, "rgb24", threads=1).to_ndarray(), bucket))
            if at >= window.last:
                break
    return np.stack(out)


def covering(frame: np.ndarray, bucket: Bucket) -> tuple[int, int]:
    height, width = frame.shape[:2]
    scale = max(bucket.width_px / width, bucket.height_px / height)
    return max(bucket.width_px, round(width * scale)), max(bucket.height_px, round(height * scale))


def cropped(picture: np.ndarray, bucket: Bucket) -> np.ndarray:
    top, left = (picture.shape[0] - bucket.height_px) // 2, (picture.shape[1] - bucket.width_px) // 2
    return picture[top : top + bucket.height_px, left : left + bucket.width_px]


Decode = Callable[[bytes, Window, Bucket], np.ndarray]


def one_clip(item: dict, decode: Decode, windows: Windows, bucket: Bucket) -> tuple[str, np.ndarray]:
    return item["__key__"], decode(item["mp4"], windows[item["__key__"]], bucket)


def plain(shards: ShardSet, decode: Decode, windows: Windows, bucket: Bucket) -> webdataset.WebDataset:
    tars = [shards.place(entry.path).path for entry in shards.shards()]
    made = functools.partial(one_clip, decode=decode, windows=windows, bucket=bucket)
    return webdataset.WebDataset(tars, shardshuffle=False).map(made)


def epoch(loader: Loader) -> Iterator[tuple[str, np.ndarray, Window]]:
    for batch in islice(loader, loader.batches_per_epoch):
        for at, clip_id in enumerate(batch.clip_ids):
            window = Window(int(batch.start[at]), int(batch.stride[at]), batch.bucket.frames)
            yield clip_id, batch.video[at].numpy(), window


def check(ours: dict[str, np.ndarray], name: str, theirs: dict[str, np.ndarray]) -> None:
    """RuntimeError unless both gave the same frames of the same clips."""
    worst = max(np.abs(ours[clip].astype(float) - theirs[clip]).mean() for clip in ours)
    print(f"{name}: mean difference from our pictures at most {worst:.2f} of 255")
    if set(ours) != set(theirs) or worst > SAME:
        raise RuntimeError(f"{name} gave other frames")


def measured(run: Callable[[], int]) -> tuple[float, float]:
    """Clips a second of CPU time, and of wall time."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    n = run()
    return n / (time.process_time() - cpu_s), n / (time.perf_counter() - wall_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--bucket", type=Bucket.parse, default=Bucket(576, 320, 14))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    bucket = options.bucket
    shape = {"short_sides_px": [bucket.height_px], "frames": [bucket.frames], "aspects": ["16:9"]}
    config = DataConfig.model_validate({"buckets": shape, "batch": BATCH, "fps": (5.0, 120.0)})
    print(machine())
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        shards = shard_set(Path(scratch), options.file, options.clips // BATCH * BATCH, options.seconds)
        catalogue = Catalogue.read(shards, config)
        first = list(epoch(Loader(catalogue, config)))
        windows = {clip_id: window for clip_id, _, window in first}
        peers = {
            "webdataset, PyAV": plain(shards, usual, windows, bucket),
            "webdataset, PyAV, careful": plain(shards, careful, windows, bucket),
        }
        for name, peer in peers.items():
            check({clip_id: video for clip_id, video, _ in first}, name, dict(peer))
        runs: dict[str, Callable[[], int]] = {"curate": lambda: len(list(epoch(Loader(catalogue, config))))}
        runs |= {name: lambda peer=peer: sum(1 for _ in peer) for name, peer in peers.items()}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(options.repeats):
            for name, run in runs.items():
                found[name].append(measured(run))
        print(table(found))
        print(two_workers(catalogue, config, peers))


def table(found: dict[str, list[tuple[float, float]]]) -> str:
    rows = []
    for name, runs in found.items():
        times = [ours[0] / own[0] for ours, own in zip(found["curate"], runs, strict=True)]
        rows.append([name, middle([cpu for cpu, _ in runs]), middle([wall for _, wall in runs]), middle(times, 2)])
    return markdown(["what", "clips/s of CPU", "clips/s of wall time", "ours / its (CPU)"], rows)


def two_workers(catalogue: Catalogue, config: DataConfig, peers: dict[str, webdataset.WebDataset]) -> str:
    """Clips a second of wall time with two worker processes, once both have started."""
    rates: dict[str, list[float]] = {}
    for _ in range(3):
        loader = Loader(catalogue, config, ahead=Ahead(2))
        batches = islice(loader, 8 * loader.batches_per_epoch)
        rates.setdefault("curate", []).append(rate(batch.clip_ids for batch in batches))
        loader.close()
        for name, peer in peers.items():
            loaded = torch.utils.data.DataLoader(peer.repeat(8), batch_size=BATCH, num_workers=2)
            rates.setdefault(name, []).append(rate(keys for keys, _ in loaded))
    return markdown(["two workers", "clips/s of wall time"], [[name, middle(own)] for name, own in rates.items()])


def rate(batches: Iterator[list[str]]) -> float:
    for _ in range(8):
        next(batches)
    began_s = time.perf_counter()
    n = sum(len(keys) for keys in batches)
    return n / (time.perf_counter() - began_s)


if __name__ == "__main__":
    main()
