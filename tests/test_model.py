"""The log-probabilities are those of transformers and peft, and each role's adapter is its own."""

from collections.abc import Mapping

import pytest
import tiny_model
import torch
from model_words import all_logprobs, independently, whole
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_model import IMAGE, Album, built, group, looking, picture
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from mmzero_async import families
from mmzero_async.learner import model as learner_model
from mmzero_async.learner.batch import build
from mmzero_async.learner.errors import CheckpointError
from mmzero_async.learner.model import PolicyModel
from mmzero_async.schemas.events import ROLES


@pytest.fixture
def policy(tiny_folder) -> PolicyModel:
    return tiny_model.policy(tiny_folder)


def base(folder, attention: str = "eager"):
    return Qwen3VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention
    ).eval()


def with_adapter(folder, policy: PolicyModel, role, work) -> PeftModel:
    """The role's adapter through peft's own file: made by peft, filled by name, saved, loaded."""
    lora = LoraConfig(
        r=tiny_model.RANK, lora_alpha=tiny_model.ALPHA, target_modules=policy.family.lora_targets
    )
    fresh = get_peft_model(base(folder), lora)
    state = dict(fresh.named_parameters())
    for name, tensor in policy.adapter(role).items():
        target = state[name.replace(".weight", ".default.weight")]
        assert target.shape == tensor.shape
        target.data.copy_(tensor)
    fresh.save_pretrained(str(work))
    return PeftModel.from_pretrained(base(folder), str(work)).eval()


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float = 2e-5) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=tolerance, atol=tolerance)


# --- against transformers and peft ----------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_version_0_of_every_role_is_the_base_with_pictures_and_without(tiny_folder, policy, budget):
    batch = whole(policy, Album(), budget)
    expected = independently(base(tiny_folder), batch)
    assert all((e <= 0).all() for e in expected) and min(e.min() for e in expected) < -3
    for role in ROLES:
        policy.activate(role)
        assert_close(all_logprobs(policy, batch), expected)
    with policy.base():
        assert_close(all_logprobs(policy, batch), expected)


def test_a_trained_adapter_speaks_as_through_pefts_own_save_and_load(tiny_folder, policy, tmp_path):
    batch = whole(policy, Album())
    tiny_model.stir(policy, "solver")
    policy.activate("solver")
    found = all_logprobs(policy, batch)
    assert_close(found, independently(with_adapter(tiny_folder, policy, "solver", tmp_path), batch))
    with policy.base():
        untrained = all_logprobs(policy, batch)
    assert max((a - b).abs().max() for a, b in zip(found, untrained, strict=True)) > 0.1
    assert_close(untrained, independently(base(tiny_folder), batch))


def test_pictures_of_several_sizes_and_several_in_a_prompt_find_their_rows(tiny_folder, policy):
    album = Album()
    wide, tall, square = (
        album.add(picture(i, size)) for i, size in enumerate([(192, 64), (64, 192), (64, 64)])
    )
    patches = patches_of(policy, album, [wide, tall, square])
    a, b, c = (count // 4 for count in patches)
    groups = [
        group("one", looking([20, 21], c), [[30, 31, 32], [33]], images=[square]),
        group("two", [*looking([20], a), *looking([21], b)], [[34, 35]] * 2, images=[wide, tall]),
        group("same twice", looking([22], c, pictures=2), [[36] * 3], images=[square, square]),
        group("none", [23, 24, 25], [[37, 38]]),
    ]
    for budget in (1, 4096):
        batch = built(policy.spec, groups, album, budget)
        assert_close(all_logprobs(policy, batch), independently(base(tiny_folder), batch))


def patches_of(
    policy: PolicyModel, album: Mapping[str, bytes], digests: list[str]
) -> tuple[int, ...]:
    from io import BytesIO

    from PIL import Image

    return policy.spec.read([Image.open(BytesIO(album[d])) for d in digests]).patches


@torch.no_grad()
def test_a_sampled_placeholder_is_a_word_like_any_other(tiny_folder, policy):
    """The engine embeds it as a token; transformers' own forward would look for a picture."""
    album = Album()
    seen = album.add(picture(1))
    batch = built(policy.spec, [group("a", looking([20]), [[30, IMAGE, 31]], images=[seen])], album)
    (found,), (micro,) = all_logprobs(policy, batch), batch.micro_batches
    # The same by a word in its place that has its embedding.
    model, twin = base(tiny_folder), tiny_model.WORDS[-1]
    head = model.lm_head.weight.clone()
    model.get_input_embeddings().weight[twin] = head[IMAGE]
    ids = torch.where((micro.input_ids == IMAGE) & (micro.token_types == 0), twin, micro.input_ids)
    states = model.model(
        input_ids=ids,
        **batch.pictures.tensors,
        mm_token_type_ids=micro.token_types,
    ).last_hidden_state[0, -4:-1]
    scores = (states @ head.T).log_softmax(-1)
    assert_close([found[0]], [scores[range(3), [30, IMAGE, 31]]])


def test_padding_to_a_longer_row_changes_nothing(policy):
    said = []
    for budget in (1, 4096):
        batch = whole(policy, Album(), budget)
        pairs = zip(batch.micro_batches, all_logprobs(policy, batch), strict=True)
        said.append(torch.cat([logprobs[micro.mask] for micro, logprobs in pairs]))
    assert len(said[0]) == batch.tokens
    torch.testing.assert_close(*said, rtol=1e-5, atol=1e-5)


def test_padded_places_are_zero(policy):
    batch = whole(policy, Album(), 4096)
    (micro,), (found,) = batch.micro_batches, all_logprobs(policy, batch)
    assert found.dtype == torch.float32 and found.shape == micro.mask.shape
    assert (found[~micro.mask] == 0).all() and (found[micro.mask] < 0).all()


def test_a_lower_temperature_sharpens_the_log_probabilities(tiny_folder, policy):
    def at(temperature: float) -> float:
        batch = built(policy.spec, [group("a", [20], [[30]], temperature=temperature)])
        return all_logprobs(policy, batch)[0].item()

    with torch.no_grad():
        logits = base(tiny_folder)(input_ids=torch.tensor([[20]])).logits[0, -1]
    for temperature in (0.5, 1.0, 2.0):
        expected = float((logits / temperature).log_softmax(-1)[30])
        assert at(temperature) == pytest.approx(expected, abs=1e-5)


# --- pictures -------------------------------------------------------------------------------------


def test_another_picture_gives_other_log_probabilities_where_it_is_shown_and_only_there(policy):
    album = Album()
    batch = whole(policy, album, 1)
    (digest,) = album
    blind = {digest: tiny_model.png(picture(99))}
    other = build(tiny_model.window(Album()), blind.__getitem__, policy.spec, 1)
    seeing, blinded = all_logprobs(policy, batch), all_logprobs(policy, other)
    shown = 0
    for micro, one, two in zip(batch.micro_batches, seeing, blinded, strict=True):
        if len(micro.pictures):
            shown += 1
            assert (one - two).abs().max() > 0.01
        else:
            assert torch.equal(one, two)
    assert shown == 8


def test_pictures_looked_at_in_several_calls_are_the_same_pictures(policy, monkeypatch):
    album = Album()
    groups = [
        group(f"g{i}", looking([20]), [[30, 31]], images=[album.add(picture(i))]) for i in range(5)
    ]
    batch = built(policy.spec, groups, album)
    at_once = policy.look(batch)
    monkeypatch.setattr(learner_model, "PATCHES_A_CALL", 32)  # two pictures
    in_turn = policy.look(batch)
    assert [len(level) for level in in_turn.levels] == [
        5,
        5,
    ]  # the seedling has one deepstack level
    for level, other in zip(at_once.levels, in_turn.levels, strict=True):
        for one, another in zip(level, other, strict=True):
            torch.testing.assert_close(one, another)


def test_without_pictures_there_is_nothing_to_look_at(policy):
    assert policy.look(built(policy.spec, [group("a", [20], [[30]])])) is None


# --- adapters -------------------------------------------------------------------------------------


def test_a_change_in_one_roles_adapter_is_seen_by_that_role_alone(policy):
    batch = whole(policy, Album())

    def spoken() -> dict[str, Tensor]:
        said = {}
        for role in ROLES:
            policy.activate(role)
            said[role] = torch.cat([x.flatten() for x in all_logprobs(policy, batch)]).detach()
        return said

    before, tensors = spoken(), {role: policy.adapter(role) for role in ROLES}
    tiny_model.stir(policy, "coder")
    after = spoken()
    assert (after["coder"] - before["coder"]).abs().max() > 0.1
    for role in ("proposer", "solver"):
        assert torch.equal(after[role], before[role])
        assert all(torch.equal(t, tensors[role][n]) for n, t in policy.adapter(role).items())


def test_gradients_flow_to_the_active_roles_matrices_alone(tiny_folder, spec):
    model = base(tiny_folder)
    policy = PolicyModel(model, families.of_folder(tiny_folder), spec.read, rank=4, alpha=8, seed=1)
    batch = whole(policy, Album(), 4096)
    for role in ROLES:
        tiny_model.stir(policy, role)
    for role in ROLES:
        policy.activate(role)
        with policy.base():
            assert not any(x.requires_grad for x in all_logprobs(policy, batch))
        sum(x.sum() for x in all_logprobs(policy, batch)).backward()
        named = dict(model.named_parameters())  # the base's weights and all adapters
        assert len(named) > 3 * len(policy.parameters(role))
        moved = {name for name, p in named.items() if p.grad is not None and p.grad.any()}
        assert moved == {n for n in named if "lora_" in n and f".{role}." in n}
        assert len(moved) == len(policy.parameters(role)) == 4 * 7 * 2  # layers, linears, A and B
        assert not any("visual" in name for name in moved)
        model.zero_grad()


def test_fresh_adapters_differ_by_seed_and_role_and_repeat_with_them(tiny_folder, policy):
    again, other = tiny_model.policy(tiny_folder), tiny_model.policy(tiny_folder, seed=12)

    def same(one: dict[str, Tensor], two: dict[str, Tensor], kind: str) -> bool:
        return all(torch.equal(t, two[name]) for name, t in one.items() if kind in name)

    for role in ROLES:
        assert same(policy.adapter(role), again.adapter(role), "lora_")
        assert not same(policy.adapter(role), other.adapter(role), "lora_A")
        assert not any(t.any() for n, t in policy.adapter(role).items() if "lora_B" in n)
    assert not same(policy.adapter("coder"), policy.adapter("solver"), "lora_A")


def test_loading_leaves_the_callers_random_numbers_alone(tiny_folder):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    tiny_model.policy(tiny_folder)
    assert torch.equal(torch.rand(4), expected)


def test_an_adapter_of_another_base_or_rank_is_refused_and_changes_nothing(tiny_folder, policy):
    before = policy.adapter("solver")
    with pytest.raises(CheckpointError, match=r"solver's adapter.*learner\.lora_rank"):
        policy.set_adapter("solver", tiny_model.policy(tiny_folder, rank=2).adapter("solver"))
    fewer = dict(list(before.items())[1:])
    with pytest.raises(CheckpointError, match="trained on another base"):
        policy.set_adapter("solver", {n: t + 1 for n, t in fewer.items()})
    assert all(torch.equal(t, before[n]) for n, t in policy.adapter("solver").items())


def test_an_adapter_that_was_taken_out_is_a_copy(policy):
    taken = policy.adapter("solver")
    for tensor in taken.values():
        tensor.add_(1.0)
    assert not any(torch.equal(t, taken[n]) for n, t in policy.adapter("solver").items())
