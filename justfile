# mmzero-async: `just --list` is the table of contents. Without just: `./launch RECIPE`.

set shell := ["bash", "-euo", "pipefail", "-c"]

python := ".venv/bin/python"
mmzero := ".venv/bin/mmzero"

# this list
default:
    @just --list --unsorted

# install everything into .venv (once; later calls take a moment)
[group('start')]
setup:
    @bash ops/setup.sh

# set up and run the evolving loop: `just run`, `just run max_minutes=5`, `just run --help`
[group('start')]
run *ARGS: setup
    {{mmzero}} run {{ARGS}}

# set up and pass the tests: the fast suite, then the slow one (real vLLM, crash torture)
[group('start')]
test: setup test-fast test-slow

# the fast suite alone, a file to each of two processes: under 5 minutes on 2 cores
[group('check')]
test-fast *ARGS: setup
    {{python}} -m pytest -m "not slow" -n 2 --dist loadfile {{ARGS}}

# the slow suite alone
[group('check')]
test-slow *ARGS: setup
    @bash ops/browser.sh
    {{python}} -m pytest -m slow --timeout 1500 {{ARGS}}

# lint, format check and types
[group('check')]
lint: setup
    {{python}} -m ruff check .
    {{python}} -m ruff format --check .
    bash ops/types.sh

# rewrite the code in the project's format
[group('check')]
format: setup
    {{python}} -m ruff check --fix .
    {{python}} -m ruff format .

# write docs/EVENTS.md, CONFIGURATION.md and the table of TRACKERS.md anew from the code
[group('check')]
docs *ARGS: setup
    {{python}} -m mmzero_async.ops.reference {{ARGS}}

# train the seedling, the embedded base model, from scratch: under an hour on 2 cores
[group('model')]
seedling *ARGS: setup
    {{python}} -m mmzero_async.seedling.train {{ARGS}}

# benchmarks beside rivals, one JSON line a figure: `just bench log`, `renderer`, `learner --quick`, `dataset`, `pipeline`
[group('check')]
bench WHAT="" *ARGS: setup
    @case "{{WHAT}}" in log|renderer|learner|ui|dataset|pipeline) {{python}} -m mmzero_async.ops.bench.{{WHAT}} {{ARGS}};; *) \
        echo "just bench {{WHAT}}: not built yet; there is 'just bench log', 'just bench renderer', 'just bench learner', 'just bench ui', 'just bench dataset' and 'just bench pipeline'" >&2; \
        exit 3;; esac

# experiments behind a default, resumable, up to an hour on 2 cores: `just experiment staleness`, `schedules`, `time_to_accuracy`
[group('check')]
experiment WHAT="" *ARGS: setup
    @case "{{WHAT}}" in staleness|schedules|time_to_accuracy) {{python}} -m mmzero_async.ops.experiments.{{WHAT}} {{ARGS}};; *) \
        echo "just experiment {{WHAT}}: there is 'just experiment staleness', 'schedules' and 'time_to_accuracy'" >&2; \
        exit 2;; esac

# a run on many hosts over SSH: `just run-cluster cluster.toml --dry-run` prints what would run where
[group('cluster')]
run-cluster INVENTORY="cluster.toml" *ARGS: setup
    {{mmzero}} run-cluster {{INVENTORY}} {{ARGS}}

# a cluster of network namespaces here, and all that may go wrong with it (root; 5 minutes)
[group('cluster')]
cluster-demo *ARGS: setup
    {{python}} -m mmzero_async.ops.cluster.rehearsal.demo {{ARGS}}

# the real log server against simulated workers in virtual time: `just simulate --quick`, `--cluster 240`
[group('check')]
simulate *ARGS: setup
    {{python}} -m mmzero_async.ops.simulate.run {{ARGS}}
