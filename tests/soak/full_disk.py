"""A disk that is really full: a job on a file system that is too small, again once it is larger. Needs root (mount)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cli_kit import curate, files_below, tables, verdicts, write_recipe
from soak.kill_kit import make_bucket


def main() -> None:
    """One size after the other."""
    if os.geteuid():
        print("not root: a small file system cannot be mounted, nothing was tried")
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder, disk = Path(name), Path(name) / "disk"
        bucket, recipe, near = make_bucket(folder / "bucket", 12), write_recipe(folder), folder / "corpus"
        assert curate("run", bucket, "--recipe", recipe, "--out", near, "--engine", "inline", "--no-report").status == 0
        disk.mkdir()
        args = ["run", bucket, "--recipe", recipe, "--out", disk / "corpus", "--engine", "inline", "--no-report"]
        for size_kib in (64, 256, 480, 600, 700, 800):
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "none", disk], check=True)
            try:
                full = curate(*args)
                assert full.status == 1
                assert "no space left on the device" in full.err
                assert not list(disk.rglob("*.tmp"))
                subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
                assert curate(*args).status == 0
                assert tables(disk / "corpus") == tables(near)
                assert verdicts(disk / "corpus") == verdicts(near)
                assert files_below(disk / "corpus/shards") == files_below(near / "shards")
                assert curate("verify", disk / "corpus", "--deep").status == 0
            finally:
                subprocess.run(["umount", disk], check=True)
            print(f"{size_kib} KiB: {' '.join(full.err.split())[-90:]}", flush=True)


if __name__ == "__main__":
    main()
