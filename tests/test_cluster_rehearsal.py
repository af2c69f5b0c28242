"""A real cluster on one machine: hosts as network namespaces, `mmzero run-cluster`, and faults.

All is real but the engine (pipeline_children.py) and the model, which is tiny. With vLLM, the
seedling and every fault in full: `just cluster-demo`. Where namespaces cannot be made the hosts
are loopback addresses, which is said, and the faults of links are left out.
"""

import asyncio
import contextlib
import json
import sys
import warnings
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mmzero_async.config import differences, load
from mmzero_async.ops.cluster.rehearsal.demo import late, rehearse
from mmzero_async.ops.cluster.rehearsal.hosts import Hosts, until_open

ENGINE_PORT = 8702


def as_override(key: str, value: Any) -> str:
    return f"{key}={json.dumps(msgspec.to_builtins(value))}"


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_a_cluster_survives_its_faults_and_every_promise_is_kept(
    tmp_path: Path, tiny_folder: Path
) -> None:
    from torture_pipeline import settings

    @contextlib.asynccontextmanager
    async def engine(hosts: Hosts) -> AsyncIterator[Sequence[str]]:
        """A fake one, on beta."""
        beta = hosts.hosts["beta"]
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        code += "import pipeline_children; pipeline_children.engine()"
        command = beta.command(sys.executable, "-c", code, str(ENGINE_PORT), beta.address)
        child = await asyncio.create_subprocess_exec(*command)
        try:
            await until_open(beta.address, ENGINE_PORT)
            changed = differences(load("seedling"), settings(tiny_folder, 1))
            overrides = {key: new for key, (_, new) in changed.items() if key[:4] != "log."}
            overrides |= {"engine.url": f"http://{beta.address}:{ENGINE_PORT}", "log.map_gib": 1}
            overrides |= {"run.max_minutes": 0}
            yield [as_override(key, value) for key, value in overrides.items()]
        finally:
            child.kill()
            await child.wait()

    found = await rehearse(tmp_path / "c", engine, short=True)
    [hosts] = [f for f in found if "hosts" in f]
    if not hosts["namespaces"]:
        [left_out] = [f for f in found if "left_out" in f]
        warnings.warn(f"no network namespaces: {left_out}", stacklevel=1)
    assert len(hosts["hosts"]) == 5 and len(set(hosts["hosts"].values())) == 5
    faults = [f["fault"] for f in found if "fault" in f]
    assert len(faults) == (9 if hosts["namespaces"] else 7), faults
    assert late(found) == []
    for fault in found:
        assert fault.get("processes_lived_on", True) and not fault.get("missed"), fault
    [drained] = [f for f in found if f.get("fault") == "drain gamma"]
    assert drained["left"] == ["goodbye"]
    [secrets] = [f for f in found if f.get("event") == "secrets"]
    # The server's, the driver's and the engine's, and one of each host; many processes were seen.
    assert secrets["secrets"] == 3 + 5 and secrets["processes"] > 20 and secrets["files"] > 20
    assert secrets["told_by"] == []
    [stopped] = [f for f in found if f.get("event") == "stopped"]
    assert stopped["status"] == 0
    assert found[-1]["clean"] and found[-1]["secrets_left"] == [], found[-1]
    assert found[-1]["audit"]["events"] > 0, found[-1]
