"""wandb and trackio, which share one way of being called.

Neither says offline what it has, so a note beside the log does: it is on disk before the points
are handed over. A kill in between loses those few points; it never shows one twice.
"""

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mmzero_async.trackers.port import Point, TrackerUnusable


class Online:
    """A run of the project, under the run's own name."""

    def __init__(
        self, kind: Literal["wandb", "trackio"], folder: Path, *, project: str, run: str
    ) -> None:
        """`folder`: where the note lies, and wandb's own files."""
        try:
            self._module: Any = importlib.import_module(kind)
        except ImportError as error:
            raise TrackerUnusable(
                f"tracker.kind = {kind!r} needs {kind} ({error}): pip install "
                f"'mmzero-async[{kind}]'"
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        self._note = folder / f"{kind}.json"
        self._newest: dict[str, int] = (
            json.loads(self._note.read_text()) if self._note.exists() else {}
        )
        if kind == "wandb":
            self._run: Any = self._module.init(
                project=project, name=run, id=run, resume="allow", dir=str(folder)
            )
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")
        else:
            self._run = self._module.init(project=project, name=run, resume="allow")

    def newest(self) -> Mapping[str, int]:
        return self._newest

    def log(self, points: Sequence[Point]) -> None:
        self._newest |= {point.series: point.step for point in points}
        _write(self._note, json.dumps(self._newest, sort_keys=True))
        for step in sorted({point.step for point in points}):
            values = {point.series: point.value for point in points if point.step == step}
            self._module.log({**values, "step": step})

    def flush(self) -> None:
        """Both write behind, in threads or processes of their own."""

    def close(self) -> None:
        self._module.finish()


def _write(path: Path, text: str) -> None:
    """As a whole and on disk, or not at all."""
    draft = path.with_suffix(".draft")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
