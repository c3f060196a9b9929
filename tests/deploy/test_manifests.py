"""The KubeRay manifests: right by the schemas, and sizes that fit how a run is packed."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml
from dockerfile_kit import ROOT

from curate.cli.main import app
from curate.engine.forward import BUNDLE_BYTES
from curate.engine.pack import pack
from curate.engine.room import Room
from curate.recipe import build, load_recipe

KUBERAY = ROOT / "docker" / "kuberay"
SCHEMA = json.loads((ROOT / "tests" / "data" / "kuberay-v1.json").read_text())
MONITOR_SCHEMA = json.loads((ROOT / "tests" / "deploy" / "podmonitor-v1.json").read_text())
KUBERNETES = "1.37"
GIB = 1 << 30


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERAY / name).read_text(encoding="utf-8")))


(CLUSTER,), (JOB,), (MONITOR,) = map(documents, ("raycluster.yaml", "rayjob.yaml", "podmonitor.yaml"))
GROUPS = CLUSTER["spec"]["workerGroupSpecs"]
CPU, GPU = GROUPS
ALL = {f"{name}:{doc['kind']}": doc for name in sorted(p.name for p in KUBERAY.iterdir()) for doc in documents(name)}


def check(document: dict[str, Any]) -> None:
    """ValidationError when Kubernetes, KubeRay or Prometheus' operator would not take the document."""
    if document["kind"] == "PodMonitor":
        jsonschema.validate(document, MONITOR_SCHEMA)
        return
    if document["apiVersion"] != "ray.io/v1":
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    jsonschema.validate(document, SCHEMA)
    for template in templates(document):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def templates(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = document["spec"]
    spec = spec.get("rayClusterSpec", spec)
    if "headGroupSpec" in spec:
        yield from (group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]))
    elif "template" in spec:
        yield spec["template"]


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    return only


@pytest.mark.parametrize("name", ALL)
def test_manifests_are_right_by_the_schemas(name):
    check(ALL[name])


DAMAGE = {
    "a field that a group has not": lambda spec: spec["workerGroupSpecs"][0].update(maxReplica=3),
    "a number for a text": lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
    "a mode that is none": lambda spec: spec["authOptions"].update(mode="tokens"),
    "a group without its most": lambda spec: spec["workerGroupSpecs"][1].pop("maxReplicas"),
    "a field that a pod has not": lambda spec: spec["headGroupSpec"]["template"]["spec"].update(containerz=[]),
    "a container without a name": lambda spec: container(spec["workerGroupSpecs"][1]).pop("name"),
    "a volume of no kind": lambda spec: spec["headGroupSpec"]["template"]["spec"]["volumes"][0].update(empty={}),
    "a mount without a path": lambda spec: container(spec["headGroupSpec"])["volumeMounts"][0].pop("mountPath"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_is_found(damage):
    document = copy.deepcopy(CLUSTER)
    DAMAGE[damage](document["spec"])
    with pytest.raises(jsonschema.ValidationError):
        check(document)


def test_the_job_runs_on_the_cluster_that_is_described_beside_it():
    assert JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]
    pinned = (ROOT / "constraints.txt").read_text().split()
    assert f"ray=={CLUSTER['spec']['rayVersion']}" in pinned
    tags = " ".join((ROOT / "docker" / name).read_text().split("ARG")[0] for name in ("Dockerfile", "Dockerfile.cuda"))
    for document in ALL.values():
        for template in templates(document):
            assert all(f"--tag {each['image']} " in tags for each in template["spec"]["containers"])


def test_the_job_is_a_command_that_there_is_and_its_nodes_may_come():
    program, command, *args = shlex.split(JOB["spec"]["entrypoint"])
    assert (program, command) == ("curate", "run")
    with typer.main.get_command(app).commands[command].make_context(command, args) as context:
        given = context.params
    assert given["address"] == "auto"
    load_recipe(given["recipe"])
    ports = {
        port["name"]: port["containerPort"]
        for port in container(JOB["spec"]["rayClusterSpec"]["headGroupSpec"])["ports"]
    }
    assert (given["metrics_host"], given["metrics_port"]) == ("0.0.0.0", ports["curate-metrics"])
    assert given["log_json"] == "-"
    assert "activeDeadlineSeconds" not in JOB["spec"], "a run may take weeks"
    room = Room.parse(given["wait_for"])
    most_gpus = GPU["maxReplicas"] * int(GPU["rayStartParams"]["num-gpus"])
    most_cpus = sum(group["maxReplicas"] * int(group["rayStartParams"]["num-cpus"]) for group in GROUPS)
    assert 0 < room.gpus <= most_gpus and 0 < room.cpus <= most_cpus


def test_prometheus_finds_ray_on_each_node_and_the_run_on_the_head():
    selector = MONITOR["spec"]["selector"]["matchLabels"]
    asked = [endpoint["port"] for endpoint in MONITOR["spec"]["podMetricsEndpoints"]]
    head, *workers = templates(CLUSTER)
    for template in (head, *workers):
        assert template["metadata"]["labels"].items() >= {("app", selector["app"])}
    offered = [[port["name"] for port in template["spec"]["containers"][0]["ports"]] for template in (head, *workers)]
    assert [[name for name in names if name in asked] for names in offered] == [asked, ["metrics"], ["metrics"]]
    assert not {*selector} - {"app", "ray.io/is-ray-node"}, "what KubeRay and the templates say of a pod"


@pytest.mark.parametrize("damage", [{"ports": "metrics"}, {"interval": "often"}, {"port": 9102}])
def test_a_monitor_that_is_wrong_is_found(damage):
    document = copy.deepcopy(MONITOR)
    document["spec"]["podMetricsEndpoints"][0].update(damage)
    with pytest.raises(jsonschema.ValidationError):
        check(document)


def test_groups_grow_from_nothing_but_one_node_of_cpus():
    assert CLUSTER["spec"]["enableInTreeAutoscaling"]
    assert [(group["groupName"], group["minReplicas"]) for group in GROUPS] == [("cpu", 1), ("gpu", 0)]
    assert all(group["minReplicas"] == group["replicas"] < group["maxReplicas"] for group in GROUPS)
    assert container(GPU)["resources"]["limits"]["nvidia.com/gpu"] == GPU["rayStartParams"]["num-gpus"]


@pytest.mark.parametrize("group", [CLUSTER["spec"]["headGroupSpec"], *GROUPS], ids=["head", "cpu", "gpu"])
def test_a_node_has_what_ray_is_told_that_it_has(group):
    given, told = container(group)["resources"], group["rayStartParams"]
    assert given["requests"]["memory"] == given["limits"]["memory"]
    assert told["num-cpus"] in {"0", given["requests"]["cpu"]}
    memory, store = int(told["memory"]), int(told["object-store-memory"])
    assert memory + store <= gib(given["limits"]["memory"]) - 3 * GIB, "Ray's own processes take some, too"
    volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container(group)["volumeMounts"]}
    assert len(mounts) == len(volumes)
    shared = mounts["/dev/shm"]["emptyDir"]
    assert shared["medium"] == "Memory" and store < gib(shared["sizeLimit"])
    assert mounts["/tmp"]["emptyDir"] == {"sizeLimit": given["limits"]["ephemeral-storage"]}
    assert mounts[env(group)["CURATE_MODELS"]]["persistentVolumeClaim"]["claimName"] == claim()


def claim() -> str:
    return next(doc["metadata"]["name"] for doc in ALL.values() if doc["kind"] == "PersistentVolumeClaim")


def env(group: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container(group)["env"]}


def gib(text: str) -> int:
    assert text.endswith("Gi")
    return int(text.removesuffix("Gi")) * GIB


def node(group: dict[str, Any]) -> dict[str, float]:
    names = {"num-cpus": "CPU", "num-gpus": "GPU", "memory": "memory", "object-store-memory": "object_store_memory"}
    return {names[key]: float(value) for key, value in group["rayStartParams"].items() if key in names}


@pytest.mark.parametrize(("n_cpu", "n_gpu"), [(0, 1), (1, 1), (4, 2), (8, 4)])
def test_cores_and_not_memory_say_how_many_workers_there_are(n_cpu, n_gpu):
    nodes = [node(CLUSTER["spec"]["headGroupSpec"]), *[node(CPU)] * n_cpu, *[node(GPU)] * n_gpu]
    pipe = build(load_recipe("svd"))
    packing = pack(pipe, nodes, 10_000, single=False)
    assert packing == pack(pipe, [{**each, "memory": 1e15} for each in nodes], 10_000, single=False)
    assert packing.bundle_bytes == BUNDLE_BYTES
    assert sum(pool.workers * pool.gpus for pool in packing.pools) >= 0.95 * n_gpu
    cores = sum(each["CPU"] for each in nodes) - sum(pool.workers * pool.cpus for pool in packing.pools)
    assert packing.decoders >= 0.8 * cores


def test_pods_run_as_nobody_special_and_keys_come_from_secrets():
    for document in ALL.values():
        for template in templates(document):
            user = template["spec"]["securityContext"]
            assert user["runAsNonRoot"] and user["runAsUser"] == user["fsGroup"] == 1000
            for each in template["spec"]["containers"]:
                assert not each["securityContext"]["allowPrivilegeEscalation"]
                assert {entry["name"] for entry in each["env"]} == {"CURATE_MODELS"}
                assert [list(source) for source in each["envFrom"]] == [["secretRef"]]
