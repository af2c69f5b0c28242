"""The learner as several processes: torchrun with the learner as its program.

    python -m mmzero_async.workers.learner_ranks --run-dir RUN [--worker NAME]

Starts `learner.processes` of them on this host. On more hosts the same line is run on each, with
torchrun's own environment: PET_NNODES (how many), PET_NODE_RANK (0 where the log is),
PET_MASTER_ADDR and PET_MASTER_PORT (of host 0, the same everywhere). Hosts but the first need the
run's config.json and base_model, no log and no keys. One rank's end is the end of all: nothing is
started again here.
"""

import argparse
import os
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from mmzero_async.config import from_json
from mmzero_async.scale_options import LAUNCHER
from mmzero_async.workers.loop import HOPELESS


def main() -> int:
    parser = argparse.ArgumentParser(description="the learner of a run, as several processes")
    parser.add_argument("--run-dir", type=Path, required=True)
    args, others = parser.parse_known_args()
    config = from_json((args.run_dir / "config.json").read_text())
    os.environ[LAUNCHER] = str(os.getpid())
    command = ["--nproc-per-node", str(config.learner.processes), "--max-restarts", "0"]
    if "PET_NNODES" not in os.environ:
        command.append("--standalone")
    program = ["--module", "mmzero_async.workers.learner", "--run-dir", str(args.run_dir)]
    try:
        torchrun([*command, *program, *others])
    except SignalException:
        return 0  # asked to stop, and so were the ranks
    except ChildFailedError as error:
        statuses = {failure.exitcode for failure in error.failures.values()}
        return HOPELESS if HOPELESS in statuses else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
