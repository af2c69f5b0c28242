"""Public benchmarks, by lmms-eval, asked of the same OpenAI-compatible endpoint as everything else.

lmms-eval is a program of its own with dependencies of its own, so it runs as a child, by whichever
Python has it. What stands here is its command line, what data it needs, and how its results are
read; nothing is downloaded unless somebody leaves `--data` out and thereby asks for it.
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmzero_async.config import Config, ConfigError

_QUESTION_TOKENS = 256  # kept free for prompt and picture where the context is short
_LONGEST = 1024  # tokens of an answer


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One of lmms-eval's tasks, by the name that people know."""

    name: str
    task: str
    judged: bool = False  # lmms-eval asks another model to read answers: OPENAI_API_KEY


KNOWN = {
    one.name: one
    for one in (
        Benchmark("ai2d", "ai2d"),
        Benchmark("chartqa", "chartqa"),
        Benchmark("hallusionbench", "hallusion_bench_image", judged=True),
        Benchmark("mathverse", "mathverse_testmini", judged=True),
        Benchmark("mathvision", "mathvision_testmini", judged=True),
        Benchmark("mathvista", "mathvista_testmini", judged=True),
        Benchmark("mmmu", "mmmu_val"),
        Benchmark("mmstar", "mmstar"),
    )
}


@dataclass(frozen=True, slots=True)
class Ask:
    """Which tasks are run, by which Python, on what data."""

    tasks: tuple[str, ...]  # lmms-eval's names
    python: Path
    data: Path | None = None  # laid out as HF_HOME; None: lmms-eval may download
    include: Path | None = None  # a folder of further task files
    limit: int = 0  # questions of each task; 0: all


def named(text: str, include: Path | None) -> tuple[list[Benchmark], list[str]]:
    """Known benchmarks, and the tasks to run. ConfigError for a name that nobody knows; with a
    folder of own tasks any name may be one of those."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in KNOWN]
    if unknown and include is None:
        raise ConfigError(
            f"--benchmark {', '.join(unknown)}: known are {', '.join(KNOWN)}. Tasks of your own "
            "come from a folder of lmms-eval's task files: --tasks DIR"
        )
    known = [KNOWN[word] for word in words if word in KNOWN]
    return known, [KNOWN[word].task if word in KNOWN else word for word in words]


def installed(python: Path) -> Path | None:
    """The folder of that Python's lmms_eval; None without one."""
    look = (
        "import importlib.util as u; it = u.find_spec('lmms_eval');"
        "print(it.submodule_search_locations[0] if it else '')"
    )
    try:
        found = subprocess.run([python, "-c", look], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Path(found.stdout.strip()) if found.stdout.strip() else None


def datasets_of(package: Path, tasks: Sequence[str]) -> list[str]:
    """The datasets on the Hugging Face hub that tasks are made of, as lmms-eval's own task files
    say it: they move from one version to the next."""
    files = sorted((package / "tasks").rglob("*.yaml"))
    texts = {file: file.read_text(errors="replace") for file in files}
    by_task = {
        named[1]: file
        for file, text in texts.items()
        if (named := re.search(r"^(?:task|group): *[\"']?([\w.-]+)[\"']? *$", text, re.M))
    }
    found: dict[str, None] = {}
    waiting, seen = list(tasks), set[str]()
    while waiting:
        task = waiting.pop(0)
        if task in seen or task not in by_task:
            continue
        seen.add(task)
        text, place = texts[by_task[task]], by_task[task].parent
        if included := re.search(r"^include: *[\"']?([^\s\"']+)", text, re.M):
            other = place / included[1]
            text += "\n" + (other.read_text(errors="replace") if other.exists() else "")
        found |= dict.fromkeys(re.findall(r"^dataset_path: *[\"']?([^\s\"']+)", text, re.M))
        waiting += re.findall(r"^ +- *[\"']?([\w.-]+)[\"']? *$", text, re.M)  # of a group
    return list(found)


def objections(known: Sequence[Benchmark], ask: Ask) -> list[str]:
    """What keeps the benchmarks from being run here, each with what to do."""
    found = []
    package = installed(ask.python)
    if package is None:
        found.append(
            f"{ask.python} has no lmms-eval. Its dependencies are its own, so give it its own "
            "environment: python3 -m venv evals && evals/bin/pip install lmms-eval, then "
            "--python evals/bin/python"
        )
    elif ask.data is not None:
        wanted = datasets_of(package, [one.task for one in known])
        if missing := [name for name in wanted if not _is_there(ask.data, name)]:
            fetch = "; ".join(
                f"HF_HOME={ask.data} hf download --repo-type dataset {name}" for name in missing
            )
            found.append(
                f"--data {ask.data} lacks {', '.join(missing)}: on a machine with a network, "
                f"{fetch}"
            )
    judged = [one.name for one in known if one.judged]
    if judged and not os.environ.get("OPENAI_API_KEY"):
        found.append(
            f"{', '.join(judged)}: lmms-eval lets another model read the answers, by "
            "OPENAI_API_KEY (OPENAI_API_URL for a server of your own), and it is not set"
        )
    return found


def downloads(known: Sequence[Benchmark], ask: Ask) -> str:
    """What will be fetched from the network, for people; empty: nothing."""
    package = installed(ask.python)
    if ask.data is not None or not known or package is None:
        return ""
    names = ", ".join(datasets_of(package, [one.task for one in known]))
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return (
        f"lmms-eval downloads {names} from the Hugging Face hub into {home} unless they are there"
    )


def command(ask: Ask, url: str, policy: str, config: Config, out: Path) -> list[str]:
    """lmms-eval's command line for one policy at an engine."""
    tokens = max(16, min(_LONGEST, config.engine.max_model_len - _QUESTION_TOKENS))
    model = {
        "model_version": policy,
        "base_url": f"{url}/v1",
        "api_key": "none",
        "num_concurrent": str(config.engine.max_num_seqs),
        "timeout": str(int(config.engine.request_seconds)),
    }
    line = [
        *(str(ask.python), "-m", "lmms_eval"),
        *("--model", "openai"),
        *("--model_args", ",".join(f"{key}={value}" for key, value in model.items())),
        *("--tasks", ",".join(ask.tasks)),
        *("--batch_size", "1"),
        *("--gen_kwargs", f"max_new_tokens={tokens},temperature=0"),
        *("--output_path", str(out)),
        "--log_samples",
    ]
    if ask.include is not None:
        line += ["--include_path", str(ask.include)]
    if ask.limit:
        line += ["--limit", str(ask.limit)]
    return line


def environment(ask: Ask) -> dict[str, str]:
    """Beyond ours."""
    if ask.data is None:
        return {}
    return {
        "HF_HOME": str(ask.data.absolute()),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def results(out: Path) -> dict[str, dict[str, float]]:
    """task -> metric -> value, of what lmms-eval wrote below a folder. ConfigError for nothing."""
    files = sorted(out.rglob("*results.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise ConfigError(f"lmms-eval ended well and left no *results.json below {out}")
    told: Mapping[str, Mapping[str, Any]] = json.loads(files[-1].read_text())["results"]
    return {
        task: {
            metric.partition(",")[0]: float(value)
            for metric, value in figures.items()
            if isinstance(value, int | float)
            and not isinstance(value, bool)
            and "stderr" not in metric
        }
        for task, figures in told.items()
    }


def _is_there(data: Path, dataset: str) -> bool:
    """As the hub's client lays a dataset out under HF_HOME."""
    folder = data / "hub" / f"datasets--{dataset.replace('/', '--')}" / "snapshots"
    return folder.is_dir() and any(folder.iterdir())
