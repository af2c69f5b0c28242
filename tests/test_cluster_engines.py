"""Several engines on hosts of their own under `mmzero run-cluster`: real vLLM, OpenSSH, namespaces.

One engine is killed on the way. `just cluster-demo --engines lora` prints what the first of these
looks at, `--engines full` the second.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest

from mmzero_async.engines.errors import EngineUnavailable
from mmzero_async.engines.launch import installed
from mmzero_async.ops.cluster.rehearsal.demo import late
from mmzero_async.ops.cluster.rehearsal.engines import TAKES_PART, rehearse_engines
from mmzero_async.schemas.events import ROLES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(autouse=True)
def _vllm() -> None:
    try:
        installed()
    except EngineUnavailable as error:
        pytest.skip(str(error))


async def played(folder: Path, *, full: bool) -> dict[str, Any]:
    """The fault's figures, after what holds of both plays."""
    found = await rehearse_engines(folder, full=full)
    if why := found[0]["why"]:
        warnings.warn(f"no network namespaces: {why}", stacklevel=1)
    assert late(found) == []
    [stopped] = [f for f in found if f.get("event") == "stopped"]
    assert stopped["status"] == 0
    assert found[-1]["clean"] and found[-1]["secrets_left"] == [], found[-1]
    assert found[-1]["audit"]["events"] > 0, found[-1]
    [fault] = [f for f in found if "fault" in f]
    return fault


async def test_of_two_engines_on_two_hosts_one_is_killed_and_the_run_goes_on_with_the_other(
    tmp_path: Path,
) -> None:
    """It comes back with the newest version of every role, and takes part again."""
    fault = await played(tmp_path / "c", full=False)
    assert fault["generated_meanwhile"], "nothing was generated while it was away"
    assert set(fault["holds"]) == set(ROLES) and max(fault["holds"].values()) > 0, fault
    assert fault["drawn"] >= TAKES_PART


async def test_full_weights_reach_an_engine_a_role_on_hosts_that_do_not_see_the_learners_folders(
    tmp_path: Path,
) -> None:
    """The solver's is killed: it comes back without a number, and gets the version it had."""
    fault = await played(tmp_path / "c", full=True)
    assert set(fault["holds"]) == {"solver"} and fault["holds"]["solver"] > 0, fault
    assert fault["drawn"] >= TAKES_PART
    for host, role in {"beta": "proposer", "gamma": "coder", "delta": "solver"}.items():
        depot = tmp_path / "c" / host / "r" / "policies" / "weights"
        assert [folder.name for folder in depot.iterdir()] == [role]
