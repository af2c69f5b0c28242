"""One step: same bits from the same things, all or nothing, back to a checkpoint bit for bit."""

from dataclasses import replace

import pytest
import tiny_model
import torch
from peft import PeftModel
from tiny_model import group, looking, picture, sample
from tiny_training import ALBUM, WINDOWS, files, same, spoilt, train, trainer
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from mmzero_async.config import RoleLearning
from mmzero_async.learner import checkpoint
from mmzero_async.learner.batch import Batch, batch_digest, build
from mmzero_async.learner.errors import CheckpointError, LearnerError, StepError, WindowError
from mmzero_async.learner.model import PolicyModel
from mmzero_async.learner.window import Window
from mmzero_async.schemas.events import ROLES, Role

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture
def policy(tiny_folder) -> PolicyModel:
    return tiny_model.policy(tiny_folder)


def logprobs(policy: PolicyModel, window: Window, role: Role = "solver") -> Tensor:
    """Of all sampled tokens, longest row first."""
    batch = build(window, ALBUM.__getitem__, policy.spec, 4096)
    policy.activate(role)
    with torch.no_grad():
        (found,) = (policy.logprobs(m, policy.look(batch)) for m in batch.micro_batches)
    return found[batch.micro_batches[0].mask]


# --- same bits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kl_coefficient", [0.0, 0.1])
def test_same_checkpoint_window_and_machine_give_the_same_bits(
    tiny_folder, tmp_path, kl_coefficient
):
    runs, results = [], []
    for name in ("a", "b"):
        it = trainer(tiny_model.policy(tiny_folder), kl_coefficient=kl_coefficient)
        results.append([train(it, window) for window in WINDOWS[:2]])
        runs.append(files(tmp_path / name, it.save(tmp_path / name, 2)))
    for one, other in zip(*results, strict=True):
        assert (one.loss, one.metrics, one.batch_digest) == (
            other.loss,
            other.metrics,
            other.batch_digest,
        )
    assert runs[0] == runs[1]
    assert results[0][0].loss != results[0][1].loss


def test_save_restore_continue_equals_training_without_a_break(tiny_folder, tmp_path):
    straight = trainer(tiny_model.policy(tiny_folder))
    expected = []
    for version, window in enumerate(WINDOWS, start=1):
        expected.append(train(straight, window).metrics)
        if version == 2:
            saved = straight.save(tmp_path / "straight", version)

    # In a fresh process's stead: another model, whose adapter and moments are other ones.
    resumed = trainer(tiny_model.policy(tiny_folder, seed=99))
    train(resumed, WINDOWS[3])
    resumed.restore(tmp_path / "straight", saved)
    # What was restored is what was saved, optimiser moments included.
    again = resumed.save(tmp_path / "resumed", 2)
    assert files(tmp_path / "resumed", again) == files(tmp_path / "straight", saved)
    assert again == saved
    assert [train(resumed, window).metrics for window in WINDOWS[2:]] == expected[2:]
    ends = [
        files(tmp_path / n, it.save(tmp_path / n, 4))
        for n, it in (("straight", straight), ("resumed", resumed))
    ]
    assert ends[0] == ends[1]


def test_without_its_moments_training_goes_another_way(tiny_folder, tmp_path):
    """Or the test above would not tell that they were restored."""
    it = trainer(tiny_model.policy(tiny_folder))
    for window in WINDOWS[:2]:
        train(it, window)
    forgetful = trainer(tiny_model.policy(tiny_folder))
    forgetful.model.set_adapter("solver", it.model.adapter("solver"))
    forgetful.version = it.version
    results = [train(t, WINDOWS[2]) for t in (it, forgetful)]
    assert results[0].metrics == results[1].metrics
    assert not same(it.model.adapter("solver"), forgetful.model.adapter("solver"))


def test_back_to_version_0_no_moment_of_a_later_version_survives(tiny_folder, tmp_path):
    it = trainer(tiny_model.policy(tiny_folder))
    initial = it.save(tmp_path, 0)
    first = train(it, WINDOWS[0])
    once = it.save(tmp_path / "once", 1)
    it.restore(tmp_path, initial)
    assert files(tmp_path, it.save(tmp_path, 0)) == files(tmp_path, initial)
    assert train(it, WINDOWS[0]).metrics == first.metrics
    assert it.save(tmp_path / "twice", 1) == once
    assert files(tmp_path / "once", once) == files(tmp_path / "twice", once)


def test_what_a_checkpoint_holds_does_not_follow_later_training(tiny_folder, tmp_path):
    it = trainer(tiny_model.policy(tiny_folder))
    train(it, WINDOWS[0])
    saved = it.save(tmp_path, 1)
    it.restore(tmp_path, saved)
    before = files(tmp_path, saved)
    train(it, WINDOWS[1])
    it.restore(tmp_path, saved)
    assert files(tmp_path / "again", it.save(tmp_path / "again", 1)) == before


# --- what a step does -----------------------------------------------------------------------------


def test_a_praised_sample_becomes_likelier_and_a_blamed_one_less_likely(policy):
    seen = ALBUM.add(picture(7))
    for advantage in (1.0, -1.0):
        it = trainer(policy, solver=RoleLearning(groups=2, lr=1e-3))
        one = group("g", looking([20, 21]), [[30, 31, 32]], [advantage], images=[seen])
        window = Window("solver", (one,))
        before = logprobs(policy, window)
        train(it, window)
        assert (logprobs(policy, window).sum() - before.sum()).item() * advantage > 0.01


def test_micro_batches_make_the_step_that_the_whole_window_makes(tiny_folder):
    results = []
    for budget in (1, 64, 4096):
        it = trainer(tiny_model.policy(tiny_folder), micro_batch_tokens=budget)
        results.append(train(it, WINDOWS[0]).metrics)
    for metrics in results[1:]:  # the gradient's norm among them
        assert metrics == pytest.approx(results[0], rel=1e-4)


def test_figures_are_those_of_the_window(policy):
    said = logprobs(policy, window := WINDOWS[0])
    result = train(trainer(policy, solver=RoleLearning(groups=2, lr=3e-3)), window)
    rewards = torch.tensor([r for g in window.groups for r in g.rewards]).double()
    metrics = result.metrics
    assert metrics["loss"] == result.loss
    assert (metrics["groups"], metrics["samples"], metrics["lr"]) == (3.0, 12.0, 3e-3)
    assert metrics["tokens"] == len(said)
    assert metrics["entropy"] == pytest.approx(-said.mean().item(), rel=1e-5)
    assert metrics["reward_mean"] == pytest.approx(rewards.mean().item())
    assert metrics["reward_std"] == pytest.approx(rewards.std(correction=0).item())
    assert metrics["grad_norm"] > 0.0
    batch: Batch = build(window, ALBUM.__getitem__, policy.spec, 64)
    assert result.batch_digest == batch_digest(batch)
    assert result.padded_tokens == sum(m.input_ids.numel() for m in batch.micro_batches)
    assert result.seconds > 0.0


def test_on_policy_the_figures_say_so(policy):
    one = group("g", [20, 21], [[30, 31], [32]])
    batch = build(Window("solver", (one,)), ALBUM.__getitem__, policy.spec, 4096)
    with torch.no_grad():
        (said,) = (policy.logprobs(m, None) for m in batch.micro_batches)
    drawn = [sample([30, 31], said[0].tolist()), sample([32], said[1, :1].tolist())]
    result = train(trainer(policy), Window("solver", (group("g", [20, 21], drawn),)))
    for figure, expected in (("ratio_mean", 1), ("ess_share", 1), ("token_mult_prob_error", 1)):
        assert result.metrics[figure] == pytest.approx(expected, abs=1e-5)
    assert result.metrics["mismatch_kl"] == pytest.approx(0, abs=1e-6)


def test_the_kl_term_measures_the_distance_from_the_base_and_pulls_back(tiny_folder):
    idle = replace_advantages(WINDOWS[0], 0.0)
    policy = tiny_model.policy(tiny_folder)
    fresh = train(trainer(policy, kl_coefficient=1.0), idle)
    assert fresh.metrics["kl"] == pytest.approx(0.0, abs=1e-6)  # version 0 is the base
    tiny_model.stir(policy, "solver", scale=0.1)
    it = trainer(policy, kl_coefficient=1.0, solver=RoleLearning(groups=2, lr=1e-3))
    away = [train(it, idle) for _ in range(4)]
    assert away[0].loss == pytest.approx(away[0].metrics["kl"]) and away[0].loss > 0.01
    assert away[-1].metrics["kl"] < 0.9 * away[0].metrics["kl"]
    assert train(trainer(policy), idle).metrics["kl"] == 0.0  # not asked for


def replace_advantages(window: Window, value: float) -> Window:
    return replace(
        window,
        groups=tuple(replace(g, advantages=[value] * len(g.advantages)) for g in window.groups),
    )


def test_the_gradient_is_clipped_to_its_norm(tiny_folder, tmp_path):
    """AdamW's first step hardly shows a gradient's length; its first moments do."""
    lengths = []
    for limit in (1e9, 1e-3):
        it = trainer(tiny_model.policy(tiny_folder), max_grad_norm=limit)
        norm = train(it, WINDOWS[0]).metrics["grad_norm"]
        moments = checkpoint.read(tmp_path, it.save(tmp_path, 1).checkpoint).optimizer
        gradients = [m.norm() / 0.1 for n, m in moments.items() if n.endswith("::exp_avg")]
        lengths.append(torch.stack(gradients).norm().item())  # 0.1 is 1 - beta 1
    assert lengths == pytest.approx([norm, 1e-3], rel=1e-2)


def test_training_one_role_leaves_the_others_bits_alone(policy, tmp_path):
    trainers = {role: trainer(policy, role) for role in ROLES}

    def bits(name: str) -> dict[Role, dict[str, bytes]]:
        run = tmp_path / name
        return {role: files(run, it.save(run, 1)) for role, it in trainers.items()}

    for role in ROLES:
        train(trainers[role], WINDOWS[0])
    before = bits("before")
    train(trainers["coder"], WINDOWS[1])
    after = bits("after")
    assert {role for role in ROLES if after[role] != before[role]} == {"coder"}


# --- all or nothing -------------------------------------------------------------------------------


HOPELESS = {
    "an advantage that is infinite": lambda w: spoilt(w, advantages=[0.0, 0.0, 0.0, float("inf")]),
    "an advantage that is no number": lambda w: spoilt(w, advantages=[float("nan")] * 4),
    "a behaviour log-probability that is no number": lambda w: replace(
        w, groups=(*w.groups, group("odd", [20], [sample([30], [float("nan")])]))
    ),
    "a gradient beyond float32": lambda w: spoilt(w, advantages=[3e38, -3e38, 3e38, 3e38]),
}


@pytest.mark.parametrize("why", HOPELESS)
def test_a_step_that_is_not_finite_is_refused_and_changes_nothing(tiny_folder, tmp_path, why):
    it, untroubled = (trainer(tiny_model.policy(tiny_folder)) for _ in range(2))
    for one in (it, untroubled):
        train(one, WINDOWS[0])
    before = files(tmp_path / "before", it.save(tmp_path / "before", 1))
    with pytest.raises(
        StepError, match=r"solver: loss .* group g0: nothing was changed"
    ) as refused:
        train(it, HOPELESS[why](WINDOWS[1]))
    assert isinstance(refused.value, LearnerError)
    assert files(tmp_path / "after", it.save(tmp_path / "after", 1)) == before
    # Nor does it leave a gradient behind that would leak into the next step.
    assert train(it, WINDOWS[2]).metrics == train(untroubled, WINDOWS[2]).metrics
    assert same(it.model.adapter("solver"), untroubled.model.adapter("solver"))


def test_a_window_that_cannot_become_tensors_is_refused_and_changes_nothing(policy, tmp_path):
    it = trainer(policy)
    before = files(tmp_path / "before", it.save(tmp_path / "before", 0))
    with pytest.raises(WindowError):
        train(it, Window("solver", ()))
    assert files(tmp_path / "after", it.save(tmp_path / "after", 0)) == before


def test_a_window_of_another_role_is_refused(policy):
    it, before = trainer(policy), policy.adapter("solver")
    with pytest.raises(StepError, match="a coder window was given to the solver's trainer"):
        it.train(replace(WINDOWS[0], role="coder"), ALBUM.__getitem__)
    assert same(policy.adapter("solver"), before)


@pytest.mark.parametrize("wrong", ["rank", "digest"])
def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing(
    tiny_folder, tmp_path, wrong
):
    it = trainer(tiny_model.policy(tiny_folder))
    train(it, WINDOWS[0])
    before = files(tmp_path / "before", it.save(tmp_path / "before", 1))
    other = trainer(tiny_model.policy(tiny_folder, rank=2 if wrong == "rank" else 4))
    train(other, WINDOWS[1])
    saved = other.save(tmp_path / "other", 1)
    if wrong == "digest":
        saved = replace(saved, digest="0" * 64)
    with pytest.raises(CheckpointError):
        it.restore(tmp_path / "other", saved)
    assert files(tmp_path / "after", it.save(tmp_path / "after", 1)) == before


# --- the saved folder -----------------------------------------------------------------------------


def test_peft_loads_the_saved_folder_and_says_the_same(tiny_folder, tmp_path):
    policy = tiny_model.policy(tiny_folder)
    it = trainer(policy, "coder")
    for window in WINDOWS[:2]:
        train(it, window)
    saved = it.save(tmp_path, 2)
    base = Qwen3VLForConditionalGeneration.from_pretrained(tiny_folder, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, str(tmp_path / saved.checkpoint)).eval()
    seen = ALBUM.add(picture(8))
    for images, prompt in (([], [20, 21]), ([seen], looking([20]))):
        window = Window("coder", (group("g", prompt, [[30, 31, 32]], images=images),))
        batch = build(window, ALBUM.__getitem__, policy.spec, 4096)
        (micro,) = batch.micro_batches
        pixels = {
            **(batch.pictures.tensors if images else {}),
            "mm_token_type_ids": micro.token_types,
        }
        with torch.no_grad():
            logits = theirs(input_ids=micro.input_ids, **(pixels if images else {})).logits[0]
        scores = logits[-4:-1].log_softmax(-1)[range(3), [30, 31, 32]]
        found = logprobs(policy, window, "coder")
        torch.testing.assert_close(found, scores, rtol=2e-5, atol=2e-5)
        with policy.base(), torch.no_grad():
            (untrained,) = policy.logprobs(micro, policy.look(batch))
        assert (untrained - found).abs().max() > 0.01
