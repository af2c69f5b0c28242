"""Inventories and what follows: `mmzero run-cluster --dry-run` and the plan's functions."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async.config import ConfigError
from mmzero_async.ops.cluster import plan as plans
from mmzero_async.ops.cluster.commands import read
from mmzero_async.ops.cluster.inventory import InventoryError
from mmzero_async.ops.cluster.plan import LOG_ROLES
from mmzero_async.ops.cluster.render.places import scheduled

EXAMPLE = Path(__file__).parent.parent / "docs" / "cluster.example.toml"
TOP = 'run = "r"\nkeys = "/k"\npython = "/usr/bin/python3"\npath = "/runs"\n'
FULL = TOP + 'overrides = ["learner.weights=full"]\n'
ALL = "{ log = 1, engine = 1, learner = 1, proposer = 1, coder = 1, renderer = 1, solver = 1 }"
WORKERS = "{ proposer = 1, coder = 1, renderer = 1, solver = 1 }"
CORE = "{ log = 1, engine = 1, learner = 1 }"


def written(tmp_path: Path, hosts: str, top: str = TOP) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(top + hosts)
    return path


def two_hosts(tmp_path: Path, a: str = "", b: str = "", top: str = TOP) -> Path:
    hosts = f'[hosts.a]\naddress = "10.0.0.1"\nroles = {CORE}\n{a}\n'
    return written(
        tmp_path, hosts + f'[hosts.b]\naddress = "10.0.0.2"\nroles = {WORKERS}\n{b}\n', top
    )


def refusal(path: Path) -> str:
    with pytest.raises(InventoryError) as refused:
        read(path)
    return str(refused.value)


def mmzero(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmzero_async.ops.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_dry_run_of_the_example_prints_the_plan_and_starts_nothing():
    ran = mmzero("run-cluster", EXAMPLE, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    for words in ("alpha.learner-0", "beta.engine", "delta.renderer-3", "8701 (engine)"):
        assert words in ran.stdout
    ran = mmzero("run-cluster", EXAMPLE, "--dry-run", "--json")
    found = json.loads(ran.stdout)
    assert found["log_url"] == "tcp://10.0.0.11:5701"
    assert {p["name"] for p in found["processes"]} >= {"log-server", "log-reader", "gamma.coder-0"}


def test_the_example_names_every_key_there_is():
    from mmzero_async.ops.cluster import inventory as i

    text = EXAMPLE.read_text()
    for section in (i.Inventory, i.Host, i.Ssh, i.Ports, i.EnginePlace, i.LearnerPlace, i.Roles):
        for key in section.__struct_fields__:
            assert key in text, f"{key} of {section.__name__}"


def test_an_inventory_that_is_wrong_is_refused_by_the_command_with_all_that_is_wrong(tmp_path):
    path = two_hosts(tmp_path, b='[hosts.c]\naddress = "127.0.0.1"\nroles = { log = 1 }')
    ran = mmzero("run-cluster", path, "--dry-run")
    assert ran.returncode == 1
    assert "2 log servers (on a, c)" in ran.stderr and "127.0.0.1" in ran.stderr


@pytest.mark.parametrize(
    ("a", "b", "top", "words"),
    [
        ("", "rolls = {}", TOP, "unknown field `rolls` - at `$.hosts[...]`"),
        ("", "engine = { gpus = [0] }", TOP, "b: engine.gpus is set, and the host has no engine"),
        ("gpus = [0]\nengine = { gpus = [1] }", "", TOP, "which the host's gpus [0] lack"),
        ("gpus = [0, 0]", "", TOP, "names one twice"),
        (
            "gpus = [0, 1]\nengine = { gpus = [0, 1], tensor_parallel = 2, data_parallel = 2 }",
            "",
            TOP,
            "is 4, and engine.gpus are 2",
        ),
        (
            "gpus = [0]\nengine = { gpus = [0] }\nlearner = { gpus = [0] }",
            "",
            TOP + 'overrides = ["learner.device=cuda"]\n',
            "[0] are promised to the engine and to the learner",
        ),
        ("", "", TOP + 'overrides = ["learner.device=cuda"]\n', "learner.gpus is empty"),
        (
            "",
            "",
            TOP + "ports = { log = 7, read = 7 }\n",
            "port 7 is taken twice, by ports.log and",
        ),
        (
            "",
            "ssh = { port = 5701 }",
            TOP + 'overrides = ["engine.url=http://x"]\n',
            "to run an eng",
        ),
        ("", "", TOP.replace("/usr/bin/python3", "python3"), "must be an absolute path"),
        ("", "", TOP.replace("/runs", "/" + "r" * 100), "too long for a socket's name"),
        ("", "", TOP + 'overrides = ["log.nonsense=1"]\n', "nonsense"),
        ("", "", FULL, 'a: with learner.weights = "full" an engine serves one role'),
        ('engine = { role = "solver" }', "", FULL, "no host has an engine of proposer, coder"),
        ('engine = { role = "solver" }', "", TOP, "an engine of adapters serves all roles"),
        ("", 'engine = { role = "solver" }', TOP, "engine.role is set, and the host has no engine"),
        ('engine = { role = "renderer" }', "", FULL, "Invalid enum value 'renderer'"),
    ],
)
def test_what_an_inventory_may_have_wrong_is_said(tmp_path, a, b, top, words):
    path = two_hosts(tmp_path, a, b, top)
    with pytest.raises(ConfigError) as refused:
        read(path)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1", "is reached from its own host alone"),
        ("localhost", "is reached from its own host alone"),
        ("::1", "is reached from its own host alone"),
        ("0.0.0.0", "no address that others can reach"),
        ("", "no address that others can reach"),
        ("10.0.0.1", "is a's too"),
    ],
)
def test_an_address_that_others_cannot_reach_is_refused(tmp_path, address, words):
    extra = f'[hosts.c]\naddress = "{address}"\nroles = {{ solver = 1 }}'
    assert words in refusal(two_hosts(tmp_path, b=extra))


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ("{ engine = 1, learner = 1 }", "no host has the log server"),
        ("{ log = 1, learner = 1 }", "no host has the engine: roles.engine = 1"),
        ("{ log = 1, engine = 1 }", "no host has the learner"),
        ("{ log = 1, engine = 2, learner = 1 }", "2 engines (on a)"),
        ("{ log = 2, engine = 1, learner = 1 }", "2 log servers (on a)"),
    ],
)
def test_a_run_has_one_log_server_one_engine_and_one_learner(tmp_path, roles, words):
    hosts = f'[hosts.a]\naddress = "10.0.0.1"\nroles = {roles}\n'
    path = written(tmp_path, hosts + f'[hosts.b]\naddress = "10.0.0.2"\nroles = {WORKERS}\n')
    assert words in refusal(path)


def test_a_stage_without_a_host_and_names_that_are_none_are_refused(tmp_path):
    hosts = f'[hosts.a]\naddress = "10.0.0.1"\nroles = {CORE}\n'
    assert "no host runs a solver" in refusal(written(tmp_path, hosts))
    assert "names no hosts" in refusal(written(tmp_path, "hosts = {}"))
    for name in ("server", "local", "engine"):
        hosts = f'[hosts.{name}]\naddress = "10.0.0.1"\nroles = {ALL}\n'
        assert "call the host otherwise" in refusal(written(tmp_path, hosts))
    hosts = f'[hosts."a.b"]\naddress = "10.0.0.1"\nroles = {ALL}\n'
    assert "`key` in `$.hosts`" in refusal(written(tmp_path, hosts))
    assert "docs/cluster.example.toml is one" in refusal(tmp_path / "absent.toml")
    assert "not valid TOML" in refusal(written(tmp_path, "hosts = ["))


def test_an_engine_that_runs_already_needs_no_host(tmp_path):
    top = TOP + 'overrides = ["engine.url=http://10.9.9.9:1"]\n'
    roles = ALL.replace("engine = 1, ", "")
    hosts = f'[hosts.a]\naddress = "10.0.0.1"\nroles = {roles}\n'
    _, plan = read(written(tmp_path, hosts, top))
    assert plan.engine_url == "http://10.9.9.9:1" and plan.engine_host == ""
    commands = [" ".join(process.command) for process in plan.processes]
    assert not [c for c in commands if "--engine-key" in c or "--hand-over" in c]


def test_engines_on_several_hosts_serve_one_run(tmp_path):
    engine = "roles = { engine = 1 }\ngpus = [0, 1]\nengine = { gpus = [0, 1], data_parallel = 2 }"
    more = f'[hosts.c]\naddress = "10.0.0.3"\n{engine}\n[hosts.d]\naddress = "fd00::4"\n{engine}'
    _, plan = read(two_hosts(tmp_path, b=more))
    urls = "http://10.0.0.1:8701,http://10.0.0.3:8701,http://[fd00::4]:8701"
    assert plan.engine_hosts == ("a", "c", "d") and plan.engine_url == urls
    for name in ("b.solver-0", "b.coder-0", "b.proposer-0", "a.learner-0"):
        command = plan.process(name).command
        assert command[command.index("--engine-url") + 1] == urls
    assert "--hand-over" in plan.process("a.learner-0").command
    for name, address in (("a", "10.0.0.1"), ("c", "10.0.0.3"), ("d", "fd00::4")):
        process = plan.process(f"{name}.engine")
        assert process.command[process.command.index("--host") + 1] == address
        assert not process.vital, "the run goes on with the others"
        assert "engine.key_secret" in plan.hosts[name].secrets and plan.hosts[name].needs_base
    _, alone = read(two_hosts(tmp_path))
    assert alone.process("a.engine").vital and "--host" not in alone.process("a.engine").command
    top = TOP + 'overrides = ["engine.count=2"]\n'
    with pytest.raises(ConfigError, match=r"engine\.count = 2 is for `mmzero run`"):
        read(two_hosts(tmp_path, top=top))


def test_with_full_weights_each_role_asks_its_own_engines_and_the_learner_hands_over_to_all(
    tmp_path,
):
    served = {"a": "solver", "c": "proposer", "d": "coder", "e": "solver"}
    more = "".join(
        f'[hosts.{name}]\naddress = "10.0.0.{i}"\nroles = {{ engine = 1 }}\n'
        f'engine = {{ role = "{served[name]}" }}\n'
        for i, name in enumerate("cde", 3)
    )
    path = two_hosts(tmp_path, 'engine = { role = "solver" }', more, FULL)
    _, plan = read(path)
    solvers = "http://10.0.0.1:8701,http://10.0.0.5:8701"
    asked = {
        "proposer": "http://10.0.0.3:8701",
        "coder": "http://10.0.0.4:8701",
        "solver": solvers,
    }
    assert plan.role_engines == asked and plan.engine_url == solvers
    for role, urls in asked.items():
        command = plan.process(f"b.{role}-0").command
        assert command[command.index("--engine-url") + 1] == urls
    learner = plan.process("a.learner-0").command
    given = {learner[i + 1] for i, word in enumerate(learner) if word == "--role-engines"}
    assert given == {f"{role}={urls}" for role, urls in asked.items()}
    assert "--hand-over" in learner and "--engine-key" in learner
    for host, role in served.items():
        process = plan.process(f"{host}.engine")
        assert process.command[process.command.index("--role") + 1] == role
        assert process.vital == (role != "solver"), "of two the run goes on with the other"
    ran = mmzero("run-cluster", path, "--dry-run")
    assert ran.returncode == 0 and f"of solver {solvers}" in ran.stdout, ran.stderr


def test_who_is_elsewhere_reads_and_hands_over_through_the_network(tmp_path):
    _, plan = read(two_hosts(tmp_path))
    learner = plan.process("a.learner-0").command
    assert "--read-url" not in learner and "--hand-over" not in learner
    hosts = '[hosts.a]\naddress = "10.0.0.1"\nroles = { log = 1, engine = 1 }\n'
    hosts += f'[hosts.b]\naddress = "10.0.0.2"\nroles = {{ learner = 1, {WORKERS[1:]}\n'
    _, plan = read(written(tmp_path, hosts))
    learner = plan.process("b.learner-0").command
    assert "tcp://10.0.0.1:5702" in learner and "--hand-over" in learner


def test_a_tracker_is_started_beside_the_log_where_one_is_wanted(tmp_path):
    _, plan = read(two_hosts(tmp_path))
    assert "tracker" not in {process.role for process in plan.processes}
    top = TOP + 'overrides = ["tracker.kind=tensorboard"]\n'
    inventory, plan = read(two_hosts(tmp_path, top=top))
    tracker = plan.process("tracker")
    assert (tracker.host, tracker.vital) == ("a", False)
    assert tracker.command[2:] == ("mmzero_async.workers.tracker", "--run-dir", "/runs/r")
    plan = plans.drained(plan, inventory, "b")
    assert plan.process("tracker") == tracker
    assert [p.role for p in scheduled(plan).processes if p.role in LOG_ROLES] == [
        *("log-server", "log-reader")
    ]


def test_a_process_sees_the_gpus_that_it_was_promised_and_no_others(tmp_path):
    a = "gpus = [0, 1, 2]\nengine = { gpus = [2, 1], tensor_parallel = 2 }\n"
    a += "learner = { gpus = [0] }"
    top = TOP + 'overrides = ["learner.device=cuda"]\n'
    _, plan = read(two_hosts(tmp_path, a, "gpus = [0]", top))
    seen = {p.name: p.env.get("CUDA_VISIBLE_DEVICES") for p in plan.processes}
    assert (seen["a.engine"], seen["a.learner-0"]) == ("2,1", "0")
    assert seen["b.solver-0"] == "" and seen["log-server"] == ""


def test_no_secret_and_one_configuration_stand_in_the_plan(tmp_path):
    _, plan = read(EXAMPLE)
    assert (
        plan.config.log.host == "10.0.0.11" and plan.config.log.keys == "/var/tmp/mmzero/demo/keys"
    )
    assert plan.hosts["alpha"].secrets == (
        *("alpha.key_secret", "server.key", "engine.key_secret"),
        *("server.key_secret", "authorized/"),
    )
    assert "server.key_secret" not in plan.hosts["gamma"].secrets
    names = [process.name for process in plan.processes]
    assert len(names) == len(set(names)) == 19


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_scaling_gives_the_number_asked_for_and_moves_nothing_that_may_stay(counts):
    inventory, plan = read(EXAMPLE)
    for count in counts:
        before = {process.name for process in plan.processes if process.role == "solver"}
        plan = plans.scaled(plan, inventory, "solver", count)
        now = {process.name for process in plan.processes if process.role == "solver"}
        assert len(now) == count
        assert now <= before or before <= now
        assert {name.split(".")[0] for name in now} <= {"gamma", "delta"}
        each = [plan.counts[host]["solver"] for host in plan.may["solver"]]
        assert max(each) - min(each) <= 1 or now == before


def test_a_drained_host_runs_nothing_takes_nothing_new_and_may_come_back():
    inventory, plan = read(EXAMPLE)
    plan = plans.drained(plan, inventory, "delta")
    assert [process.role for process in plan.on("delta")] == ["log-shipper"]
    plan = plans.scaled(plan, inventory, "solver", 5)
    assert plan.counts["gamma"]["solver"] == 5
    assert [process.role for process in plan.on("delta")] == ["log-shipper"]
    plan = plans.joined(plan, inventory, "delta")
    assert len(plan.on("delta")) == 7 and plan.drained == ()
    with pytest.raises(InventoryError, match="log-server, log-reader, learner"):
        plans.drained(plan, inventory, "alpha")
    with pytest.raises(InventoryError, match="no host 'nobody'"):
        plans.drained(plan, inventory, "nobody")
    with pytest.raises(InventoryError, match="choose one of proposer"):
        plans.scaled(plan, inventory, "learner", 2)
    with pytest.raises(InventoryError, match=r"no process 'delta\.nobody'"):
        plan.process("delta.nobody")


def test_a_host_that_joins_changes_nothing_of_the_others(tmp_path):
    inventory, plan = read(two_hosts(tmp_path))
    more = '[hosts.c]\naddress = "10.0.0.3"\nroles = { solver = 2 }'
    wider, _ = read(two_hosts(tmp_path, b=more))
    joined = plans.joined(plan, wider, "c")
    assert all(process in joined.processes for process in plan.processes)
    names = [process.name for process in joined.on("c")]
    assert names == ["c.log-shipper", "c.solver-0", "c.solver-1"]
    assert joined.config == plan.config
    with pytest.raises(InventoryError, match="takes part already"):
        plans.joined(joined, wider, "c")
    with pytest.raises(InventoryError, match="write it there first"):
        plans.joined(plan, inventory, "c")
