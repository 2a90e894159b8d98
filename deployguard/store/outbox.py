"""Reports and messages wait here, durably, until they have arrived.

One is put in the outbox before anyone tries to send it, and leaves the list of pending ones only
once its arrival is on record. So a crash between any two steps loses nothing; at worst it is sent
again, and every sender must be able to recognise one that already arrived, by the entry's key or by
something in its payload.

A row is *pending* until ``delivered_at`` or ``rejected_at`` is set, never both:

* ``put`` makes it pending, once per key;
* each try is counted before it starts, so that a report which kills the process shows;
* ``Undelivered`` leaves it pending, ``Rejected`` ends it until someone calls ``reopen``;
* one that need not be sent any more is ``skip``-ped: it counts as delivered, and says why.

Entries with a ``lane`` are sent in order within it: none before the one in front of it is over.
"""

from __future__ import annotations

import json
import os
import sqlite3
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from deployguard.delivery import Rejected, Undelivered
from deployguard.store.outbox_tables import ADDED, OUTBOX, TABLES
from deployguard.store.work import SqliteWork, Store, Work, tables

__all__ = ["Entry", "Outbox", "Sender", "Shared", "alone_beside", "place", "put"]

Sender = Callable[[dict[str, Any]], object]
Answer = TypeVar("Answer")

_COLUMNS = (
    "id, kind, key, payload, created_at, attempts, last_error, delivered_at, rejected_at, result, "
    "lane, not_before"
)
_PENDING = "delivered_at IS NULL AND rejected_at IS NULL"


class Shared(Store, Protocol):
    """A store that can keep an outbox; every :class:`~deployguard.store.journal.Journal` can."""

    def delivering(self) -> AbstractContextManager[bool]:
        """Whether nobody else delivers from this store, for as long as the block lasts."""
        ...


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
    lane: str | None = None
    not_before: float | None = None

    @property
    def state(self) -> Literal["pending", "delivered", "rejected", "skipped"]:
        """Where the report stands."""
        if self.delivered_at is not None:
            skipped = isinstance(self.result, dict) and "skipped" in self.result
            return "skipped" if skipped else "delivered"
        return "pending" if self.rejected_at is None else "rejected"


def put(
    work: Work, kind: str, key: str, payload: Mapping[str, Any], now: float, lane: str | None = None
) -> bool:
    """Keep ``payload`` for the sender of ``kind``, in a transaction that is open; ``False`` if
    ``key`` is there already.

    The first payload of a key stays: what a retry renders may differ, in a time for example, and is
    the same report still.
    """
    made = work.do(
        "INSERT INTO @outbox (id, kind, key, payload, created_at, lane) "
        "VALUES ((SELECT coalesce(max(id), 0) + 1 FROM @outbox), :kind, :key, :payload, :now, "
        ":lane) ON CONFLICT (key) DO NOTHING",
        {
            "kind": kind,
            "key": key,
            "payload": json.dumps(dict(payload), sort_keys=True),
            "now": now,
            "lane": lane,
        },
    )
    return made == 1


class Outbox:
    """The table ``outbox`` of a store, or of a SQLite database.

    Given an open connection, :meth:`put` joins a transaction that is open on it, so that a report
    becomes durable together with the outcome it reports. Given a path, the outbox opens the file
    itself, in WAL mode and fully synced. Given a journal, it uses that one's database.
    """

    def __init__(
        self,
        database: Shared | sqlite3.Connection | str | os.PathLike[str],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._file: _File | None = None
        if isinstance(database, sqlite3.Connection | str | os.PathLike):
            self._file = _File(database)
        self._store: Shared = self._file or database  # type: ignore[assignment]

    def put(self, kind: str, key: str, payload: Mapping[str, Any], lane: str | None = None) -> bool:
        """See :func:`put`; in a transaction of its own, or in one that the connection has open."""
        now = self._clock()
        return self._store.transact(lambda work: put(work, kind, key, payload, now, lane))

    def pending(self, kind: str | None = None) -> list[Entry]:
        """What has not arrived: least tried first, so that one bad report cannot block others.

        Those of one ``kind``, if it is given, in the order in which they were put.
        """
        if kind is None:
            return self._select(f"WHERE {_PENDING} ORDER BY attempts, id")
        return self._select(f"WHERE {_PENDING} AND kind = :kind ORDER BY id", kind=kind)

    def rejected(self) -> list[Entry]:
        """What was refused and waits for a person, who then calls :meth:`reopen`."""
        return self._select("WHERE rejected_at IS NOT NULL ORDER BY id")

    def newest(self, kind: str, limit: int) -> list[Entry]:
        """The newest of a kind, in whatever state, newest first."""
        return self._select(
            "WHERE kind = :kind ORDER BY id DESC LIMIT :limit", kind=kind, limit=limit
        )

    def below(self, kind: str, prefix: str) -> list[Entry]:
        """Those of a kind whose key begins so, in the order in which they were put."""
        return self._select(
            "WHERE kind = :kind AND substr(key, 1, :length) = :prefix ORDER BY id",
            kind=kind,
            prefix=prefix,
            length=len(prefix),
        )

    def entry(self, key: str) -> Entry | None:
        """The report of that key, in whatever state."""
        return next(iter(self._select("WHERE key = :key", key=key)), None)

    def reopen(self, key: str) -> bool:
        """Make a rejected report pending again; ``False`` if there is none of that key."""
        changed = self._do(
            "UPDATE @outbox SET rejected_at = NULL, not_before = NULL "
            "WHERE key = :key AND rejected_at IS NOT NULL",
            key=key,
        )
        return changed == 1

    def forget(self, kind: str, before: float) -> int:
        """Forget those of a kind that had arrived before some time; how many those were."""
        oldest = self._store.read("SELECT created_at FROM @outbox ORDER BY id LIMIT 1")
        if not oldest or oldest[0]["created_at"] > before:
            return 0
        return self._do(
            "DELETE FROM @outbox WHERE kind = :kind AND delivered_at < :before",
            kind=kind,
            before=before,
        )

    def delivering(self) -> AbstractContextManager[bool]:
        """Whether we are the only one delivering from here, for as long as the block lasts.

        Two deliverers could both look for an issue, find none, and both create it.
        """
        return self._store.delivering()

    def deliver(self, senders: Mapping[str, Sender]) -> list[Entry]:
        """Try every pending report once and return those tried, as they stand then.

        Reports of a kind without a sender are left alone. Once a sender raises ``Undelivered``,
        the rest of its kind waits for the next call: the channel is down, and each further try
        would take its whole timeout. If another process is delivering from the same file, it gets
        on with it and the answer here is an empty list.
        """
        if self._file is not None and self._file.busy:
            raise RuntimeError("commit first: a report must be durable before it is sent")
        with self.delivering() as alone:
            tried: list[Entry] = []
            down: set[str] = set()
            for entry in self.pending() if alone else ():
                if entry.kind in senders and entry.kind not in down:
                    if self._attempt(entry, senders[entry.kind]):
                        down.add(entry.kind)
                    tried += self._select("WHERE id = :id", id=entry.id)
            return tried

    def close(self) -> None:
        """Close the file, if it was the outbox that opened it."""
        if self._file is not None:
            self._file.close()

    # --- what came of one try ---------------------------------------------------------------------

    def begin(self, entry: Entry) -> None:
        """Count a try before it starts."""
        self._update(entry, "attempts = attempts + 1")

    def delivered(
        self, entry: Entry, result: object, receipt: Mapping[str, Any] | None = None
    ) -> None:
        """It arrived. ``receipt`` is what the next of its lane needs to know; it becomes durable
        together with the arrival."""
        now = self._clock()
        text = json.dumps(result, sort_keys=True, default=str)

        def within(work: Work) -> None:
            work.do(
                "UPDATE @outbox SET delivered_at = :now, result = :result, last_error = NULL "
                "WHERE id = :id",
                {"now": now, "result": text, "id": entry.id},
            )
            if receipt is not None and entry.lane is not None:
                work.do(
                    "INSERT INTO @notify_lanes (lane, told_at, receipt) "
                    "VALUES (:lane, :now, :receipt) ON CONFLICT (lane) DO UPDATE SET "
                    "told_at = excluded.told_at, receipt = excluded.receipt",
                    {
                        "lane": entry.lane,
                        "now": now,
                        "receipt": json.dumps(dict(receipt), sort_keys=True),
                    },
                )

        self._store.transact(within)

    def skip(self, entry: Entry, why: str) -> None:
        """It need not be sent any more."""
        self.delivered(entry, {"skipped": why})

    def failed(self, entry: Entry, error: str, not_before: float | None = None) -> None:
        """It did not arrive; another try may succeed, ``not_before`` some time."""
        self._update(
            entry, "last_error = :error, not_before = :later", error=error, later=not_before
        )

    def refused(self, entry: Entry, error: str) -> None:
        """It will not arrive until a person acts."""
        self._update(
            entry, "last_error = :error, rejected_at = :now", error=error, now=self._clock()
        )

    def receipt(self, lane: str) -> dict[str, Any] | None:
        """What the last message of a lane brought back; ``None`` when none has arrived yet."""
        rows = self._store.read(
            "SELECT receipt FROM @notify_lanes WHERE lane = :lane", {"lane": lane}
        )
        found: dict[str, Any] | None = json.loads(rows[0]["receipt"]) if rows else None
        return found

    def _attempt(self, entry: Entry, sender: Sender) -> bool:
        """Send one report and put on record what came of it; true if its channel is down."""
        self.begin(entry)
        try:
            result = sender(entry.payload)
        except Undelivered as failure:
            self.failed(entry, str(failure))
            return True
        except Rejected as refusal:
            self.refused(entry, str(refusal))
        except Exception as unforeseen:  # noqa: BLE001 -- for the reason below
            # A bug in a sender may cost its own report a try, not the others theirs. The text of
            # an unknown exception may hold anything, secrets included: only its place is kept.
            self.failed(entry, place(unforeseen))
        else:
            self.delivered(entry, result)
        return False

    def _update(self, entry: Entry, assignments: str, **values: object) -> None:
        self._do(
            f"UPDATE @outbox SET {assignments} WHERE id = :id",  # noqa: S608 -- our own literals
            id=entry.id,
            **values,
        )

    def _do(self, statement: str, **values: object) -> int:
        return self._store.transact(lambda work: work.do(statement, values))

    def _select(self, where: str, **values: object) -> list[Entry]:
        rows = self._store.read(
            f"SELECT {_COLUMNS} FROM @outbox {where}",  # noqa: S608 -- our own literals
            values,
        )
        return [_entry(row) for row in rows]


class _File:
    """A SQLite database that is nobody's journal, or a connection that somebody else has open."""

    def __init__(self, database: sqlite3.Connection | str | os.PathLike[str]) -> None:
        self._owned = not isinstance(database, sqlite3.Connection)
        if isinstance(database, sqlite3.Connection):
            self._db = database
        else:
            self._db = sqlite3.connect(Path(database))
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(tables(OUTBOX, ""))
        known = {row[1] for row in self._db.execute("PRAGMA table_info(outbox)")}
        for name, kind in ADDED.items():
            if name not in known:
                self._db.execute(f"ALTER TABLE outbox ADD COLUMN {name} {kind}")
        for statement in TABLES:
            self._db.execute(tables(statement, ""))

    @property
    def busy(self) -> bool:
        return self._db.in_transaction

    def transact(self, work: Callable[[Work], Answer]) -> Answer:
        """A transaction of our own, or the caller's, which is the caller's to commit."""
        if self._db.in_transaction:
            return work(SqliteWork(self._db))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            answer = work(SqliteWork(self._db))
        except BaseException:
            self._db.rollback()
            raise
        self._db.commit()
        return answer

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        cursor = self._db.cursor()
        cursor.row_factory = sqlite3.Row  # the connection's owner may have set another
        cursor.execute(tables(statement, ""), values or {})
        return [dict(row) for row in cursor.fetchall()]

    def delivering(self) -> AbstractContextManager[bool]:
        return alone_beside(self._db.execute("PRAGMA database_list").fetchone()[2])

    def close(self) -> None:
        if self._owned:
            self._db.close()


@contextmanager
def alone_beside(file: str) -> Iterator[bool]:
    """Whether we are the only one delivering from this file.

    The lock is on an empty database beside it: the system frees it when its holder dies, and the
    file itself stays writable for the deploys meanwhile.
    """
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


def _entry(row: Mapping[str, Any]) -> Entry:
    return Entry(
        **{
            **row,
            "payload": json.loads(row["payload"]),
            "result": json.loads(row["result"] or "null"),
        }
    )


def place(unforeseen: BaseException) -> str:
    """Where an error came from that nobody foresaw, without its text."""
    last = traceback.extract_tb(unforeseen.__traceback__)[-1]
    return f"unforeseen {type(unforeseen).__name__} at {Path(last.filename).name}:{last.lineno}"
