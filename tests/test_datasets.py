"""Datasets from outside: what `load_dataset` and TRL see, which bytes, what is refused."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from builders import probed
from click.testing import Result
from dataset_runs import (
    TEMPLATES,
    append,
    everything,
    fingerprint_of,
    lineage,
    png_of,
    rejected,
    story,
    trained,
    write_run,
)
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from typer.testing import CliRunner

from mmzero_async.log.reader import LogReader
from mmzero_async.ops.cli import app
from mmzero_async.ops.datasets import groups, shards
from mmzero_async.ops.datasets.export import export
from mmzero_async.ops.datasets.manifest import MANIFEST
from mmzero_async.ops.datasets.options import KINDS, DatasetError, Split, options, parse_splits
from mmzero_async.ops.datasets.splits import split_of
from mmzero_async.schemas.events import Answered, Proposed, Rendered, Rewarded
from mmzero_async.schemas.packing import unpack_logprobs, unpack_tokens


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "demo", story())


def made(run: Path, out: Path, *words: str, **options_: Any) -> Path:
    export(run, out, options(*words, **options_))
    return out


def loaded(folder: Path) -> Any:
    import datasets

    return datasets.load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [dict(row) for split in loaded(folder).values() for row in split]


def mmzero(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


def events(run: Path) -> list[Any]:
    reader = LogReader.open(run / "log")
    try:
        return [record.event() for record in reader.scan()]
    finally:
        reader.close()


# --- what is in it ----------------------------------------------------------------------------


def test_the_default_is_a_row_a_picture_that_load_dataset_shows_decoded(
    run: Path, tmp_path: Path
) -> None:
    found = {row["id"]: row for row in rows(made(run, tmp_path / "d"))}
    pictures = [e for e in events(run) if isinstance(e, Rendered) and e.picture]
    assert set(found) == {picture.drawing for picture in pictures}
    row = found["g0.s0.d0"]
    assert row["image"].size == (24, 24) and row["image"].format == "PNG"
    assert row["image"].tobytes() == _pixels(png_of("g0.s0.d0"))
    assert (row["solution"], row["silver_answer"], row["hard_consistency"]) == ("3", "3", 0.5)
    assert row["hard_answers"] == ["3", "3", "11", None] and row["solvability"] == 0.75
    assert (row["run"], row["lineage"]) == ("demo", "g0")
    assert (row["fate"], row["step"]) == ("trained", 1)
    assert row["rewards"] == pytest.approx([1.0, 1.0, 0.1, 0.0])
    assert found["g2.s0.d0"]["fate"] == "rejected: stale"
    assert found["g4.s1.d0"]["fate"] == "pending" and found["g4.s1.d0"]["rewards"] is None
    assert {row["solver_version"] for row in found.values()} == {0, 1}
    asked = TEMPLATES.solver.replace("{question}", row["hard_question"])
    assert row["prompt"] == [{"role": "user", "content": asked}]


def _pixels(png: bytes) -> bytes:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(png)).tobytes()


def test_coder_and_proposer_rows_hold_what_became_of_every_sample(
    run: Path, tmp_path: Path
) -> None:
    coder = {row["id"]: row for row in rows(made(run, tmp_path / "c", "coder"))}
    row = coder["g0.s1"]
    first, second = row["drawings"]
    assert first["code"].startswith("<svg") and (first["picture"], first["failure"]) == (0, "")
    assert (second["picture"], second["failure"]) == (None, "invalid")
    assert (first["reward"], second["reward"]) == pytest.approx((1.5, -0.1))
    assert len(row["pictures"]) == 1 and row["pictures"][0].size == (24, 24)
    assert row["render_rate"] == 0.5 and "Bars of g0, number 1." in row["prompt"][0]["content"]
    proposer = {row["id"]: row for row in rows(made(run, tmp_path / "p", "proposer"))}
    row = proposer["g1"]
    assert [it["reward"] for it in row["proposals"]] == pytest.approx([0.25, 0.75])
    assert row["proposals"][1]["caption"] == "Bars of g1, number 1."
    assert (row["proposals"][0]["drawings"], row["proposals"][0]["pictures"]) == (2, 1)
    assert "topic of g1" in row["prompt"][0]["content"]


def test_preference_and_sft_are_conversations_that_trl_takes_with_their_pictures(
    run: Path, tmp_path: Path
) -> None:
    from trl.data_utils import is_conversational, prepare_multimodal_messages

    pairs = {row["id"]: row for row in rows(made(run, tmp_path / "p", "preference"))}
    best = {row["id"]: row for row in rows(made(run, tmp_path / "s", "sft"))}
    rewarded = {e.group: e for e in events(run) if isinstance(e, Rewarded)}
    assert set(pairs) == set(best) == set(rewarded)
    for name, row in pairs.items():
        rewards = rewarded[name].rewards
        kind = {"solver": "answered", "coder": "coded", "proposer": "proposed"}[row["role"]]
        said = [f"{kind} {name} number {i}" for i in range(len(rewards))]
        assert row["chosen"] == [
            {"role": "assistant", "content": said[rewards.index(max(rewards))]}
        ]
        assert row["rejected"] == [
            {"role": "assistant", "content": said[rewards.index(min(rewards))]}
        ]
        assert row["chosen_reward"] == max(rewards) > row["rejected_reward"] == min(rewards)
        assert best[name]["completion"] == row["chosen"] and best[name]["reward"] == max(rewards)
        assert len(row["images"]) == (row["role"] == "solver")
        assert is_conversational(row) and is_conversational(best[name])
        asked = prepare_multimodal_messages(row["prompt"], images=row["images"])
        sorts = [part["type"] for part in asked[0]["content"]]
        assert sorts == (["image", "text"] if row["role"] == "solver" else ["text"])


def test_what_needs_no_pictures_has_no_column_of_them(run: Path, tmp_path: Path) -> None:
    words = made(run, tmp_path / "w", "sft", where="role=coder,proposer")
    assert {row["role"] for row in rows(words)} == {"coder", "proposer"}
    assert "images" not in loaded(words)["train"].column_names


def test_a_group_without_contrast_or_rewards_is_left_out_and_counted(tmp_path: Path) -> None:
    flat = trained("solver", ["g0.s0.d0"], [0.5] * 4, 1)
    run = write_run(tmp_path / "flat", [*lineage("g0"), *flat])
    # Two pictures, two proposals and a prompt are groups; one has rewards, and these are alike.
    with pytest.raises(DatasetError, match=r"of 5 complete groups .*1 no_contrast, 4 no_rewards"):
        export(run, tmp_path / "d", options("preference"))
    assert list((tmp_path / "d").iterdir()) == []
    manifest, _ = export(run, tmp_path / "d", options("sft"))
    assert (manifest.rows, manifest.counts.left_out) == (1, {"no_rewards": 4})


def test_trajectories_hold_every_request_with_tokens_versions_and_rewards_by_term(
    tmp_path: Path,
) -> None:
    probe = probed("g0.s0.d0", "hard", ["3", None])
    run = write_run(tmp_path / "t", [*story(4), probe, *lineage("g4")[:4]])
    found = rows(made(run, tmp_path / "d", "trajectories"))
    said = [e for e in events(run) if hasattr(e, "generation")]
    assert sorted(row["offset"] for row in found) == [
        offset for offset, e in enumerate(events(run)) if hasattr(e, "generation")
    ]
    assert {row["kind"] for row in found} == {"proposed", "coded", "answered", "probed"}
    by_offset = {row["offset"]: row for row in found}
    rewarded = {(e.role, e.group): e for e in events(run) if isinstance(e, Rewarded)}
    told = 0
    for offset, event in enumerate(events(run)):
        if event not in said:
            continue
        row, generation = by_offset[offset], event.generation
        assert (row["role"], row["policy"]) == (generation.role, generation.policy)
        assert row["prompt_token_ids"] == unpack_tokens(generation.prompt_token_ids).tolist()
        hard = isinstance(event, Answered) and event.question == "easy"
        rewards = None if hard else rewarded.get((row["role"], row["id"]))
        for i, (sample, shown) in enumerate(zip(generation.samples, row["samples"], strict=True)):
            assert shown["token_ids"] == unpack_tokens(sample.token_ids).tolist()
            assert shown["logprobs"] == unpack_logprobs(sample.logprobs).tolist()
            assert [tuple(v.values()) for v in shown["versions"]] == [
                (span.start, span.stop, span.version) for span in sample.versions
            ]
            if row["kind"] == "probed" or rewards is None:
                assert shown["reward"] is None and shown["terms"] is None
                continue
            told += 1
            assert {t["term"]: t["value"] for t in shown["terms"]} == rewards.terms[i]
            assert shown["reward"] == rewards.rewards[i]
            assert shown["advantage"] == rewards.advantages[i]
        assert len(row["images"]) == len(generation.images)
    assert told == 4 + 4 + 2 + 2
    drawn = by_offset[next(o for o, e in enumerate(events(run)) if e in said and o > 1)]
    assert [it["failure"] for it in drawn["renders"]] == ["", "invalid"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("lineage=g1", {"g1.s0.d0", "g1.s1.d0"}),
        ("lineage=g1.s1,g4.s0", {"g1.s1.d0", "g4.s0.d0"}),
        ("kind=rewarded", {"g0.s0.d0", "g1.s1.d0"}),
        ("kind=group_rejected", {"g2.s0.d0"}),
        ("reward=0.9..", {"g0.s0.d0", "g1.s1.d0"}),
        ("reward=2..", set()),
        ("version=1 lineage=g3,g0", {"g3.s0.d0", "g3.s1.d0"}),
        ("staleness=1..", set()),
        ("outcome=no_answer lineage=g5.s0", {"g5.s0.d0"}),
        ("since=2999-01-01", set()),
    ],
)
def test_a_filter_says_which_groups_become_rows(
    run: Path, tmp_path: Path, where: str, expected: set[str]
) -> None:
    if not expected:
        with pytest.raises(DatasetError, match="12 not in the filter"):
            export(run, tmp_path / "d", options(where=where))
        return
    manifest, _ = export(run, tmp_path / "d", options(where=where))
    assert {row["id"] for row in rows(tmp_path / "d")} == expected
    assert manifest.rows + sum(manifest.counts.left_out.values()) == manifest.counts.groups == 12


# --- duplicates and splits --------------------------------------------------------------------


def nearly(fingerprint: bytes, bits: int) -> bytes:
    number = int.from_bytes(fingerprint)
    for bit in range(bits):
        number ^= 1 << (97 * bit)
    return number.to_bytes(len(fingerprint))


def renamed(source: str, name: str, question: str, fingerprint: bytes) -> list[Any]:
    """A lineage with the words of another and a picture with this fingerprint."""
    found = []
    for event in lineage(name, proposals=1, drawings=1):
        if isinstance(event, Proposed):
            proposal = replace(
                event.outcomes[0].proposal, caption=f"Bars of {source}", hard_question=question
            )
            event = replace(event, outcomes=[replace(event.outcomes[0], proposal=proposal)])
        if isinstance(event, Rendered):
            event = replace(event, fingerprint=fingerprint)
        found.append(event)
    return found


@pytest.mark.parametrize(
    ("question", "bits", "kept"),
    [
        ("How many?", 0, 1),
        ("  HOW many? ", 8, 1),  # case and blanks aside
        ("\uff28ow many?", 8, 1),
        ("How many?", 9, 2),
        ("How much?", 0, 2),
    ],
)
def test_the_same_words_about_pictures_that_look_the_same_are_one_row(
    tmp_path: Path, question: str, bits: int, kept: int
) -> None:
    look = fingerprint_of("x")
    first = renamed("g0", "g0", "How many?", look)
    second = renamed("g0", "g1", question, nearly(look, bits))
    run = write_run(tmp_path / "r", [*first, *second])
    manifest, _ = export(run, tmp_path / "d", options())
    assert manifest.rows == kept and manifest.counts.left_out.get("duplicate", 0) == 2 - kept
    assert rows(tmp_path / "d")[0]["id"] == "g0.s0.d0", "the first of them stays"
    assert export(run, tmp_path / "all", options(deduplicate=False))[0].rows == 2


@given(
    shares=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    names=st.lists(st.integers(0, 10**6), min_size=1, max_size=50),
)
def test_a_lineage_has_one_split_whatever_else_there_is(
    shares: list[int], names: list[int]
) -> None:
    splits = [Split(f"s{i}", share / sum(shares)) for i, share in enumerate(shares)]
    found = {name: split_of("r", f"g{name}", splits) for name in names}
    assert set(found.values()) <= {split.name for split in splits}
    assert all(split_of("r", f"g{name}", splits) == found[name] for name in reversed(names))


def test_shares_are_shares_of_the_lineages() -> None:
    splits = parse_splits("0.8/0.1/0.1")
    found = [split_of("demo", f"g{n}", splits) for n in range(20_000)]
    counts = [found.count(name) / len(found) for name in ("train", "validation", "test")]
    assert counts == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_siblings_stay_together_and_the_splits_are_the_whole(
    run: Path, tmp_path: Path, kind: str
) -> None:
    whole = made(run, tmp_path / "whole", kind)
    parts = loaded(made(run, tmp_path / "parts", kind, split="a=0.5/b=0.25/c=0.25"))
    homes = defaultdict(set)
    for name, split in parts.items():
        for row in split:
            homes[row["lineage"]].add(name)
    assert all(len(home) == 1 for home in homes.values())
    expected = sorted((row["id"], row["offset"]) for row in rows(whole))
    assert sorted((r["id"], r["offset"]) for s in parts.values() for r in s) == expected
    assert expected, "an empty dataset would prove nothing"


# --- the bytes --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_log_and_options_give_the_same_bytes(
    run: Path, tmp_path: Path, kind: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = everything(made(run, tmp_path / "one", kind, form, split="0.5/0.5"))
    # The same, with next to nothing remembered of what was read.
    monkeypatch.setattr(groups, "KEPT_BYTES", 1)
    copy = tmp_path / "elsewhere" / "demo"
    shutil.copytree(run, copy)
    again = everything(made(copy, tmp_path / "two", kind, form, split="0.5/0.5"))
    assert first == again
    manifest = json.loads(first[MANIFEST])
    assert {file["name"]: file["sha256"] for file in manifest["files"]} == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in first.items()
        if name.startswith("data/")
    }
    assert set(first) == {"README.md", MANIFEST, *(f["name"] for f in manifest["files"])}
    assert manifest["card_sha256"] == hashlib.sha256(first["README.md"]).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_a_webdataset_is_loaded_with_its_pictures_and_tells_the_same(
    run: Path, tmp_path: Path, kind: str
) -> None:
    tars = loaded(made(run, tmp_path / "tars", kind, "webdataset", split="0.5/0.5"))
    plain = {row["offset"]: row for row in rows(made(run, tmp_path / "plain", kind))}
    found = {row["json"]["offset"]: row for split in tars.values() for row in split}
    assert found.keys() == plain.keys() and found
    for offset, row in found.items():
        expected = plain[offset]
        shown = [expected.pop(n) for n in ("image", "images", "pictures") if n in expected]
        pictures = [p for it in shown for p in (it if isinstance(it, list) else [it])]
        told = [row[key] for key in row if key.endswith("png") and row[key] is not None]
        assert [it.tobytes() for it in told] == [it.tobytes() for it in pictures]
        assert row["json"] == expected


KILLED = """
import os, signal, sys, time
from pathlib import Path
from mmzero_async.ops.datasets import shards
from mmzero_async.ops.datasets.export import export
from mmzero_async.ops.datasets.options import options
shards.GROUP_ROWS = 2
run, out, form = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
at, files = map(int, sys.argv[4:])
seen = 0
def told(done, of):
    global seen
    seen += 1
    if seen == at:
        while len((out / ".progress.jsonl").read_bytes().splitlines()) <= files:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
export(run, out, options("solver", form, split="0.6/0.4", shard_mb=0.0005), told=told)
"""


@pytest.mark.parametrize(
    ("at", "files", "form"), [(1, 0, "parquet"), (11, 2, "parquet"), (19, 5, "webdataset")]
)
def test_killed_in_the_middle_and_resumed_it_is_the_dataset_that_it_would_have_been(
    tmp_path: Path, at: int, files: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "GROUP_ROWS", 2)
    wanted = options("solver", form, split="0.6/0.4", shard_mb=0.0005)
    run = write_run(tmp_path / "demo", story(12))
    export(run, tmp_path / "undisturbed", wanted)
    out = tmp_path / "killed"
    child = [sys.executable, "-c", KILLED, str(run), str(out), form, str(at), str(files)]
    assert subprocess.run(child, timeout=60).returncode == -signal.SIGKILL
    assert not (out / MANIFEST).exists()
    # A file that stands there and is not written down yet is made again.
    told = [json.loads(ln) for ln in (out / ".progress.jsonl").read_text().splitlines()[1:]]
    before = {Path(it["name"]).name: (out / it["name"]).stat().st_ino for it in told}
    assert len(before) >= files and bool(before) == bool(files)
    append(run, lineage("g77"))  # the run goes on meanwhile
    with pytest.raises(DatasetError, match="--resume"):
        export(run, out, wanted)
    manifest, written = export(run, out, wanted, resume=True)
    assert written and everything(out) == everything(tmp_path / "undisturbed")
    after = {path.name: path.stat().st_ino for path in (out / "data").iterdir()}
    assert before.items() <= after.items(), "what was finished is not made again"
    assert len(manifest.files) > 3
    again, written = export(run, out, wanted, resume=True)
    assert (again, written) == (manifest, False)


def test_a_finished_file_that_was_damaged_meanwhile_is_made_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "GROUP_ROWS", 2)
    wanted = options(shard_mb=0.0005)
    whole = everything(made(run, tmp_path / "whole", shard_mb=0.0005))

    def stop(done: int, of: int) -> None:
        if done == of:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(run, tmp_path / "d", wanted, told=stop)
    first = min((tmp_path / "d" / "data").glob("[!.]*"))
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    export(run, tmp_path / "d", wanted, resume=True)
    assert everything(tmp_path / "d") == whole


# --- the command ------------------------------------------------------------------------------


def test_the_command_tells_what_it_made_and_makes_it_once(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "d"
    words = ("dataset", run, "--kind", "sft", "--where", "role=solver", "--out", out)
    told = mmzero(*words, "--split", "0.5/0.5")
    assert told.exit_code == 0, told.exception
    assert "2 rows in" in told.stdout and "no_rewards" in told.stdout
    again = mmzero(*words, "--split", "0.5/0.5", "--json")
    figures = json.loads(again.stdout)
    assert (figures["rows"], figures["written"]) == (2, False)
    assert sum(split["rows"] for split in figures["splits"].values()) == 2
    other = mmzero(*words, "--split", "0.9/0.1")
    assert isinstance(other.exception, DatasetError) and "--overwrite" in str(other.exception)
    assert mmzero(*words, "--overwrite").exit_code == 0
    assert sorted(path.name for path in (out / "data").iterdir()) == ["train-00000.parquet"]
    card = (out / "README.md").read_text()
    assert "`mmzero dataset demo --kind sft --where role=solver`" in card
    assert "| demo | demo |" in card and "| no_rewards |" in card and "policy versions 0" in card


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--kind", "drawer"), "choose one of solver, coder"),
        (("--format", "csv"), "choose one of parquet, webdataset"),
        (("--split", "0.9/0.2"), "shares that make 1"),
        (("--split", "0.4/0.3/0.2/0.1"), "shares that make 1"),
        (("--split", "a=0.5/a=0.5"), "shares that make 1"),
        (("--where", "rolle=solver"), "did you mean role?"),
        (("--kind", "coder", "--where", "role=solver"), "no rows of role=solver"),
        (("--shard-mb", "0"), "above 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    refused = mmzero("dataset", run, "--out", tmp_path / "d", *words)
    assert refused.exit_code == 1 and told in str(refused.exception)
    assert not (tmp_path / "d").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for words in ((), ("--overwrite",), ("--resume",)):
        refused = mmzero("dataset", run, "--out", tmp_path, *words)
        assert "something else" in str(refused.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_a_hub_a_push_says_so_and_the_dataset_stays(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "d"
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_x"}
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "mmzero_async.ops.cli", "dataset", str(run)),
            *("--out", str(out), "--push", "me/mine"),
        ],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "the hub at http://127.0.0.1:9 did not take it as me/mine" in ran.stderr
    assert loaded(out)["train"].num_rows == 12


def test_a_line_a_tenth_where_there_is_no_terminal(run: Path, tmp_path: Path) -> None:
    told = mmzero("dataset", run, "--out", tmp_path / "d").stdout
    lines = [line for line in told.splitlines() if "events" in line]
    assert 2 < len(lines) <= 10 and lines[-1].startswith("solver of demo: ")
    assert mmzero("dataset", run, "--out", tmp_path / "j", "--json").stdout.count("\n") == 1


def test_a_prompt_of_a_template_that_is_not_known_is_its_bare_words(tmp_path: Path) -> None:
    def older(event: Any) -> Any:
        if not hasattr(event, "generation"):
            return event
        return replace(event, generation=replace(event.generation, template="another"))

    run = write_run(tmp_path / "old", map(older, lineage("g0")))
    manifest, _ = export(run, tmp_path / "d", options())
    assert rows(tmp_path / "d")[0]["prompt"] == [{"role": "user", "content": "g0?"}]
    assert manifest.counts.bare_prompts == 2
    assert TEMPLATES.digest("solver") != "another"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_picture_that_is_gone_is_named_and_the_export_goes_on_when_it_is_back(
    tmp_path: Path, processes: str
) -> None:
    settled = [
        *(rejected("solver", f"g0.s{i}.d0") for i in range(2)),
        *(rejected("coder", f"g0.s{i}") for i in range(2)),
        rejected("proposer", "g0"),
    ]
    run = write_run(tmp_path / "demo", [*lineage("g0"), *settled, *lineage("g1")])
    whole = everything(made(run, tmp_path / "whole"))
    kept = tmp_path / "kept"
    packed = mmzero("log", "compact", run, "--keep-pictures", "none", "--archive", kept)
    assert packed.exit_code == 0, packed.exception
    words = ("dataset", run, "--out", tmp_path / "d", "--processes", processes)
    gone = mmzero(*words)
    assert gone.exit_code == 1 and f"mmzero log restore {kept}" in str(gone.exception)
    assert mmzero("log", "restore", kept, run, "--pictures").exit_code == 0
    back = mmzero(*words, "--resume")
    assert back.exit_code == 0, back.exception
    assert everything(tmp_path / "d") == whole
