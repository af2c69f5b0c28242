"""The log under torment, one fault a round, audited after every round.

    TORTURE_SEED=7 TORTURE_ROUNDS=1000 pytest -m slow tests/test_log_torture.py

Processes are killed and stopped, connections cut, stalled and reordered, everything is sent many
times, the disk fills, clocks jump, readers hold on, tails are torn; what must be true all the same
stands in torture_audit.py. A failure names its seed and what was done, and keeps the evidence.
"""

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from nursery import Nursery
from torture import Torment
from torture_audit import Audit

A_LOG = 30  # rounds on one log: a full `verify` after each must not take all the time


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_repeated_or_moved_whatever_happens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("TORTURE_SEED", time.time_ns() % 10**9))
    rounds = int(os.environ.get("TORTURE_ROUNDS", "300"))
    rng, faults, seen = random.Random(seed), Counter[str](), Counter[str]()
    done = promised = audited = 0
    told: list[str] = []
    plan: list[str] = []  # each fault once, shuffled, and so on
    began = time.monotonic()
    with Nursery("torture_children") as nursery:
        while done < rounds:
            run_dir = tmp_path / f"torture-{done}"
            run_dir.mkdir()
            torment, audit = Torment(nursery, run_dir, rng), Audit(run_dir)
            disk = "a small tmpfs, and a limit on the file's size"
            if not torment.disk.mounted:
                disk = "a limit on the file's size alone: no tmpfs may be mounted here"
            try:
                torment.all_get_on()
                for _ in range(min(A_LOG, rounds - done)):
                    time.sleep(rng.random() * 0.1)
                    plan = plan or rng.sample(torment.faults(), len(torment.faults()))
                    fault = plan.pop()
                    told.append(f"{time.monotonic() - began:.1f} s, round {done}: {fault}")
                    torment.do(fault)
                    faults[fault] += 1
                    audit()
                    torment.all_get_on()
                    done += 1
                torment.stop()
                audit()
                seen += torment.seen + torment.network.carried
                seen["events said again"] += torment.repeated()
            except BaseException as error:
                torment.keep_evidence(tmp_path / "evidence")
                error.add_note(f"TORTURE_SEED={seed}; evidence in {tmp_path / 'evidence'}")
                error.add_note("\n".join(told[-A_LOG:]))
                raise
            finally:
                torment.end()
                torment.disk.close()
            promised, audited = promised + audit.promised, audited + audit.offset
    assert done == rounds and promised > rounds and audited >= promised
    with capsys.disabled():
        print(
            f"\nseed {seed}: {done} rounds in {time.monotonic() - began:.0f} s\n"
            f"faults: {dict(faults.most_common())}\nseen: {dict(seen)}\nfull disk: {disk}\n"
            f"{promised} events acknowledged and found, {audited} audited: clean"
        )
