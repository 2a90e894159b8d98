"""The host's append-only journal of one transaction.

Every record is on disk before the deed it announces: ``append`` returns after the sync. Records
that only confirm (a step is done) may be written with ``sync=False``; they become durable with the
next synced one, and are safe to lose, because every step can be told done from undone by looking.
"""

from __future__ import annotations

import os
from typing import Any, Callable, List, Optional

from deployguard.onhost import durable
from deployguard.onhost.state import machine
from deployguard.onhost.state.records import Record, encode, parse


class Journal:
    """One file of records, and the state they add up to."""

    def __init__(
        self, path: str, clock: Callable[[], float], reach: Optional[Callable[[str], None]] = None
    ) -> None:
        self.path = path
        self._clock = clock
        self._reach = reach or _go_on
        self._fd: Optional[int] = None
        self._unsynced: List[bytes] = []
        self.records: List[Record] = []
        self.state = machine.IDLE
        if os.path.exists(path):
            with open(path, "rb") as file:
                data = file.read()
            self.records, self._good = parse(data)
            for record in self.records:
                self.state = record.get("state", self.state)
        else:
            self._good = 0

    def append(self, kind: str, *, sync: bool = True, **fields: Any) -> Record:
        """Write one record; with ``sync`` it and all before it are on disk at the return."""
        point = "%s %s" % (kind, fields["id"]) if "id" in fields else kind
        self._reach("before " + point)
        record = dict(fields, kind=kind, seq=len(self.records), at=round(self._clock(), 6))
        if self._unsynced:
            # All of them or none: a reader has to know which stand or fall together.
            record["first"] = record["seq"] - len(self._unsynced)
        self._unsynced.append(encode(record))
        self.records.append(record)
        if sync:
            try:
                self.flush()
            except OSError:
                # On a full disk: what could not be written must not be written later, when the
                # caller has long taken another way.
                self.records.pop()
                self._unsynced.pop()
                raise
        self._reach("after " + point)
        return record

    def enter(self, event: str, kind: str, **fields: Any) -> Record:
        """Move the state by ``event`` and write the record that makes the new state durable.

        Raises :class:`machine.IllegalEvent` before anything is written.
        """
        state = machine.step(self.state, event)
        record = self.append(kind, state=state, **fields)
        self.state = state
        return record

    def flush(self) -> None:
        """Make every record durable."""
        if not self._unsynced:
            return
        if self._fd is None:
            existed = os.path.exists(self.path)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # A torn tail goes before the next record comes, or both would be unreadable.
            os.ftruncate(self._fd, self._good)
            os.lseek(self._fd, 0, os.SEEK_END)
            if not existed:
                durable.fsync_dir(os.path.dirname(self.path))
        data = b"".join(self._unsynced)
        durable.append(self._fd, data)
        self._good += len(data)
        self._unsynced = []

    def last(self, kind: str) -> Optional[Record]:
        """The newest record of this kind, or ``None``."""
        for record in reversed(self.records):
            if record["kind"] == kind:
                return record
        return None

    def all(self, kind: str) -> List[Record]:
        """Every record of this kind, oldest first."""
        return [record for record in self.records if record["kind"] == kind]

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _go_on(point: str) -> None:
    """Nothing goes wrong here."""
