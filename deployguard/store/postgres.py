"""The controller's journal in PostgreSQL, for several controllers that finish each other's work.

``postgresql://user@host/database``; the rest of what libpq understands (PGPASSWORD, ``~/.pgpass``,
``sslmode`` and so on) works as with ``psql``. :mod:`deployguard.store.database` says
what happens when the database goes away.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deployguard.store.database import ANSWER_SECONDS, PATIENCE, Database
from deployguard.store.journal import default_path, private_file
from deployguard.store.mailbox import Mailbox
from deployguard.store.work import PostgresWork, Work, storable

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresJournal"]

_OVERRIDES = """\
(SELECT coalesce(jsonb_agg(jsonb_build_object('guard', guard, 'reason', reason,
    'by', overridden_by, 'refused', refused, 'at', at) ORDER BY at, guard), '[]')
 FROM deployguard_overrides WHERE transaction_id = id) AS overrides"""
_HISTORY = (
    "id, plan, version, environment, source, owner, hosts, started_at, ended_at, status, "
    f"exit_code, summary, {_OVERRIDES}"
)

#: Those who write incidents do it one after the other.
_ALONE = "SELECT pg_advisory_xact_lock(hashtext('deployguard incidents'))"

Answer = TypeVar("Answer")


class PostgresJournal:
    """See the module, and :class:`deployguard.store.journal.Journal` for the methods.

    Raises :class:`~deployguard.errors.JournalUnavailable` when the database cannot be used.
    """

    def __init__(
        self, url: str, *, patience: float = PATIENCE, answer_within: float = ANSWER_SECONDS
    ) -> None:
        self._database = Database(url, patience=patience, answer_within=answer_within)
        self._database.attempt(lambda connection: None)

    @property
    def url(self) -> str:
        """Where it is, as it was given: it may hold a password."""
        return self._database.url

    @cached_property
    def path(self) -> Path:
        """Reports that wait for delivery are this machine's business."""
        path = default_path().with_name("outbox.db")
        private_file(path)
        return path

    def heed(self, stop: threading.Event) -> None:
        self._database.stop = stop

    def mailbox(self) -> Mailbox:
        """Orders to jobs elsewhere, and their answers, over the same connection."""
        return Mailbox(self._database)

    def begin(self, transaction: Mapping[str, Any], hosts: list[str]) -> None:
        self._database.do(
            "INSERT INTO deployguard_transactions (id, plan, version, environment, source, owner, "
            "hosts, started_at, changed_at) VALUES (%(id)s, %(plan)s, %(version)s, "
            "%(environment)s, %(source)s, %(owner)s, %(hosts)s, %(started_at)s, %(changed_at)s) "
            "ON CONFLICT DO NOTHING",
            {"changed_at": None, **transaction, "hosts": json.dumps(hosts)},
        )

    def decide(self, transaction: str, decision: str) -> str:
        (row,) = self._database.rows(
            "INSERT INTO deployguard_decisions AS known VALUES (%s, %s, %s) "
            "ON CONFLICT (transaction_id) DO UPDATE SET decision = known.decision "
            "RETURNING decision",
            (transaction, decision, time.time()),
        )
        return str(row["decision"])

    def decision(self, transaction: str) -> str | None:
        rows = self._database.rows(
            "SELECT decision FROM deployguard_decisions WHERE transaction_id = %s", (transaction,)
        )
        return str(rows[0]["decision"]) if rows else None

    def owe(self, transaction: str, hosts: Mapping[str, str]) -> None:
        for host, reason in hosts.items():
            self._database.do(
                "INSERT INTO deployguard_debts VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (transaction, host, reason, time.time()),
            )

    def settled(self, transaction: str, hosts: Iterable[str]) -> None:
        self._database.do(
            "DELETE FROM deployguard_debts WHERE transaction_id = %s AND host = ANY(%s)",
            (transaction, list(hosts)),
        )

    def debts(self) -> list[dict[str, Any]]:
        return list(
            self._database.rows(
                'SELECT transaction_id AS "transaction", host, reason, since '
                "FROM deployguard_debts ORDER BY since, host"
            )
        )

    def override(self, transaction: str, overrides: Iterable[Mapping[str, Any]]) -> None:
        for one in overrides:
            self._database.do(
                "INSERT INTO deployguard_overrides VALUES (%s, %s, %s, %s, %s, %s) "
                "ON CONFLICT DO NOTHING",
                (
                    transaction,
                    one["guard"],
                    storable(one["reason"]),
                    one["by"],
                    json.dumps(storable(one["refused"])),
                    time.time(),
                ),
            )

    def end(self, transaction: str, outcome: Mapping[str, Any]) -> None:
        ended = (
            outcome["ended_at"],
            outcome["status"],
            int(outcome["exit_code"]),
            storable(outcome["summary"]),
            json.dumps(storable(outcome)),
            transaction,
        )
        self._database.do_all(
            [
                (
                    "UPDATE deployguard_transactions SET ended_at = %s, status = %s, "
                    "exit_code = %s, summary = %s, outcome = %s WHERE id = %s",
                    ended,
                ),
                # What its jobs wrote to each other: nobody reads it any more.
                ("DELETE FROM deployguard_runs WHERE transaction_id = %s", (transaction,)),
            ]
        )

    def unended(self, plan: str) -> list[str]:
        rows = self._database.rows(
            "SELECT id FROM deployguard_transactions "
            "WHERE ended_at IS NULL AND %s::text IN ('', plan)",
            (plan,),
        )
        return [str(row["id"]) for row in rows]

    def history(self, limit: int = 20, plan: str | None = None) -> list[dict[str, Any]]:
        return list(
            self._database.rows(
                f"SELECT {_HISTORY} FROM deployguard_transactions "  # noqa: S608 - our own columns
                "WHERE %(plan)s::text IS NULL OR plan = %(plan)s "
                "ORDER BY started_at DESC, id DESC LIMIT %(limit)s",
                {"plan": plan, "limit": limit},
            )
        )

    def get(self, transaction: str) -> dict[str, Any] | None:
        rows = self._database.rows(
            f"SELECT {_HISTORY}, outcome FROM deployguard_transactions "  # noqa: S608 - our columns
            "WHERE id = %s",
            (transaction,),
        )
        return dict(rows[0]) if rows else None

    def named(self, prefix: str, limit: int = 10) -> list[str]:
        rows = self._database.rows(
            "SELECT id FROM deployguard_transactions WHERE starts_with(id, %(prefix)s) "
            "ORDER BY id = %(prefix)s DESC, id LIMIT %(limit)s",
            {"prefix": prefix, "limit": limit},
        )
        found = [str(row["id"]) for row in rows]
        return [prefix] if prefix in found else found

    def transact(self, work: Callable[[Work], Answer]) -> Answer:
        def alone(connection: psycopg.Connection[dict[str, Any]]) -> Answer:
            with connection.transaction():
                connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtext('deployguard incidents'))"
                )
                return work(PostgresWork(connection))

        return self._database.attempt(alone)

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        return self._database.attempt(lambda c: PostgresWork(c).rows(statement, values or {}))

    @contextmanager
    def delivering(self) -> Iterator[bool]:
        # A connection of its own: the lock is gone with it, and it must outlive a reconnect.
        with self._database.apart() as connection:
            (row,) = connection.execute(
                "SELECT pg_try_advisory_lock(hashtext('deployguard delivery')) AS alone"
            ).fetchall()
            yield bool(row["alone"])

    def close(self) -> None:
        """Close the connection."""
        self._database.close()
