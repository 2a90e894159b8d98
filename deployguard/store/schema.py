"""What the journal's database looks like, and how one of an earlier version becomes so.

Whatever a version adds is made where it is not there, so an upgrade may begin anywhere and be
repeated. A database of a newer version is left alone: who wrote it knows more of it than we do.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from deployguard.errors import InternalError
from deployguard.store.incident_tables import TABLES, TRANSACTION_INDEXES, append_only
from deployguard.store.outbox_tables import ADDED, OUTBOX
from deployguard.store.outbox_tables import TABLES as OUTBOX_TABLES
from deployguard.store.work import POSTGRES_PREFIX, tables

__all__ = ["VERSION", "upgrade_postgres", "upgrade_sqlite"]

#: 1 had no debts, 2 no overrides, 3 no incidents, 4 no notifications, 5 no mailbox.
VERSION = 6

_SQLITE = """
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
CREATE TABLE IF NOT EXISTS overrides (
    transaction_id TEXT NOT NULL REFERENCES transactions (id),
    guard TEXT NOT NULL,
    reason TEXT NOT NULL,
    overridden_by TEXT NOT NULL,
    refused TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (transaction_id, guard, reason)
)
"""

_POSTGRES = """
CREATE TABLE IF NOT EXISTS deployguard_transactions (
    id text PRIMARY KEY,
    plan text NOT NULL,
    version text NOT NULL,
    environment text NOT NULL,
    source text NOT NULL,
    owner text NOT NULL,
    hosts jsonb NOT NULL,
    started_at double precision NOT NULL,
    ended_at double precision,
    status text NOT NULL DEFAULT 'running',
    exit_code integer,
    summary text NOT NULL DEFAULT '',
    outcome jsonb
);
CREATE INDEX IF NOT EXISTS deployguard_transactions_by_time
    ON deployguard_transactions (started_at);
CREATE TABLE IF NOT EXISTS deployguard_decisions (
    transaction_id text PRIMARY KEY REFERENCES deployguard_transactions (id),
    decision text NOT NULL CHECK (decision IN ('commit', 'abort')),
    at double precision NOT NULL
);
CREATE TABLE IF NOT EXISTS deployguard_debts (
    transaction_id text NOT NULL REFERENCES deployguard_transactions (id),
    host text NOT NULL,
    reason text NOT NULL,
    since double precision NOT NULL,
    PRIMARY KEY (transaction_id, host)
);
CREATE TABLE IF NOT EXISTS deployguard_overrides (
    transaction_id text NOT NULL REFERENCES deployguard_transactions (id),
    guard text NOT NULL,
    reason text NOT NULL,
    overridden_by text NOT NULL,
    refused jsonb NOT NULL,
    at double precision NOT NULL,
    PRIMARY KEY (transaction_id, guard, reason)
);
ALTER TABLE deployguard_transactions ADD COLUMN IF NOT EXISTS changed_at double precision;
"""

#: What a controller and jobs elsewhere write to each other; see :mod:`deployguard.store.mailbox`.
_MAILBOX = """
CREATE TABLE IF NOT EXISTS deployguard_runs (
    transaction_id text PRIMARY KEY REFERENCES deployguard_transactions (id),
    beats integer NOT NULL DEFAULT 0,
    closed boolean NOT NULL DEFAULT false
);
CREATE TABLE IF NOT EXISTS deployguard_jobs (
    transaction_id text NOT NULL REFERENCES deployguard_runs ON DELETE CASCADE,
    host text NOT NULL,
    worker text NOT NULL DEFAULT '',
    attempt integer NOT NULL DEFAULT 0,
    withdrawn boolean NOT NULL DEFAULT false,
    held integer NOT NULL DEFAULT 0,
    beats integer NOT NULL DEFAULT 0,
    ordered integer NOT NULL DEFAULT 0,
    answered integer NOT NULL DEFAULT 0,
    content bytea NOT NULL DEFAULT '',
    PRIMARY KEY (transaction_id, host)
);
CREATE TABLE IF NOT EXISTS deployguard_messages (
    transaction_id text NOT NULL REFERENCES deployguard_runs ON DELETE CASCADE,
    host text NOT NULL,
    number bigint NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (transaction_id, host, number)
);
CREATE TABLE IF NOT EXISTS deployguard_parcels (
    transaction_id text NOT NULL REFERENCES deployguard_runs ON DELETE CASCADE,
    name text NOT NULL,
    number integer NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (transaction_id, name, number)
);
"""


def upgrade_sqlite(connection: sqlite3.Connection, name: str) -> None:
    """Bring the database to this version; ``name`` is for the message where it is a newer one."""
    if _sqlite_version(connection, name) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Somebody else may have done it while we waited.
        if _sqlite_version(connection, name) < VERSION:
            for statement in _SQLITE.split(";"):
                connection.execute(statement)
            known = {row[1] for row in connection.execute("PRAGMA table_info(transactions)")}
            if "changed_at" not in known:
                connection.execute("ALTER TABLE transactions ADD COLUMN changed_at REAL")
            connection.execute(tables(OUTBOX, ""))
            known = {row[1] for row in connection.execute("PRAGMA table_info(outbox)")}
            for name, kind in ADDED.items():
                if name not in known:
                    connection.execute(f"ALTER TABLE outbox ADD COLUMN {name} {kind}")
            for statement in (
                *TABLES,
                *append_only("sqlite"),
                *TRANSACTION_INDEXES,
                *OUTBOX_TABLES,
            ):
                connection.execute(tables(statement, ""))
            connection.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _sqlite_version(connection: sqlite3.Connection, name: str) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return _known(int(version), name)


def upgrade_postgres(connection: Any, name: str) -> None:
    """The same for PostgreSQL; ``connection`` commits each statement by itself otherwise."""
    with connection.transaction():
        # Two first runs at once would both find no table and both make it.
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('deployguard'))")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS deployguard_schema (version integer NOT NULL)"
        )
        found = connection.execute("SELECT max(version) AS version FROM deployguard_schema")
        if _known(int(found.fetchone()["version"] or 0), name) == VERSION:
            return
        connection.execute(_POSTGRES + _MAILBOX)
        for statement in (
            *TABLES,
            *append_only("postgres"),
            *TRANSACTION_INDEXES,
            OUTBOX,
            *OUTBOX_TABLES,
        ):
            connection.execute(tables(statement, POSTGRES_PREFIX))
        connection.execute("DELETE FROM deployguard_schema")
        connection.execute("INSERT INTO deployguard_schema VALUES (%s)", (VERSION,))


def _known(version: int, name: str) -> int:
    if version > VERSION:
        raise InternalError(
            f"{name} was written by a newer deployguard", hint="upgrade deployguard"
        )
    return version
