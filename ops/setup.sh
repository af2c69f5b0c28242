#!/usr/bin/env bash
# Installs the project and all it needs into .venv. A stamp over what decides the installation
# makes later calls return at once.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=.venv/mmzero-setup
want=$(cat pyproject.toml ops/setup.sh | sha256sum | cut -d' ' -f1)
[ "$(cat "$stamp" 2>/dev/null || true)" = "$want" ] && exit 0

say() { printf '\033[2msetup: %s\033[0m\n' "$*"; }
# pip says little and works for minutes: a line now and then shows that it is alive.
pip() {
    (while sleep 15; do say "  ... $SECONDS s, $(du -sh .venv 2>/dev/null | cut -f1) so far"; done) &
    local ticker=$! status=0
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@" \
        2> >(grep -v '^WARNING: Location' >&2) || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    return "$status"
}

extra=cpu
command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1 && extra=gpu
say "1/3 PyTorch"
if [ "$extra" = cpu ]; then pip torch==2.13.0; fi
say "2/3 vLLM ($extra), transformers, TRL and the rest: 2 to 5 minutes, 4 GB"
pip -e ".[$extra,programs,otel,dev]"
# Their only builds here want CUDA libraries, importing them fails, and nothing needs them.
if [ "$extra" = cpu ]; then .venv/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec; fi
say "3/3 checking"
.venv/bin/python -m mmzero_async.torchvision_shim --install
.venv/bin/python -c "import mmzero_async.schemas.events, resvg_py, matplotlib, lmdb, zmq, torch"
echo "$want" > "$stamp"
say "ready"
