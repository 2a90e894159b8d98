"""Reports wait here, durably, until they have arrived.

A report is put in the outbox before anyone tries to send it, and leaves the list of pending ones
only once its arrival is on record. So a crash between any two steps loses nothing; at worst a
report is sent again, and every sender must be able to recognise one that already arrived, by the
entry's key or by something in its payload.

A row is *pending* until ``delivered_at`` or ``rejected_at`` is set, never both:

* ``put`` makes it pending, once per key;
* each try is counted before it starts, so that a report which kills the process shows;
* ``Undelivered`` leaves it pending, ``Rejected`` ends it until someone calls ``reopen``.
"""

from __future__ import annotations

import json
import os
import sqlite3
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deployguard.delivery import Rejected, Undelivered

__all__ = ["Entry", "Outbox", "Sender"]

Sender = Callable[[dict[str, Any]], object]

_TABLE = """
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE,
    payload TEXT NOT NULL,
    created_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    delivered_at REAL,
    rejected_at REAL,
    result TEXT,
    CHECK (delivered_at IS NULL OR rejected_at IS NULL)
)
"""
_COLUMNS = (
    "id, kind, key, payload, created_at, attempts, last_error, delivered_at, rejected_at, result"
)


@dataclass(frozen=True)
class Entry:
    """One report and how it fared. Times are seconds of the outbox's clock."""

    id: int
    kind: str
    key: str
    payload: dict[str, Any]
    created_at: float
    attempts: int
    last_error: str | None
    delivered_at: float | None
    rejected_at: float | None
    result: Any

    @property
    def state(self) -> Literal["pending", "delivered", "rejected"]:
        """Where the report stands."""
        if self.delivered_at is not None:
            return "delivered"
        return "pending" if self.rejected_at is None else "rejected"


class Outbox:
    """The table ``outbox`` in a SQLite database.

    Given an open connection, :meth:`put` joins a transaction that is open on it, so that a report
    becomes durable together with the outcome it reports. Given a path, the outbox opens the file
    itself, in WAL mode and fully synced.
    """

    def __init__(
        self,
        database: sqlite3.Connection | str | os.PathLike[str],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._owned = not isinstance(database, sqlite3.Connection)
        if isinstance(database, sqlite3.Connection):
            self._db = database
        else:
            self._db = sqlite3.connect(Path(database))
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_TABLE)

    def put(self, kind: str, key: str, payload: Mapping[str, Any]) -> bool:
        """Keep ``payload`` for the sender of ``kind``; ``False`` if ``key`` is there already.

        The first payload of a key stays: what a retry renders may differ, in a time for example,
        and is the same report still.
        """
        row = (kind, key, json.dumps(dict(payload), sort_keys=True), self._clock())
        with self._transaction():
            made = self._db.execute(
                "INSERT INTO outbox (kind, key, payload, created_at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (key) DO NOTHING",
                row,
            )
            return made.rowcount == 1

    def pending(self) -> list[Entry]:
        """What has not arrived: least tried first, so that one bad report cannot block others."""
        return self._select(
            "WHERE delivered_at IS NULL AND rejected_at IS NULL ORDER BY attempts, id"
        )

    def rejected(self) -> list[Entry]:
        """What was refused and waits for a person, who then calls :meth:`reopen`."""
        return self._select("WHERE rejected_at IS NOT NULL ORDER BY id")

    def entry(self, key: str) -> Entry | None:
        """The report of that key, in whatever state."""
        return next(iter(self._select("WHERE key = ?", key)), None)

    def reopen(self, key: str) -> bool:
        """Make a rejected report pending again; ``False`` if there is none of that key."""
        with self._transaction():
            changed = self._db.execute(
                "UPDATE outbox SET rejected_at = NULL WHERE key = ? AND rejected_at IS NOT NULL",
                (key,),
            )
            return changed.rowcount == 1

    def deliver(self, senders: Mapping[str, Sender]) -> list[Entry]:
        """Try every pending report once and return those tried, as they stand then.

        Reports of a kind without a sender are left alone. Once a sender raises ``Undelivered``,
        the rest of its kind waits for the next call: the channel is down, and each further try
        would take its whole timeout. If another process is delivering from the same file, it gets
        on with it and the answer here is an empty list.
        """
        if self._db.in_transaction:
            raise RuntimeError("commit first: a report must be durable before it is sent")
        with self._alone() as alone:
            tried: list[Entry] = []
            down: set[str] = set()
            for entry in self.pending() if alone else ():
                if entry.kind in senders and entry.kind not in down:
                    if self._attempt(entry, senders[entry.kind]):
                        down.add(entry.kind)
                    tried += self._select("WHERE id = ?", entry.id)
            return tried

    def close(self) -> None:
        """Close the file, if it was the outbox that opened it."""
        if self._owned:
            self._db.close()

    def _attempt(self, entry: Entry, sender: Sender) -> bool:
        """Send one report and put on record what came of it; true if its channel is down."""
        self._update(entry, "attempts = attempts + 1")
        try:
            result = sender(entry.payload)
        except Undelivered as failure:
            self._update(entry, "last_error = ?", str(failure))
            return True
        except Rejected as refusal:
            self._update(entry, "last_error = ?, rejected_at = ?", str(refusal), self._clock())
        except Exception as unforeseen:  # noqa: BLE001 -- for the reason below
            # A bug in a sender may cost its own report a try, not the others theirs. The text of
            # an unknown exception may hold anything, secrets included: only its place is kept.
            self._update(entry, "last_error = ?", _place(unforeseen))
        else:
            outcome = json.dumps(result, sort_keys=True, default=str)
            self._update(
                entry, "delivered_at = ?, result = ?, last_error = NULL", self._clock(), outcome
            )
        return False

    def _update(self, entry: Entry, assignments: str, *values: object) -> None:
        with self._transaction():
            self._db.execute(
                f"UPDATE outbox SET {assignments} WHERE id = ?",  # noqa: S608 -- our own literals
                (*values, entry.id),
            )

    def _select(self, where: str, *values: object) -> list[Entry]:
        cursor = self._db.cursor()
        cursor.row_factory = None  # the connection's owner may have set another
        cursor.execute(
            f"SELECT {_COLUMNS} FROM outbox {where}",  # noqa: S608 -- our own literals
            values,
        )
        return [_entry(row) for row in cursor.fetchall()]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction of our own, or the caller's, which is the caller's to commit."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.rollback()
            raise
        self._db.commit()

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether we are the only one delivering from this file, for as long as the block lasts.

        Two deliverers could both look for an issue, find none, and both create it. The lock is on
        an empty database beside the file: the system frees it when its holder dies, and the file
        itself stays writable for the deploys meanwhile.
        """
        file = self._db.execute("PRAGMA database_list").fetchone()[2]
        if not file:  # in memory: nobody else can see it
            yield True
            return
        with closing(sqlite3.connect(f"{file}-delivery", timeout=0, isolation_level=None)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                yield False
                return
            yield True


def _entry(row: tuple[Any, ...]) -> Entry:
    payload, result = json.loads(row[3]), json.loads(row[9] or "null")
    values = [*row[:3], payload, *row[4:9], result]
    return Entry(*values)


def _place(unforeseen: Exception) -> str:
    last = traceback.extract_tb(unforeseen.__traceback__)[-1]
    return f"unforeseen {type(unforeseen).__name__} at {Path(last.filename).name}:{last.lineno}"
