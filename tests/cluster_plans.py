"""Plans of clusters, and what they are where a scheduler starts them."""

from hypothesis import strategies as st
from schedulers import documents

from mmzero_async.config import load
from mmzero_async.ops.cluster import plan as plans
from mmzero_async.ops.cluster.inventory import EnginePlace, Host, Inventory, LearnerPlace, Roles
from mmzero_async.ops.cluster.plan import Plan
from mmzero_async.ops.cluster.render import kubernetes, slurm
from mmzero_async.ops.cluster.render.places import Rendering
from mmzero_async.ops.cluster.render.pods import Cluster

SEEDLING = load()
KEYS = "/home/somebody/run-keys"


def on_kubernetes(plan: Plan, gpus_per_node: int = 8) -> Rendering:
    return kubernetes.render(plan, Cluster(gpus_per_node=gpus_per_node), KEYS)


def on_slurm(plan: Plan, gpus_per_node: int = 8) -> Rendering:
    return slurm.render(plan, slurm.Site(gpus_per_node=gpus_per_node), KEYS)


def objects(rendering: Rendering) -> list[dict]:
    return [found for text in rendering.files.values() for found in documents(text)]


def named(found: list[dict], kind: str, component: str) -> dict:
    [one] = [
        o
        for o in found
        if o["kind"] == kind and o["metadata"]["labels"]["app.kubernetes.io/component"] == component
    ]
    return one


def gpu_plan(engine: int, learner: int = 0, tensor: int = 0, apart: bool = True) -> Plan:
    """An engine and a learner with so many GPUs, on hosts of their own or on one."""
    overrides = ["learner.device=cuda"] if learner else []
    workers = Roles(log=1, proposer=1, coder=1, renderer=1, solver=2)
    engine_gpus = tuple(range(engine))
    place = EnginePlace(
        gpus=engine_gpus,
        tensor_parallel=tensor or max(engine, 1),
        data_parallel=engine // tensor if tensor else 1,
    )
    learner_gpus = tuple(range(engine, engine + learner))
    hosts = {"cpu": Host(address="10.0.0.1", roles=workers)}
    if apart:
        hosts["big"] = Host(
            address="10.0.0.2", roles=Roles(engine=1), gpus=engine_gpus, engine=place
        )
        hosts["train"] = Host(
            address="10.0.0.3",
            roles=Roles(learner=1),
            gpus=learner_gpus,
            learner=LearnerPlace(gpus=learner_gpus),
        )
    else:
        hosts["big"] = Host(
            address="10.0.0.2",
            roles=Roles(engine=1, learner=1),
            gpus=engine_gpus + learner_gpus,
            engine=place,
            learner=LearnerPlace(gpus=learner_gpus),
        )
    inventory = Inventory(run="demo", keys="/k", python="/opt/py", path="/scratch", hosts=hosts)
    return plans.make(inventory, load("seedling", overrides))


_names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,39}\Z").filter(
    lambda name: name not in ("server", "local", "engine")
)
_env = st.dictionaries(
    st.from_regex(r"\A[A-Z][A-Z0-9_]{0,8}\Z"), st.text("a $\"'\\%;`é\n", max_size=8), max_size=2
)


@st.composite
def some_plans(draw: st.DrawFn) -> Plan:
    names = draw(st.lists(_names, min_size=1, max_size=4, unique=True))
    one = st.sampled_from(names)
    log, engine, learner = draw(one), draw(st.one_of(one, st.just(""))), draw(one)
    stages = {stage: draw(one) for stage in ("proposer", "coder", "renderer", "solver")}
    gpus = draw(st.sampled_from([0, 1, 2, 4])) if engine else 0
    hosts = {}
    for i, name in enumerate(names):
        roles = {stage: draw(st.integers(0, 3)) + (at == name) for stage, at in stages.items()}
        roles |= {"log": int(name == log), "engine": int(name == engine)}
        roles["learner"] = int(name == learner)
        mine = tuple(range(gpus)) if name == engine else ()
        hosts[name] = Host(
            address=f"10.0.0.{i + 1}",
            roles=Roles(**roles),
            gpus=mine,
            engine=EnginePlace(gpus=mine, tensor_parallel=max(1, len(mine))),
            env=draw(_env),
        )
    run = draw(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,39}\Z"))
    inventory = Inventory(run=run, keys="/k", python="/opt/py", path="/r", hosts=hosts)
    overrides = [] if engine else ["engine.url=http://10.9.9.9:8000"]
    return plans.make(inventory, load("seedling", overrides))
