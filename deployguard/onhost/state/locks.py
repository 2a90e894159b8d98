"""One transaction at a time for a path, and nothing left behind by a dead one.

A lock is a small file that names its transaction, owner and time. It holds as long as the
transaction is unfinished, whether its process lives or not: an unfinished switch needs its rescue
before anything else happens there. A transaction that is finished, or that died before it touched
anything, loses its lock to the next one, which first clears up after it. Paths that contain each
other are the same path here.

A process that works on a transaction holds an flock on the ``alive`` file in its folder; the
kernel lets go of it however the process ends.
"""

from __future__ import annotations

import fcntl
import os
import signal
from typing import Any, Callable, Dict, List, Optional, Sequence

from deployguard.onhost import durable
from deployguard.onhost.places import State, read_json, write_json
from deployguard.onhost.system import System


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
    bury: Callable[[str], bool],
) -> None:
    """Lock all ``paths`` for ``claim["transaction"]``, or none of them.

    ``bury`` is called with the id of a transaction in the way. It settles one that is finished or
    dead, and answers whether its lock may be taken. Raises :class:`PathLocked`.
    """
    guard = os.open(
        os.path.join(state.root, "locks", ".guard"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        durable.sweep(os.path.join(state.root, "locks"))
        for holder in held(state):
            if holder.get("transaction") == claim["transaction"]:
                continue
            if not any(_overlap(path, str(holder.get("path", ""))) for path in paths):
                continue
            if not bury(str(holder["transaction"])):
                raise PathLocked(holder)
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


def keep_alive(folder: str) -> Optional[int]:
    """Take the ``alive`` lock of a transaction's folder; ``None`` when another process has it."""
    fd = os.open(os.path.join(folder, "alive"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    try:
        # Who it is, for whoever waits for it. A lock is one without that too, on a full disk.
        os.pwrite(fd, b"%-20d" % os.getpid(), 0)
    except OSError:
        pass
    return fd


def end_frozen(folder: str, system: System) -> bool:
    """Kill the process that holds ``alive`` if it is stopped; whether there was one.

    A process that is stopped, by SIGSTOP, holds its lock and does nothing: neither
    its lease nor a takeover would ever come to an end.
    """
    try:
        with open(os.path.join(folder, "alive"), "rb") as file:
            pid = int(file.read(20))
    except (OSError, ValueError):
        return False
    if not alive(folder) or not system.stopped(pid):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


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
    # Two names for one place, by way of a link above it, are one place.
    first, second = os.path.realpath(first), os.path.realpath(second)
    return first == second or first.startswith(second + "/") or second.startswith(first + "/")
