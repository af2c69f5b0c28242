"""Makes a CUDA build of torchvision importable beside a CPU build of torch.

Where only such a pair can be had, `import torchvision` dies with "operator torchvision::nms does
not exist", and transformers' Qwen3-VL processor with it. Declaring the two operators' schemas
before torchvision's first import is enough: only its pure-Python transforms are used. It must hold
in vLLM's spawned children as well, so it is an import hook that a .pth file installs at
interpreter start. Where torchvision's own extension loads, the hook does nothing.
"""

import argparse
import site
import sysconfig
from pathlib import Path

MODULE = "_mmzero_torchvision_shim"

HOOK = '''\
"""Installed by mmzero_async.torchvision_shim: see its docstring."""

import importlib.abc
import importlib.machinery
import sys

SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_kept = []


class Finder(importlib.abc.MetaPathFinder):
    """Waits for the first import of torchvision.extension, the place that loads the operators."""

    def find_spec(self, name, path=None, target=None):
        if name != "torchvision._meta_registrations":
            return None
        import torch

        for operator, schema in SCHEMAS.items():
            try:
                present = hasattr(getattr(torch.ops, "torchvision"), operator)
            except (AttributeError, RuntimeError):
                present = False
            if not present:
                library = torch.library.Library("torchvision", "FRAGMENT")
                library.define(operator + schema)
                _kept.append(library)
        sys.meta_path.remove(self)
        return None


sys.meta_path.insert(0, Finder())
'''


def install(folder: Path | None = None) -> Path:
    """Writes the hook and its .pth into the interpreter's site-packages; returns the .pth."""
    folder = folder or Path(sysconfig.get_paths()["purelib"])
    (folder / f"{MODULE}.py").write_text(HOOK)
    pth = folder / f"{MODULE}.pth"
    pth.write_text(f"import {MODULE}\n")
    return pth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="write the .pth file")
    if parser.parse_args().install:
        print(f"torchvision shim: {install()}")
    else:
        print(f"run with --install to write into {site.getsitepackages()[0]}")


if __name__ == "__main__":
    main()
