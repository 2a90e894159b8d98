"""One transaction at a time for a path, and nothing left behind by a dead one.

A lock is a small file that names its transaction, owner and time. It holds as long as the
transaction is unfinished, whether its process lives or not: an unfinished switch needs its rescue
before anything else happens there. A transaction that is finished, or that died before it touched
anything, loses its lock to the next one. Paths that contain each other are the same path here.

A process that works on a transaction holds an flock on the ``alive`` file in its folder; the
kernel lets go of it however the process ends.
"""

from __future__ import annotations

import fcntl
import os
from typing import Any, Callable, Dict, List, Optional, Sequence

from deployguard.onhost import machine
from deployguard.onhost.journal import Journal
from deployguard.onhost.places import State, read_json, write_json


class PathLocked(Exception):
    """Another transaction holds the path; ``holder`` is its lock record."""

    def __init__(self, holder: Dict[str, Any]) -> None:
        super().__init__(
            "%s is locked by transaction %s of %s"
            % (holder.get("path"), holder.get("transaction"), holder.get("owner"))
        )
        self.holder = holder


def acquire(
    state: State,
    paths: Sequence[str],
    claim: Dict[str, Any],
    clear: Callable[[str], None],
    clock: Callable[[], float],
) -> None:
    """Lock all ``paths`` for ``claim["transaction"]``, or none of them.

    ``clear`` is called with the id of a dead transaction that touched nothing, to drop what it
    staged. Raises :class:`PathLocked`.
    """
    guard = os.open(
        os.path.join(state.root, "locks", ".guard"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for holder in held(state):
            if holder.get("transaction") == claim["transaction"]:
                continue
            if not any(_overlap(path, str(holder.get("path", ""))) for path in paths):
                continue
            dead = stale(state, str(holder.get("transaction")), clock)
            if dead is None:
                raise PathLocked(holder)
            if dead in machine.UNTOUCHED:
                clear(str(holder["transaction"]))
            release(state, str(holder["path"]), str(holder["transaction"]))
        for path in paths:
            write_json(state.lock(path), dict(claim, path=path))
    finally:
        os.close(guard)


def release(state: State, path: str, transaction: str) -> None:
    """Give up the lock of a path, if this transaction holds it."""
    file = state.lock(path)
    record = read_json(file)
    if record is not None and record.get("transaction") == transaction:
        os.unlink(file)


def held(state: State) -> List[Dict[str, Any]]:
    """All lock records there are."""
    directory = os.path.join(state.root, "locks")
    records = []
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    for name in names:
        if name.endswith(".json"):
            record = read_json(os.path.join(directory, name))
            if record is not None:
                records.append(record)
    return records


def stale(state: State, transaction: str, clock: Callable[[], float]) -> Optional[str]:
    """The state a lock's transaction ended in, if the lock no longer counts; else ``None``."""
    folder = state.transaction(transaction)
    journal = Journal(os.path.join(folder, "journal"), clock)
    if journal.state in machine.TERMINAL:
        return journal.state
    if journal.state in machine.UNTOUCHED and not alive(folder):
        return journal.state
    return None


def keep_alive(folder: str) -> Optional[int]:
    """Take the ``alive`` lock of a transaction's folder; ``None`` when another process has it."""
    fd = os.open(os.path.join(folder, "alive"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def alive(folder: str) -> bool:
    """Whether a process is at work on the transaction."""
    try:
        fd = os.open(os.path.join(folder, "alive"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _overlap(first: str, second: str) -> bool:
    return first == second or first.startswith(second + "/") or second.startswith(first + "/")
