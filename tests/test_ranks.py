"""A step shared out over ranks is the step of one: played here by one process, in turn."""

import pytest
import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import Album, group, looking, picture
from tiny_training import ALBUM, WINDOWS, same, spoilt, train, trainer
from torch import Tensor

from mmzero_async.config import RoleLearning
from mmzero_async.families import Pictures
from mmzero_async.learner.batch import Batch, build
from mmzero_async.learner.errors import StepError
from mmzero_async.learner.full import FullModel
from mmzero_async.learner.ranks import deal
from mmzero_async.learner.step import StepResult
from mmzero_async.learner.window import Window
from mmzero_async.loss_options import LossOptions

pytestmark = pytest.mark.usefixtures("deterministic")


# --- dealing --------------------------------------------------------------------------------------


def seen(pictures: Pictures | None, place: int) -> tuple[object, ...]:
    assert pictures is not None
    one = pictures.part(place, place + 1)
    tensors = {name: tensor.numpy().tobytes() for name, tensor in one.tensors.items()}
    return tuple(tensors.items()), one.patches, one.expansions[0].tobytes()


def rows_of(batch: Batch) -> list[tuple[object, ...]]:
    """Every row with tokens, told by its own tensors and by the pixels of its pictures."""
    rows = []
    for micro in batch.micro_batches:
        shown = tuple(seen(batch.pictures, picture) for picture in micro.pictures.tolist())
        for i in range(len(micro.input_ids)):
            if micro.mask[i].any():
                drawn = tuple(micro.completion_ids[i][micro.mask[i]].tolist())
                rows.append((drawn, float(micro.advantages[i]), shown))
    return sorted(rows, key=repr)


@given(
    size=st.integers(1, 9),
    budget=st.integers(1, 128),
    lengths=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), min_size=1, max_size=5),
    shows=st.lists(st.integers(0, 2), min_size=5, max_size=5),
)
def test_every_micro_batch_goes_to_one_hand_with_its_pictures(spec, size, budget, lengths, shows):
    album = Album()
    groups = []
    for number, wanted in enumerate(lengths):
        images = [album.add(picture(shows[number]))] if shows[number] else []
        prompt = looking([20]) if images else [20]
        groups.append(group(f"g{number}", prompt, [[30] * n for n in wanted], images=images))
    batch = build(Window("solver", tuple(groups)), album.__getitem__, spec, budget)
    hands = deal(batch, size)
    assert len(hands) == size and {len(h.micro_batches) for h in hands} == {
        max(len(h.micro_batches) for h in hands)
    }
    assert sorted([r for h in hands for r in rows_of(h)], key=repr) == rows_of(batch)
    assert all((h.tokens, h.max_tokens) == (batch.tokens, batch.max_tokens) for h in hands)
    loads = [sum(m.input_ids.numel() for m in h.micro_batches if m.mask.any()) for h in hands]
    assert max(loads) - min(loads) <= max(m.input_ids.numel() for m in batch.micro_batches)
    for hand in hands:  # nobody looks at a picture that none of its rows shows
        shown = {p for m in hand.micro_batches for p in m.pictures.tolist()}
        pictures = 0 if hand.pictures is None else len(hand.pictures.patches)
        assert shown == set(range(pictures))


def test_one_rank_has_the_batch_as_it_is(spec):
    batch = build(WINDOWS[0], ALBUM.__getitem__, spec, 64)
    assert deal(batch, 1) == [batch] and deal(batch, 1)[0] is batch


# --- the step -------------------------------------------------------------------------------------

LOSSES = {
    "the default": {"kl_coefficient": 0.1},
    "a sample's own length": {"loss": "grpo"},
    "the whole window looked at first": {
        "loss": "m2po",
        "loss_options": LossOptions(m2_threshold=0.5),
    },
    "two optimiser steps": {
        "loss": "dapo",
        "num_iterations": 2,
        "loss_options": LossOptions(proximal="forward"),
    },
    "a rate by samples": {"lr_by_ess": 1.0},
}


def trained(folder, ranks: int, **changes: object) -> tuple[list[StepResult], dict[str, Tensor]]:
    policy = tiny_model.policy(folder)
    it = trainer(policy, ranks=ranks, **changes)
    results = [train(it, window) for window in WINDOWS[:3]]
    return results, policy.adapter("solver")


@pytest.mark.parametrize("loss", LOSSES)
def test_shared_out_it_is_the_same_step(tiny_folder, loss):
    alone, weights = trained(tiny_folder, 1, **LOSSES[loss])
    untrained = tiny_model.policy(tiny_folder).adapter("solver")
    for ranks in (2, 9):  # nine: some ranks have nothing at all
        results, others = trained(tiny_folder, ranks, **LOSSES[loss])
        for one, other in zip(alone, results, strict=True):
            assert other.batch_digest == one.batch_digest
            metrics = dict(other.metrics)
            assert metrics.pop("ranks") == ranks
            assert metrics == pytest.approx(one.metrics, rel=1e-3, abs=1e-6)
        for name, tensor in weights.items():
            moved = (tensor - untrained[name]).abs().max()
            assert (others[name] - tensor).abs().max() <= 0.05 * moved + 1e-6, name


def test_a_rank_more_or_less_moves_the_last_bits_and_again_they_are_the_same(tiny_folder):
    """Else playing the ranks of a committed step would prove nothing."""
    (_, one), (_, two), (_, again) = (trained(tiny_folder, n) for n in (1, 2, 2))
    assert same(two, again)
    assert not same(two, one)


def test_pictures_that_only_one_rank_looks_at_give_their_gradient_once(tiny_folder):
    """Full weights train the vision tower too: a rank without a picture has no gradient for it."""
    trained, results = [], []
    for ranks in (1, 2, 9):
        policy = FullModel(tiny_folder)
        it = trainer(policy, ranks=ranks, solver=RoleLearning(groups=2, lr=1e-4))
        results.append(train(it, WINDOWS[0]).metrics)
        trained.append(policy.adapter("solver"))
    for metrics in results[1:]:
        assert metrics["grad_norm"] == pytest.approx(results[0]["grad_norm"], rel=1e-4)
    for name, tensor in trained[0].items():
        for other in trained[1:]:  # AdamW's first step is lr wherever there is a gradient at all
            assert ((other[name] - tensor).abs() < 1e-5).float().mean() > 0.98, name


def test_a_refused_step_changes_nothing_on_any_rank(tiny_folder):
    policy = tiny_model.policy(tiny_folder)
    it = trainer(policy, ranks=3)
    before = policy.adapter("solver")
    with pytest.raises(StepError):
        train(it, spoilt(WINDOWS[0], advantages=[float("nan")] * 4))
    assert same(policy.adapter("solver"), before)
