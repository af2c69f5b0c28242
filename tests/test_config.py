"""The configuration: read strictly, refused with the place, the same for everybody who reads it."""

import hashlib
import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmzero_async import config as configuration
from mmzero_async.config import Config, ConfigError, from_json, load, preset_names
from mmzero_async.roles.shortcuts.detect import DETECTORS
from mmzero_async.schemas.events import ROLES

EMPTY = ""


def toml(folder: Path, text: str) -> str:
    file = folder / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def leaves(tree: dict[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = leaves(value, f"{place}{key}.") if isinstance(value, dict) else {}
        found |= inner or {f"{place}{key}": value}
    return found


# --- presets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name: str) -> None:
    assert isinstance(load(name), Config)


def test_the_seedling_is_the_default_preset() -> None:
    assert "seedling" in preset_names()
    assert load() == load("seedling")


@pytest.mark.parametrize("name", preset_names())
def test_every_key_of_a_preset_is_known_and_says_what_it_says(name: str) -> None:
    text = resources.files("mmzero_async.presets").joinpath(f"{name}.toml").read_text()
    known = leaves(msgspec.to_builtins(load(name)))
    for place, value in leaves(tomllib.loads(text)).items():
        said = known[place]
        assert (list(said) if isinstance(said, tuple) else said) == value, place


def test_reward_constants_of_the_seedling_are_those_of_the_paper() -> None:
    loaded = load()
    proposer, coder, solver = loaded.proposer, loaded.coder, loaded.solver
    assert (proposer.solvability_cap, proposer.low_difficulty) == (0.5, 0.15)
    assert (proposer.low_difficulty_penalty, proposer.unparseable) == (0.3, -1.0)
    assert (proposer.type_share_limit, proposer.type_penalty) == (0.5, 0.15)
    assert proposer.diversity_weights == (0.45, 0.20, 0.35)
    assert (proposer.diversity_threshold, proposer.diversity_cap) == (0.25, 0.5)
    assert (coder.rendered, coder.not_rendered, coder.no_code) == (1.0, -0.1, -0.05)
    assert (coder.not_svg, coder.floor, coder.difficulty) == (-0.5, -0.5, "min")
    assert (solver.answer_weight, solver.format_weight) == (0.9, 0.1)
    assert Config().filters.solver_hard_consistency == (0.25, 0.75)
    assert loaded.filters.solver_easy_consistency == 0.5
    assert Config().filters.coder_render_rate == (0.25, 0.75)


def test_a_preset_is_found_even_where_a_folder_bears_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seedling").mkdir()
    expected = load("seedling")
    monkeypatch.chdir(tmp_path)
    assert load("seedling") == expected


# --- files ------------------------------------------------------------------------------------


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(toml(tmp_path, EMPTY)) == Config()


def test_a_file_without_the_suffix_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("[run]\nseed = 3\n")
    assert load(str(tmp_path / "mine")).run.seed == 3


def test_a_key_that_is_left_out_keeps_the_default_of_its_own_section(tmp_path: Path) -> None:
    text = "[learner]\nsolver = { lr = 1e-3 }\n[proposer]\nsampling = { temperature = 0.7 }\n"
    loaded = load(toml(tmp_path, text))
    assert (loaded.learner.solver.lr, loaded.learner.solver.groups) == (1e-3, 16)
    assert loaded.proposer.sampling.temperature == 0.7
    assert loaded.proposer.sampling.max_tokens == Config().proposer.sampling.max_tokens == 160


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[learner]\nlora_rnk = 8\n", ["lora_rnk", "$.learner"]),
        ("[lerner]\nlora_rank = 8\n", ["lerner"]),
        ("[learner.solver]\ngruops = 8\n", ["gruops", "$.learner.solver"]),
        ("[learner]\nlora_rank = 'eight'\n", ["int", "$.learner.lora_rank"]),
        ("[learner]\nlora_rank = 8.5\n", ["int", "$.learner.lora_rank"]),
        ("[learner]\nlora_rank = true\n", ["int", "bool", "$.learner.lora_rank"]),
        ("[run]\nevaluate = 1\n", ["bool", "$.run.evaluate"]),
        ("[run]\nbase_model = 8\n", ["str", "$.run.base_model"]),
        ("learner = 8\n", ["$.learner"]),
        ("[coder]\ndifficulty = 'max'\n", ["max", "$.coder.difficulty"]),
        ("[filters]\ncoder_render_rate = [0.25]\n", ["$.filters.coder_render_rate"]),
        ("[filters]\ncoder_render_rate = [0.25, 'x']\n", ["$.filters.coder_render_rate[1]"]),
        ("[learner.solver]\ngroups = 0\n", ["$.learner.solver.groups", ">= 1"]),
        ("[solver]\nhard_samples = 0\n", ["$.solver.hard_samples", ">= 1"]),
        ("[coder]\nsamples = -1\n", ["$.coder.samples", ">= 1"]),
        ("[run]\nmax_minutes = inf\n", ["finite", "$.run.max_minutes"]),
        ("[learner]\nbetas = [0.9, nan]\n", ["finite", "$.learner.betas[1]"]),
        ("[learner\n", ["TOML", "line 1"]),
        ("seed = 1\nseed = 2\n", ["TOML"]),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_the_file_and_the_place(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    file = toml(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        load(file)
    for word in [file, *words]:
        assert word in str(refused.value)


def test_a_file_that_is_missing_or_unreadable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file.*seedling"):
        load(str(tmp_path / "nowhere.toml"))
    with pytest.raises(ConfigError, match=r"'nothing': neither a \.toml file nor one of"):
        load("nothing")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.toml: not readable"):
        load(str(tmp_path / "folder.toml"))
    (tmp_path / "latin.toml").write_bytes(b"templates = '\xe9'\n")
    with pytest.raises(ConfigError, match=r"latin\.toml: not valid TOML"):
        load(str(tmp_path / "latin.toml"))


# --- overrides --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("run.seed=7", lambda c: c.run.seed, 7),
        ("run.seed = 7 ", lambda c: c.run.seed, 7),
        ("run.max_minutes=2", lambda c: c.run.max_minutes, 2.0),
        ("run.evaluate=false", lambda c: c.run.evaluate, False),
        ("run.base_model=/models/qwen 3", lambda c: c.run.base_model, "/models/qwen 3"),
        ("run.base_model = /models/qwen", lambda c: c.run.base_model, "/models/qwen"),
        ('run.base_model="8"', lambda c: c.run.base_model, "8"),
        ("engine.url=http://h:1/?a=b", lambda c: c.engine.url, "http://h:1/?a=b"),
        ("engine.url=", lambda c: c.engine.url, ""),
        ("templates=mmzero", lambda c: c.templates, "mmzero"),
        ("coder.difficulty=any", lambda c: c.coder.difficulty, "any"),
        ("learner.solver.lr=1e-3", lambda c: c.learner.solver.lr, 1e-3),
        (
            "filters.coder_render_rate=[0.1, 0.9]",
            lambda c: c.filters.coder_render_rate,
            (0.1, 0.9),
        ),
    ],
)
def test_an_override_takes_the_type_of_its_key(override: str, read: Any, value: Any) -> None:
    found = read(load(overrides=[override]))
    assert found == value and type(found) is type(value)


def test_an_override_changes_nothing_else_and_the_last_one_wins() -> None:
    before = leaves(msgspec.to_builtins(load()))
    after = leaves(msgspec.to_builtins(load(overrides=["run.seed=1", "run.seed=2"])))
    assert {key for key in before if before[key] != after[key]} == {"run.seed"}
    assert after["run.seed"] == 2


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("run.seed", "expected section.key=value"),
        ("=7", "expected section.key=value"),
        ("", "expected section.key=value"),
        ("run.sede=7", "sede"),
        ("rnu.seed=7", "rnu"),
        ("run.seed=x", r"\$\.run\.seed"),
        ("run.seed=1.5", r"\$\.run\.seed"),
        ("run.seed.deep=7", "seed is a value, not a section"),
        ("run=7", r"\$\.run"),
        ("run.=7", r"\$\.run"),
        ("run.max_minutes=nan", r"finite.*\$\.run\.max_minutes"),
    ],
)
def test_a_bad_override_is_refused_with_its_place(override: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        load(overrides=[override])


# --- JSON and digest --------------------------------------------------------------------------


@given(st.integers(0, 2**62), st.floats(0, 1e9), st.text(max_size=20))
def test_json_is_read_back_as_the_same_configuration(seed: int, lr: float, name: str) -> None:
    made = load(overrides=[f"run.seed={seed}", f"learner.solver.lr={lr!r}"])
    made = msgspec.structs.replace(made, templates=name)
    assert from_json(made.to_json()) == made
    assert from_json(made.to_json()).digest() == made.digest()
    assert math.isclose(from_json(made.to_json()).learner.solver.lr, lr, rel_tol=0)


def test_the_digest_is_of_the_sorted_json_whatever_the_order_in_the_file(tmp_path: Path) -> None:
    one = load(toml(tmp_path, "templates = 'mmzero'\n[run]\nseed = 3\nmax_steps = 4\n"))
    two = load(toml(tmp_path, "run = { max_steps = 4, seed = 3 }\ntemplates = 'mmzero'\n"))
    assert one.digest() == two.digest()
    assert one.digest() == hashlib.sha256(one.to_json().encode()).hexdigest()[:16]
    keys = list(msgspec.json.decode(one.to_json()))
    assert keys == sorted(keys)


def test_every_single_value_is_in_the_digest() -> None:
    tree = msgspec.to_builtins(Config())
    digests = {Config().digest()}
    for place, value in leaves(tree).items():
        changed = msgspec.json.decode(msgspec.json.encode(tree))
        node = changed
        *sections, leaf = place.split(".")
        for section in sections:
            node = node[section]
        if isinstance(value, bool):
            node[leaf] = not value
        elif isinstance(value, int | float):
            node[leaf] = value + 1
        elif isinstance(value, str):
            node[leaf] = OTHER_WORDS.get(place, value + "x")
        elif place in OTHER_LISTS:
            node[leaf] = OTHER_LISTS[place]
        else:
            node[leaf] = [number + 1 for number in value]
        digests.add(msgspec.convert(changed, Config).digest())
    assert len(digests) == 1 + len(leaves(tree))


OTHER_LISTS: dict[str, list[object]] = {
    **{f"filters.{role}": [{"fact": "parsed", "low": 0.5}] for role in ROLES},
    "schedule.order": ["solver"],
    "schedule.curriculum": [
        {"role": "coder", "fact": "render_rate", "first": [0, 1], "last": [0, 0], "steps": 1}
    ],
}
OTHER_WORDS = {
    "coder.drawing": "matplotlib",
    "log.sync": "nosync",
    "engine.dtype": "auto",
    "coder.difficulty": "any",
    "solver.consistency": "valid",
    "renderer.engine": "svg2png-py",
    "shortcuts.copy_by": "either",
    **dict.fromkeys((f"shortcuts.{detector}" for detector in DETECTORS), "filter"),
    "probe.without": "none",
    "learner.scale_rewards": "none",
    "learner.baseline": "leave_one_out",
    "learner.weights": "full",
    "learner.dtype": "bfloat16",
    "learner.device": "cuda",
    "learner.loss": "dapo",
    "learner.sharding": "fsdp",
    "learner.loss_options.proximal": "behaviour",
    "learner.loss_options.importance_sampling_level": "sequence",
    "learner.loss_options.vllm_importance_sampling_mode": "token_mask",
    "schedule.mode": "sequential",
    "schedule.start.optimizer": "kept",
    "tracker.kind": "wandb",
}


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        Config().run.seed = 3  # type: ignore[misc]


def test_json_with_a_key_that_nobody_knows_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="colour"):
        configuration.from_json('{"run": {"colour": 3}}')


def test_the_default_preset_names_every_key_there_is() -> None:
    text = resources.files("mmzero_async.presets").joinpath("seedling.toml").read_text()
    assert leaves(tomllib.loads(text)).keys() == leaves(msgspec.to_builtins(Config())).keys()
