"""A window's tensors are the log's tokens, bit for bit; what contradicts itself is refused."""

from dataclasses import fields, replace

import msgspec
import pytest
import tiny_model
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import (
    IMAGE,
    PAD,
    VISION_END,
    VISION_START,
    Album,
    built,
    changed,
    group,
    looking,
    picture,
    refusal,
    sample,
)

from mmzero_async.learner.batch import MicroBatch, batch_digest, build

# --- what stands in the tensors -------------------------------------------------------------------


def test_tokens_masks_and_log_probabilities_are_exactly_those_of_the_log(spec):
    groups = [
        group("a", [10, 11, 12], [sample([20, 21], [-0.5, -1.5]), sample([22], [-2.5])], [1, -1]),
        group("b", [13], [sample([], []), sample([23, 24, 25], [-3, -4, -5])], [0.5, 2]),
    ]
    groups[1] = changed(
        groups[1], sampling=msgspec.structs.replace(groups[1].generation.sampling, temperature=0.5)
    )
    batch = built(spec, groups)
    (micro,) = batch.micro_batches
    # Longest first; equal lengths as in the window.
    assert micro.input_ids.tolist() == [
        [10, 11, 12, 20, 21],
        [10, 11, 12, 22, PAD],
        [13, 23, 24, 25, PAD],
        [13, PAD, PAD, PAD, PAD],
    ]
    assert micro.prompt_lengths.tolist() == [3, 3, 1, 1]
    assert micro.completion_ids.tolist() == [
        [20, 21, PAD],
        [22, PAD, PAD],
        [23, 24, 25],
        [PAD, PAD, PAD],
    ]
    assert micro.mask.tolist() == [
        [True, True, False],
        [True, False, False],
        [True, True, True],
        [False, False, False],
    ]
    assert micro.behaviour.tolist() == [[-0.5, -1.5, 0], [-2.5, 0, 0], [-3, -4, -5], [0, 0, 0]]
    assert micro.advantages.tolist() == [1.0, -1.0, 2.0, 0.5]
    assert micro.temperatures.tolist() == [1.0, 1.0, 0.5, 0.5]
    assert micro.token_types.sum() == 0 and micro.pictures.tolist() == []
    assert batch.tokens == 6
    assert batch.pictures is None


def test_tensors_have_the_documented_types(spec):
    album = Album()
    batch = build(tiny_model.window(album), album.__getitem__, spec, 4096)
    types = {name.partition(".")[2] or name: t.dtype for name, t in batch.tensors()}
    assert types == {
        "input_ids": torch.int64,
        "prompt_lengths": torch.int64,
        "completion_ids": torch.int64,
        "mask": torch.bool,
        "behaviour": torch.float32,
        "advantages": torch.float32,
        "temperatures": torch.float32,
        "pictures": torch.int64,
        "token_types": torch.int32,
        "pixel_values": torch.float32,
        "image_grid_thw": torch.int64,
    }


def test_a_picture_is_held_once_however_many_samples_look_at_it(spec):
    album = Album()
    first, second = album.add(picture(1)), album.add(picture(2))
    groups = [
        group("a", looking([10]), [[20, 21, 22]] * 3, images=[first]),
        group("b", looking([11], pictures=2), [[23]], images=[second, first]),
        group("c", [12], [[24]]),
    ]
    batch = built(spec, groups, album)
    assert batch.pictures.tensors["image_grid_thw"].tolist() == [[1, 4, 4]] * 2
    assert batch.pictures.tensors["pixel_values"].shape[0] == 2 * 16
    (micro,) = batch.micro_batches
    # Row by row: b's prompt is the longest and shows the second picture before the first.
    assert micro.pictures.tolist() == [1, 0, 0, 0, 0]


def test_a_sampled_placeholder_token_is_a_word_and_no_picture(spec):
    album = Album()
    groups = [group("a", looking([10]), [[IMAGE, 20]], images=[album.add(picture(1))])]
    (micro,) = built(spec, groups, album).micro_batches
    assert micro.input_ids[0].tolist()[-2:] == [IMAGE, 20]
    assert micro.token_types[0].tolist() == [0, 1, 1, 1, 1, 0, 0, 0, 0]


@given(
    st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=5), min_size=1, max_size=6),
    st.integers(1, 60),
)
def test_micro_batches_keep_to_their_budget_and_every_row_comes_once(spec, lengths, budget):
    groups = [
        group(f"g{i}", [10 + i] * (1 + i), [[20 + i] * n for n in row])
        for i, row in enumerate(lengths)
    ]
    if not any(map(any, lengths)):
        assert "no sampled token" in refusal(spec, groups)
        return
    batch = built(spec, groups, budget=budget)
    seen = []
    for micro in batch.micro_batches:
        rows, length = micro.input_ids.shape
        assert rows == 1 or rows * length <= budget
        used = micro.prompt_lengths + micro.mask.sum(1)
        assert length == int(used.max())
        assert micro.mask.shape[1] == max(1, int(micro.mask.sum(1).max()))
        seen += [ids[:n] for ids, n in zip(micro.input_ids.tolist(), used.tolist(), strict=True)]
    expected = [[10 + i] * (1 + i) + [20 + i] * n for i, row in enumerate(lengths) for n in row]
    assert seen == sorted(expected, key=len, reverse=True)
    assert batch.tokens == sum(map(sum, lengths))
    # No micro-batch could have taken the next one's first row as well.
    for micro, following in zip(batch.micro_batches, batch.micro_batches[1:], strict=False):
        assert (micro.input_ids.shape[0] + 1) * micro.input_ids.shape[1] > budget
        assert following.input_ids.shape[1] <= micro.input_ids.shape[1]


# --- the digest -----------------------------------------------------------------------------------


def test_equal_windows_give_equal_tensors_and_digests(spec):
    digests, batches = set(), []
    for _ in range(2):
        album = Album()
        batches.append(build(tiny_model.window(album), album.__getitem__, spec, 64))
        digests.add(batch_digest(batches[-1]))
    assert len(digests) == 1
    for (name, one), (other_name, other) in zip(*(b.tensors() for b in batches), strict=True):
        assert name == other_name and torch.equal(one, other)
    (digest,) = digests
    assert len(digest) == 16 and int(digest, 16) >= 0


def test_another_order_of_groups_is_another_window(spec):
    album = Album()
    window = tiny_model.window(album)
    turned = replace(window, groups=window.groups[::-1])
    one, other = (build(w, album.__getitem__, spec, 64) for w in (window, turned))
    assert batch_digest(one) != batch_digest(other)


@pytest.mark.parametrize(
    "name",
    [f.name for f in fields(MicroBatch) if f.name != "versions"]
    + ["pixel_values", "image_grid_thw"],
)
def test_a_change_in_any_one_tensor_changes_the_digest(spec, name):
    album = Album()
    batch = build(tiny_model.window(album), album.__getitem__, spec, 64)

    def bumped(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.clone()
        last = copy.view(-1)[-1:]
        last.copy_(~last if copy.dtype == torch.bool else last + 1)
        return copy

    if name in batch.pictures.tensors:
        tensors = batch.pictures.tensors
        changed = replace(batch.pictures, tensors={**tensors, name: bumped(tensors[name])})
        other = replace(batch, pictures=changed)
    else:
        *most, last = batch.micro_batches
        last = replace(last, **{name: bumped(getattr(last, name))})
        other = replace(batch, micro_batches=(*most, last))
    assert batch_digest(other) != batch_digest(batch)
    assert batch_digest(batch) == batch_digest(replace(batch))


def test_the_digest_sees_types_and_shapes_too(spec):
    batch = built(spec, [group("a", [10, 11], [[20, 21]])])
    (micro,) = batch.micro_batches
    others = [
        replace(micro, input_ids=micro.input_ids.reshape(2, 2)),
        replace(micro, advantages=micro.advantages.view(torch.int32)),
    ]
    digests = {batch_digest(replace(batch, micro_batches=(m,))) for m in [micro, *others]}
    assert len(digests) == 3


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [[], [group("a", [10], [[], []])]])
def test_a_window_without_a_sampled_token_is_refused(spec, groups):
    message = refusal(spec, groups)
    assert f"solver window of {len(groups)} groups has no sampled token" in message


@pytest.mark.parametrize("field", ["rewards", "advantages"])
def test_one_reward_and_one_advantage_a_sample_or_the_group_is_refused(spec, field):
    good = group("g7", [10], [[20], [21]])
    message = refusal(spec, [good, replace(good, **{field: [1.0]})])
    counts = {"rewards": "1 rewards and 2 advantages", "advantages": "2 rewards and 1 advantages"}
    assert "group g7: 2 samples, " + counts[field] in message


def test_tokens_without_their_log_probabilities_are_refused(spec):
    message = refusal(spec, [group("g7", [10], [[20], sample([21, 22], [-1.0])])])
    assert message == "group g7, sample 1: 2 tokens but 1 log-probabilities"


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_greedy_samples_are_refused(spec, temperature):
    message = refusal(spec, [group("g7", [10], [[20]], temperature=temperature)])
    assert f"group g7 was drawn at temperature {temperature}" in message


def test_an_empty_prompt_is_refused(spec):
    assert "group g7: its logged prompt has no token" in refusal(spec, [group("g7", [], [[20]])])


@pytest.mark.parametrize("token", [-1, 10**6])
@pytest.mark.parametrize("place", ["prompt", "sample 0"])
def test_a_token_beyond_the_vocabulary_is_refused(spec, token, place):
    prompt, drawn = ([token], [20]) if place == "prompt" else ([10], [20, token])
    message = refusal(spec, [group("g7", prompt, [drawn])])
    assert f"group g7, {place}: token {token} is not in the vocabulary" in message


def test_the_whole_vocabulary_is_allowed(spec):
    last = spec.vocabulary - 1
    assert built(spec, [group("a", [0, last], [[0, last]])]).tokens == 2


@pytest.mark.parametrize("field", ["token_ids", "logprobs"])
def test_bytes_that_are_no_whole_array_are_refused(spec, field):
    good = sample([20, 21])
    bad = msgspec.structs.replace(good, **{field: getattr(good, field)[:-1]})
    message = refusal(spec, [group("g7", [10], [good, bad])])
    assert "group g7, sample 1: 7 bytes are no whole array" in message
    message = refusal(spec, [changed(group("g7", [10], [good]), prompt_token_ids=b"abc")])
    assert "group g7, prompt: 3 bytes are no whole array" in message


@pytest.mark.parametrize(
    ("shown", "pictures", "expected"), [(3, 1, 4), (5, 1, 4), (0, 1, 4), (4, 0, 0), (4, 2, 8)]
)
def test_placeholders_that_do_not_fit_the_pictures_are_refused(spec, shown, pictures, expected):
    album = Album()
    images = [album.add(picture(i)) for i in range(pictures)]
    message = refusal(spec, [group("g7", looking([10], shown), [[20]], images=images)], album)
    assert f"group g7: the logged prompt has {shown} image placeholder tokens" in message
    assert f"makes {expected} from its {pictures} pictures" in message


# --- the engine's prompt is the learner's, token for token ----------------------------------------


def runs(*lengths: int) -> list[int]:
    """A prompt with a picture of so many placeholders after the other, and words around them."""
    prompt = [10]
    for length in lengths:
        prompt += [VISION_START, *[IMAGE] * length, VISION_END]
    return [*prompt, 11]


def test_pictures_of_different_sizes_are_expanded_in_their_order(spec):
    album = Album()
    images = [album.add(picture(0)), album.add(picture(1, (96, 64)))]  # 4 and 2 image tokens
    one = group("g7", runs(4, 2), [[20]], images=images)
    (micro,) = built(spec, [one], album).micro_batches
    assert micro.input_ids[0, :-1].tolist() == runs(4, 2)


@pytest.mark.parametrize(("shown", "place"), [((2, 4), 4), ((3, 3), 5), ((6,), 6), ((1, 1, 4), 3)])
def test_as_many_placeholders_in_other_places_are_refused(spec, shown, place):
    """The number alone is right: swapped pictures, torn ones, pictures run into one."""
    album = Album()
    images = [album.add(picture(0)), album.add(picture(1, (96, 64)))]
    message = refusal(spec, [group("g7", runs(*shown), [[20]], images=images)], album)
    assert f"group g7: from token {place} on the logged prompt" in message
    assert "shows its 2 pictures in another way" in message and "[4, 2] placeholders" in message
