"""The controller's journal: which transactions there were, what was decided, how they ended.

SQLite in WAL mode with full sync, one file, shared by every run of this user. The rest of the code
knows the :class:`Journal` protocol only, so that a database server can stand in when several
controllers need to see each other's decisions.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from deployguard.errors import InternalError

__all__ = ["Journal", "SqliteJournal", "default_path"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS transactions (
    id TEXT PRIMARY KEY,
    plan TEXT NOT NULL,
    version TEXT NOT NULL,
    environment TEXT NOT NULL,
    source TEXT NOT NULL,
    owner TEXT NOT NULL,
    hosts TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    status TEXT NOT NULL DEFAULT 'running',
    exit_code INTEGER,
    summary TEXT NOT NULL DEFAULT '',
    outcome TEXT
);
CREATE INDEX IF NOT EXISTS transactions_by_time ON transactions (started_at);
CREATE TABLE IF NOT EXISTS debts (
    transaction_id TEXT NOT NULL REFERENCES transactions (id),
    host TEXT NOT NULL,
    reason TEXT NOT NULL,
    since REAL NOT NULL,
    PRIMARY KEY (transaction_id, host)
);
CREATE TABLE IF NOT EXISTS decisions (
    transaction_id TEXT PRIMARY KEY REFERENCES transactions (id),
    decision TEXT NOT NULL CHECK (decision IN ('commit', 'abort')),
    at REAL NOT NULL
);
PRAGMA user_version = 1;
"""


class Journal(Protocol):
    """What the coordinator keeps. Every method is durable when it returns."""

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

    def decision(self, transaction: str) -> str | None:
        """``commit``, ``abort`` or ``None``; no record means abort."""
        ...

    def end(self, transaction: str, outcome: Mapping[str, Any]) -> None:
        """Record how it ended."""
        ...

    def history(self, limit: int = 20, plan: str | None = None) -> list[dict[str, Any]]:
        """The newest transactions, newest first."""
        ...

    def get(self, transaction: str) -> dict[str, Any] | None:
        """One transaction with its whole outcome."""
        ...

    def named(self, prefix: str, limit: int = 10) -> list[str]:
        """The ids that begin with ``prefix``, oldest first; alone the one that is exactly it."""
        ...


def default_path() -> Path:
    """``$DEPLOYGUARD_STATE/journal.db``, else below ``$XDG_STATE_HOME`` or ``~/.local/state``."""
    given = os.environ.get("DEPLOYGUARD_STATE")
    if given:
        return Path(given) / "journal.db"
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "deployguard" / "journal.db"


class SqliteJournal:
    """See the module. Safe to use from several threads; several processes wait for each other."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path) if path is not None else default_path()
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = not self.path.exists()
        self._lock = threading.Lock()
        self.connection = sqlite3.connect(
            self.path, timeout=10.0, isolation_level=None, check_same_thread=False
        )
        if fresh:
            os.chmod(self.path, 0o600)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if version > 1:
            raise InternalError(
                f"{self.path} was written by a newer deployguard", hint="upgrade deployguard"
            )
        if version == 0:
            self.connection.executescript(_SCHEMA)

    def begin(self, transaction: Mapping[str, Any], hosts: list[str]) -> None:
        with self._lock:
            self.connection.execute(
                "INSERT INTO transactions (id, plan, version, environment, source, owner, hosts, "
                "started_at) VALUES (:id, :plan, :version, :environment, :source, :owner, :hosts, "
                ":started_at)",
                {**transaction, "hosts": json.dumps(hosts)},
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
                    outcome["summary"],
                    json.dumps(outcome),
                    transaction,
                ),
            )

    def history(self, limit: int = 20, plan: str | None = None) -> list[dict[str, Any]]:
        with self._lock:
            rows = self.connection.execute(
                "SELECT id, plan, version, environment, source, owner, hosts, started_at, "
                "ended_at, status, exit_code, summary FROM transactions "
                "WHERE ? IS NULL OR plan = ? ORDER BY started_at DESC, id DESC LIMIT ?",
                (plan, plan, limit),
            ).fetchall()
        return [{**dict(row), "hosts": json.loads(row["hosts"])} for row in rows]

    def get(self, transaction: str) -> dict[str, Any] | None:
        with self._lock:
            row = self.connection.execute(
                "SELECT * FROM transactions WHERE id = ?", (transaction,)
            ).fetchone()
        if row is None:
            return None
        found = dict(row)
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

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
