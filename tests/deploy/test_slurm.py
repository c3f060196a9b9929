"""The Slurm script under a `srun` and a `scontrol` that run on this machine; with the real Ray once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from cli_kit import good_video, verdicts, write_recipe
from dockerfile_kit import ROOT

pytestmark = pytest.mark.ray

SCRIPT = ROOT / "docker" / "slurm" / "curate.sbatch"
BIN = Path(sys.executable).parent

SRUN = """\
#!/bin/bash
# Options are noted and dropped; the command runs here, as often as one task does.
echo "srun $*" >> "$CALLS"
echo "$RAY_AUTH_TOKEN" >> "$TOKENS"
while [[ ${1:-} == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """\
#!/bin/bash
echo "scontrol $*" >> "$CALLS"
[[ $1 == show ]] && printf '%s\\n' first second
exit 0
"""
ENDLESS_RAY = """\
#!/bin/bash
echo "ray $*" >> "$CALLS"
[[ $1 == health-check ]] && exit "${RAY_IS_ILL:-0}"
[[ -n ${RAY_IS_ILL:-} ]] || exec sleep 600
"""
ENDLESS_CURATE = """\
#!/bin/bash
trap 'kill %1; exit 4' TERM
echo "curate $*" >> "$CALLS"
sleep 600 &
wait
"""


class Slurm:
    """A job of two nodes, which are both this machine."""

    def __init__(self, folder: Path, scratch: Path, commands: dict[str, str], **more: str) -> None:
        stubs = folder / "bin"
        stubs.mkdir()
        for name, text in commands.items():
            (stubs / name).write_text(text)
            (stubs / name).chmod(0o755)
        self.calls, self.tokens, self.scratch = folder / "calls", folder / "tokens", scratch
        self.calls.touch()
        self.job_id = str(os.getpid())
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))},
            "PATH": f"{stubs}:{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(scratch),
            "CALLS": str(self.calls),
            "TOKENS": str(self.tokens),
            "SLURM_JOB_ID": self.job_id,
            "SLURM_JOB_NODELIST": "[first-second]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_MEM_PER_NODE": "1500",
            "RAY_worker_niceness": "0",
            **more,
        }

    def start(self, *args: object) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(["bash", str(SCRIPT), *map(str, args)], env=self.env, **pipes)

    def called(self, start: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if line.startswith(start)]

    def left(self) -> list[str]:
        """What still runs of the job, by the folder or the name that its command lines hold."""
        lines = [path.read_bytes().decode(errors="replace") for path in command_lines()]
        return [line for line in lines if str(self.scratch) in line]


def command_lines() -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if is_readable(path)]


def is_readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:  # it has ended meanwhile
        return False


@pytest.fixture
def scratch():
    """A short name, for Ray's sockets lie there."""
    with tempfile.TemporaryDirectory(prefix="job", dir="/tmp") as folder:
        yield Path(folder)


def test_a_job_runs_over_two_nodes_and_leaves_nothing(tmp_path, scratch):
    slurm = Slurm(tmp_path, scratch, {"srun": SRUN, "scontrol": SCONTROL})
    film, corpus = good_video(tmp_path / "pan.mp4"), tmp_path / "corpus"
    args = ("--out", corpus, "--recipe", write_recipe(tmp_path), "--no-report")
    process = slurm.start(film, *args)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert "waiting for 2 CPUs" in out
    assert verdicts(corpus) == {"pan.mp4": ("kept", "")}

    make, ask, *again, head, others, clean = slurm.called("srun")
    assert "--nodelist=first" in ask and ask.endswith("hostname --all-ip-addresses") and len(again) < 2
    assert "--nodelist=first" in head and "ray start --block --num-cpus=1" in head and " --head " in head
    assert "--exclude=first" in others and "--nodes=1" in others and " --address=" in others
    assert "--object-store-memory=471859200 --memory=943718400" in head
    assert make.endswith(f"mkdir -p -- {scratch}/curate-{slurm.job_id}")
    assert clean.endswith(f"rm -rf -- {scratch}/curate-{slurm.job_id}")
    assert not slurm.left()
    assert not list(scratch.iterdir())

    (token,) = set(slurm.tokens.read_text().split())
    assert len(token) == 64
    seen = [path for path in tmp_path.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert seen == [slurm.tokens]
    assert token not in out + err


def stopped(slurm: Slurm) -> tuple[int, str]:
    """Start, send what Slurm sends before the time limit, and give status and output."""
    process = slurm.start("bucket", "--out", "corpus")
    while not slurm.called("curate"):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    return process.returncode, out + err


@pytest.mark.parametrize("requeue", ["", "1"])
def test_before_the_time_limit_the_run_is_stopped_and_goes_on_in_another_job(tmp_path, scratch, requeue):
    commands = {"srun": SRUN, "scontrol": SCONTROL, "ray": ENDLESS_RAY, "curate": ENDLESS_CURATE}
    slurm = Slurm(tmp_path, scratch, commands, CURATE_REQUEUE=requeue)
    status, said = stopped(slurm)
    assert status == 4, said
    assert ("Submit the same again" in said) == (not requeue)
    assert slurm.called("scontrol requeue") == ([f"scontrol requeue {slurm.job_id}"] if requeue else [])
    (line,) = slurm.called("curate")
    assert line.startswith("curate run bucket --out corpus --address ") and line.endswith("--wait-for CPU=2")


def test_a_head_that_does_not_start_ends_the_job(tmp_path, scratch):
    commands = {"srun": SRUN, "scontrol": SCONTROL, "ray": ENDLESS_RAY, "curate": ENDLESS_CURATE}
    process = Slurm(tmp_path, scratch, commands, RAY_IS_ILL="1").start("bucket", "--out", "corpus")
    _, err = process.communicate()
    assert (process.returncode, err) == (1, "Ray did not start on first\n")
