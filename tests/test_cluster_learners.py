"""A learner on several hosts: one plan for all its ranks, or a refusal that says what to do."""

import pytest
from cluster_plans import on_kubernetes, on_slurm
from test_cluster_plan import EXAMPLE, TOP, WORKERS, read, refusal, written

from mmzero_async.config import load
from mmzero_async.ops.cluster import plan as plans
from mmzero_async.ops.cluster.inventory import Host, Inventory, InventoryError, Roles


def test_a_learner_on_several_hosts_is_one_and_only_its_first_host_knows_log_and_keys(tmp_path):
    more = "gpus = [0, 1]\nlearner = { gpus = [0, 1] }"
    hosts = "".join(
        f'[hosts.{name}]\naddress = "10.0.0.{i}"\nroles = {{ {roles} }}\n{also}\n'
        for i, (name, roles, also) in enumerate(
            [
                ("a", "learner = 1, proposer = 1, coder = 1, renderer = 1, solver = 1", more),
                ("b", "engine = 1", ""),
                ("c", "log = 1, learner = 1", more),
            ],
            start=1,
        )
    )
    top = TOP + 'overrides = ["learner.processes=2", "learner.device=cuda"]\n'
    _, plan = read(written(tmp_path, hosts, top))
    first, second = [process for process in plan.processes if process.role == "learner"]
    assert (first.name, second.name) == ("c.learner-0", "a.learner-0")  # the log's host leads
    assert all("mmzero_async.workers.learner_ranks" in p.command for p in (first, second))
    assert first.vital and second.vital and first.listens == {"ranks": 29400}
    for rank, process in enumerate((first, second)):
        ranks = {key: value for key, value in process.env.items() if key.startswith("PET_")}
        assert ranks == {
            "PET_NNODES": "2",
            "PET_NODE_RANK": str(rank),
            "PET_MASTER_ADDR": "10.0.0.3",
            "PET_MASTER_PORT": "29400",
        }
        assert process.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "--hand-over" in first.command and "--key" in first.command
    assert not {"--hand-over", "--key", "--log-url", "--engine-key"} & set(second.command)
    assert plan.hosts["a"].needs_base and plan.hosts["c"].needs_base
    one = hosts.replace("learner = 1, proposer", "proposer").replace("gpus = [0, 1]\nl", "l", 1)
    one = one.replace("learner = { gpus = [0, 1] }", "", 1)
    _, plan = read(written(tmp_path, one, top))
    [alone] = [process for process in plan.processes if process.role == "learner"]
    assert "mmzero_async.workers.learner_ranks" in alone.command
    assert not any(key.startswith("PET_") for key in alone.env) and not alone.listens
    _, plan = read(EXAMPLE)
    assert "mmzero_async.workers.learner" in plan.process("alpha.learner-0").command


@pytest.mark.parametrize(
    ("a", "words"),
    [
        ("roles = { log = 1, engine = 1, learner = 2 }", "its processes on a host are learner.pro"),
        (
            "roles = { log = 1, engine = 1, learner = 1 }\ngpus = [0]\nlearner = { gpus = [0] }",
            "learner.gpus are 1, and learner.processes of the configuration is 2",
        ),
    ],
)
def test_what_a_learner_may_have_wrong_is_said(tmp_path, a, words):
    hosts = f'[hosts.a]\naddress = "10.0.0.1"\n{a}\n'
    hosts += f'[hosts.b]\naddress = "10.0.0.2"\nroles = {WORKERS}\n'
    top = TOP + 'overrides = ["learner.device=cuda", "learner.processes=2"]\n'
    assert words in refusal(written(tmp_path, hosts, top))


def test_a_learner_on_several_hosts_is_refused_by_schedulers():
    place = Roles(log=1, engine=1, learner=1, proposer=1, coder=1, renderer=1, solver=1)
    hosts = {
        "a": Host(address="10.0.0.1", roles=place),
        "b": Host(address="10.0.0.2", roles=Roles(learner=1)),
    }
    inventory = Inventory(run="r", keys="/k", python="/p", path="/runs", hosts=hosts)
    plan = plans.make(inventory, load())
    for render in (on_kubernetes, on_slurm):
        with pytest.raises(InventoryError, match="the learner is on a, b"):
            render(plan)
