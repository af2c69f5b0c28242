"""What stands beside an exported model: a card for people, the same lineage for programs.

A function of the log and of the files alone: no date, no path of this machine, so that exporting a
version again gives the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmzero_async import __version__
from mmzero_async.config import Config
from mmzero_async.engines.launch import BASE_POLICY
from mmzero_async.ops.summary import evaluation_figures
from mmzero_async.ops.versions import Version
from mmzero_async.roles.prompts import load_templates
from mmzero_async.schemas.events import Evaluated, RunStarted

CARD, LINEAGE = "README.md", "mmzero.json"


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a model comes from."""

    started: RunStarted
    config: Config
    version: Version
    changed: int  # tensors that differ from the base's
    scores: Sequence[Evaluated]  # of this version, and of the first

    @property
    def base(self) -> str:
        return (
            self.config.run.base_model if self.is_seedling else Path(self.started.base_model).name
        )

    @property
    def is_seedling(self) -> bool:
        return self.config.run.base_model == "seedling"

    def figures(self, files: Mapping[str, str]) -> dict[str, Any]:
        """`files`: sha-256 by name."""
        started, version, learner = self.started, self.version, self.config.learner
        return {
            "made_by": f"mmzero-async {__version__}",
            "run": started.run,
            "role": version.role,
            "version": version.number,
            "step": version.step,
            "groups_trained_on": version.groups,
            "committed_at_offset": version.offset,
            "checkpoint_sha256": version.digest,
            "base_model": self.base,
            "base_digest": started.base_digest,
            "config_digest": started.config_digest,
            "code_version": started.code_version,
            "weights": learner.weights,
            "lora": {"rank": learner.lora_rank, "alpha": learner.lora_alpha}
            if learner.weights == "lora"
            else None,
            "tensors_changed": self.changed,
            "scores": [evaluation_figures(event) for event in self.scores],
            "files": dict(files),
        }


def write(folder: Path, lineage: Lineage) -> None:
    """Both files, into a model's folder that holds all the others."""
    files = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
    }
    text = json.dumps(lineage.figures(files), indent=1, sort_keys=True)
    (folder / LINEAGE).write_text(text + "\n")
    (folder / CARD).write_text(card(lineage))


def card(it: Lineage) -> str:
    started, version, learner = it.started, it.version, it.config.learner
    how = (
        f"adapter of rank {learner.lora_rank} (alpha {learner.lora_alpha}), merged: "
        f"W + {learner.lora_alpha}/{learner.lora_rank} B A in float64, rounded to the base's type; "
        f"{it.changed} matrices changed"
        if learner.weights == "lora"
        else f"all weights, {it.changed} tensors"
    )
    rows = {
        "run": f"{started.run}, seed {started.seed}",
        "base model": f"{it.base}, digest {started.base_digest}",
        "trained": f"{version.step} steps of the {version.role} on {version.groups} groups",
        "weights": how,
        "loss": f"{learner.loss}, learning rate {getattr(learner, version.role).lr:g}",
        "checkpoint": f"sha-256 {version.digest or 'not in the log'}",
        "committed": f"at offset {version.offset} of the log",
        "configuration": f"digest {started.config_digest}",
        "made by": f"mmzero-async {__version__}, run by {started.code_version}",
    }
    template = load_templates(it.config.templates, it.config.coder.drawing).text(version.role)
    return f"""---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [mmzero-async, {version.role}, self-evolved]
---

# {started.run}: {version.name}

The **{version.role}** of run `{started.run}`, version {version.number}. It grew from a base model
by inventing, drawing and answering its own questions, with no data from outside (the MM-Zero
method, arXiv 2603.09206). Every sample that it was trained on stands in that run's event log.

| | |
| --- | --- |
{"".join(f"| {name} | {told} |" + chr(10) for name, told in rows.items())}
{_scores(it.scores)}
## Asking it

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model, processor = (k.from_pretrained(".") for k in (AutoModelForImageTextToText, AutoProcessor))
```

or `vllm serve . --served-model-name {BASE_POLICY}`. It was trained with this prompt
({it.config.templates}, {"its picture before it" if version.role == "solver" else "no picture"}):

```
{template}
```

`{LINEAGE}` has the same lineage for programs, and the SHA-256 of every file.
"""


def _scores(events: Sequence[Evaluated]) -> str:
    if not events:
        return ""
    lines = [
        "## Scores",
        "",
        "On made-up scenes with known answers that no part of the training saw; 95 % intervals.",
        "",
        "| version | how | easy | hard |",
        "| --- | --- | --- | --- |",
    ]
    for event in events:
        told = evaluation_figures(event)
        cells = [
            f"{told[name]['accuracy']:.1%} [{told[name]['interval_95'][0]:.1%}, "
            f"{told[name]['interval_95'][1]:.1%}] of {told[name]['asked']}"
            if told[name]["asked"]
            else "not asked"
            for name in ("easy", "hard")
        ]
        lines.append(f"| {event.version} | {event.mode} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"
