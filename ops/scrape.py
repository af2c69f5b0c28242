"""Where the processes of a run serve their figures, and what Prometheus is told of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mmzero_async import telemetry
from mmzero_async.engines.pool import urls_of
from mmzero_async.metrics_http import FOLDER


@dataclass(frozen=True, slots=True)
class Served:
    process: str
    url: str


def served(run_dir: Path) -> list[Served]:
    """By the files in the run's folder. A process that was killed has left its own behind."""
    files = sorted((run_dir / FOLDER).glob("*.url"))
    found = [Served(file.stem, file.read_text().strip()) for file in files]
    for file in sorted(run_dir.glob("engine*.url")):  # vLLM serves figures of its own
        for number, url in enumerate(urls_of(file.read_text())):
            found.append(Served(f"{file.stem}-{number}" if number else file.stem, url))
    return found


def scrape(run_dir: Path) -> str:
    """A file for Prometheus' `file_sd_configs`."""
    host = telemetry.host_name()
    groups = [
        {
            "targets": [urlsplit(one.url).netloc],
            "labels": {"run": run_dir.name, "process": one.process, "host": host},
        }
        for one in served(run_dir)
    ]
    return json.dumps(groups, indent=2)


def lines(run_dir: Path) -> Iterator[str]:
    found = served(run_dir)
    if not found:
        yield f"no process of {run_dir} serves figures: start it with metrics.port=0"
    for one in found:
        yield f"{one.process:14} {one.url}/metrics"
