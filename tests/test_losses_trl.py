"""TRL's own GRPO loss, given the same window, agrees with the learner's value and gradient.

The comparable setting: `loss_type="dapo"`, token-level truncated importance weights, a KL term
that is not importance-weighted, and old log-probabilities that are the current ones, so that TRL's
own ratio is 1 and its clip idle.
"""

import pytest
import tiny_model
import torch

from mmzero_async.learner.batch import Batch, MicroBatch, build
from mmzero_async.learner.losses import truncated_importance_loss
from mmzero_async.schemas.events import Role

ROLE: Role = "solver"
CAP, TEMPERATURE = 2.0, 0.8


def window(album: tiny_model.Album):
    """Samples of four kinds of length; their behaviour log-probabilities fit both sides of C."""
    seen = [album.add(tiny_model.picture(i)) for i in range(2)]
    prompts = [tiny_model.looking([20, 21, 22, 23]), tiny_model.looking([30, 31])]
    drawn = [[[40, 41, 42], [50], [60, 61]], [[70, 71, 72, 73], [80, 81], [90]]]
    groups = [
        tiny_model.group(
            f"g{i}",
            prompts[i],
            [
                tiny_model.sample(tokens, [-5.0 - 0.7 * (t % 4) for t in tokens])
                for tokens in drawn[i]
            ],
            [1.5, -0.5, 0.75],
            images=[seen[i]],
            temperature=TEMPERATURE,
        )
        for i in range(2)
    ]
    return tiny_model.Window(ROLE, tuple(groups))


def left_padded(micro: MicroBatch, batch: Batch) -> dict[str, object]:
    """TRL's layout: prompts padded on the left, completions on the right, pixels row by row."""
    rows, width = micro.mask.shape
    longest = int(micro.prompt_lengths.max())
    ids = torch.full((rows, longest), tiny_model.PAD)
    prompt_mask = torch.zeros((rows, longest), dtype=torch.long)
    types = torch.zeros((rows, longest + width), dtype=torch.long)
    for i, length in enumerate(micro.prompt_lengths.tolist()):
        prompt = micro.input_ids[i, :length]
        ids[i, longest - length :] = prompt
        prompt_mask[i, longest - length :] = 1
        types[i, longest - length : longest] = (prompt == tiny_model.IMAGE).long()
    seen = batch.pictures.tensors
    patches = seen["pixel_values"].split(list(batch.pictures.patches))
    return {
        "prompt_ids": ids,
        "prompt_mask": prompt_mask,
        "completion_ids": micro.completion_ids,
        "completion_mask": micro.mask.long(),
        "mm_token_type_ids": types,
        "pixel_values": torch.cat([patches[i] for i in micro.pictures.tolist()]),
        "image_grid_thw": seen["image_grid_thw"][micro.pictures],
        "num_images": [1] * rows,
        "advantages": micro.advantages,
        "num_items_in_batch": torch.tensor(batch.tokens),
    }


def trl_trainer(folder, work, lora, kl_coefficient: float, **options):
    from datasets import Dataset
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration
    from trl import GRPOConfig, GRPOTrainer

    settings = {
        "loss_type": "dapo",
        "beta": kl_coefficient,
        "use_bias_correction_kl": False,
        "temperature": TEMPERATURE,
        "importance_sampling_level": "token",
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": CAP,
    }
    config = GRPOConfig(
        output_dir=str(work),
        use_cpu=True,
        report_to=[],
        per_device_train_batch_size=2,
        num_generations=2,
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        bf16=False,
        **settings | options,
    )
    trainer = GRPOTrainer(
        model=Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=AutoProcessor.from_pretrained(folder),
        peft_config=lora,
    )
    # The weights multiply the loss only beside vLLM; the batch says what they are.
    trainer.use_vllm, trainer.vllm_importance_sampling_correction = True, True
    trainer.current_gradient_accumulation_steps = 1
    return trainer


@pytest.mark.parametrize("kl_coefficient", [0.0, 0.1])
def test_trl_gives_the_same_loss_and_the_same_gradient(tiny_folder, tmp_path, kl_coefficient):
    from peft import LoraConfig, set_peft_model_state_dict

    policy, album = tiny_model.policy(tiny_folder), tiny_model.Album()
    tiny_model.stir(policy, ROLE)
    policy.activate(ROLE)
    batch = build(window(album), album.__getitem__, policy.spec, 4096)
    (micro,), views = batch.micro_batches, policy.look(batch)
    with policy.base():
        reference = policy.logprobs(micro, views)
    logprobs = policy.logprobs(micro, views)
    loss, sums = truncated_importance_loss(
        logprobs,
        micro.behaviour,
        micro.mask,
        micro.advantages,
        cap=CAP,
        tokens=batch.tokens,
        reference=reference,
        kl_coefficient=kl_coefficient,
    )
    loss.backward()
    assert 0 < sums.clipped < batch.tokens, "the window must try both sides of the cap"

    lora = LoraConfig(**{k: getattr(policy.lora, k) for k in ("r", "lora_alpha", "target_modules")})
    trainer = trl_trainer(tiny_folder, tmp_path, lora, kl_coefficient)
    set_peft_model_state_dict(trainer.model, policy.adapter(ROLE))
    ratio = (logprobs.detach() - micro.behaviour).exp().clamp(max=CAP)
    inputs = {
        **left_padded(micro, batch),
        "importance_sampling_ratio": ratio,
        "ref_per_token_logps": reference,
    }
    theirs = trainer._compute_loss(trainer.model, inputs)
    theirs.backward()

    assert theirs.item() == pytest.approx(loss.item(), rel=1e-5)
    assert abs(loss.item()) > 0.1, "terms that cancel out compare rounding errors"
    ours = {name: p.grad for name, p in policy.parameters(ROLE).items()}
    found = {
        name.replace(".default.", "."): p.grad
        for name, p in trainer.model.named_parameters()
        if "lora_" in name
    }
    assert found.keys() == ours.keys()
    for name, gradient in ours.items():
        assert float((found[name] - gradient).norm()) < 1e-4 * float(gradient.norm()), name
