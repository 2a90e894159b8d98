"""The controller's journal: which transactions there were, what was decided, how they ended.

SQLite in WAL mode with full sync, one file, shared by every run of this user. The rest of the code
knows the :class:`Journal` protocol only, so that a database server can stand in when several
controllers need to see each other's decisions.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from deployguard.errors import JournalUnavailable
from deployguard.store.outbox import alone_beside
from deployguard.store.schema import upgrade_sqlite
from deployguard.store.work import SqliteWork, Work

__all__ = ["Journal", "SqliteJournal", "default_path", "private_file"]

#: How long another process may keep us waiting, in seconds.
_PATIENCE = 10.0

Answer = TypeVar("Answer")


class Journal(Protocol):
    """What the coordinator keeps. Every method is durable when it returns.

    Each may be repeated, and raises :class:`~deployguard.errors.JournalUnavailable` when it is not
    known whether it was done.
    """

    @property
    def path(self) -> Path:
        """A file of this machine: reports wait in it until they are delivered."""
        ...

    def heed(self, stop: threading.Event) -> None:
        """Wait for nothing that is away any more, once this is set: somebody has to leave."""
        ...

    def begin(self, transaction: Mapping[str, Any], hosts: list[str]) -> None:
        """Record that a transaction starts, before any host hears of it."""
        ...

    def decide(self, transaction: str, decision: str) -> str:
        """Record the decision, unless one stands already; answers with the one that stands."""
        ...

    def owe(self, transaction: str, hosts: Mapping[str, str]) -> None:
        """Remember hosts that have not heard how it ended, with the reason."""
        ...

    def settled(self, transaction: str, hosts: Iterable[str]) -> None:
        """Forget hosts that were owed something and have it now."""
        ...

    def debts(self) -> list[dict[str, Any]]:
        """Every host that is owed a decision: ``transaction``, ``host``, ``reason``, ``since``."""
        ...

    def override(self, transaction: str, overrides: Iterable[Mapping[str, Any]]) -> None:
        """Record guards that were gone over: ``guard``, ``reason``, ``by`` and what it
        ``refused``."""
        ...

    def decision(self, transaction: str) -> str | None:
        """``commit``, ``abort`` or ``None``; no record means abort."""
        ...

    def end(self, transaction: str, outcome: Mapping[str, Any]) -> None:
        """Record how it ended."""
        ...

    def unended(self, plan: str) -> list[str]:
        """Transactions of a plan, or of all for an empty name, of which no end is known here."""
        ...

    def history(self, limit: int = 20, plan: str | None = None) -> list[dict[str, Any]]:
        """The newest transactions, newest first, each with its ``overrides``."""
        ...

    def get(self, transaction: str) -> dict[str, Any] | None:
        """One transaction with its ``overrides`` and its whole outcome."""
        ...

    def named(self, prefix: str, limit: int = 10) -> list[str]:
        """The ids that begin with ``prefix``, oldest first; alone the one that is exactly it."""
        ...

    def transact(self, work: Callable[[Work], Answer]) -> Answer:
        """Do some work in one transaction of the database; see :class:`.work.Store`."""
        ...

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """What one statement answers that writes nothing."""
        ...

    def delivering(self) -> AbstractContextManager[bool]:
        """Whether nobody else delivers messages from this journal, as long as the block lasts."""
        ...

    def close(self) -> None:
        """Let go of the file or the connection."""
        ...


def default_path() -> Path:
    """``$DEPLOYGUARD_STATE/journal.db``, else below ``$XDG_STATE_HOME`` or ``~/.local/state``."""
    given = os.environ.get("DEPLOYGUARD_STATE")
    if given:
        return Path(given) / "journal.db"
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "deployguard" / "journal.db"


def private_file(path: Path) -> None:
    """Make sure of a file that is its owner's alone, for a database. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # SQLite would ask the umask; what it puts beside the file has the file's mode. One that is
    # there is not opened here: to close it would drop the locks of this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


class _Turn:
    """One thread at a time; what SQLite or the system says meanwhile becomes one error of ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._lock.release()
        if isinstance(error, sqlite3.Error | OSError):
            raise _explained(self._path, error) from error


def _explained(path: Path, error: sqlite3.Error | OSError) -> JournalUnavailable:
    """What is wrong with the file, and the mend. SQLite has codes for it since Python 3.11 only."""
    text = str(error)
    if "malformed" in text or "not a database" in text:
        return JournalUnavailable(
            f"the journal {path} is damaged: {text}",
            hint=f"move it and {path}-wal away, and a new one is made; the hosts know what they "
            "run, and `deployguard recover PLAN` asks them what is unfinished",
        )
    if "locked" in text or "busy" in text:
        return JournalUnavailable(
            f"another program has held the journal {path} for {_PATIENCE:.0f} s",
            hint=f"wait for it, or find it with `fuser {path}`",
        )
    if "full" in text:
        return JournalUnavailable(f"no room for the journal {path}: {text}", hint="make room here")
    return JournalUnavailable(
        f"the journal {path} cannot be used: {text}",
        hint="make its folder writable, or name another one in DEPLOYGUARD_STATE",
    )


class SqliteJournal:
    """See the module. Safe to use from several threads; several processes wait for each other."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path) if path is not None else default_path()
        self._lock = _Turn(self.path)
        with self._lock:
            self._open()

    def _open(self) -> None:
        private_file(self.path)
        self.connection = sqlite3.connect(
            self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        self.connection.row_factory = sqlite3.Row
        self._write_ahead()
        self.connection.execute("PRAGMA synchronous=FULL")
        try:
            upgrade_sqlite(self.connection, str(self.path))
        except BaseException:
            self.connection.close()
            raise

    def _write_ahead(self) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                # SQLite waits for locks, but not for that of another who changes the mode.
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.02)
            else:
                return

    def heed(self, stop: threading.Event) -> None:
        """A file is not away."""

    def begin(self, transaction: Mapping[str, Any], hosts: list[str]) -> None:
        with self._lock:
            self.connection.execute(
                "INSERT INTO transactions (id, plan, version, environment, source, owner, hosts, "
                "started_at, changed_at) VALUES (:id, :plan, :version, :environment, :source, "
                ":owner, :hosts, :started_at, :changed_at)",
                {"changed_at": None, **transaction, "hosts": json.dumps(hosts)},
            )

    def decide(self, transaction: str, decision: str) -> str:
        with self._lock:
            row = self.connection.execute(
                "INSERT INTO decisions VALUES (?, ?, ?) ON CONFLICT (transaction_id) "
                "DO UPDATE SET decision = decisions.decision RETURNING decision",
                (transaction, decision, time.time()),
            ).fetchone()
        return str(row["decision"])

    def owe(self, transaction: str, hosts: Mapping[str, str]) -> None:
        now = time.time()
        with self._lock:
            self.connection.executemany(
                "INSERT INTO debts VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [(transaction, host, reason, now) for host, reason in hosts.items()],
            )

    def settled(self, transaction: str, hosts: Iterable[str]) -> None:
        with self._lock:
            self.connection.executemany(
                "DELETE FROM debts WHERE transaction_id = ? AND host = ?",
                [(transaction, host) for host in hosts],
            )

    def debts(self) -> list[dict[str, Any]]:
        with self._lock:
            rows = self.connection.execute(
                'SELECT transaction_id AS "transaction", host, reason, since FROM debts '
                "ORDER BY since, host"
            ).fetchall()
        return [dict(row) for row in rows]

    def override(self, transaction: str, overrides: Iterable[Mapping[str, Any]]) -> None:
        now = time.time()
        with self._lock:
            self.connection.executemany(
                "INSERT INTO overrides VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [
                    (transaction, o["guard"], o["reason"], o["by"], json.dumps(o["refused"]), now)
                    for o in overrides
                ],
            )

    def _overrides(self, transaction: str) -> list[dict[str, Any]]:
        rows = self.connection.execute(
            'SELECT guard, reason, overridden_by AS "by", refused, at FROM overrides '
            "WHERE transaction_id = ? ORDER BY rowid",
            (transaction,),
        ).fetchall()
        return [{**dict(row), "refused": json.loads(row["refused"])} for row in rows]

    def decision(self, transaction: str) -> str | None:
        with self._lock:
            row = self.connection.execute(
                "SELECT decision FROM decisions WHERE transaction_id = ?", (transaction,)
            ).fetchone()
        return str(row["decision"]) if row is not None else None

    def end(self, transaction: str, outcome: Mapping[str, Any]) -> None:
        with self._lock:
            self.connection.execute(
                "UPDATE transactions SET ended_at = ?, status = ?, exit_code = ?, summary = ?, "
                "outcome = ? WHERE id = ?",
                (
                    outcome["ended_at"],
                    outcome["status"],
                    outcome["exit_code"],
                    # A name on a host may hold bytes that are no UTF-8.
                    outcome["summary"].encode("utf-8", "backslashreplace").decode(),
                    json.dumps(outcome),
                    transaction,
                ),
            )

    def unended(self, plan: str) -> list[str]:
        with self._lock:
            rows = self.connection.execute(
                "SELECT id FROM transactions WHERE ended_at IS NULL AND ? IN ('', plan)", (plan,)
            ).fetchall()
        return [str(row["id"]) for row in rows]

    def history(self, limit: int = 20, plan: str | None = None) -> list[dict[str, Any]]:
        with self._lock:
            rows = self.connection.execute(
                "SELECT id, plan, version, environment, source, owner, hosts, started_at, "
                "ended_at, status, exit_code, summary FROM transactions "
                "WHERE ? IS NULL OR plan = ? ORDER BY started_at DESC, id DESC LIMIT ?",
                (plan, plan, limit),
            ).fetchall()
            return [
                {
                    **dict(row),
                    "hosts": json.loads(row["hosts"]),
                    "overrides": self._overrides(row["id"]),
                }
                for row in rows
            ]

    def get(self, transaction: str) -> dict[str, Any] | None:
        with self._lock:
            row = self.connection.execute(
                "SELECT * FROM transactions WHERE id = ?", (transaction,)
            ).fetchone()
            if row is None:
                return None
            found = dict(row, overrides=self._overrides(transaction))
        found["hosts"] = json.loads(found["hosts"])
        found["outcome"] = json.loads(found["outcome"]) if found["outcome"] else None
        return found

    def named(self, prefix: str, limit: int = 10) -> list[str]:
        with self._lock:
            rows = self.connection.execute(
                "SELECT id FROM transactions WHERE substr(id, 1, length(:prefix)) = :prefix "
                "ORDER BY id = :prefix DESC, id LIMIT :limit",
                {"prefix": prefix, "limit": limit},
            ).fetchall()
        found = [str(row["id"]) for row in rows]
        return [prefix] if prefix in found else found

    def transact(self, work: Callable[[Work], Answer]) -> Answer:
        with self._lock:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                answer = work(SqliteWork(self.connection))
            except BaseException:
                self.connection.rollback()
                raise
            self.connection.commit()
            return answer

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        with self._lock:
            return SqliteWork(self.connection).rows(statement, values or {})

    def delivering(self) -> AbstractContextManager[bool]:
        return alone_beside(str(self.path))

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
