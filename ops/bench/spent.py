"""Where processor time goes: of a process and all below it, and how long it waited for a core."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

_CORE = "EngineCore"  # in the title of vLLM's process that computes


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds since the threads that live now began."""

    ran: float = 0.0
    waited: float = 0.0  # ready to run, and no core was free

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.ran + other.ran, self.waited + other.waited)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.ran - other.ran, self.waited - other.waited)


def spent(pids: Iterable[int]) -> Spent:
    """Of these processes, all their threads. Linux; elsewhere nothing is told."""
    total = Spent()
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                ran, waited, _ = thread.read_text().split()
            except (OSError, ValueError):  # it ended
                continue
            total += Spent(int(ran) / 1e9, int(waited) / 1e9)
    return total


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.Error:
        return []


def engine_parts(guard: int) -> dict[str, list[int]]:
    """vLLM's processes: `core`, which computes, and `front`, which speaks HTTP."""
    parts: dict[str, list[int]] = {"core": [], "front": []}
    for pid in family(guard):
        try:
            title = " ".join(psutil.Process(pid).cmdline())
        except psutil.Error:
            continue
        parts["core" if _CORE in title else "front"].append(pid)
    return parts


def shares(
    before: Mapping[str, Spent], after: Mapping[str, Spent], seconds: float
) -> dict[str, Spent]:
    """Of each, what it ran and waited in every second between two looks."""
    gone = {name: after[name] - before[name] for name in before}
    return {name: Spent(it.ran / seconds, it.waited / seconds) for name, it in gone.items()}
