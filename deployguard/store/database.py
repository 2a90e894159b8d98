"""A PostgreSQL database that may go away and come back.

One connection, one statement a time, each committed by itself with synchronous commit. When the
database goes away a statement is tried again on a new connection for a while; every one of them
may be repeated, so it does not matter whether the first try was heard. One that does not answer
counts as one that is away.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from deployguard.errors import JournalUnavailable, UsageError
from deployguard.store.schema import upgrade_postgres
from deployguard.store.watchdog import Watchdog

if TYPE_CHECKING:
    import psycopg

__all__ = ["PATIENCE", "Database"]

#: Seconds for which a database that went away is waited for.
PATIENCE = 30.0

#: The same for somebody who has been told to leave, and how long an answer may take then.
HASTE = 1.5
_LAST_ANSWER = 4.0
#: How long one answer may take: a megabyte is the largest thing that is asked or told at once.
ANSWER_SECONDS = 20.0

_CONNECT_SECONDS = 5
_GLANCE = 0.1
#: Who asks again sooner after a database was waited for in vain hears the same, at once.
_FRESH = 5.0
#: What a server that starts, stops or is busy says when it refuses a connection.
_PASSING = ("starting up", "shutting down", "recovery", "too many", "remaining connection slots")

Answer = TypeVar("Answer")


class Database:
    """See the module. Safe to use from several threads.

    Every method raises :class:`~deployguard.errors.JournalUnavailable` when the database cannot be
    used for longer than ``patience``, in seconds.
    """

    def __init__(
        self, url: str, *, patience: float = PATIENCE, answer_within: float = ANSWER_SECONDS
    ) -> None:
        self.url = url
        self._patience = patience
        self._answer_within = answer_within
        #: Somebody has been told to leave: nobody waits for long any more.
        self.stop = threading.Event()
        self._watchdog = Watchdog(self._answer_limit)
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[dict[str, Any]] | None = None
        self._psycopg = _psycopg()
        #: Since when it has been away, and when it was last found so, and how.
        self._away_since: float | None = None
        self._away_at = 0.0
        self._absence: JournalUnavailable | None = None

    def attempt(self, work: Callable[[psycopg.Connection[dict[str, Any]]], Answer]) -> Answer:
        """Do one thing with the database, on a new connection where the old one is gone."""
        error: type[Exception] = self._psycopg.Error
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._is_absence),
            # Everybody waits together, whoever finds out first.
            stop=lambda _: self._waited_enough(),
            wait=tenacity.wait_exponential(multiplier=0.05, max=1.0),
            sleep=self._pause,
            reraise=True,
        )
        with self._lock:
            if self._absence is not None and time.monotonic() - self._away_at < _FRESH:
                raise JournalUnavailable(self._absence.message, hint=self._absence.hint)
            try:
                answer: Answer = retry(self._once, work)
            except error as problem:
                unavailable = self._unavailable(problem)
                if self._is_absence(problem):
                    self._absence, self._away_at = unavailable, time.monotonic()
                else:
                    self._absence = self._away_since = None
                raise unavailable from problem
            self._absence = self._away_since = None
            return answer

    def _unavailable(self, problem: Exception) -> JournalUnavailable:
        # What is wrong with a URL is told with the URL, and there may be a password in it.
        words = str(problem).strip().replace(self.url, "its URL")
        return JournalUnavailable(
            f"the journal database cannot be used: {words}",
            hint="look at the database; then `deployguard recover PLAN` finishes what is "
            "unfinished",
        )

    def _waited_enough(self) -> bool:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        return now - self._away_since >= (HASTE if self.stop.is_set() else self._patience)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            time.sleep(min(seconds, _GLANCE))

    def _answer_limit(self) -> float:
        most = self._answer_within
        return min(most, _LAST_ANSWER) if self.stop.is_set() else most

    def rows(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """What a statement answers, each row by column."""
        return self.attempt(lambda c: c.execute(statement, values).fetchall())

    def do(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> None:
        """Run a statement."""
        self.attempt(lambda c: c.execute(statement, values))

    def do_all(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> None:
        """Run statements, all of them or none."""
        wanted = list(statements)

        def work(connection: psycopg.Connection[dict[str, Any]]) -> None:
            with connection.transaction():
                for statement, values in wanted:
                    connection.execute(statement, values)

        self.attempt(work)

    @contextlib.contextmanager
    def apart(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """A connection of the caller's own, which is not made anew when it is lost."""
        try:
            connection = self._connect()
        except self._psycopg.Error as problem:
            raise self._unavailable(problem) from problem
        with contextlib.closing(connection):
            yield connection

    def close(self) -> None:
        """Close the connection."""
        self._watchdog.end()
        if self._connection is not None:
            self._connection.close()

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
            with self._watchdog.over(self._connection.fileno()):
                return work(self._connection)
        except self._psycopg.Error:
            self._connection.close()
            raise

    def _connect(self) -> psycopg.Connection[dict[str, Any]]:
        from psycopg.rows import dict_row

        connection: psycopg.Connection[dict[str, Any]] = self._psycopg.Connection.connect(
            self.url,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=_CONNECT_SECONDS,
            application_name="deployguard",
            keepalives_idle=10,
            keepalives_interval=5,
            tcp_user_timeout=10_000,
        )
        try:
            with self._watchdog.over(connection.fileno()):
                upgrade_postgres(connection, "the journal database")
                connection.execute("SET synchronous_commit = on")
        except BaseException:
            connection.close()
            raise
        return connection


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise UsageError(
            "a journal in PostgreSQL needs psycopg", hint="pip install 'deployguard[fleet]'"
        ) from error
    return psycopg
