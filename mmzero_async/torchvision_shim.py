"""Makes a CUDA build of torchvision importable beside a CPU build of torch.

Where only such a pair can be had, `import torchvision` dies with "operator torchvision::nms does
not exist", and transformers' Qwen3-VL processor with it. Declaring the two operators' schemas is
enough, since only torchvision's pure-Python transforms are used. Where torchvision's own compiled
extension loads, nothing is declared.

It must hold in vLLM's spawned children too, so `python -m mmzero_async.torchvision_shim --install`
copies this file into site-packages and has a .pth file hook it in at every interpreter start. For
that reason it imports nothing but sys until torchvision is wanted.
"""

import sys

TYPE_CHECKING = False  # `typing` would cost every interpreter start some milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path
    from types import ModuleType

NAME = "_mmzero_torchvision_shim"  # of the copy and of its .pth in site-packages
# torchvision imports this right after it tried to load its extension, and it is what fails.
_MOMENT = "torchvision._meta_registrations"
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


class _Finder:
    """Finds no module: it only notices the moment at which the schemas are needed."""

    def find_spec(
        self,
        fullname: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        if fullname == _MOMENT:
            sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
            declare_missing()
        return None


def hook() -> None:
    """Arms the import hook once in this process. Costs microseconds; imports nothing."""
    if _MOMENT in sys.modules or any(type(f).__name__ == "_Finder" for f in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())


def declare_missing() -> list[str]:
    """Declares those of torchvision's two operators that its extension has not registered.

    Returns their names; [] where the extension is sound. Call it after torchvision's extension
    has had its chance to load, else the extension would find its operators taken.
    """
    import torch

    extension = sys.modules.get("torchvision.extension")
    if extension is None or extension._has_ops():
        return []
    missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    for name in missing:
        torch.library.define(f"torchvision::{name}", _SCHEMAS[name])
    return missing


def install(folder: "Path | None" = None) -> list[str]:
    """Writes the hook into `folder` (default: this interpreter's site-packages).

    Returns a line for each file: written, replaced or unchanged. OSError if it is not writable.
    """
    import sysconfig
    from pathlib import Path

    folder = folder or Path(sysconfig.get_paths()["purelib"])
    line = f"import {NAME}; {NAME}.hook()\n"
    wanted = {f"{NAME}.py": Path(__file__).read_text(), f"{NAME}.pth": line}
    done = []
    for name, text in wanted.items():
        file = folder / name
        state = "written"
        if file.exists():
            state = "unchanged" if file.read_text() == text else "replaced"
        if state != "unchanged":
            file.write_text(text)
        done.append(f"{state}: {file}")
    return done


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--install", action="store_true", help="write it into site-packages")
    if parser.parse_args().install:
        print("\n".join(install()))
    else:
        parser.print_help()


if __name__ == "__main__":
    main()
