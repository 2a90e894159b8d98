"""What a transaction that is at work does just now, for whoever looks on: a line for each step.

It is a convenience, and nothing hangs on it. So it is synced by nobody, lies in a file beside the
journal of the machine that runs the transaction, and goes with the end of it. Of a run that was
killed it stays, and says how far that came, until it is a week old.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TextIO, TypeVar
from urllib.parse import quote

__all__ = ["Step", "Trail", "steps_of"]

#: What was left by runs that were killed is kept so long, in seconds.
KEPT = 7 * 86400.0
#: No more of a trail is read, in bytes: 40 hosts leave about 60 KB.
_MOST = 2_000_000


class _Happened(Protocol):
    """What a trail takes of an event."""

    @property
    def at(self) -> float: ...

    @property
    def phase(self) -> str: ...

    @property
    def status(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def message(self) -> str: ...


Heard = TypeVar("Heard", bound=_Happened)


@dataclass(frozen=True)
class Step:
    """One step; ``at`` in UTC seconds since the epoch, ``host`` empty for the whole transaction."""

    at: float
    phase: str
    status: str
    host: str
    message: str


class Trail(Generic[Heard]):
    """Written by the one process that runs the transaction, on the way to another listener.

    Raises nothing of its own.
    """

    def __init__(self, listen: Callable[[Heard], None] | None) -> None:
        self._listen = listen
        self._path: Path | None = None
        self._file: TextIO | None = None

    def begin(self, journal: Path, transaction: str) -> None:
        """Write from now on, beside the ``journal``."""
        self._path = _place(journal, transaction)
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _tidy(self._path.parent)
            number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._file = os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace")

    def __call__(self, event: Heard) -> None:
        """One step; how far one has come in percent is none."""
        if self._file is not None and event.status != "progress":
            row = [event.at, event.phase, event.status, event.host, event.message]
            try:
                self._file.write(json.dumps(row) + "\n")
                self._file.flush()
            except OSError:
                self._close()
        if self._listen is not None:
            self._listen(event)

    def end(self) -> None:
        """The outcome is on record, and has all of it."""
        self._close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()


def steps_of(journal: Path, transaction: str) -> list[Step]:
    """What is known of a transaction here, oldest first; empty where it runs elsewhere."""
    try:
        with _place(journal, transaction).open(encoding="utf-8", errors="replace") as file:
            lines = file.read(_MOST).splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        # The last line of a run that was killed may be half of one.
        with contextlib.suppress(ValueError, TypeError):
            at, phase, status, host, message = json.loads(line)
            found.append(Step(float(at), str(phase), str(status), str(host), str(message)))
    return found


def _place(journal: Path, transaction: str) -> Path:
    return journal.parent / "live" / f"{quote(transaction, safe='')}.jsonl"


def _tidy(folder: Path) -> None:
    for path in folder.glob("*.jsonl"):
        if time.time() - path.stat().st_mtime > KEPT:
            path.unlink(missing_ok=True)
