"""Prints the requirements of the small images: light.txt, with the versions of pyproject.toml.

Runs before anything is installed: the standard library alone.
"""

import re
import sys
import tomllib
from pathlib import Path


def requirements(names: str, pyproject: str) -> list[str]:
    """The project's own requirement for each name. ValueError for a name that it does not have."""
    wanted = [line for line in names.splitlines() if line and not line.startswith("#")]
    project = tomllib.loads(pyproject)["project"]
    known = {re.split(r"[^A-Za-z0-9_.-]", each)[0]: each for each in project["dependencies"]}
    if missing := [name for name in wanted if name not in known]:
        raise ValueError(f"light.txt: pyproject.toml does not depend on {', '.join(missing)}")
    return [known[name] for name in wanted]


def main() -> int:
    here = Path(__file__).parent
    pyproject = here.parent.parent / "pyproject.toml"
    for each in requirements((here / "light.txt").read_text(), pyproject.read_text()):
        print(each)
    return 0


if __name__ == "__main__":
    sys.exit(main())
