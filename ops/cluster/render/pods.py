"""Pods: how a process of the plan lies in a container, and what it finds there.

    RUN/      an empty folder of the pod    RUN/keys/         in memory, modes as they must be
    RUN/log/  the log's own claim           RUN/checkpoints/  the learner's claim

An init container makes the folder from a ConfigMap and a Secret: a Secret's own files are readable
by the group where `fsGroup` is set, and readers of keys refuse that.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from mmzero_async import __version__
from mmzero_async.ops.cluster.plan import Plan, Process
from mmzero_async.ops.cluster.render.places import (
    CONDUCTOR,
    image_kind,
    label,
)
from mmzero_async.ops.processes import ENVIRONMENT

PYTHON = "/opt/mmzero/bin/python"  # in every image (ops/docker/)
ROOT = "/var/lib/mmzero"  # in every pod
USER = 10001  # in every image
CONFIG, KEYS, AUTHORIZED = "/etc/mmzero/config", "/etc/mmzero/keys", "/etc/mmzero/authorized"

HOPELESS = os.EX_CONFIG  # exit status of a process that another start would not help

Tree = dict[str, Any]


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """What the inventory does not know of a Kubernetes cluster."""

    images: str = "mmzero-async"  # what stands before /log:VERSION and so on
    gpus_per_node: int = 8  # an engine with more lies on several machines
    checkpoints_gib: int = 64  # of the learner's claim
    models_claim: str = "models"  # holds the base model's parent folder, where it is no preset's


def run_dir(plan: Plan) -> str:
    return f"{ROOT}/{plan.run}"


def name_of(plan: Plan, *parts: str) -> str:
    return label("mmzero", plan.run, *parts)


def labels(plan: Plan, role: str, host: str = "") -> dict[str, str]:
    found = {
        "app.kubernetes.io/name": "mmzero-async",
        "app.kubernetes.io/instance": name_of(plan),
        "app.kubernetes.io/component": role,
    }
    return found | ({"mmzero-async/host": label(host)} if host else {})


def metadata(plan: Plan, name: str, role: str, processes: Sequence[Process] = ()) -> Tree:
    """Of an object that stands for these processes of the plan; their names stand in it."""
    found: Tree = {"name": name, "labels": labels(plan, role)}
    if processes:
        found["annotations"] = {"mmzero-async/processes": " ".join(p.name for p in processes)}
    return found


def container(
    name: str,
    image: str,
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    gpus: int = 0,
    cpu: str = "1",
    mounts: Mapping[str, str] = {},
    read_only: Sequence[str] = (),
    **more: Any,
) -> Tree:
    """One container. `mounts` are paths of volumes by name, besides the run's folder and keys."""
    resources: Tree = {"requests": {"cpu": cpu}}
    if gpus:
        resources["limits"] = {"nvidia.com/gpu": str(gpus)}
    return {
        "name": name,
        "image": image,
        "command": list(command),
        "env": [*more.pop("extra_env", []), *({"name": k, "value": v} for k, v in env.items())],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": volume, "mountPath": path}
            | ({"readOnly": True} if volume in read_only else {})
            for volume, path in mounts.items()
        ],
        **more,
    }


def pod(
    plan: Plan,
    cluster: Cluster,
    holder: str,
    containers: Sequence[Tree],
    *,
    role: str,
    base_model: str | None = None,
    volumes: Sequence[Tree] = (),
    restart: str = "Always",
    grace: int = 30,
    more_labels: Mapping[str, str] = {},
    **more: Any,
) -> Tree:
    """A pod's template. `holder` is the host whose keys it has; `base_model` its folder where the
    processes need one, empty for what the configuration says."""
    at = run_dir(plan)
    own = {"run": at, "keys": f"{at}/keys", "config": CONFIG, "secret": KEYS}
    command = [PYTHON, "-m", "mmzero_async.ops.cluster.folder", "--run-dir", at]
    command += ["--config", f"{CONFIG}/config.json", "--keys", KEYS]
    found: list[Tree] = [
        {"name": "run", "emptyDir": {}},
        {"name": "keys", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {"name": "config", "configMap": {"name": name_of(plan, "config")}},
        {"name": "secret", "secret": {"secretName": name_of(plan, "keys", holder)}},
        *volumes,
    ]
    shared = {"run": at, "keys": f"{at}/keys"}
    if role == "log":
        own["authorized"] = AUTHORIZED
        command += ["--authorized", AUTHORIZED]
        found.append({"name": "authorized", "configMap": {"name": name_of(plan, "authorized")}})
    if base_model is not None:
        command += ["--base-model", base_model]
        folder = base_model or plan.config.run.base_model
        if folder != "seedling":
            claim = {"claimName": cluster.models_claim, "readOnly": True}
            found.append({"name": "models", "persistentVolumeClaim": claim})
            own["models"] = shared["models"] = str(PurePosixPath(folder).parent)
    for each in containers:
        each["volumeMounts"] = [
            *(_mount(volume, path) for volume, path in shared.items()),
            *each["volumeMounts"],
        ]
    prepare = container(
        "prepare",
        containers[0]["image"],
        command,
        ENVIRONMENT,
        cpu="100m",
        mounts=own,
        read_only=("config", "secret", "authorized", "models"),
    )
    host = "" if holder == CONDUCTOR else holder
    return {
        "metadata": {"labels": labels(plan, role, host) | dict(more_labels)},
        "spec": {
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": grace,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [prepare],
            "containers": list(containers),
            "volumes": found,
            **more,
        },
    }


def _mount(volume: str, path: str) -> Tree:
    return {"name": volume, "mountPath": path} | ({"readOnly": True} if volume == "models" else {})


def image(cluster: Cluster, role: str) -> str:
    return f"{cluster.images}/{image_kind(role)}:{__version__}"


def shared_memory(gpus: int) -> tuple[list[Tree], dict[str, str]]:
    """Volume and mount for processes of one program that talk through /dev/shm."""
    if not gpus:
        return [], {}
    return [{"name": "shm", "emptyDir": {"medium": "Memory"}}], {"shm": "/dev/shm"}


def job(meta: Tree, template: Tree) -> Tree:
    """Started again until it ends well; not when it says that it never will, and an eviction does
    not count."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            "backoffLimit": 1000,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"operator": "In", "values": [HOPELESS]},
                    },
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                ]
            },
            "template": template,
        },
    }


def claim(name: str, mode: str, gib: int, meta_labels: Mapping[str, str] | None = None) -> Tree:
    found: Tree = {
        "metadata": {"name": name},
        "spec": {
            "accessModes": [mode],
            "resources": {"requests": {"storage": f"{gib}Gi"}},
        },
    }
    if meta_labels is not None:
        found["metadata"]["labels"] = dict(meta_labels)
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **found}
    return found


def claimed(volume: str, name: str, *, read_only: bool = False) -> Tree:
    """A claim as a pod's volume."""
    found = {"claimName": name} | ({"readOnly": True} if read_only else {})
    return {"name": volume, "persistentVolumeClaim": found}
