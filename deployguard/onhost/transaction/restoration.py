"""The way back: undo what was done, prove that the old version is back, and check it.

All that it needs stands in the journal, so that it is the same for a connection, for the end of a
lease and for a process that was started after a reboot.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List

from deployguard.onhost import durable
from deployguard.onhost.probes import healthcheck
from deployguard.onhost.state import machine, migrations, withheld
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.system import System
from deployguard.onhost.transaction import verification
from deployguard.onhost.transaction.operations import Executor


def restore(
    folder: str,
    journal: Journal,
    executor: Executor,
    system: System,
    emit: Callable[[Dict[str, Any]], None],
    no_return: str = "",
) -> Dict[str, Any]:
    """Restore the old version; the journal ends in ``restored`` or ``stuck``.

    Answers with ``failures`` (undo steps that failed; the others were run all the same, but for
    those below a migration), ``differences`` to the old version, ``health``, and ``seconds`` for
    each part. ``stays`` names the migrations that ran here and were not taken back. ``no_return``
    says why it goes on behind a point of no return.
    """
    started = system.monotonic()
    durable.release(os.path.join(folder, "reserve"))
    armed, staged = journal.last("armed"), journal.last("staging")
    assert armed is not None and staged is not None
    said: Dict[str, Any] = {"no_return": no_return} if no_return else {}
    journal.append("restoring", **said)
    failures = executor.undo(armed["procedure"], migrations.accepted(journal))
    undone = system.monotonic()
    stays = migrations.stays(journal)
    if any("stopped" in failure for failure in failures):
        journal.enter(machine.FAIL, "stuck", failures=failures, differences=[])
        return _stopped(failures, stays, undone - started)
    differences = verification.differences(folder, armed, staged, system)
    verified = system.monotonic()
    checks: Any = withheld.complete(folder, armed["checks"])
    health = healthcheck.watch(
        checks, system, mode="restore", baseline=armed["baseline"], emit=emit
    )
    ended = system.monotonic()
    seconds = {
        "undo": round(undone - started, 3),
        "verify": round(verified - undone, 3),
        "check": round(ended - verified, 3),
        "total": round(ended - started, 3),
    }
    if failures or differences or not health["healthy"]:
        journal.enter(machine.FAIL, "stuck", failures=failures, differences=differences[:200])
    else:
        journal.enter(machine.RESTORE, "restored", seconds=seconds)
    return {
        "failures": failures,
        "differences": differences,
        "verified": not differences,
        "healthy": bool(health["healthy"]),
        "health": health,
        "seconds": seconds,
        "stays": stays,
    }


def stop(journal: Journal, executor: Executor) -> Dict[str, Any]:
    """The first part of a restore alone: the new services stop, and the new trees stay.

    For a host that must not start its old code yet, because the schema is taken back elsewhere.
    """
    armed = journal.last("armed")
    assert armed is not None
    swaps = [
        index
        for index, operation in enumerate(armed["procedure"])
        if any(action["act"] == "swap" for action in operation["do"])
    ]
    journal.append("restoring")
    return {"failures": executor.undo(armed["procedure"], above=max(swaps, default=-1))}


def _stopped(failures: List[Dict[str, str]], stays: List[str], seconds: float) -> Dict[str, Any]:
    """The answer where the new schema could not be taken back, and so the new code neither."""
    took = {"undo": round(seconds, 3), "total": round(seconds, 3)}
    return {
        "failures": failures,
        "differences": [],
        "verified": False,
        "healthy": False,
        "health": None,
        "seconds": took,
        "stays": stays,
    }
