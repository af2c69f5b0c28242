"""Logits in chunks and layers computed again: the same numbers, of less memory."""

import pytest
import tiny_model
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_words import all_logprobs, whole
from tiny_model import Album
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmzero_async.learner import model as learner_model
from mmzero_async.learner.model import token_logprobs


class Allocated(TorchDispatchMode):
    """The largest tensor over the vocabulary that any operation makes, backward pass included."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.largest = vocabulary, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        inputs = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if tensor(x)}
        for x in filter(tensor, tree_leaves(made)):
            if self.vocabulary in x.shape and x.untyped_storage().data_ptr() not in inputs:
                self.largest = max(self.largest, x.numel())
        return made


def tensor(x: object) -> bool:
    return isinstance(x, Tensor)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_logits_in_chunks_are_the_plain_computation(data: st.DataObject) -> None:
    rows, vocabulary = data.draw(st.integers(0, 17)), data.draw(st.integers(2, 40))
    size = data.draw(st.integers(1, 20))
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    head = torch.nn.Linear(8, vocabulary, bias=False)
    states, targets = torch.randn(rows, 8), torch.randint(vocabulary, (rows,))
    temperatures, weights = torch.rand(rows) + 0.5, torch.randn(rows)

    def run(speak) -> tuple[Tensor, Tensor]:
        mine = states.clone().requires_grad_(True)
        found = speak(mine)
        (gradient,) = torch.autograd.grad((found * weights).sum(), mine)
        return found.detach(), gradient

    def plainly(mine: Tensor) -> Tensor:
        scores = (head(mine) / temperatures[:, None]).log_softmax(-1)
        return scores[torch.arange(rows), targets]

    found = run(lambda mine: token_logprobs(mine, head, targets, temperatures, size))
    for one, other in zip(found, run(plainly), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_left_alone_a_chunk_is_as_many_tokens_as_fit_and_a_window_of_the_seedlings_is_one(
    monkeypatch,
):
    torch.manual_seed(4)
    head = torch.nn.Linear(8, 10, bias=False)
    states, targets = torch.randn(7, 8), torch.randint(10, (7,))

    def largest() -> int:
        with Allocated(10) as allocated:
            token_logprobs(states, head, targets, torch.ones(7))
        return allocated.largest

    assert largest() == 7 * 10
    monkeypatch.setattr(learner_model, "LOGITS_A_CHUNK", 39)  # three rows and a bit
    assert largest() == 3 * 10


@pytest.mark.parametrize("chunk", [1, 5])
def test_logits_of_a_whole_window_never_exist_at_once(tiny_folder, chunk):
    """Neither in the forward nor in the backward pass, nor are they kept between the two."""
    policy = tiny_model.policy(tiny_folder, logprob_chunk=chunk)
    batch = whole(policy, Album(), 4096)
    vocabulary, tokens = policy.spec.vocabulary, batch.tokens
    policy.activate("solver")
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with Allocated(vocabulary) as allocated:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            (found,) = all_logprobs(policy, batch)
        found.sum().backward()
    assert allocated.largest == chunk * vocabulary < tokens * vocabulary
    weight = policy._head.weight
    over = [x for x in kept if vocabulary in x.shape and x.data_ptr() != weight.data_ptr()]
    assert over == []
    # The same without chunks keeps them all: the hooks above would have seen it.
    policy = tiny_model.policy(tiny_folder)
    with Allocated(vocabulary) as unbounded:
        all_logprobs(policy, batch)
    assert unbounded.largest == tokens * vocabulary


@pytest.mark.parametrize("role", ["solver", "coder"])
def test_layers_computed_again_give_the_same_gradient_and_keep_less(tiny_folder, role):
    batch = whole(tiny_model.policy(tiny_folder), Album(), 4096)
    gradients, kept = [], []
    for again in (False, True):
        policy = tiny_model.policy(tiny_folder, gradient_checkpointing=again)
        tiny_model.stir(policy, role)
        policy.activate(role)
        size = 0

        def keep(x: Tensor) -> Tensor:
            nonlocal size
            size += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            found = all_logprobs(policy, batch)
        sum(x.square().sum() for x in found).backward()
        gradients.append({n: p.grad for n, p in policy.parameters(role).items()})
        kept.append(size)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-6, atol=1e-6)
    assert any(gradient.any() for gradient in gradients[0].values())
    assert kept[1] < kept[0] / 3
