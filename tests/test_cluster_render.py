"""The plan for Slurm and Kubernetes: what schedulers take, every process once, no secret."""

import copy
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
from cluster_plans import SEEDLING, gpu_plan, named, objects, on_kubernetes, on_slurm, some_plans
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from schedulers import check_object, lint, sbatch_components, templates

from mmzero_async.config import Config, EngineConfig, from_json
from mmzero_async.engines.errors import EngineUnavailable
from mmzero_async.engines.launch import Distribution, Placement, launch
from mmzero_async.ops.cluster import plan as plans
from mmzero_async.ops.cluster.commands import read
from mmzero_async.ops.cluster.inventory import Host, Inventory, InventoryError, Roles
from mmzero_async.ops.cluster.plan import Plan
from mmzero_async.ops.cluster.render.places import scheduled

EXAMPLE = Path(__file__).parent.parent / "docs" / "cluster.example.toml"
GOLDEN = Path(__file__).parent / "golden"
SCRIPT = "mmzero-demo.sbatch"


# --- any inventory --------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some_plans(), st.sampled_from([1, 2, 8]))
def test_on_kubernetes_every_process_stands_once_and_every_object_is_valid(plan, gpus_per_node):
    found = objects(on_kubernetes(plan, gpus_per_node))
    for each in found:
        check_object(each)
    assert len({(o["kind"], o["metadata"]["name"]) for o in found}) == len(found)
    stand = []
    for each in found:
        names = each["metadata"].get("annotations", {}).get("mmzero-async/processes", "").split()
        stand += names
        if each["kind"] == "Deployment":
            assert each["spec"]["replicas"] == len(names)
        for template in templates(each):  # a selector that misses its own pods is refused
            chosen = each["spec"].get("selector", {}).get("matchLabels", {})
            assert chosen.items() <= template["metadata"]["labels"].items()
            assert all(len(v) <= 63 for v in template["metadata"]["labels"].values())
    assert Counter(stand) == Counter(process.name for process in scheduled(plan).processes)
    gpus = [
        int(c.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0))
        * (each["spec"].get("leaderWorkerTemplate", {}).get("size", 2) - 1 if i else 1)
        for each in found
        for i, template in enumerate(templates(each))
        for c in template["spec"]["containers"]
    ]
    assert sum(gpus) == sum(len(process.gpus) for process in plan.processes)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some_plans(), st.sampled_from([1, 2, 8]))
def test_on_slurm_every_process_stands_once_and_the_script_is_one_for_sbatch(plan, gpus_per_node):
    rendering = on_slurm(plan, gpus_per_node)
    [script] = [text for name, text in rendering.files.items() if name.endswith(".sbatch")]
    components = sbatch_components(script)
    plan = scheduled(plan)
    busy = [host for host in plan.hosts if plan.on(host)]
    assert len(components) == len(busy)
    syntax = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert syntax.returncode == 0, syntax.stderr
    steps = Counter(re.findall(r"^ *(?:keep|vital) ('[^']*'|\S+) srun", script, re.MULTILINE))
    expected = [*(process.name for process in plan.processes), "conductor"]
    assert Counter({shlex.split(k)[0]: v for k, v in steps.items()}) == Counter(expected)
    assert from_json(rendering.files["config.json"]).run == plan.config.run


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some_plans())
def test_shellcheck_has_nothing_to_say_of_a_script(tmp_path_factory, plan):
    [(name, script)] = [i for i in on_slurm(plan).files.items() if i[0].endswith(".sbatch")]
    path = tmp_path_factory.mktemp("script") / name
    path.write_text(script)
    # What is quoted may hold a backslash or a dollar, and is meant so.
    assert lint("shellcheck", "--shell=bash", "--exclude=SC1003,SC2016", path) == ""


# --- validators that can fail ---------------------------------------------------------------------


def test_the_validators_refuse_what_is_wrong():
    found = objects(on_kubernetes(read(EXAMPLE)[1]))
    wrong = copy.deepcopy(named(found, "StatefulSet", "log"))
    wrong["spec"]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check_object(wrong)
    many = objects(on_kubernetes(gpu_plan(4), gpus_per_node=2))
    wrong = copy.deepcopy(named(many, "LeaderWorkerSet", "engine"))
    wrong["spec"]["startupPolicy"] = "Soon"
    with pytest.raises(jsonschema.ValidationError):
        check_object(wrong)
    wrong = copy.deepcopy(named(many, "LeaderWorkerSet", "engine"))
    wrong["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["container"] = []
    with pytest.raises(jsonschema.ValidationError):
        check_object(wrong)
    script = on_slurm(read(EXAMPLE)[1]).files[SCRIPT]
    for line in ("#SBATCH --nodez=1", "#SBATCH --time=soon", "#SBATCH --requeue=1"):
        with pytest.raises(AssertionError):
            sbatch_components(script.replace("#SBATCH --requeue", line))
    with pytest.raises(AssertionError, match="reads no more"):
        sbatch_components(script + "#SBATCH --nodes=1\n")


# --- what the plan means there --------------------------------------------------------------------


def test_the_log_is_one_pod_with_a_claim_where_two_processes_are_not_both_number_one():
    found = objects(on_kubernetes(read(EXAMPLE)[1]))
    log = named(found, "StatefulSet", "log")
    pod = log["spec"]["template"]["spec"]
    assert log["spec"]["replicas"] == 1 and pod["shareProcessNamespace"] is True
    assert pod["securityContext"]["fsGroup"] and pod["terminationGracePeriodSeconds"] >= 30
    [claim] = log["spec"]["volumeClaimTemplates"]
    for container in pod["containers"]:
        assert {"name": "log", "mountPath": "/var/lib/mmzero/demo/log"} in container["volumeMounts"]
        assert container["readinessProbe"]["tcpSocket"]["port"] in (5701, 5702)
    assert claim["metadata"]["name"] == "log"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    service = named(found, "Service", "log")
    assert service["spec"]["clusterIP"] == "None"
    assert log["spec"]["serviceName"] == service["metadata"]["name"]


def test_all_pods_have_one_configuration_that_listens_everywhere_and_reach_the_services():
    _, plan = read(EXAMPLE)
    found = objects(on_kubernetes(plan))
    config = from_json(named(found, "ConfigMap", "config")["data"]["config.json"])
    assert (config.log.host, config.engine.host) == ("0.0.0.0", "0.0.0.0")
    assert config.log.keys == "/var/lib/mmzero/demo/keys"
    commands = [
        container["command"]
        for each in found
        for template in templates(each)
        for container in template["spec"]["containers"]
    ]
    text = json.dumps(commands)
    assert not re.search(r"10\.0\.0\.\d+|/opt/mmzero-async|/home/trainer", text)
    for command in commands:
        if "--log-url" in command:
            at = command[command.index("--log-url") + 1]
            assert at == "tcp://mmzero-demo-log-0.mmzero-demo-log:5701"
        if "--engine-url" in command:
            at = command[command.index("--engine-url") + 1]
            assert at == "http://mmzero-demo-engine:8701"
    learner = named(found, "StatefulSet", "learner")["spec"]["template"]["spec"]["containers"][0]
    assert "--read-url" in learner["command"]  # beside the log in the inventory, not here


def test_a_worker_writes_under_its_hosts_key_and_no_two_under_one_name():
    found = objects(on_kubernetes(read(EXAMPLE)[1]))
    for deployment in found:
        host = deployment["metadata"]["labels"].get("mmzero-async/host", "")
        if deployment["kind"] != "Deployment" or "engine" in deployment["metadata"]["name"]:
            continue
        pod = deployment["spec"]["template"]
        host = pod["metadata"]["labels"]["mmzero-async/host"]
        [container] = pod["spec"]["containers"]
        command = container["command"]
        assert command[command.index("--worker") + 1] == f"{host}.$(POD_NAME)"
        assert command[command.index("--key") + 1].endswith(f"/keys/{host}.key_secret")
        assert container["env"][0]["name"] == "POD_NAME"


def test_an_engine_on_one_machine_is_a_deployment_and_one_on_several_a_set_of_leader_and_workers():
    one = named(objects(on_kubernetes(gpu_plan(2))), "Deployment", "engine")
    [container] = one["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert one["spec"]["strategy"]["type"] == "Recreate"
    assert "CUDA_VISIBLE_DEVICES" not in {each["name"] for each in container["env"]}
    found = objects(on_kubernetes(gpu_plan(16)))
    several = named(found, "LeaderWorkerSet", "engine")
    inner = several["spec"]["leaderWorkerTemplate"]
    assert inner["size"] == 2
    leader, follower = (
        inner[name]["spec"]["containers"][0] for name in ("leaderTemplate", "workerTemplate")
    )
    for container in (leader, follower):
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
        assert container["command"][-6:] == [
            *("--nodes", "2", "--node-rank", "$(LWS_WORKER_INDEX)"),
            *("--head", "$(LWS_LEADER_ADDRESS)"),
        ]
    assert "readinessProbe" in leader and "readinessProbe" not in follower
    selector = named(found, "Service", "engine")["spec"]["selector"]
    assert selector.items() <= inner["leaderTemplate"]["metadata"]["labels"].items()
    assert not selector.items() <= inner["workerTemplate"]["metadata"]["labels"].items()


def test_a_claim_that_several_machines_write_is_there_only_where_one_is_needed():
    def shared(plan: Plan) -> set[str]:
        return {
            each["metadata"]["name"]
            for each in objects(on_kubernetes(plan))
            if each["kind"] == "PersistentVolumeClaim"
            and each["spec"]["accessModes"] == ["ReadWriteMany"]
        }

    assert shared(gpu_plan(2, learner=1)) == set()
    assert shared(gpu_plan(16, learner=1)) == {"mmzero-demo-policies"}
    assert shared(gpu_plan(1, learner=1, apart=False)) == {"mmzero-demo-checkpoints"}


@pytest.mark.parametrize("rendered", [on_kubernetes, on_slurm])
def test_gpus_that_vllm_could_not_lie_on_so_are_refused(rendered):
    with pytest.raises(InventoryError, match="only tensor_parallel may cross machines"):
        rendered(gpu_plan(16, tensor=8))
    with pytest.raises(InventoryError, match="a learner lies on one"):
        rendered(gpu_plan(1, learner=9))


def test_a_host_of_a_slurm_job_is_a_component_the_logs_first():
    script = on_slurm(gpu_plan(16, learner=1)).files[SCRIPT]
    log, engine, learner = sbatch_components(script)
    assert "--requeue" in log and log["--open-mode"] == "append"
    assert log["--ntasks-per-node"] == "8"  # 5 workers, 2 servers and the conductor
    assert (engine["--nodes"], engine["--gpus-per-node"]) == ("2", "8")
    assert (learner["--nodes"], learner["--gpus-per-node"]) == ("1", "1")
    assert "srun --het-group=1 --nodes=2 --ntasks=2" in script
    assert 'tcp://"$log_host":5701' in script and 'http://"$engine_host":8701' in script
    assert "10.0.0." not in script


@pytest.mark.parametrize("on", [on_kubernetes, on_slurm])
def test_engines_on_several_hosts_are_refused_in_words(on):
    _, plan = read(EXAMPLE)
    several = structs.replace(plan, engine_hosts=("beta", "gamma"))
    with pytest.raises(InventoryError, match="engines on beta, gamma: only `mmzero run-cluster`"):
        on(several)


# --- the command, its files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "files"),
    [("kubernetes", ["core.yaml", "workers.yaml"]), ("slurm", [SCRIPT, "config.json"])],
)
def test_the_example_is_written_as_it_always_was(tmp_path, monkeypatch, scheduler, files):
    """Golden files: what changes here changes for everybody who deploys."""
    text = EXAMPLE.read_text().replace("~/run-keys", str(tmp_path / "keys"))
    (tmp_path / "cluster.toml").write_text(text)
    (tmp_path / "keys").mkdir()
    secret = "THE-SECRET-ITSELF-0123456789"
    for name in ("alpha", "server", "local", "engine"):
        (tmp_path / "keys" / f"{name}.key_secret").write_text(secret)
    command = [sys.executable, "-m", "mmzero_async.ops.cli", "cluster", "render"]
    command += [str(tmp_path / "cluster.toml"), "--for", scheduler, "--out", str(tmp_path / "o")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == sorted(files)
    written = {name: (tmp_path / "o" / name).read_text() for name in files}
    assert secret not in "".join(written.values()) + ran.stdout
    assert "mmzero keys new" in ran.stdout
    if scheduler == "kubernetes":
        assert "kubectl create secret generic mmzero-demo-keys-gamma" in ran.stdout
        assert f"{tmp_path}/keys/gamma.key_secret" in ran.stdout
    for name, found in written.items():
        if name == "config.json":
            continue
        plain = re.sub(r'("?config.json"?: ).*(?:\n    .*)*', r"\1...", found)
        plain = plain.replace(str(tmp_path / "keys"), "/KEYS")
        assert plain == (GOLDEN / f"render_{name}").read_text(), f"{name} is otherwise"


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "mmzero_async.ops.cli", "cluster", "render", str(EXAMPLE)]
    command += ["--for", "slurm", "--out", str(tmp_path / "file")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 1 and "choose a folder of yours" in ran.stderr


def test_names_stay_short_enough_for_a_worker():
    long = Inventory(
        run="R" * 40,
        keys="/k",
        python="/p",
        path="/r",
        hosts={
            "H" * 40: Host(
                address="10.0.0.1",
                roles=Roles(log=1, engine=1, learner=1, proposer=1, coder=1, renderer=1, solver=1),
            )
        },
    )
    config: Config = SEEDLING
    for each in objects(on_kubernetes(plans.make(long, config))):
        check_object(each)
        if each["kind"] == "Deployment":  # a pod's name has 17 characters more
            assert len("H" * 40 + "." + each["metadata"]["name"]) + 17 <= 100


def test_on_several_machines_rank_0_serves_and_the_others_only_compute():
    def command(rank: int, cpu: bool = False) -> str:
        placement = Placement(tensor_parallel=16, nodes=2, node_rank=rank, head="a")
        vllm = Distribution("vllm", "0.33", cpu=cpu)
        at = {"host": "0.0.0.0", "port": 1, "distribution": vllm}
        return " ".join(launch(Path("/m"), EngineConfig(), placement=placement, **at).command)

    for rank in (0, 1):
        assert f"--nnodes 2 --node-rank {rank} --master-addr a" in command(rank)
    assert "--headless" not in command(0) and "api_server" in command(0)
    assert command(1).endswith("--headless") and "cli.main serve" in command(1)
    with pytest.raises(EngineUnavailable, match="needs vLLM for GPUs"):
        command(0, cpu=True)
