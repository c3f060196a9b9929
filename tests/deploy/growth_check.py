"""A run on a cluster that grows: Ray's real autoscaler with nodes that are processes of this machine.

    python tests/deploy/growth_check.py

The head takes no work, as in docker/kuberay; one node of CPUs may come, and one that says it has a GPU. `curate run
--wait-for` must get both, run on them, and give them back. Takes a minute or two; Kubernetes is not a part of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cli_kit import good_video, write_recipe

HEAD_ID = "f" * 51 + "00000"
PORT = 23790
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
IDLE_MINUTES = 0.1
NODES = {
    "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
    "cpu": {"resources": {"CPU": 2, "object_store_memory": 10**8}, "node_config": {}, "max_workers": 2},
    "gpu": {"resources": {"CPU": 1, "GPU": 1, "object_store_memory": 10**8}, "node_config": {}, "max_workers": 2},
}
CONFIG = {
    "cluster_name": "growing",
    "max_workers": 4,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": IDLE_MINUTES,
    "provider": {"type": "external", "module": PROVIDER, "head_node_id": HEAD_ID, "launch_multiple": True},
    "auth": {},
    "available_node_types": NODES,
    "head_node_type": "ray.head.default",
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "rsync_exclude": [],
    "rsync_filter": [],
    **{f"{when}_commands": [] for when in ("initialization", "setup", "head_setup", "worker_setup")},
    **{f"{who}_start_ray_commands": [] for who in ("head", "worker")},
}
ALIVE = """
import json, sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
kinds = ("CPU", "GPU")
print("NODES", json.dumps([{k: n["Resources"].get(k, 0) for k in kinds} for n in ray.nodes() if n["Alive"]]))
"""


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Address and environment of a head with an autoscaler; ended with all its nodes."""
    host = subprocess.run(["hostname", "--ip-address"], check=True, capture_output=True, text=True).stdout.split()[0]
    address = f"{host}:{PORT}"
    CONFIG["provider"]["gcs_address"] = address
    (folder / "autoscaler.json").write_text(json.dumps(CONFIG))
    env = {**os.environ, "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1"}
    env |= {"RAY_CLOUD_INSTANCE_ID": HEAD_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "RAY_AUTH_MODE": "disabled"}
    bin_folder = Path(sys.executable).parent
    command = [bin_folder / "ray", "start", "--head", "--block", "--num-cpus=0", f"--port={PORT}"]
    command += [f"--node-ip-address={host}", f"--temp-dir={folder}", "--object-store-memory=100000000"]
    command += [f"--autoscaling-config={folder / 'autoscaler.json'}", "--include-dashboard=false"]
    head = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    clean = {name: value for name, value in env.items() if "INSTANCE_ID" not in name and "OVERRIDE" not in name}
    try:
        asked = [bin_folder / "ray", "health-check", "--address", address]
        while subprocess.run(asked, check=False, capture_output=True).returncode:
            assert head.poll() is None, "Ray did not start"
            time.sleep(1)
        yield address, clean
    finally:
        head.terminate()
        head.wait()


def alive(address: str, env: dict[str, str]) -> list[dict[str, float]]:
    done = subprocess.run([sys.executable, "-c", ALIVE, address], env=env, check=True, capture_output=True, text=True)
    (found,) = [line.removeprefix("NODES ") for line in done.stdout.splitlines() if line.startswith("NODES ")]
    return json.loads(found)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="grow", dir="/tmp") as scratch:
        folder = Path(scratch)
        film, recipe = good_video(folder / "pan.mp4"), write_recipe(folder)
        with cluster(folder) as (address, env):
            print("before:", alive(address, env))
            began = time.monotonic()
            command = [sys.executable, "-m", "curate", "run", film, "--out", folder / "corpus", "--recipe", recipe]
            command += ["--no-report", "--address", address, "--wait-for", "CPU=3,GPU=1"]
            process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            most: list[dict[str, float]] = []
            while process.poll() is None:
                now = alive(address, env)
                most = max(most, now, key=len)
            out = process.communicate()[0]
            assert process.returncode == 0, out
            print("meanwhile:", most)
            print(f"{time.monotonic() - began:.0f} s:", next(line for line in out.splitlines() if "complete" in line))
            assert sum(node["GPU"] for node in most) == 1 and sum(node["CPU"] for node in most) == 3
            left = time.monotonic() + 180
            while len(alive(address, env)) > 1:
                assert time.monotonic() < left, "nodes were not given back"
                time.sleep(2)
            print("afterwards:", alive(address, env))


if __name__ == "__main__":
    main()
