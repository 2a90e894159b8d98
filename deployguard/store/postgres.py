"""The controller's journal in PostgreSQL, for several controllers that finish each other's work.

``postgresql://user@host/database``; the rest of what libpq understands (PGPASSWORD, ``~/.pgpass``,
``sslmode`` and so on) works as with ``psql``. One connection, one statement a time, each committed
by itself with synchronous commit. When the database goes away a statement is tried again on a new
connection for a while; every one of them may be repeated, so it does not matter whether the first
try was heard.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from deployguard.errors import JournalUnavailable, UsageError
from deployguard.store.journal import default_path, private_file
from deployguard.store.schema import upgrade_postgres
from deployguard.store.work import PostgresWork, Work, storable

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresJournal"]

#: Seconds for which a database that went away is waited for.
PATIENCE = 30.0

_CONNECT_SECONDS = 5
#: What a server that starts, stops or is busy says when it refuses a connection.
_PASSING = ("starting up", "shutting down", "recovery", "too many", "remaining connection slots")

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

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        self._url = url
        self._patience = patience
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[dict[str, Any]] | None = None
        self._psycopg = _psycopg()
        #: Reports that wait for delivery are this machine's business.
        self.path: Path = default_path().with_name("outbox.db")
        private_file(self.path)
        self._try(lambda connection: None)

    def _try(self, work: Callable[[psycopg.Connection[dict[str, Any]]], Answer]) -> Answer:
        """Do one thing with the database, on a new connection where the old one is gone."""
        error: type[Exception] = self._psycopg.Error
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._is_absence),
            stop=tenacity.stop_after_delay(self._patience),
            wait=tenacity.wait_exponential(multiplier=0.05, max=1.0),
            reraise=True,
        )
        with self._lock:
            try:
                answer: Answer = retry(self._once, work)
                return answer
            except error as problem:
                raise JournalUnavailable(
                    f"the journal database cannot be used: {str(problem).strip()}",
                    hint="look at the database; then `deployguard recover PLAN` finishes what is "
                    "unfinished",
                ) from problem

    def _is_absence(self, error: BaseException) -> bool:
        absent: tuple[type[Exception], ...] = (
            self._psycopg.OperationalError,
            self._psycopg.InterfaceError,
        )
        # A wrong password, or a database that is not there, does not come right by waiting. What
        # the server says to a new connection has no code in libpq, only words.
        words = str(error)
        refused = "FATAL" in words and not any(word in words for word in _PASSING)
        return isinstance(error, absent) and not refused

    def _once(self, work: Callable[[psycopg.Connection[dict[str, Any]]], Answer]) -> Answer:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        try:
            return work(self._connection)
        except self._psycopg.Error:
            self._connection.close()
            raise

    def _connect(self) -> psycopg.Connection[dict[str, Any]]:
        from psycopg.rows import dict_row

        connection: psycopg.Connection[dict[str, Any]] = self._psycopg.Connection.connect(
            self._url,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=_CONNECT_SECONDS,
            application_name="deployguard",
            keepalives_idle=10,
            tcp_user_timeout=10_000,
        )
        try:
            upgrade_postgres(connection, "the journal database")
        except BaseException:
            connection.close()
            raise
        connection.execute("SET synchronous_commit = on")
        return connection

    def _rows(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        return self._try(lambda c: c.execute(statement, values).fetchall())

    def _do(self, statement: str, values: Sequence[Any] | Mapping[str, Any]) -> None:
        self._try(lambda c: c.execute(statement, values))

    def begin(self, transaction: Mapping[str, Any], hosts: list[str]) -> None:
        self._do(
            "INSERT INTO deployguard_transactions (id, plan, version, environment, source, owner, "
            "hosts, started_at, changed_at) VALUES (%(id)s, %(plan)s, %(version)s, "
            "%(environment)s, %(source)s, %(owner)s, %(hosts)s, %(started_at)s, %(changed_at)s) "
            "ON CONFLICT DO NOTHING",
            {"changed_at": None, **transaction, "hosts": json.dumps(hosts)},
        )

    def decide(self, transaction: str, decision: str) -> str:
        (row,) = self._rows(
            "INSERT INTO deployguard_decisions AS known VALUES (%s, %s, %s) "
            "ON CONFLICT (transaction_id) DO UPDATE SET decision = known.decision "
            "RETURNING decision",
            (transaction, decision, time.time()),
        )
        return str(row["decision"])

    def decision(self, transaction: str) -> str | None:
        rows = self._rows(
            "SELECT decision FROM deployguard_decisions WHERE transaction_id = %s", (transaction,)
        )
        return str(rows[0]["decision"]) if rows else None

    def owe(self, transaction: str, hosts: Mapping[str, str]) -> None:
        for host, reason in hosts.items():
            self._do(
                "INSERT INTO deployguard_debts VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (transaction, host, reason, time.time()),
            )

    def settled(self, transaction: str, hosts: Iterable[str]) -> None:
        self._do(
            "DELETE FROM deployguard_debts WHERE transaction_id = %s AND host = ANY(%s)",
            (transaction, list(hosts)),
        )

    def debts(self) -> list[dict[str, Any]]:
        return list(
            self._rows(
                'SELECT transaction_id AS "transaction", host, reason, since '
                "FROM deployguard_debts ORDER BY since, host"
            )
        )

    def override(self, transaction: str, overrides: Iterable[Mapping[str, Any]]) -> None:
        for one in overrides:
            self._do(
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
        self._do(
            "UPDATE deployguard_transactions SET ended_at = %s, status = %s, exit_code = %s, "
            "summary = %s, outcome = %s WHERE id = %s",
            (
                outcome["ended_at"],
                outcome["status"],
                int(outcome["exit_code"]),
                storable(outcome["summary"]),
                json.dumps(storable(outcome)),
                transaction,
            ),
        )

    def unended(self, plan: str) -> list[str]:
        rows = self._rows(
            "SELECT id FROM deployguard_transactions "
            "WHERE ended_at IS NULL AND %s::text IN ('', plan)",
            (plan,),
        )
        return [str(row["id"]) for row in rows]

    def history(self, limit: int = 20, plan: str | None = None) -> list[dict[str, Any]]:
        return list(
            self._rows(
                f"SELECT {_HISTORY} FROM deployguard_transactions "  # noqa: S608 - our own columns
                "WHERE %(plan)s::text IS NULL OR plan = %(plan)s "
                "ORDER BY started_at DESC, id DESC LIMIT %(limit)s",
                {"plan": plan, "limit": limit},
            )
        )

    def get(self, transaction: str) -> dict[str, Any] | None:
        rows = self._rows(
            f"SELECT {_HISTORY}, outcome FROM deployguard_transactions "  # noqa: S608 - our columns
            "WHERE id = %s",
            (transaction,),
        )
        return dict(rows[0]) if rows else None

    def named(self, prefix: str, limit: int = 10) -> list[str]:
        rows = self._rows(
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

        return self._try(alone)

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        return self._try(lambda c: PostgresWork(c).rows(statement, values or {}))

    @contextmanager
    def delivering(self) -> Iterator[bool]:
        # A connection of its own: the lock is gone with it, and it must outlive a reconnect.
        try:
            connection = self._connect()
        except self._psycopg.Error as problem:
            raise JournalUnavailable(
                f"the journal database cannot be used: {str(problem).strip()}"
            ) from problem
        with closing(connection):
            (row,) = connection.execute(
                "SELECT pg_try_advisory_lock(hashtext('deployguard delivery')) AS alone"
            ).fetchall()
            yield bool(row["alone"])

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise UsageError(
            "a journal in PostgreSQL needs psycopg", hint="pip install 'deployguard[fleet]'"
        ) from error
    return psycopg
