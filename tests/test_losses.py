"""The loss is what its formula says: against loops, derivatives and hand-made numbers."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmzero_async.learner.losses import TokenSums, k3, truncated_importance_loss

INFINITY = float("inf")


@dataclass
class Case:
    """Float64, so that a formula and its derivative can be compared closely."""

    logprobs: Tensor
    behaviour: Tensor
    reference: Tensor
    mask: Tensor
    advantages: Tensor
    cap: float
    kl_coefficient: float

    def rows(self, start: int, stop: int) -> "Case":
        tensors = (self.logprobs, self.behaviour, self.reference, self.mask, self.advantages)
        return Case(*(t[start:stop] for t in tensors), self.cap, self.kl_coefficient)

    @property
    def tokens(self) -> int:
        return int(self.mask.sum())

    def loss(self, tokens: int | None = None) -> tuple[Tensor, TokenSums]:
        return truncated_importance_loss(
            self.logprobs,
            self.behaviour,
            self.mask,
            self.advantages,
            cap=self.cap,
            tokens=tokens or self.tokens,
            reference=self.reference if self.kl_coefficient > 0.0 else None,
            kl_coefficient=self.kl_coefficient,
        )

    def gradient(self) -> Tensor:
        self.logprobs.requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.loss()[0], self.logprobs)
        return gradient


logprob = st.floats(-12.0, 0.0)


@st.composite
def cases(draw: st.DrawFn, coefficients: tuple[float, ...] = (0.0, 0.05, 1.0)) -> Case:
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 5))

    def numbers(strategy: st.SearchStrategy[float], *shape: int) -> Tensor:
        count = math.prod(shape)
        values = draw(st.lists(strategy, min_size=count, max_size=count))
        return torch.tensor(values, dtype=torch.float64).reshape(shape)

    lengths = draw(st.lists(st.integers(0, width), min_size=rows, max_size=rows))
    lengths[0] = max(1, lengths[0])
    return Case(
        logprobs=numbers(logprob, rows, width),
        behaviour=numbers(logprob, rows, width),
        reference=numbers(logprob, rows, width),
        mask=torch.arange(width)[None] < torch.tensor(lengths)[:, None],
        advantages=numbers(st.floats(-3.0, 3.0), rows),
        cap=draw(st.sampled_from([0.5, 1.0, 2.0, 5.0, INFINITY])),
        kl_coefficient=draw(st.sampled_from(coefficients)),
    )


def slowly(case: Case) -> tuple[float, list[list[float]], dict[str, float]]:
    """Value, gradient and metrics with loops and plain floats, from the formulas in the docs."""
    value, ratios, log_ratios, surprises, divergences, clipped = 0.0, [], [], [], [], 0
    gradient = [[0.0] * case.mask.shape[1] for _ in case.mask]
    n = case.tokens
    for i in range(case.mask.shape[0]):
        for t in range(case.mask.shape[1]):
            if not case.mask[i, t]:
                continue
            new, old = float(case.logprobs[i, t]), float(case.behaviour[i, t])
            ratio = math.exp(new) / math.exp(old)
            weight = min(ratio, case.cap)
            advantage = float(case.advantages[i])
            value -= weight * advantage / n
            gradient[i][t] -= weight * advantage / n
            divergence = 0.0
            if case.kl_coefficient > 0.0:
                x = float(case.reference[i, t]) - new
                divergence = math.exp(x) - x - 1.0
                value += case.kl_coefficient * divergence / n
                gradient[i][t] += case.kl_coefficient * (1.0 - math.exp(x)) / n
            clipped += ratio > case.cap
            ratios.append(ratio)
            log_ratios.append(new - old)
            surprises.append(-new)
            divergences.append(divergence)
    metrics = {
        "tokens": n,
        "ratio_mean": sum(ratios) / n,
        "clipped_share": clipped / n,
        "mismatch_kl": sum(r - x - 1.0 for r, x in zip(ratios, log_ratios, strict=True)) / n,
        "token_mult_prob_error": sum(math.exp(abs(x)) for x in log_ratios) / n,
        "ess_share": sum(ratios) ** 2 / (n * sum(r * r for r in ratios)),
        "entropy": sum(surprises) / n,
        "kl": sum(divergences) / n,
    }
    return value, gradient, metrics


@given(cases())
@settings(max_examples=150, deadline=None)
def test_value_gradient_and_metrics_are_those_of_a_slow_implementation(case):
    value, gradient, metrics = slowly(case)
    loss, sums = case.loss()
    assert loss.item() == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert sums.loss == pytest.approx(value, rel=1e-9, abs=1e-9)
    expected = torch.tensor(gradient, dtype=torch.float64)
    torch.testing.assert_close(case.gradient(), expected, rtol=1e-9, atol=1e-9)
    found = sums.metrics()
    ratios = (case.logprobs - case.behaviour)[case.mask].exp()
    if ((ratios - case.cap).abs() < 1e-9).any():  # above the cap or at it: rounding decides
        del metrics["clipped_share"], found["clipped_share"]
    assert found == pytest.approx(metrics, rel=1e-9, abs=1e-9)


@given(cases(coefficients=(0.0,)))
@settings(max_examples=50, deadline=None)
def test_the_gradient_is_minus_the_truncated_ratio_times_the_advantage(case):
    ratio = (case.logprobs - case.behaviour).exp()
    weight = torch.minimum(ratio, torch.tensor(case.cap, dtype=torch.float64))
    expected = -weight * case.advantages[:, None] * case.mask / case.tokens
    torch.testing.assert_close(case.gradient(), expected.detach())


@given(cases(coefficients=(0.0, 1.0)))
@settings(max_examples=30, deadline=None)
def test_finite_differences_of_the_objective_with_its_weights_held_fast_agree(case):
    """Not of the value itself: its importance weights and 1 / pi are constants of the gradient."""
    gradient, width = case.gradient(), 1e-6
    fixed = case.logprobs.detach().clone()
    ratio = (fixed - case.behaviour).exp().clamp(max=case.cap)

    def objective(moved: Tensor) -> Tensor:
        terms = -ratio * case.advantages[:, None] * (moved - fixed).exp()
        x = case.reference - moved
        terms = terms + case.kl_coefficient * (x.exp() - x - 1.0)
        return (terms * case.mask).sum() / case.tokens

    for i in range(fixed.shape[0]):
        for t in range(fixed.shape[1]):
            step = torch.zeros_like(fixed)
            step[i, t] = width
            slope = (objective(fixed + step) - objective(fixed - step)) / (2 * width)
            assert gradient[i, t].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-3)


def test_on_policy_it_is_the_plain_policy_gradient():
    torch.manual_seed(1)
    logits = torch.randn(3, 4, 7, dtype=torch.float64, requires_grad=True)
    chosen = torch.randint(7, (3, 4))
    logprobs = logits.log_softmax(-1).gather(-1, chosen[..., None]).squeeze(-1)
    advantages = torch.tensor([1.5, -0.5, 2.0], dtype=torch.float64)
    mask = torch.ones(3, 4, dtype=torch.bool)
    loss, sums = truncated_importance_loss(
        logprobs, logprobs.detach(), mask, advantages, cap=2.0, tokens=12
    )
    (ours,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (plain,) = torch.autograd.grad(-(advantages[:, None] * logprobs).sum() / 12, logits)
    torch.testing.assert_close(ours, plain)
    assert loss.item() == pytest.approx(-(1.5 - 0.5 + 2.0) * 4 / 12)
    metrics = sums.metrics()
    assert (metrics["ratio_mean"], metrics["ess_share"], metrics["mismatch_kl"]) == (1.0, 1.0, 0.0)
    assert (metrics["clipped_share"], metrics["token_mult_prob_error"]) == (0.0, 1.0)


def test_the_cap_holds_for_either_sign_and_leaves_smaller_ratios_alone():
    behaviour = torch.tensor([[-3.0, -3.0, -3.0, -3.0]] * 2)
    logprobs = behaviour + torch.tensor([4.0, 1.9, 0.5, 0.1]).log()
    case = Case(
        logprobs, behaviour, behaviour, torch.ones(2, 4) > 0, torch.tensor([1.0, -1.0]), 2.0, 0.0
    )
    _, sums = case.loss()
    expected = torch.tensor([[-2.0, -1.9, -0.5, -0.1], [2.0, 1.9, 0.5, 0.1]]) / 8
    torch.testing.assert_close(case.gradient(), expected)
    assert sums.clipped == 2
    case.cap = INFINITY
    assert case.gradient()[0, 0].item() == pytest.approx(-4.0 / 8)


@pytest.mark.parametrize("garbage", [float("nan"), INFINITY, -INFINITY, 1e30])
def test_garbage_in_padded_places_changes_neither_value_nor_gradient_nor_metrics(garbage):
    def case(fill: float) -> Case:
        tensors = [torch.tensor([[-1.0, -2.0], [-0.5, fill]]) for _ in range(3)]
        tensors[1] = tensors[1] - 0.25
        mask = torch.tensor([[True, True], [True, False]])
        return Case(*tensors, mask, torch.tensor([1.0, -2.0]), 2.0, 0.1)

    clean, dirty = case(0.0), case(garbage)
    assert dirty.loss()[0].item() == clean.loss()[0].item()
    assert dirty.loss()[1] == clean.loss()[1]
    gradient = dirty.gradient()
    assert torch.equal(gradient, clean.gradient())
    assert gradient[1, 1] == 0.0


@given(cases(), st.data())
@settings(max_examples=50, deadline=None)
def test_micro_batches_add_up_to_the_whole_window(case, data):
    cut = data.draw(st.integers(0, len(case.advantages)))
    whole, sums = case.loss()
    gradient = case.gradient()
    parts = [case.rows(0, cut), case.rows(cut, len(case.advantages))]
    losses, part_sums, gradients = [], TokenSums(), []
    for part in parts:
        part.logprobs = part.logprobs.detach().requires_grad_(True)
        loss, more = part.loss(tokens=case.tokens)
        gradients.append(torch.autograd.grad(loss, part.logprobs)[0])
        losses.append(loss.item())
        part_sums = part_sums + more
    assert sum(losses) == pytest.approx(whole.item(), rel=1e-9, abs=1e-12)
    torch.testing.assert_close(torch.cat(gradients), gradient)
    assert part_sums.metrics() == pytest.approx(sums.metrics(), rel=1e-9)
    assert part_sums.loss == pytest.approx(sums.loss, rel=1e-9, abs=1e-12)


def test_metrics_are_the_hand_computed_numbers():
    """Ratios 1, 2 and 4 over three tokens of probability 1/2; base half as sure of the first."""
    half = math.log(0.5)
    logprobs = torch.tensor([[half, half], [half, 0.0]], dtype=torch.float64)
    behaviour = torch.tensor([[half, half - math.log(2)], [half - math.log(4), 9.0]]).double()
    reference = torch.tensor([[half - math.log(2), half], [half, 9.0]]).double()
    mask = torch.tensor([[True, True], [True, False]])
    case = Case(logprobs, behaviour, reference, mask, torch.tensor([3.0, -1.0]).double(), 2.5, 0.3)
    loss, sums = case.loss()
    first = 0.5 + math.log(2) - 1.0  # k3 at x = -log 2
    assert loss.item() == pytest.approx((-3.0 * 1 - 3.0 * 2 + 2.5 + 0.3 * first) / 3)
    metrics = sums.metrics()
    assert metrics == pytest.approx(
        {
            "tokens": 3.0,
            "ratio_mean": 7 / 3,
            "clipped_share": 1 / 3,
            "mismatch_kl": (0.0 + (2 - math.log(2) - 1) + (4 - math.log(4) - 1)) / 3,
            "token_mult_prob_error": 7 / 3,
            "ess_share": 49 / (3 * 21),
            "entropy": math.log(2),
            "kl": first / 3,
        },
        rel=1e-6,
    )


def test_sums_of_nothing_have_finite_metrics():
    assert set(TokenSums().metrics().values()) == {0.0}


@pytest.mark.parametrize("distance", [60.0, INFINITY])
def test_a_hopeless_ratio_stays_finite(distance):
    behaviour = torch.tensor([[-distance, -1.0]])
    logprobs = torch.tensor([[-1.0, -60.0]])
    mask, advantages = torch.ones(1, 2) > 0, torch.tensor([1.0])
    case = Case(logprobs, behaviour, behaviour, mask, advantages, INFINITY, 0.0)
    loss, sums = case.loss()
    assert math.isfinite(loss.item())
    assert all(map(math.isfinite, sums.metrics().values()))
    assert case.gradient().isfinite().all()


@given(st.lists(st.tuples(logprob, logprob), min_size=1, max_size=9))
def test_k3_is_its_formula_and_never_negative(pairs):
    new, base = torch.tensor(pairs, dtype=torch.float64).T
    values = k3(new, base)
    x = base - new
    torch.testing.assert_close(values, x.exp() - 1.0 - x)
    assert (values >= 0.0).all()
    assert (values[new == base] == 0.0).all()


def test_k3_estimates_the_divergence_from_the_base():
    torch.manual_seed(2)
    policy = (0.5 * torch.randn(6, dtype=torch.float64)).log_softmax(-1)
    base = (0.5 * torch.randn(6, dtype=torch.float64)).log_softmax(-1)
    exact = (policy.exp() * (policy - base)).sum()
    torch.testing.assert_close((policy.exp() * k3(policy, base)).sum(), exact)


def test_kl_without_a_reference_is_refused():
    one = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="reference"):
        truncated_importance_loss(one, one, one == 0, one[0], cap=2.0, tokens=1, kl_coefficient=0.1)
