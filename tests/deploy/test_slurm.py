"""The Slurm script under a `srun` and a `scontrol` that run on this machine; with the real Ray once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_kit import good_video, verdicts, write_recipe
from dockerfile_kit import ROOT

pytestmark = pytest.mark.ray

SCRIPT = ROOT / "docker" / "slurm" / "curate.sbatch"
BIN = Path(sys.executable).parent

SRUN = """\
#!/bin/bash
# Refuses what Slurm would; the command runs here, once for all tasks of the step. $LOST names nodes that are gone.
echo "srun $*" >> "$CALLS"
echo "$RAY_AUTH_TOKEN" >> "$TOKENS"
refuse() { echo "srun: error: $*" >&2; exit 1; }
wanted='' tasks='' on='' not=' '
while [[ ${1:-} == --* ]]; do
    case $1 in
        --nodes=*) wanted=${1#*=} ;;
        --ntasks=*) tasks=${1#*=} ;;
        --nodelist=*) on=${1#*=} ;;
        --exclude=*) not=" ${1#*=} " ;;
        --cpus-per-task=* | --ntasks-per-node=1 | --overlap | --no-kill | --immediate=*) ;;
        *) refuse "unrecognized option $1" ;;
    esac
    shift
done
free=' '
for name in first second; do
    grep -qx "$name" "$LOST" || [[ $not == *" $name "* ]] || free+="$name "
done
[[ -z $on || $free == *" $on "* ]] || refuse "$on: Requested node configuration is not available"
read -ra names <<< "$free"
((wanted == tasks && wanted <= ${#names[@]})) || refuse "Requested node configuration is not available"
exec "$@"
"""
SCONTROL = """\
#!/bin/bash
echo "scontrol $*" >> "$CALLS"
case $1 in
    show) printf '%s\\n' first second ;;
    requeue) kill -KILL "$PPID" ;; # as Slurm ends the script of a job that it puts back
esac
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
        self.calls, self.tokens, self.lost, self.scratch = folder / "calls", folder / "tokens", folder / "lost", scratch
        self.said = folder / "said"
        for path in (self.calls, self.lost):
            path.touch()
        self.job_id = str(os.getpid())
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))},
            "PATH": f"{stubs}:{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(scratch),
            "CALLS": str(self.calls),
            "TOKENS": str(self.tokens),
            "LOST": str(self.lost),
            "SLURM_JOB_ID": self.job_id,
            "SLURM_JOB_NODELIST": "[first-second]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_MEM_PER_NODE": "1500",
            "RAY_worker_niceness": "0",
            **more,
        }

    def start(self, *args: object) -> subprocess.Popen[bytes]:
        """The script, its output in a file: a pipe would be held open by whatever it leaves."""
        with self.said.open("wb") as file:
            return subprocess.Popen(["bash", str(SCRIPT), *map(str, args)], env=self.env, stdout=file, stderr=file)

    def called(self, start: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if line.startswith(start)]

    def left(self) -> list[str]:
        """What still runs of the job: its folder is in the command line or the environment."""
        texts = [read(path / "cmdline") + read(path / "environ") for path in Path("/proc").glob("[0-9]*")]
        return [text for text in texts if str(self.scratch) in text]


def read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:  # it has ended meanwhile, or is another's
        return ""


def soon(is_so: Callable[[], bool]) -> bool:
    """Whether it comes to be so, within two minutes: a killed process is there for a moment after its parent."""
    until = time.monotonic() + 120
    while not is_so() and time.monotonic() < until:
        time.sleep(0.05)
    return is_so()


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
    process.wait()
    said = slurm.said.read_text()
    assert process.returncode == 0, said
    assert "waiting for 2 CPUs" in said
    assert verdicts(corpus) == {"pan.mp4": ("kept", "")}

    make, ask, *again, head, others, clean, also = slurm.called("srun")
    assert "--nodelist=first" in ask and ask.endswith("hostname --all-ip-addresses") and len(again) < 2
    assert "--nodelist=first" in head and "ray start --block --num-cpus=1" in head and " --head " in head
    assert "--exclude=first" in others and "--nodes=1" in others and " --address=" in others
    assert "--object-store-memory=471859200 --memory=943718400" in head
    assert make.endswith(f"mkdir -p -- {scratch}/curate-{slurm.job_id}")
    assert all(line.endswith(f"rm -rf -- {scratch}/curate-{slurm.job_id}") for line in (clean, also))
    assert sorted(re.search(r"--nodelist=(\w+)", line)[1] for line in (clean, also)) == ["first", "second"]
    assert soon(lambda: not slurm.left()), slurm.left()
    assert not list(scratch.iterdir())

    (token,) = set(slurm.tokens.read_text().split())
    assert len(token) == 64
    seen = [path for path in tmp_path.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert seen == [slurm.tokens]
    assert token not in said


STUBS = {"srun": SRUN, "scontrol": SCONTROL, "ray": ENDLESS_RAY, "curate": ENDLESS_CURATE}


def stopped(slurm: Slurm, number: int, lost: str = "") -> int:
    """Start, signal the script once the run goes on and both nodes have begun, and give the script's status."""
    process = slurm.start("bucket", "--out", "corpus")
    began = lambda: bool(slurm.called("curate")) and len(slurm.called("ray start")) == 2  # noqa: E731
    assert soon(lambda: began() or process.poll() is not None)
    slurm.lost.write_text(f"{lost}\n")
    process.send_signal(number)
    process.wait()
    assert soon(lambda: not slurm.left()), slurm.left()
    return process.returncode


def test_slurm_warns_of_the_time_limit_by_a_signal_of_its_own():
    assert "#SBATCH --signal=B:USR1@" in SCRIPT.read_text()


@pytest.mark.parametrize(
    ("number", "requeue", "comes_back"),
    [
        (signal.SIGUSR1, "", False),
        (signal.SIGUSR1, "1", True),
        (signal.SIGTERM, "", False),
        (signal.SIGTERM, "1", False),
    ],
)
def test_at_the_time_limit_it_goes_on_in_another_job_and_scancel_ends_it(
    tmp_path, scratch, number, requeue, comes_back
):
    slurm = Slurm(tmp_path, scratch, STUBS, CURATE_REQUEUE=requeue)
    status = stopped(slurm, number)
    said = slurm.said.read_text()
    assert status == (-signal.SIGKILL if comes_back else 4), said
    assert not list(scratch.iterdir()), "it was cleaned up before it was killed"
    assert ("Submit the same again" in said) == (not comes_back)
    assert slurm.called("scontrol requeue") == ([f"scontrol requeue {slurm.job_id}"] if comes_back else [])
    (line,) = slurm.called("curate")
    assert line.startswith("curate run bucket --out corpus --address ") and line.endswith("--wait-for CPU=2")


@pytest.mark.parametrize("lost", ["first", "second"])
def test_what_lies_on_a_node_is_deleted_though_another_is_lost(tmp_path, scratch, lost):
    slurm = Slurm(tmp_path, scratch, STUBS)
    assert stopped(slurm, signal.SIGTERM, lost) == 4, slurm.said.read_text()
    assert not list(scratch.iterdir())
    assert f"srun: error: {lost}" in slurm.said.read_text()


def test_memory_for_each_cpu_is_memory_of_the_job(tmp_path, scratch):
    slurm = Slurm(tmp_path, scratch, STUBS, SLURM_CPUS_PER_TASK="3", SLURM_MEM_PER_CPU="500")
    del slurm.env["SLURM_MEM_PER_NODE"]
    stopped(slurm, signal.SIGTERM)
    starts = slurm.called("ray start")
    assert len(starts) == 2
    assert all("--num-cpus=3" in line and "=471859200 --memory=943718400" in line for line in starts)


def test_a_head_that_does_not_start_ends_the_job(tmp_path, scratch):
    slurm = Slurm(tmp_path, scratch, STUBS, RAY_IS_ILL="1")
    process = slurm.start("bucket", "--out", "corpus")
    process.wait()
    assert (process.returncode, slurm.said.read_text()) == (1, "Ray did not start on first\n")
