"""The engine's process where no supervisor is beside it: vLLM behind its gate, for other hosts.

`python -m mmzero_async.workers.engine --run-dir DIR --engine-key FILE`. It ends when vLLM does, and
who keeps it alive starts both again, at the same address.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from mmzero_async import telemetry
from mmzero_async.config import from_json
from mmzero_async.engines.errors import EngineError, EngineKeyUnusable, ModelUnusable
from mmzero_async.engines.launch import Placement
from mmzero_async.engines.secret import read_secret
from mmzero_async.engines.server import VllmServer
from mmzero_async.schemas.events import ROLES
from mmzero_async.workers.loop import HOPELESS, until_stopped

DEPOT = "policies"  # in the run's folder


async def serve(server: VllmServer, logger: Any) -> None:
    """Until vLLM ends by itself, which is an error, or we are stopped."""
    async with server:
        logger.info("engine ready", url=server.url, engine=server.engine_id)
        status = await server.wait()
        raise EngineError(f"vLLM ended with status {status}:\n{server.last_words()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--engine-key", type=Path, required=True)
    parser.add_argument("--host", default="", help="to listen at; default: engine.host")
    parser.add_argument("--role", choices=ROLES, help="that it serves alone; default: all")
    parser.add_argument("--tensor-parallel", type=int, default=1)
    parser.add_argument("--data-parallel", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1, help="machines that serve as one")
    parser.add_argument("--node-rank", type=int, default=0, help="which of them this is")
    parser.add_argument("--head", default="", help="address of rank 0, where there are several")
    args = parser.parse_args()
    run_dir: Path = args.run_dir
    logger = telemetry.configure(run_dir, "engine", run=run_dir.name)
    config = from_json((run_dir / "config.json").read_text())
    placement = Placement(
        tensor_parallel=args.tensor_parallel,
        data_parallel=args.data_parallel,
        key_file=args.engine_key.absolute(),
        depot=(run_dir / DEPOT).absolute(),
        nodes=args.nodes,
        node_rank=args.node_rank,
        head=args.head,
    )
    try:
        read_secret(args.engine_key)  # now, not half a minute later in vLLM's output
        base = Path((run_dir / "base_model").read_text().strip())
        log = run_dir / "logs" / "vllm.log"
        engine = msgspec.structs.replace(config.engine, host=args.host or config.engine.host)
        server = VllmServer(base, engine, log, role=args.role, placement=placement)
        return asyncio.run(until_stopped(serve(server, logger)))
    except (EngineError, OSError) as error:
        logger.error("engine stopped", error=str(error))
        print(f"engine: {error}", file=sys.stderr)
        return HOPELESS if isinstance(error, (EngineKeyUnusable, ModelUnusable)) else os.EX_SOFTWARE


if __name__ == "__main__":
    sys.exit(main())
