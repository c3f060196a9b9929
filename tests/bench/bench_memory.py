"""Peak memory of one worker on long, large files: `python tests/bench/bench_memory.py [--size 2160] [--minutes 60]`.

Encodes some seconds of moving texture with cuts at 60 frames/s (H.264 with B-frames), repeats the packets to the length
asked for, and makes the analysis pass over it (all stages of the recipe `embedded` without their models) in a process
of its own; with --run the whole `curate run --engine inline --no-export`, models and all. Prints the peak resident
memory of the process and of the decoding process that it starts, and their CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
from bench_kit import CURATE, machine
from bench_pass import whole_pass

from curate.testing.footage import write_video
from curate.testing.scenes import Frame, moving_texture

RATE = Fraction(60)
SIZES = {1080: (1920, 1080), 2160: (3840, 2160), 4320: (7680, 4320)}
SHOT_FRAMES, SHOTS = 80, 3
POLL_S = 0.1
X264 = "bframes=3:b-adapt=0:b-pyramid=none:keyint=80:min-keyint=80:mbtree=0"
OPTIONS = {"preset": "ultrafast", "crf": "28", "x264-params": X264}


def shots(size_px: tuple[int, int]) -> Iterator[Frame]:
    """Three pans over three pictures, enlarged: what is decoded is large, making it is cheap."""
    for seed in range(SHOTS):
        for frame in moving_texture(SHOT_FRAMES, size_px[0] // 4, size_px[1] // 4, (2, 1), seed):
            yield cv2.resize(frame, size_px)


def repeated(source: Path, target: Path, seconds: float) -> None:
    """The packets of a file over and over, with rising time stamps, until the length is reached."""
    with av.open(str(source)) as first, av.open(str(target), "w") as out:
        stream = first.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [p for p in first.demux(stream) if p.size]
        data = [(bytes(p), p.pts, p.dts, p.duration, p.is_keyframe) for p in packets]
        length = sum(p.duration for p in packets)
        turns = max(1, round(seconds / float(length * stream.time_base)))
        for turn in range(turns):
            for payload, pts, dts, duration, key in data:
                packet = av.Packet(payload)
                packet.stream, packet.time_base = copy, stream.time_base
                packet.pts, packet.dts, packet.duration = pts + turn * length, dts + turn * length, duration
                packet.is_keyframe = key
                out.mux(packet)


def peak_bytes(command: list[str]) -> tuple[list[int], float]:
    """Peak resident memory of a command and of each process that it started, and their CPU seconds.

    The kernel's own sum at the end (ru_maxrss) is that of the process which started it, where that was larger.
    """
    process = subprocess.Popen(command)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in [process.pid, *children_of(process.pid)]:
            with contextlib.suppress(OSError):
                found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
                peaks[pid] = max(peaks.get(pid, 0), 1024 * int(found[1]) if found else 0)
        time.sleep(POLL_S)
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return list(peaks.values()), spent.ru_utime + spent.ru_stime


def children_of(pid: int) -> list[int]:
    """Processes that a process started."""
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return []


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2160, choices=list(SIZES))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--run", action="store_true", help="the whole run with its models")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        whole_pass(args.only)
        return
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder, "short.mp4"), Path(folder, "in", "long.mp4")
        long.parent.mkdir()
        write_video(short, shots(SIZES[args.size]), fps=RATE, options=OPTIONS)
        repeated(short, long, 60 * args.minutes)
        began = time.perf_counter()
        out = Path(folder, "out")
        run = [*CURATE, "run", str(long.parent), "--out", str(out), "--engine", "inline", "--no-export"]
        command = run if args.run else [sys.executable, __file__, "--only", str(long)]
        peaks, cpu_s = peak_bytes(command)
        wall_s = time.perf_counter() - began
    parts = " + ".join(f"{peak / 1e6:.0f}" for peak in peaks)
    print(machine())
    print(f"{args.size}p, {args.minutes:g} min: peak {parts} MB, {wall_s:.0f} s wall, {cpu_s:.0f} s CPU")


if __name__ == "__main__":
    main()
