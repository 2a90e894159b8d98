"""How long a host waits for its controller, in a file that another process can read.

The program that works on a transaction renews the lease with each sign of life from its controller.
The dead-man reads it when that program is gone. The clock is the one since boot, because the other
one jumps; after a reboot the lease is over whatever the file says, and so it is without the file.
Nothing is synced: what a power cut takes ends with the boot anyway.
"""

from __future__ import annotations

import os
from typing import Tuple

from deployguard.onhost.system import System

_NAME = "lease"


def renew(folder: str, seconds: float, system: System) -> None:
    """The lease of the transaction in ``folder`` ends ``seconds`` from now."""
    _write(folder, system.monotonic() + seconds, system, "attended")


def _write(folder: str, until: float, system: System, word: str) -> None:
    text = "%.3f %s %s %d\n" % (until, word, system.boot_id(), os.getpid())
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(os.path.join(folder, _NAME), flags, 0o600)
    try:
        # One write of always the same length, give or take: a reader sees the old or the new one.
        os.pwrite(descriptor, text.ljust(100).encode("ascii"), 0)
    finally:
        os.close(descriptor)


def unattended(folder: str, system: System) -> None:
    """The controller is gone. The lease goes on, since it may come back."""
    remaining = left(folder, system)
    if remaining > 0:
        _write(folder, system.monotonic() + remaining, system, "unattended")


def attended(folder: str, system: System) -> bool:
    """Whether a controller was heard from within the lease, and neither it nor its program is gone.

    The dead-man at work on the same transaction is nobody's controller, though the lease lasts.
    """
    _, word, process = _read(folder, system)
    return word == "attended" and _runs(process)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end(folder: str) -> None:
    """Nobody will renew it: it is over now."""
    try:
        os.unlink(os.path.join(folder, _NAME))
    except FileNotFoundError:
        pass


def left(folder: str, system: System) -> float:
    """Seconds until it is over; 0 when it is."""
    return _read(folder, system)[0]


def _read(folder: str, system: System) -> Tuple[float, str, int]:
    """Seconds that are left, whether it is attended, and the process that wrote it."""
    try:
        with open(os.path.join(folder, _NAME), encoding="ascii") as file:
            until, word, boot, process = file.read().split()
        remaining, number = float(until) - system.monotonic(), int(process)
    except (OSError, ValueError):
        return 0.0, "", 0
    if boot != system.boot_id() or remaining <= 0:
        return 0.0, "", 0
    return remaining, word, number
