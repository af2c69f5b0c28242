"""The learner's bench: its arithmetic, its canned engine, and every figure of its quick form."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmzero_async.learner.batch import Batch, build
from mmzero_async.ops.bench import diversity, steps, trl_peer
from mmzero_async.ops.bench.fixed_latency import replies
from mmzero_async.ops.bench.flops import rows, step_flops
from mmzero_async.ops.bench.lesson_windows import window
from mmzero_async.ops.bench.sizes import Size
from mmzero_async.ops.bench.subjects import Shape, subject
from mmzero_async.roles import coder, proposer, solver
from mmzero_async.roles.grading import same_answer

SMALL = {
    "qwen3-vl-2b": Shape(96, 3, 4, 2, 160, True, (3, 64, 4, 128), (0, 1), vocabulary=900, head=32)
}


def attention(query: Any, key: Any, _: Any, dropout: float = 0.0, causal: bool = False) -> float:
    """Two products a pair of tokens; causal ones look at no later token."""
    batch, heads, looks, width = query
    pairs = looks * (looks + 1) / 2 if causal else looks * key[2]
    return 4.0 * batch * heads * pairs * width


def attention_forward(*shapes: Any, **_: Any) -> float:
    return attention(*shapes[:5])


def attention_backward(_: Any, *shapes: Any, **__: Any) -> float:
    query, key, value, _out, _sums, dropout, causal = shapes[:7]
    return 2.0 * attention(query, key, value, dropout, causal)


# torch's counter knows no attention on a CPU.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}


def test_the_operations_of_a_step_are_those_that_torch_counts() -> None:
    with subject("qwen3-vl-2b", shapes=SMALL) as it:
        policy = it.policy()
        asked = it.asked(policy, Size(2, 3, picture=96, question=9, longest=40))
        # Rows of one length: what is padded is computed and does not count.
        even = [replace(one, sampled=[one.prompt[-6:]] * 3) for one in asked]
        shown = window(policy, even, 4096)
        batch = build(shown.window, shown.blobs.__getitem__, policy.spec, 4096)
        [micro] = batch.micro_batches
        with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
            policy.logprobs(micro, policy.look(batch)).sum().backward()
        patches = batch.pictures.patches
        expected = step_flops(it.config, it.learner.lora_rank, rows(batch), patches)
        assert expected == pytest.approx(counter.get_total_flops(), rel=1e-9)


def test_the_canned_replies_are_legal_and_a_group_of_answers_has_something_to_learn_from() -> None:
    for seed in range(20):
        [proposed, again] = replies("Invent a picture about bars.", False, 2, seed)
        assert proposer.parse(proposed).proposal is not None
        assert proposed != again
        [drawn] = replies("Draw as SVG: bars", False, 1, seed)
        assert coder.parse(drawn).svg is not None
        answers = [solver.parse(text) for text in replies("How many?", True, 4, seed)]
        assert all(answer.format_ok for answer in answers)
        most = answers[0].answer
        assert [same_answer(answer.answer, most) for answer in answers] == [True, False] * 2
    assert replies("x", True, 4, 1) == replies("x", True, 4, 1)


@pytest.mark.timeout(400)
def test_a_preset_s_shape_is_measured_beside_trl_on_one_and_the_same_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = Size(2, 2, picture=96, question=9, longest=12)
    with subject("qwen3-vl-2b", shapes=SMALL) as it:
        figures = {figure.figure: figure for figure in steps.compare(it, size, 1)}
        assert figures.keys() == {"step_vs_trl", "step_vs_trl_whole", "step_flops"}
        assert all(figure.value and figure.rival for figure in figures.values())
        straight = trl_peer.left_padded

        def turned(batch: Batch) -> dict[str, Any]:
            made = straight(batch)
            return {**made, "pixel_values": -made["pixel_values"]}

        monkeypatch.setattr(trl_peer, "left_padded", turned)
        with pytest.raises(steps.OtherLoss, match="apart"):
            list(steps.compare(it, size, 1))


BALANCES = ("generation_bound", "balanced", "training_bound")
EXPECTED = {
    *("step_vs_trl", "step_vs_trl_whole", "step_flops"),
    *("step_memory_vs_trl", "step_memory_checkpointed_vs_trl"),
    *("diversity_512_strangers", "diversity_512_twins"),
    *(f"{what}_{name}" for what in ("async_vs_sync", "learner_waiting") for name in BALANCES),
}


def test_captions_of_both_kinds_are_clustered_and_told_against_the_limit() -> None:
    figures = diversity.measured(1)
    assert [it.figure for it in figures] == ["diversity_512_strangers", "diversity_512_twins"]
    assert all(it.value and it.rival == 1.0 and it.unit == "s" for it in figures)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_learner_bench_tells_every_figure_beside_its_peer() -> None:
    command = [sys.executable, "-m", "mmzero_async.ops.bench.learner", "--quick"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    figures = {figure["figure"]: figure for figure in map(json.loads, ran.stdout.splitlines())}
    assert figures.keys() == EXPECTED
    for name, figure in figures.items():
        shares = name.startswith("learner_waiting")
        assert figure["value"] >= 0 if shares else figure["value"] > 0, figure
        assert figure["rival"] > 0, figure
    for name in BALANCES:
        assert 0 <= figures[f"learner_waiting_{name}"]["value"] <= 1
        assert "0 in the synchronous run" in figures[f"async_vs_sync_{name}"]["note"]
