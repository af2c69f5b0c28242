"""Generation is paced so that no group starves: whatever is slow, nothing grows too stale."""

import random

import pytest
from builders import answered, coded, proposed, records, rendered
from hypothesis import given, settings
from hypothesis import strategies as st
from test_projections import publish_all, step

from mmzero_async.config import Config, load
from mmzero_async.projections.admission import fan_out, holding_back, steps_before
from mmzero_async.projections.dispatcher import PipelineDispatcher
from mmzero_async.projections.making import Making
from mmzero_async.schemas.events import Event, PolicyPublished, Role
from mmzero_async.schemas.ids import indices
from mmzero_async.schemas.record import Record
from mmzero_async.schemas.work import STAGES, Work

TRAINED: list[Role] = ["coder", "solver"]


class World:
    """The real dispatcher; workers, each as slow as it likes, and a learner that never waits."""

    def __init__(self, config: Config) -> None:
        self.config, self.dispatcher = config, PipelineDispatcher(config)
        self.log: list[Event] = []
        self.held: list[Work] = []
        self.behind: list[int] = []  # versions, of each group that was trained on
        self.add(*publish_all())

    def add(self, *events: Event) -> None:
        for event in events:
            self.log.append(event)
            [record] = records([event])
            self.dispatcher.apply(Record(len(self.log) - 1, record.envelope))

    def lease(self) -> None:
        for stage in STAGES:
            while (work := self.dispatcher.take(stage)) is not None:
                self.held.append(work)

    def finish(self, work: Work) -> None:
        self.held.remove(work)
        self.add(result(work, self.config))

    def learn(self) -> bool:
        """A step of each role that has enough, first come, first served."""
        learned = False
        for role in TRAINED:
            ready = list(self.dispatcher.pipeline.book.ready[role].values())
            count = getattr(self.config.learner, role).groups
            if len(ready) < count:
                continue
            policies = self.dispatcher.pipeline.policies
            version = policies.version(role)
            self.behind += [version - group.version for group in ready[:count]]
            version += 1
            self.add(
                step(role, version, [group.id for group in ready[:count]]),
                PolicyPublished(
                    role=role,
                    version=version,
                    policy=f"{role}@{version}",
                    checkpoint="c",
                    digest="d",
                ),
            )
            learned = True
        return learned


def result(work: Work, config: Config) -> Event:
    match work.stage:
        case "propose":
            return proposed(work.target, [True] * config.proposer.samples, work.version)
        case "code":
            return coded(work.target, [True] * config.coder.samples, work.version)
        case "render":
            return rendered(work.target)
        case _:
            assert work.question in ("easy", "hard")
            return answered(work.target, work.question, ["3", "4"], work.version)


def paced(max_staleness: int, eta: int, prompts: int, groups: int) -> Config:
    return load(
        overrides=[
            *("proposer.samples=2", "coder.samples=2", "learner.proposer.train=false"),
            *(f"learner.coder.groups={groups}", f"learner.solver.groups={groups}"),
            *(f"admission.max_staleness={max_staleness}", f"admission.eta={eta}"),
            f"admission.max_running_groups={prompts}",
        ]
    )


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    slack=st.integers(0, 4),
    eta=st.integers(0, 4),
    prompts=st.integers(1, 6),
    groups=st.integers(1, 5),
    slow=st.sets(st.integers(0, 12), max_size=4),
)
def test_no_group_is_too_stale_when_its_turn_comes_however_slow_some_are(
    seed: int, slack: int, eta: int, prompts: int, groups: int, slow: set[int]
) -> None:
    """Some pieces of work are put off for as long as there is anything else to do."""
    choose = random.Random(seed)
    # One prompt alone, with what was left over before it, comes to so many steps.
    least = steps_before(groups - 1 + fan_out(paced(0, 0, 1, 1), "solver"), groups)
    config = paced(least + slack, eta, prompts, groups)
    world = World(config)
    for _ in range(120):
        world.lease()
        quick = [work for work in world.held if sum(indices(work.target)) not in slow]
        world.finish(choose.choice(quick) if quick else world.held[0])
        world.learn()
    assert world.behind, "it goes on"
    assert max(world.behind) <= config.admission.max_staleness


def test_a_slow_answer_holds_back_new_prompts_and_says_so_until_it_is_there() -> None:
    world = World(paced(max_staleness=2, eta=8, prompts=3, groups=2))
    slow = None
    while True:
        world.lease()
        slow = slow or next((w for w in world.held if w.question == "hard"), None)
        quick = [work for work in world.held if work is not slow]
        if not quick:
            break
        world.finish(quick[0])
        world.learn()
    assert slow is not None and world.held == [slow]
    hand = Making()
    hand.began("solver", slow.version)
    why = holding_back(world.dispatcher.pipeline, world.config, 0, hand)
    assert why.startswith("the oldest solver group in the making: it is")
    flows = world.dispatcher.flows({}, [])
    assert next(flow.waits_for for flow in flows if flow.stage == "propose") == why
    world.finish(slow)
    world.learn()
    world.lease()
    assert any(work.stage == "propose" for work in world.held)


@given(st.integers(0, 100), st.integers(1, 20))
def test_steps_before_the_last_of_some_groups(groups: int, a_step: int) -> None:
    taken, left = 0, groups
    while left > a_step:
        taken, left = taken + 1, left - a_step
    assert steps_before(groups, a_step) == (taken if groups else -1)


@pytest.mark.parametrize(("role", "groups"), [("proposer", 1), ("coder", 2), ("solver", 6)])
def test_what_one_prompt_may_come_to(role: Role, groups: int) -> None:
    assert fan_out(load(overrides=["proposer.samples=2", "coder.samples=3"]), role) == groups
