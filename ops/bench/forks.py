"""Processes for benches, forked from one that has the heavy libraries loaded and computed nothing.

So the libraries are paid for once, and what one process computed weighs on no other. Functions are
named (`module:function` of this folder), so that whoever starts them need not import them.
"""

import multiprocessing
import os
import pkgutil
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

HERE = __name__.rpartition(".")[0]


class ChildFailed(Exception):
    """A process ended without its result; the reason stands on stderr."""


class Forks:
    """`modules` of this folder are what the processes will find loaded."""

    def __init__(self, modules: Sequence[str]) -> None:
        # Libraries that warn of each other's versions when they are loaded: not our concern here.
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([f"{HERE}.{module}" for module in modules])

    def start(self, function: str, *arguments: Any) -> ForkServerProcess:
        process = self._context.Process(target=_run, args=(function, arguments), daemon=True)
        process.start()
        return process

    def call(self, function: str, *arguments: Any) -> Any:
        """What the function returns. ChildFailed when it raises or its process is killed."""
        here, there = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_send, args=(there, function, arguments))
        process.start()
        there.close()
        try:
            return here.recv()
        except EOFError:
            process.join()
            raise ChildFailed(f"{function} ended with {process.exitcode}") from None
        finally:
            process.join()


def stop(process: ForkServerProcess, patience: float = 10.0) -> None:
    process.terminate()
    process.join(timeout=patience)
    if process.exitcode is None:
        process.kill()
        process.join()


def _run(function: str, arguments: tuple[Any, ...]) -> None:
    _named(function)(*arguments)


def _send(pipe: Connection, function: str, arguments: tuple[Any, ...]) -> None:
    pipe.send(_named(function)(*arguments))


def _named(function: str) -> Callable[..., Any]:
    found: Callable[..., Any] = pkgutil.resolve_name(f"{HERE}.{function}")
    return found
