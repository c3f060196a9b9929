"""What the Dockerfiles do, done outside a container: every RUN, COPY and ENV, then what came of it is looked at.

    python tests/deploy/build_check.py [docker/Dockerfile ...] [--system] [--keep FOLDER]

There is no root file system of its own: the stages run one after another in one folder, with `/app` and `/build` in
it, and with this machine's Python in the place of the base image's. The context is what .dockerignore lets through.
The last stage's RUN installs a system package and makes a user, which `--system` does on this machine (as root; for
machines that are thrown away); without it that command is printed alone. Takes minutes, and some 8 GB a Dockerfile.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from dockerfile_kit import DOCKERFILES, ROOT, Stage, parse_env, parse_exec, sent, stages

MOVED = re.compile(r"(?<![\w/.])/(app|build|srv)(?=[/\s:]|$)")
SYSTEM = {
    "ld-linux-x86-64", "libbz2", "libc", "libcrypto", "libdl", "libffi", "libgcc_s", "liblzma", "libm", "libmvec",
    "libpthread", "libpython3", "librt", "libssl", "libstdc++", "libutil", "libuuid", "libz",
}  # fmt: skip
"""Shared libraries that python:3.11-slim has: of glibc and GCC, and those that Python itself is built with."""
OURS = ("CURATE_", "PYTHON", "RAY_", "VIRTUAL_ENV")
"""Variables of this machine that the image would not have. Those of its package indexes and proxies stay."""
LOADED = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*{line.split()[-1] for line in open("/proc/self/maps") if ".so" in line})
"""
IMPORTED = ("av", "cv2", "duckdb", "fsspec", "onnxruntime", "pyarrow.parquet", "ray.data", "torch", "uvicorn")


class Build:
    """One Dockerfile, carried out in a folder."""

    def __init__(self, folder: Path, *, system: bool) -> None:
        self._root, self._system = folder, system
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        python = folder / "python" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec "{os.path.realpath(sys.executable)}" "$@"\n')
        python.chmod(0o755)
        self._env["PATH"] = f"{python.parent}:{self._env['PATH']}"

    def moved(self, text: str) -> str:
        """The text with absolute paths of the image below the folder."""
        return MOVED.sub(rf"{self._root}/\1", text)

    def carry_out(self, stage: Stage, *, last: bool) -> None:
        here = self._root / "build"
        here.mkdir(exist_ok=True)
        for word, rest in stage.instructions:
            if word in {"ARG", "ENV"}:
                self._set(rest, only_new=word == "ARG")
            elif word == "COPY":
                self._copy(stage, rest, here)
            elif word == "RUN" and last and not self._system:
                print(f"  not run without --system: {rest}")
            elif word == "RUN":
                began = time.monotonic()
                self._shell(rest if last else self.moved(rest), here)
                print(f"  {time.monotonic() - began:5.0f} s  {' '.join(rest.split())[:110]}", flush=True)

    def _shell(self, command: str, here: Path) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=here,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{command}\n{done.stdout[-4000:]}\nended with {done.returncode}")

    def _set(self, rest: str, *, only_new: bool) -> None:
        for name, value in parse_env(self.moved(rest)).items():
            if value and not (only_new and name in self._env):
                self._env[name] = value.replace("$PATH", self._env["PATH"])

    def _copy(self, stage: Stage, rest: str, here: Path) -> None:
        copy = next(copy for line, copy in zip(stage.all("COPY"), stage.copies(), strict=True) if line == rest)
        target = Path(self.moved(copy.target)) if copy.target.startswith("/") else here / copy.target
        for source in copy.sources:
            if copy.of:
                if self.moved(source) != str(target):
                    shutil.copytree(self.moved(source), target, dirs_exist_ok=True, symlinks=True)
                continue
            for name in sorted(context()):
                if name == source or name.startswith(f"{source}/"):
                    placed = target / name.removeprefix(f"{source}/")
                    placed.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, placed)

    def run(self, *words: str) -> str:
        """Run a command as the image would; gives what it printed."""
        folder = self._root / "srv"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=folder, env=self._env)
        return done.stdout


def context() -> set[str]:
    """What Docker would be sent of this checkout."""
    listed = (str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file())
    return sent(listed, (ROOT / ".dockerignore").read_text(encoding="utf-8"))


def look(build: Build, folder: Path, last: Stage) -> None:
    """AssertionError when the image would not be what the documentation says."""
    venv = folder / "app" / "curate"
    uv, python = str(venv / "bin" / "uv"), str(venv / "bin" / "python")
    entry, command = parse_exec(last.all("ENTRYPOINT")[0]), parse_exec(last.all("CMD")[0])
    assert "Usage" in build.run(*entry, *command)
    print(" ", build.run("curate", "--version").strip(), "|", build.run("ray", "--version").strip())
    pins = set((ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    frozen = build.run(uv, "pip", "freeze", "--python", python).split("\n")
    loose = [line for line in frozen if line and line.split(" ")[0] != "curate-video" and line not in pins]
    assert not loose, f"not pinned: {loose}"
    assert "opencv-python==" not in "\n".join(frozen)
    print(f"  {len(frozen) - 1} packages, all pinned")
    loaded = [Path(name) for name in build.run(python, "-c", LOADED, *IMPORTED).split()]
    outside = [path for path in loaded if not path.is_relative_to(venv) and path.parent.name != "lib-dynload"]
    names = {path.name.split(".")[0] for path in outside}
    foreign = {name for name in names if not name.startswith("libnss")} - SYSTEM
    assert not foreign, f"libraries that the base image may not have: {foreign}"
    film = "from fractions import Fraction; from pathlib import Path; from curate.testing.footage import *\n"
    film += "write_video(Path('pan.mp4'), moving_texture(72, 320, 180, (2.0, 0.0), seed=1), Fraction(24))"
    build.run(python, "-c", film)
    done = build.run("curate", "run", "pan.mp4", "--out", "corpus", "--engine", "inline")
    print("  curate run:", next(line for line in done.splitlines() if "complete" in line))
    for name in ("curate", "package", "models"):
        size = subprocess.run(["du", "-sm", folder / "app" / name], check=True, capture_output=True, text=True).stdout
        print(f"  /app/{name}: {size.split()[0]} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dockerfiles", nargs="*", type=Path, default=DOCKERFILES)
    parser.add_argument("--system", action="store_true", help="Run the last stage's system commands too (as root).")
    parser.add_argument("--keep", type=Path, help="Build in this folder and leave it there.")
    options = parser.parse_args()
    for path in options.dockerfiles:
        print(path.name)
        with tempfile.TemporaryDirectory(prefix="curate-image-", dir=options.keep) as scratch:
            folder = Path(scratch) if options.keep is None else options.keep / path.name
            folder.mkdir(exist_ok=True)
            build, found = Build(folder, system=options.system), stages(path)
            for stage in found:
                build.carry_out(stage, last=stage is found[-1])
            look(build, folder, found[-1])


if __name__ == "__main__":
    main()
