"""The plan for Slurm: one batch script, a heterogeneous job with a component for each host.

A host's own address means nothing here: where the servers are is asked of Slurm when the job has
its machines. Each process is a job step that the script starts again when it dies. The run's folder
and the folder of keys lie where all machines of the job see them, so a job that is started again,
on whatever machines, goes on where its log ends.
"""

import shlex
from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from mmzero_async.ops.cluster.inventory import STAGES
from mmzero_async.ops.cluster.plan import Plan, Process
from mmzero_async.ops.cluster.render.places import (
    CONDUCTOR,
    Rendering,
    environment,
    key_steps,
    label,
    moved,
    nodes_of,
    one_engine,
    scheduled,
    secrets,
)

# Stand for a shell variable in a word that is quoted.
_LOG_HOST, _ENGINE_HOST = "%MMZERO_LOG_HOST%", "%MMZERO_ENGINE_HOST%"
_VARIABLES = {_LOG_HOST: '"$log_host"', _ENGINE_HOST: '"$engine_host"'}
CONFIG = "config.json"


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What the inventory does not know of a Slurm cluster."""

    time: str = "1-00:00:00"  # as --time takes it
    partition: str = ""
    account: str = ""
    gpus_per_node: int = 8  # an engine with more lies on several machines
    cpus_per_process: int = 2


def render(plan: Plan, site: Site, keys: str) -> Rendering:
    """Script and configuration, and the steps to submit them; `keys` is the folder of keys, an
    absolute path that all machines see. InventoryError for a plan that cannot lie on Slurm."""
    one_engine(plan)
    plan = scheduled(plan)
    name = f"{label('mmzero', plan.run)}.sbatch"
    log = replace(plan.config.log, host="0.0.0.0", keys=keys)
    engine = plan.config.engine
    if plan.engine_host:
        engine = replace(engine, host="0.0.0.0")
    config = replace(plan.config, log=log, engine=engine).to_json()
    script = "\n".join(_lines(plan, site, keys)) + "\n"
    steps = ("# once: keys", *key_steps(plan, shlex.quote(keys)), "# the run", f"sbatch {name}")
    return Rendering(files={name: script, CONFIG: config}, steps=steps)


def _lines(plan: Plan, site: Site, keys: str) -> Iterator[str]:
    yield "#!/bin/bash"
    yield from _options(plan, site)
    yield _START
    yield from _places(plan, keys)
    yield _FUNCTIONS
    yield from _preparing(plan)
    yield from _starting(plan, site, keys)
    yield _END


# --- what is asked of Slurm -----------------------------------------------------------------------


def _hosts(plan: Plan) -> list[str]:
    """The log's host first: the script runs on the first component's first machine."""
    return [plan.log_host, *(h for h in plan.hosts if h != plan.log_host and plan.on(h))]


def _options(plan: Plan, site: Site) -> Iterator[str]:
    name = label("mmzero", plan.run)
    yield f"#SBATCH --job-name={name}"
    yield f"#SBATCH --output={name}-%j.log"
    yield "#SBATCH --open-mode=append"
    yield f"#SBATCH --time={site.time}"
    yield "#SBATCH --requeue"
    yield "#SBATCH --signal=B:TERM@180"  # room to stop before the time is over
    if site.partition:
        yield f"#SBATCH --partition={site.partition}"
    if site.account:
        yield f"#SBATCH --account={site.account}"
    for i, host in enumerate(_hosts(plan)):
        if i:
            yield "#SBATCH hetjob"
        processes = plan.on(host)
        nodes = max(nodes_of(p, site.gpus_per_node) for p in processes)
        yield f"# host {host}"
        yield f"#SBATCH --nodes={nodes}"
        yield f"#SBATCH --ntasks-per-node={len(processes) + (host == plan.log_host)}"
        yield f"#SBATCH --cpus-per-task={site.cpus_per_process}"
        if gpus := sum(len(p.gpus) // nodes_of(p, site.gpus_per_node) for p in processes):
            yield f"#SBATCH --gpus-per-node={gpus}"


# --- the script -----------------------------------------------------------------------------------

_START = """
# Written from an inventory by `mmzero cluster render`; docs/DEPLOY.md. Started again by Slurm, it
# goes on where the log ends.
set -euo pipefail

machine() {  # LIST: the first machine of a component
    scontrol show hostnames "$1" | head -n 1
}"""

_FUNCTIONS = """
private() {  # FILE...: none of them may be readable by others
    local file mode
    for file in "$@"; do
        mode=$(stat -c %a -- "$file") || exit 78
        if [ "$mode" != 600 ]; then
            echo "$file has mode $mode, others may read it: chmod 600 $file" >&2
            exit 78
        fi
    done
}

keep() {  # NAME COMMAND...: keeps a process alive until it ends well, gives up, or is stopped
    local name=$1 child='' status stopping=''
    shift
    trap 'stopping=1; kill -TERM "$child" 2>/dev/null || true' TERM
    while [ -z "$stopping" ]; do
        "$@" &
        child=$!
        status=0
        wait "$child" || status=$?
        while kill -0 "$child" 2>/dev/null; do  # a signal ended the waiting, not the process
            status=0
            wait "$child" || status=$?
        done
        [ "$status" -ne 0 ] || return 0
        [ -z "$stopping" ] || return 0
        echo "$name ended with status $status" >&2
        if [ "$status" -eq 78 ]; then  # another start would not help
            return 78
        fi
        sleep 1
    done
}

servers=() stages=() again='' lost='' conductor=''

vital() {  # as keep; when the process gives up, so does the job
    keep "$@" || kill -USR1 "$$"
}

stop() {  # PID...: the last one first, each until it is over
    local i
    for ((i = $#; i > 0; i--)); do
        kill -TERM "${!i}" 2>/dev/null || true
        wait "${!i}" 2>/dev/null || true
    done
}

trap 'again=1; kill -TERM "$conductor" 2>/dev/null || true' TERM
trap 'lost=1; kill -TERM "$conductor" 2>/dev/null || true' USR1"""

_END = """
while kill -0 "$conductor" 2>/dev/null; do
    if [ -e "$run/generating" ] && [ "${#stages[@]}" -eq 0 ]; then
        start_stages
    elif [ ! -e "$run/generating" ] && [ "${#stages[@]}" -gt 0 ]; then
        stop "${stages[@]}"  # the score after is taken of what is left
        break
    fi
    sleep 1 &
    wait "$!" || true
done
while kill -0 "$conductor" 2>/dev/null; do
    wait "$conductor" || true
done
stop "${stages[@]}"
stop "${servers[@]}"
if [ -n "$lost" ]; then
    echo 'a process that the run cannot do without gave up' >&2
    exit 1
fi
if [ -n "$again" ] && [ ! -e "$run/finished" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi"""


def _places(plan: Plan, keys: str) -> Iterator[str]:
    hosts = _hosts(plan)
    yield ""
    yield f"log_host=$(machine {_nodes(hosts, plan.log_host)})"
    if plan.engine_host:
        yield f"engine_host=$(machine {_nodes(hosts, plan.engine_host)})"
    yield f"keys={shlex.quote(keys)}"
    yield f"run={shlex.quote(plan.hosts[plan.log_host].run_dir)}"


def _nodes(hosts: list[str], host: str) -> str:
    suffix = f"_HET_GROUP_{hosts.index(host)}" if len(hosts) > 1 else ""
    return f'"$SLURM_JOB_NODELIST{suffix}"'


def _preparing(plan: Plan) -> Iterator[str]:
    needed = ["server.key_secret"]
    for holder in (*_hosts(plan), CONDUCTOR):
        needed += [f for f in secrets(plan, holder) if f.endswith("_secret")]
    yield ""
    yield "private " + " ".join(f'"$keys"/{shlex.quote(f)}' for f in dict.fromkeys(needed))
    yield 'rm -f "$run/generating" "$run/finished"'
    yield "# One after the other: several may be one folder."
    hosts = _hosts(plan)
    for host in hosts:
        at = plan.hosts[host]
        command = [at.python, "-m", "mmzero_async.ops.cluster.folder", "--run-dir", at.run_dir]
        command += ["--config", "%SUBMIT%"]
        if at.needs_base:
            command += ["--base-model", at.base_model]
        words = shlex.join(command).replace("%SUBMIT%", f'"$SLURM_SUBMIT_DIR"/{CONFIG}')
        yield f"{_srun(hosts, host, 1, 'prepare')} {words}"


def _srun(hosts: list[str], host: str, cpus: int, name: str, nodes: int = 1) -> str:
    group = f" --het-group={hosts.index(host)}" if len(hosts) > 1 else ""
    spread = f"--nodes={nodes} --ntasks={nodes}"
    return f"srun{group} {spread} --exact --cpus-per-task={cpus} --job-name={shlex.quote(name)}"


def _starting(plan: Plan, site: Site, keys: str) -> Iterator[str]:
    hosts, stages = _hosts(plan), []
    yield ""
    for process in plan.processes:
        words = _step(plan, site, keys, hosts, process)
        if process.role in STAGES:
            stages.append(words)
        else:
            yield f"{'vital' if process.vital else 'keep'} {words} &"
            yield "servers+=($!)"
    yield ""
    yield "start_stages() {"
    for words in stages:
        yield f"    keep {words} &"
        yield "    stages+=($!)"
    yield "}"
    yield ""
    yield f"vital {_conductor(plan, site, keys, hosts)} &"
    yield "conductor=$!"


def _step(plan: Plan, site: Site, keys: str, hosts: list[str], process: Process) -> str:
    """Name and command of a job step, as the shell reads them."""
    values = {
        "--log-url": _at(plan.log_url, _LOG_HOST),
        "--read-url": _at(plan.read_url, _LOG_HOST),
        "--key": f"{keys}/{process.host}.key_secret",
        "--engine-key": f"{keys}/engine.key_secret",
    }
    if plan.engine_host:
        values["--engine-url"] = _at(plan.engine_url, _ENGINE_HOST)
    command = moved(process.command, values)
    nodes = nodes_of(process, site.gpus_per_node)
    srun = _srun(hosts, process.host, site.cpus_per_process, process.name, nodes)
    if process.gpus:
        srun += f" --gpus-per-node={len(process.gpus) // nodes}"
    elif any(p.gpus for p in plan.on(process.host)):
        srun += " --gres=none"
    if nodes > 1:
        command = (*command, "--nodes", str(nodes), "--head", _ENGINE_HOST)
    words = _words(("env", *(f"{k}={v}" for k, v in environment(process).items()), *command))
    if nodes > 1:  # each task of the step says which one it is
        each = """bash -c 'exec "$@" --node-rank "$SLURM_PROCID"'"""
        words = f"{each} {shlex.quote(process.name)} {words}"
    return f"{shlex.quote(process.name)} {srun} {words}"


def _conductor(plan: Plan, site: Site, keys: str, hosts: list[str]) -> str:
    at = plan.hosts[plan.log_host]
    learner = next(p.host for p in plan.processes if p.role == "learner")
    base = plan.hosts[plan.engine_host or learner].base_model
    command = [at.python, "-m", "mmzero_async.ops.cluster.conductor", "--run-dir", at.run_dir]
    command += ["--log-url", _at(plan.log_url, _LOG_HOST)]
    command += ["--read-url", _at(plan.read_url, _LOG_HOST)]
    command += ["--key", f"{keys}/local.key_secret"]
    url = _at(plan.engine_url, _ENGINE_HOST) if plan.engine_host else plan.engine_url
    command += ["--engine-url", url]
    if plan.engine_host:
        command += ["--engine-key", f"{keys}/engine.key_secret"]
    if base:
        command += ["--base-model", base]
    own = Process(name=CONDUCTOR, host=plan.log_host, role=CONDUCTOR, command=())
    words = _words(("env", *(f"{k}={v}" for k, v in environment(own).items()), *command))
    srun = _srun(hosts, plan.log_host, site.cpus_per_process, CONDUCTOR)
    if any(p.gpus for p in plan.on(plan.log_host)):
        srun += " --gres=none"
    return f"{CONDUCTOR} {srun} {words}"


def _at(url: str, host: str) -> str:
    return f"{url.partition('://')[0]}://{host}:{url.rpartition(':')[2]}"


def _words(command: tuple[str, ...]) -> str:
    text = shlex.join(command)
    for mark, variable in _VARIABLES.items():
        text = text.replace(mark, variable)
    return text
