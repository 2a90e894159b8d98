"""The way back: undo what was done, prove that the old version is back, and check it.

All that it needs stands in the journal, so that it is the same for a connection, for the end of a
lease and for a process that was started after a reboot.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict

from deployguard.onhost import durable, healthcheck, machine, verification, withheld
from deployguard.onhost.journal import Journal
from deployguard.onhost.operations import Executor
from deployguard.onhost.system import System


def restore(
    folder: str,
    journal: Journal,
    executor: Executor,
    system: System,
    emit: Callable[[Dict[str, Any]], None],
) -> Dict[str, Any]:
    """Restore the old version; the journal ends in ``restored`` or ``stuck``.

    Answers with ``failures`` (undo steps that failed; the others were run all the same),
    ``differences`` to the old version, ``health``, and ``seconds`` for each part.
    """
    started = system.monotonic()
    durable.release(os.path.join(folder, "reserve"))
    armed, staged = journal.last("armed"), journal.last("staging")
    assert armed is not None and staged is not None
    journal.append("restoring")
    failures = executor.undo(armed["procedure"])
    undone = system.monotonic()
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
    }
