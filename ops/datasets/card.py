"""The dataset's README: a YAML head that `load_dataset` and hubs read, and the lineage in words.

No times and no folders in it: the same plan has the same card.
"""

from collections.abc import Iterator, Sequence

from mmzero_async.ops.datasets.manifest import Counts, Plan, SplitFigures
from mmzero_async.ops.datasets.shards import FOLDER

_ABOUT = {
    "solver": "One row a picture: the hard question as a prompt with its silver answer (what most "
    "answers said), both questions, every answer and how far they agree.",
    "coder": "One row a proposal: the prompt, every drawing as code, its picture and its reward.",
    "proposer": "One row a prompt: every proposal with what became of its drawings.",
    "preference": "One row a group that was trained on: its best sample and its worst by reward, "
    "`chosen` and `rejected`.",
    "sft": "One row a group that was trained on: its best sample by reward is the `completion`.",
    "trajectories": "One row a request to a policy: token ids, behaviour log-probabilities, policy "
    "versions, rewards by term and advantages.",
}
_TASK = {
    "solver": "visual-question-answering",
    "coder": "text-generation",
    "proposer": "text-generation",
    "preference": "reinforcement-learning",
    "sft": "image-text-to-text",
    "trajectories": "reinforcement-learning",
}
_FOR_TRL = ("solver", "preference", "sft")
_SAME = """\
A duplicate has the same words as an earlier row (NFKC, case and blanks aside) and, where it has a
picture, one that looks the same (fingerprints differ in at most 8 of 2304 bits)."""
_SPLIT = """\
A lineage, all that descends from one proposer prompt, lies in one split as a whole; which one it is
depends on its name alone. `manifest.json` holds the SHA-256 of every file: the same log and command
give the same bytes."""


def card(
    plan: Plan, counts: Counts, splits: dict[str, SplitFigures], features: Sequence[str] = ()
) -> str:
    """`features`: lines of YAML for a format that does not tell what it holds."""
    parts = (_title, _origin, _counts, _splits)
    lines = [*_head(plan, splits, features), ""]
    for part in parts:
        lines += [*part(plan, counts, splits), ""]
    return "\n".join(lines)


def _head(plan: Plan, splits: dict[str, SplitFigures], features: Sequence[str]) -> Iterator[str]:
    form = "parquet" if plan.form == "parquet" else "tar"
    yield "---"
    yield f"pretty_name: {plan.kind} of {_names(plan)}"
    yield f"task_categories:\n- {_TASK[plan.kind]}"
    yield "tags:\n- mmzero-async\n- synthetic\n- self-play"
    if plan.kind in _FOR_TRL:
        yield "- trl"
    yield f"size_categories:\n- {_size(sum(it.rows for it in splits.values()))}"
    yield "configs:\n- config_name: default\n  data_files:"
    for name, it in splits.items():
        if it.rows:
            yield f"  - split: {name}\n    path: {FOLDER}/{name}-*.{form}"
    yield from features
    yield "---"


def _title(plan: Plan, counts: Counts, splits: dict[str, SplitFigures]) -> Iterator[str]:
    yield f"# {plan.kind} of {_names(plan)}\n"
    yield f"{_ABOUT[plan.kind]} Made by mmzero-async from its event log; no data from outside.\n"
    yield "```python\nimport datasets\n"
    yield f'rows = datasets.load_dataset("path/to/this/folder", split="{next(iter(splits))}")'
    yield "```"


def _origin(plan: Plan, counts: Counts, splits: dict[str, SplitFigures]) -> Iterator[str]:
    yield "## Where it comes from\n"
    yield "| log | run | events | first record | offsets of rows |\n| --- | --- | --- | --- | --- |"
    for it in plan.sources:
        offsets = _span(counts.offsets.get(it["name"]))
        yield f"| {it['name']} | {it['run']} | {it['events']} | `{it['first']}` | {offsets} |"
    yield f"\n- command: `{plan.command}`"
    yield f"- filter: `{plan.where}`" if plan.where else "- filter: none"
    for role, versions in sorted(counts.versions.items()):
        yield f"- {role}: {counts.rows[role]} rows, policy versions {_span(versions)}"
    yield "- made with " + ", ".join(f"{k} {v}" for k, v in sorted(plan.software.items()))


def _counts(plan: Plan, counts: Counts, splits: dict[str, SplitFigures]) -> Iterator[str]:
    what = "requests" if plan.kind == "trajectories" else "complete groups"
    yield "## Counts\n"
    yield f"{counts.lineages} lineages with {counts.groups} {what} were looked at; "
    yield f"{sum(it.rows for it in splits.values())} became rows.\n"
    if counts.left_out:
        yield f"| left out | {what} |\n| --- | --- |"
        for reason, n in sorted(counts.left_out.items()):
            yield f"| {reason} | {n} |"
        yield ""
    yield _SAME if plan.deduplicate else "Nothing was deduplicated."
    if counts.bare_prompts:
        yield f"\n{counts.bare_prompts} prompts are bare words: their template is not known here."


def _splits(plan: Plan, counts: Counts, splits: dict[str, SplitFigures]) -> Iterator[str]:
    yield "| split | share of lineages | rows | files | bytes |\n| --- | --- | --- | --- | --- |"
    for name, it in splits.items():
        yield f"| {name} | {it.share:g} | {it.rows} | {it.shards} | {it.bytes} |"
    yield f"\n{_SPLIT}"


def _names(plan: Plan) -> str:
    return ", ".join(source["name"] for source in plan.sources)


def _size(rows: int) -> str:
    """As hubs name it."""
    for below, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if rows < below:
            return name
    return "100K<n<1M" if rows < 1_000_000 else "n>1M"


def _span(ends: list[int] | None) -> str:
    if ends is None:
        return "none"
    return f"{ends[0]} to {ends[1]}" if ends[0] != ends[1] else f"{ends[0]}"
