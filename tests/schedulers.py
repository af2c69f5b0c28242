"""What schedulers take, for tests: schemas of Kubernetes objects, options of sbatch, linters."""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from referencing import Registry, Resource

SERVER = "1.34"  # the Kubernetes whose published schemas are validated against
_LWS = Path(__file__).parent / "golden" / "leaderworkerset_v1.json"
_DNS = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def documents(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def check_object(found: dict[str, Any]) -> None:
    """Raises for what the API server would refuse by its schema; unknown fields are refused too.

    Kubernetes' own schemas are those that are published with each release. That of LeaderWorkerSet
    is written by hand from the fields of leaderworkerset.x-k8s.io/v1; its pods' templates are
    checked by Kubernetes' schema again.
    """
    assert _DNS.fullmatch(found["metadata"]["name"]), found["metadata"]["name"]
    if found["kind"] == "LeaderWorkerSet":
        jsonschema.validate(found, json.loads(_LWS.read_text()))
        template = found["spec"]["leaderWorkerTemplate"]
        for name in ("leaderTemplate", "workerTemplate"):
            if name in template:
                _validator("pod-v1").validate(_pod_of(template[name]))
        return
    group, _, version = found["apiVersion"].rpartition("/")
    group = f"{group.partition('.')[0]}-" if group else ""
    _validator(f"{found['kind'].lower()}-{group}{version}").validate(found)


@functools.cache
def _validator(name: str) -> Any:
    """As kubernetes_validate.validate(..., strict=True), which reads megabytes at each call."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    folder /= f"v{SERVER}.0-local-strict"
    schema = json.loads((folder / f"{name}.json").read_text())
    return jsonschema.Draft202012Validator(schema, registry=_definitions(folder))


@functools.cache
def _definitions(folder: Path) -> Registry[Any]:
    found = Resource.from_contents(json.loads((folder / "_definitions.json").read_text()))
    return (found @ Registry()).crawl()


def _pod_of(template: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", **template}


def templates(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pods' templates of an object."""
    spec = found.get("spec", {})
    if "leaderWorkerTemplate" in spec:
        inner = spec["leaderWorkerTemplate"]
        yield from (inner[n] for n in ("leaderTemplate", "workerTemplate") if n in inner)
    elif "template" in spec:
        yield spec["template"]


# --- Slurm ----------------------------------------------------------------------------------------

_NUMBER, _NAME = r"[1-9][0-9]*", r"[A-Za-z0-9_.,-]+"
_TIME = r"([0-9]+-)?[0-9]{1,2}(:[0-9]{2}){0,2}|[0-9]+"
# From sbatch's manual: the options that a script of ours may have, with their arguments' forms.
# None: takes no argument.
SBATCH: dict[str, str | None] = {
    "--job-name": _NAME,
    "--output": r"[^ ]+",
    "--open-mode": "append|truncate",
    "--time": _TIME,
    "--requeue": None,
    "--no-requeue": None,
    "--signal": r"((R?B?):)?(USR1|USR2|TERM|INT|[0-9]+)(@[0-9]+)?",
    "--partition": _NAME,
    "--account": _NAME,
    "--nodes": rf"{_NUMBER}(-{_NUMBER})?",
    "--ntasks": _NUMBER,
    "--ntasks-per-node": _NUMBER,
    "--cpus-per-task": _NUMBER,
    "--gpus-per-node": rf"([a-z0-9_]+:)?{_NUMBER}",
    "--mem": rf"{_NUMBER}[KMGT]?",
}


def sbatch_components(script: str) -> list[dict[str, str]]:
    """The components of a (heterogeneous) job: option -> argument. AssertionError for what sbatch
    does not know, an argument of another form, or options that it would no longer read."""
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    components: list[dict[str, str]] = [{}]
    over = False
    for line in lines[1:]:
        if not line.startswith("#SBATCH"):
            over = over or bool(line.strip() and not line.startswith("#"))
            continue
        assert not over, f"after the first command sbatch reads no more: {line}"
        rest = line.removeprefix("#SBATCH").strip()
        if rest == "hetjob":
            components.append({})
            continue
        option, equals, argument = rest.partition("=")
        assert option in SBATCH, f"sbatch has no {option}"
        form = SBATCH[option]
        assert bool(equals) == (form is not None), line
        assert form is None or re.fullmatch(form, argument), line
        assert option not in components[-1], f"twice: {line}"
        components[-1][option] = argument
    return components


# --- linters --------------------------------------------------------------------------------------


def lint(tool: str, *arguments: str | Path) -> str:
    """What a linter that lies beside the interpreter has to say; empty: nothing."""
    command = [str(Path(sys.executable).parent / tool), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True)
    return ran.stdout + ran.stderr if ran.returncode else ""
