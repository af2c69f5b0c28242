"""The plan for Kubernetes: one YAML file for the core of a run, one for its workers.

A host of the inventory becomes a group of pods that share its key, environment and paths; addresses
become services. Every object that runs processes of the plan names them in the annotation
`mmzero-async/processes`. No file holds a key: the steps make the Secrets from files.
"""

import json
from collections.abc import Iterator, Sequence

import yaml
from msgspec.structs import replace

from mmzero_async.ops.cluster.inventory import STAGES, InventoryError
from mmzero_async.ops.cluster.plan import Plan, Process
from mmzero_async.ops.cluster.render.addresses import command_of, engine_url, server_url
from mmzero_async.ops.cluster.render.places import (
    CONDUCTOR,
    Rendering,
    environment,
    key_steps,
    moved,
    nodes_of,
    one_engine,
    scheduled,
    secrets,
)
from mmzero_async.ops.cluster.render.pods import (
    PYTHON,
    Cluster,
    Tree,
    claim,
    claimed,
    container,
    image,
    job,
    labels,
    metadata,
    name_of,
    pod,
    run_dir,
    shared_memory,
)

CORE, WORKERS = "core.yaml", "workers.yaml"
MAX_CONFIG = 900_000  # bytes; a ConfigMap has room for one MiB in all
_WORKER_CPU = "500m"  # requested; a renderer and a solver at rest need less


def render(plan: Plan, cluster: Cluster, keys: str) -> Rendering:
    """The files, and the steps that make secrets and apply them; `keys` is the folder of keys as
    the shell reads it. InventoryError for a plan that cannot lie on Kubernetes."""
    one_engine(plan)
    plan = scheduled(plan)
    core = [*_core(plan, cluster), _conductor(plan, cluster)]
    workers = list(_stages(plan, cluster))
    return Rendering(files={CORE: _text(core), WORKERS: _text(workers)}, steps=_steps(plan, keys))


def _text(documents: Sequence[Tree]) -> str:
    # Through JSON: what stands twice would else be written once, and referred to.
    plain = json.loads(json.dumps(documents))
    return str(yaml.safe_dump_all(plain, sort_keys=False, width=100, explicit_start=True))


def _steps(plan: Plan, keys: str) -> tuple[str, ...]:
    lines = ["# once: keys, and what the pods find of them", *key_steps(plan, keys)]
    for holder in (*dict.fromkeys(p.host for p in plan.processes), CONDUCTOR):
        files = " ".join(f"--from-file={keys}/{file}" for file in secrets(plan, holder))
        lines.append(f"kubectl create secret generic {name_of(plan, 'keys', holder)} {files}")
    authorized = name_of(plan, "authorized")
    lines += [
        f"kubectl create configmap {authorized} --from-file={keys}/authorized/",
        "# the run; workers when the conductor has taken the score before",
        f"kubectl apply -f {CORE}",
        f"kubectl wait --for=condition=Ready --timeout=-1s pod -l {_selector(plan, CONDUCTOR)}",
        f"kubectl apply -f {WORKERS}",
        "# over when the conductor's job is complete",
        f"kubectl wait --for=condition=complete --timeout=-1s job/{name_of(plan, CONDUCTOR)}",
        f"kubectl delete -f {WORKERS}",
        f"kubectl scale statefulset/{name_of(plan, 'learner')} --replicas=0",
    ]
    return tuple(lines)


def _selector(plan: Plan, role: str) -> str:
    return f"app.kubernetes.io/instance={name_of(plan)},app.kubernetes.io/component={role}"


# --- the core -------------------------------------------------------------------------------------


def _core(plan: Plan, cluster: Cluster) -> Iterator[Tree]:
    yield _config(plan)
    yield _network(plan)
    log = name_of(plan, "log")
    servers = [p for p in plan.processes if p.role in ("log-server", "log-reader")]
    ports = [{"name": what, "port": at} for p in servers for what, at in p.listens.items()]
    # Headless: the one pod has a name of its own, which clients look up at each new connection.
    yield _service(plan, log, "log", ports) | {
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels(plan, "log"),
            "ports": ports,
        }
    }
    yield _log(plan, cluster, log, servers)
    learner = next(p for p in plan.processes if p.role == "learner")
    mode = "ReadWriteOnce" if hands_over(learner) else "ReadWriteMany"
    checkpoints = name_of(plan, "checkpoints")
    yield claim(checkpoints, mode, cluster.checkpoints_gib, labels(plan, "learner"))
    engine = next((p for p in plan.processes if p.role == "engine"), None)
    if engine is not None:
        ports = [{"name": "http", "port": engine.listens["engine"]}]
        yield _service(plan, name_of(plan, "engine"), "engine", ports)
        if nodes_of(engine, cluster.gpus_per_node) > 1:
            yield claim(name_of(plan, "policies"), "ReadWriteMany", 16, labels(plan, "engine"))
        yield _engine(plan, cluster, engine, shared=not hands_over(learner))
    yield _learner(plan, cluster, learner)


def hands_over(learner: Process) -> bool:
    """Whether it sends policies to the engine; else the two must see one folder."""
    return "--hand-over" in learner.command


def _config(plan: Plan) -> Tree:
    """The plan's configuration, but servers listen at all addresses of their pods."""
    config = plan.config
    log = replace(config.log, host="0.0.0.0", keys=f"{run_dir(plan)}/keys")
    engine = replace(config.engine, host="0.0.0.0") if plan.engine_host else config.engine
    text = replace(config, log=log, engine=engine).to_json()
    if len(text) > MAX_CONFIG:
        raise InventoryError(f"the configuration has {len(text)} bytes: a ConfigMap holds 1 MiB")
    meta = metadata(plan, name_of(plan, "config"), "config")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "data": {"config.json": text},
    }


def _network(plan: Plan) -> Tree:
    """Only the run's own pods come in: the engine's HTTP is plain text."""
    own = {"app.kubernetes.io/instance": name_of(plan)}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(plan, name_of(plan), "network"),
        "spec": {
            "podSelector": {"matchLabels": own},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": own}}]}],
        },
    }


def _service(plan: Plan, name: str, role: str, ports: Sequence[Tree]) -> Tree:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(plan, name, role),
        "spec": {"selector": labels(plan, role) | _LEADER.get(role, {}), "ports": list(ports)},
    }


# A multi-host engine's followers serve no HTTP; labels tell them from who does.
_LEADER = {"engine": {"mmzero-async/serves": "http"}}


def _log(plan: Plan, cluster: Cluster, name: str, servers: Sequence[Process]) -> Tree:
    at = run_dir(plan)
    containers = []
    for process in servers:
        [(_, port)] = process.listens.items()
        probe = {"tcpSocket": {"port": port}, "periodSeconds": 5}
        containers.append(
            container(
                process.role,
                image(cluster, process.role),
                command_of(plan, process),
                environment(process),
                mounts={"log": f"{at}/log"},
                ports=[{"containerPort": port}],
                readinessProbe=probe,
            )
        )
    # LMDB knows readers by their process ids: two containers must not both be number 1.
    template = pod(
        plan, cluster, plan.log_host, containers, role="log", grace=60, shareProcessNamespace=True
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(plan, name, "log", servers),
        "spec": {
            "replicas": 1,
            "serviceName": name,
            "selector": {"matchLabels": labels(plan, "log")},
            "template": template,
            "volumeClaimTemplates": [claim("log", "ReadWriteOnce", plan.config.log.map_gib + 8)],
        },
    }


def _engine(plan: Plan, cluster: Cluster, process: Process, *, shared: bool) -> Tree:
    at, port = run_dir(plan), process.listens["engine"]
    nodes = nodes_of(process, cluster.gpus_per_node)
    gpus = len(process.gpus) // nodes
    volumes, mounts = shared_memory(gpus)
    if shared:  # the learner says where a policy lies, and it must lie there here too
        volumes.append(claimed("checkpoints", name_of(plan, "checkpoints"), read_only=True))
        mounts["checkpoints"] = f"{at}/checkpoints"
    if nodes > 1:  # what is handed to the leader is read by all
        volumes.append(claimed("policies", name_of(plan, "policies")))
        mounts["policies"] = f"{at}/policies"
    start = int(plan.config.engine.start_seconds)
    health = {"httpGet": {"path": "/health", "port": port}, "periodSeconds": 10}
    probes: Tree = {
        "ports": [{"containerPort": port}],
        "startupProbe": health | {"failureThreshold": max(1, start // 10 + 6)},
        "readinessProbe": health,
    }

    def template(serves: bool) -> Tree:
        also: tuple[str, ...] = ()
        if nodes > 1:  # Kubernetes fills in the variables that the controller sets
            also = ("--nodes", str(nodes), "--node-rank", "$(LWS_WORKER_INDEX)")
            also += ("--head", "$(LWS_LEADER_ADDRESS)")
        one = container(
            "engine",
            image(cluster, "engine"),
            (*command_of(plan, process), *also),
            environment(process),
            gpus=gpus,
            mounts=dict(mounts),
            read_only=("checkpoints",),
            **(probes if serves else {}),
        )
        return pod(
            plan,
            cluster,
            process.host,
            [one],
            role="engine",
            base_model=plan.hosts[process.host].base_model,
            volumes=volumes,
            grace=60,
            more_labels=_LEADER["engine"] if serves else {},
        )

    meta = metadata(plan, name_of(plan, "engine"), "engine", [process])
    if nodes == 1:
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},  # its GPUs are not there twice
                "selector": {"matchLabels": labels(plan, "engine")},
                "template": template(serves=True),
            },
        }
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": meta,
        "spec": {
            "replicas": 1,
            "startupPolicy": "LeaderCreated",  # the leader is ready only with its followers
            "leaderWorkerTemplate": {
                "size": nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": template(serves=True),
                "workerTemplate": template(serves=False),
            },
        },
    }


def _learner(plan: Plan, cluster: Cluster, process: Process) -> Tree:
    nodes_of(process, cluster.gpus_per_node)
    volumes, mounts = shared_memory(len(process.gpus))
    # The log is in another pod, whatever the inventory says.
    also = (
        () if "--read-url" in process.command else ("--read-url", server_url(plan, plan.read_url))
    )
    one = container(
        "learner",
        image(cluster, "learner"),
        (*command_of(plan, process), *also),
        environment(process),
        gpus=len(process.gpus),
        mounts=mounts | {"checkpoints": f"{run_dir(plan)}/checkpoints"},
    )
    template = pod(
        plan,
        cluster,
        process.host,
        [one],
        role="learner",
        base_model=plan.hosts[process.host].base_model,
        volumes=[*volumes, claimed("checkpoints", name_of(plan, "checkpoints"))],
        grace=120,
    )
    # Of a StatefulSet's pod there are never two at once, and a node that is drained is no end.
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(plan, name_of(plan, "learner"), "learner", [process]),
        "spec": {
            "replicas": 1,
            "serviceName": name_of(plan, "log"),
            "selector": {"matchLabels": labels(plan, "learner")},
            "template": template,
        },
    }


def _conductor(plan: Plan, cluster: Cluster) -> Tree:
    at = run_dir(plan)
    command = [PYTHON, "-m", "mmzero_async.ops.cluster.conductor", "--run-dir", at]
    command += [
        "--log-url",
        server_url(plan, plan.log_url),
        "--read-url",
        server_url(plan, plan.read_url),
    ]
    command += ["--key", f"{at}/keys/local.key_secret", "--engine-url", engine_url(plan)]
    if plan.engine_host:
        command += ["--engine-key", f"{at}/keys/engine.key_secret"]
    one = container(
        CONDUCTOR,
        image(cluster, CONDUCTOR),
        command,
        environment(Process(name=CONDUCTOR, host="", role=CONDUCTOR, command=())),
        # Ready when the run generates: then the workers may be started.
        readinessProbe={"exec": {"command": ["test", "-e", f"{at}/generating"]}},
    )
    learner = next(p.host for p in plan.processes if p.role == "learner")
    template = pod(
        plan,
        cluster,
        CONDUCTOR,
        [one],
        role=CONDUCTOR,
        base_model=plan.hosts[plan.engine_host or learner].base_model,
        restart="Never",
        grace=60,
    )
    return job(metadata(plan, name_of(plan, CONDUCTOR), CONDUCTOR), template)


# --- the workers ----------------------------------------------------------------------------------


def _stages(plan: Plan, cluster: Cluster) -> Iterator[Tree]:
    """A Deployment for each stage of each host, so that each pod writes under its host's key."""
    for stage in STAGES:
        for host in plan.hosts:
            processes = [p for p in plan.on(host) if p.role == stage]
            if processes:
                yield _workers(plan, cluster, host, stage, processes)


def _workers(
    plan: Plan, cluster: Cluster, host: str, stage: str, processes: Sequence[Process]
) -> Tree:
    command = moved(command_of(plan, processes[0]), {"--worker": f"{host}.$(POD_NAME)"})
    one = container(
        stage,
        image(cluster, stage),
        command,
        environment(processes[0]),
        cpu=_WORKER_CPU,
        extra_env=[{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(plan, name_of(plan, host, stage), stage, processes),
        "spec": {
            "replicas": len(processes),
            "selector": {"matchLabels": labels(plan, stage, host)},
            "template": pod(plan, cluster, host, [one], role=stage),
        },
    }
