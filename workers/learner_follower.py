"""Any rank of a learner but the first: does what rank 0 says.

Sees neither the log, the engine nor a key; reads the run's configuration and base model alone.
"""

import argparse
import os
import sys
from pathlib import Path

from mmzero_async import telemetry
from mmzero_async.config import from_json
from mmzero_async.learner import parallel
from mmzero_async.learner.errors import LearnerError
from mmzero_async.learner.rerun import policy_for


def main() -> int:
    parser = argparse.ArgumentParser(description="a rank of a run's learner")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--worker", default="learner-0")
    args, _ = parser.parse_known_args()
    name = f"{args.worker}.{os.environ['RANK']}"
    logger = telemetry.configure(args.run_dir, name, run=args.run_dir.name, role="learner")
    config = from_json((args.run_dir / "config.json").read_text())
    try:
        with parallel.join(config.learner) as group:
            base = Path((args.run_dir / "base_model").read_text().strip())
            trainers = parallel.trainers(group, policy_for(base, config), config.learner)
            logger.info("rank ready", rank=group.rank, of=group.size)
            parallel.follow(group, trainers, logger)
    except LearnerError as error:
        logger.error("rank stopped", error=str(error))
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
