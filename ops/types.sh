#!/usr/bin/env bash
# mypy --strict over the package as it is installed: schemas/, workers/ and ops/ seen under their
# importable names. The type checker knows no package-dir mapping, so it gets a tree of links.
set -euo pipefail
cd "$(dirname "$0")/.."
farm=.venv/typed/mmzero_async
rm -rf .venv/typed && mkdir -p "$farm"
ln -s "$PWD"/mmzero_async/* "$farm"/
for room in schemas workers ops; do ln -s "$PWD/$room" "$farm/$room"; done
MYPYPATH=.venv/typed .venv/bin/python -m mypy --explicit-package-bases \
    --cache-dir .mypy_cache -p mmzero_async "$@"
