"""Each family's file against transformers: prompts, log-probabilities, pictures, a step, LoRA."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import small_families
import tiny_model
import torch
from PIL import Image
from tiny_model import Album, changed, group, refusal
from transformers import AutoProcessor, AutoTokenizer
from transformers.utils import is_num2words_available

from mmzero_async import families
from mmzero_async.engines.model import check_model
from mmzero_async.learner.batch import Batch, build
from mmzero_async.learner.errors import LearnerError
from mmzero_async.learner.full import FullModel
from mmzero_async.learner.model import PolicyModel, load
from mmzero_async.learner.step import Trainer
from mmzero_async.learner.window import Window
from mmzero_async.schemas.packing import pack_tokens

# Small, but several windows of attention, or several tiles; other sizes where they are the point.
SIDES = {"mimo-vl-7b": (252, 168), "smolvlm": (120, 60), "smolvlm2": (120, 60)}
ANSWERS = [[40, 41, 42], [43], [44, 45], [50, 51]]


@pytest.fixture(scope="module", params=sorted(small_families.BUILDERS))
def small(request, tmp_path_factory) -> small_families.Small:
    name = request.param
    made = small_families.BUILDERS[name](tmp_path_factory.mktemp(name))
    assert check_model(made.folder) == made.folder
    return made


@pytest.fixture(scope="module")
def words(small):
    return AutoTokenizer.from_pretrained(small.folder)


@pytest.fixture
def policy(small) -> PolicyModel:
    return load(small.folder, rank=4, alpha=8, seed=1)


def asked(small, words, policy, pictures: list[Image.Image], question: str) -> list[int]:
    """The prompt as the family's own chat template and expansion make it."""
    parts = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": question}]
    messages = [{"role": "user", "content": parts}]
    if small.name != "smolvlm2" or is_num2words_available():
        processor = AutoProcessor.from_pretrained(small.folder)
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        made = processor(text=[text], images=[pictures], return_tensors="pt")
        return made["input_ids"][0].tolist()
    # Without num2words: what its processor puts for a picture is a function beside it.
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    text = words.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    marks = ("<fake_token_around_image>", "<image>", "<global-img>")
    before, *others = text.split("<image>")
    text = before
    for image, after in zip(pictures, others, strict=True):
        rows = 2 if image.width == 2 * image.height else 4
        text += get_image_prompt_string(rows, 4, 64, *marks) + after
    return words.encode(text, add_special_tokens=False)


def shown(
    small, words, policy, *, sizes=None, seed: int = 3, answers=ANSWERS
) -> tuple[Window, Album]:
    """A group that looks at a picture, and one that looks at none."""
    album = Album()
    images = [
        tiny_model.picture(seed + i, size) for i, size in enumerate(sizes or [SIDES[small.name]])
    ]
    prompt = asked(small, words, policy, images, "How many bars are there?")
    seen = group("seen", prompt, answers, images=[album.add(image) for image in images])
    return Window("solver", (seen, group("plain", [60, 61, 62], [[70, 71], [72]]))), album


def tensors(policy: PolicyModel, window: Window, album: Album, budget: int = 4096) -> Batch:
    return build(window, album.__getitem__, policy.spec, budget)


def logprobs(policy: PolicyModel, batch: Batch) -> list[torch.Tensor]:
    with torch.no_grad():
        views = policy.look(batch)
        return [policy.logprobs(micro, views) for micro in batch.micro_batches]


@torch.no_grad()
def independently(small, batch: Batch) -> list[torch.Tensor]:
    """Row by row, unpadded, through the whole forward pass of transformers' own class."""
    model = small.model.from_pretrained(small.folder, dtype=torch.float32).eval()
    found = []
    for micro in batch.micro_batches:
        out = torch.zeros(micro.mask.shape)
        for i, start in enumerate(micro.prompt_lengths.tolist()):
            drawn = int(micro.mask[i].sum())
            ids = micro.input_ids[i : i + 1, : start + drawn]
            seen = {}
            if micro.token_types[i].any():
                seen = dict(batch.pictures.tensors)
                if "image_grid_thw" not in seen:  # transformers wants all tiles of a row together
                    seen = {name: tensor[None] for name, tensor in seen.items()}
                else:
                    seen["mm_token_type_ids"] = micro.token_types[i : i + 1, : start + drawn]
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **seen).logits[0]
            scores = logits[start - 1 : -1].log_softmax(-1)
            out[i, :drawn] = scores[torch.arange(drawn), ids[0, start:]]
        found.append(out)
    return found


def test_the_prompt_is_the_family_s_own_and_has_as_many_image_tokens_as_counted_by_hand(
    small, words, policy
):
    for size, count in small.picture_tokens.items():
        window, album = shown(small, words, policy, sizes=[size])
        tensors(policy, window, album)  # refuses another expansion than the learner's own
        prompt = np.frombuffer(window.groups[0].generation.prompt_token_ids, dtype=np.int32)
        assert (prompt == policy.spec.image_token_id).sum() == count
        assert words.decode(prompt.tolist()).startswith(small.system)


def test_a_prompt_with_any_token_of_a_picture_changed_is_refused(small, words, policy):
    window, album = shown(small, words, policy)
    one = window.groups[0]
    prompt = np.frombuffer(one.generation.prompt_token_ids, dtype=np.int32)
    places = np.flatnonzero(prompt == policy.spec.image_token_id)
    last = int(places[-1])
    # A placeholder too few; one that stands elsewhere; for tiles, another tile's mark.
    fewer = np.delete(prompt, last)
    moved = prompt.copy()
    moved[[last, -1]] = moved[[-1, last]]
    bad = [(fewer, "image placeholder tokens"), (moved, f"from token {last} on")]
    if small.name != "mimo-vl-7b":
        other = prompt.copy()
        mark = int(places[0]) - 1
        other[mark] = words.convert_tokens_to_ids("<row_6_col_6>")
        bad.append((other, f"from token {mark} on"))
    for tokens, told in bad:
        refused = changed(one, prompt_token_ids=pack_tokens(tokens.tolist()))
        assert told in refusal(policy.spec, [refused], album)


def row_by_row(batch: Batch, found: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of each sample its log-probabilities, in the order of its tokens: however it was batched."""
    rows = {}
    for micro, values in zip(batch.micro_batches, found, strict=True):
        for i, start in enumerate(micro.prompt_lengths.tolist()):
            drawn = int(micro.mask[i].sum())
            rows[tuple(micro.input_ids[i, : start + drawn].tolist())] = values[i, :drawn]
    return [rows[ids] for ids in sorted(rows)]


def test_log_probabilities_are_those_of_transformers_with_pictures_and_without(
    small, words, policy
):
    window, album = shown(small, words, policy)
    together, alone = (tensors(policy, window, album, budget) for budget in (4096, 1))
    assert len(together.micro_batches) < len(alone.micro_batches)
    expected = row_by_row(together, independently(small, together))
    assert len(expected) == 6 and min(one.min() for one in expected) < -3
    for batch in (together, alone):
        for ours, theirs in zip(row_by_row(batch, logprobs(policy, batch)), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=5e-5)


def test_two_pictures_of_different_sizes_find_their_places(small, words, policy):
    sizes = list(small.picture_tokens)[::-1]
    window, album = shown(small, words, policy, sizes=sizes, answers=ANSWERS[:1])
    batch = tensors(policy, replace(window, groups=window.groups[:1]), album)
    for ours, theirs in zip(logprobs(policy, batch), independently(small, batch), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=5e-5)


def test_a_sampled_placeholder_is_a_word(small, words, policy):
    window, album = shown(small, words, policy)
    token = policy.spec.image_token_id
    seen = window.groups[0].generation
    prompt = np.frombuffer(seen.prompt_token_ids, dtype=np.int32).tolist()
    drawn = group("g", prompt, [[40, token, 41]], images=seen.images)
    (found,) = logprobs(policy, tensors(policy, Window("solver", (drawn,)), album))
    assert found.isfinite().all() and (found < 0).all()


def test_pictures_matter_and_the_canary_says_how_much(small, words, policy):
    window, album = shown(small, words, policy)
    it = Trainer(policy, "solver", tiny_model.config(micro_batch_tokens=4096))
    assert it.check_pictures(window, album.__getitem__)["picture_effect_max"] > 1e-3


def test_a_step_trains_the_role_s_adapter_alone_with_layers_computed_again_too(small, words):
    steps = []
    for again in (False, True):
        policy = load(small.folder, rank=4, alpha=8, seed=1, gradient_checkpointing=again)
        window, album = shown(small, words, policy)
        before = {role: policy.adapter(role) for role in ("coder", "solver")}
        it = Trainer(policy, "solver", tiny_model.config(micro_batch_tokens=4096))
        result = it.train(window, album.__getitem__)
        assert all(math.isfinite(value) for value in result.metrics.values())
        assert result.metrics["grad_norm"] > 0
        after = {role: policy.adapter(role) for role in before}
        assert any(not torch.equal(after["solver"][n], t) for n, t in before["solver"].items())
        assert all(torch.equal(after["coder"][n], t) for n, t in before["coder"].items())
        steps.append(result.metrics["grad_norm"])
    assert steps[0] == pytest.approx(steps[1], rel=1e-5)


def test_all_weights_are_trained_with_the_vision_tower_and_without_it(small, words, policy):
    for frozen in (False, True):
        model = FullModel(small.folder, freeze_vision=frozen)
        window, album = shown(small, words, policy)
        it = Trainer(
            model,
            "solver",
            tiny_model.config(weights="full", micro_batch_tokens=4096, kl_coefficient=0.0),
        )
        before = model.adapter("solver")
        it.train(window, album.__getitem__)
        moved = {n for n, t in model.adapter("solver").items() if not torch.equal(t, before[n])}
        sees = {n for n in before if re.fullmatch(model.family.vision, n)}
        assert bool(moved & sees) is not frozen and moved - sees
        assert all(torch.equal(t, before[n]) for n, t in model.adapter("coder").items())


def test_lora_is_on_the_language_model_and_every_other_parameter_is_named(small, policy):
    assert len(policy.parameters("solver")) == 2 * 7 * 3  # A and B of seven layers, in three blocks
    family = families.of_folder(small.folder)
    model = family.load(small.folder, "float32")
    sees = {n for n, _ in model.named_parameters() if re.fullmatch(family.vision, n)}
    speaks = {n for n, _ in model.named_parameters()} - sees
    assert sees and all(re.search(r"visual|vision_model|connector", n) for n in sees)
    assert all(re.search(r"language_model|text_model|lm_head", n) for n in speaks)


def test_a_window_is_the_same_tensors_twice_and_other_pixels_are_another_digest(
    small, words, policy
):
    from mmzero_async.learner.batch import batch_digest

    digests = [
        batch_digest(tensors(policy, *shown(small, words, policy, seed=seed))) for seed in (3, 3, 4)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_model_of_no_known_family_is_refused_with_those_there_are(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(LearnerError, match=r"'llava'; known are qwen3_vl .*docs/FAMILIES\.md"):
        load(tmp_path, rank=1, alpha=1, seed=1)
