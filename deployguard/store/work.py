"""One transaction on the journal's database, in the words that both stores understand.

Statements are written once: ``@name`` stands for a table, ``:name`` for a value. SQLite takes them
nearly as they are; for PostgreSQL the tables get their prefix and the values their own spelling.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

__all__ = ["POSTGRES_PREFIX", "PostgresWork", "SqliteWork", "Store", "Work", "storable", "tables"]

POSTGRES_PREFIX = "deployguard_"

Answer = TypeVar("Answer")
_NOTHING: Mapping[str, Any] = {}


class Work(Protocol):
    """A transaction that is open. What is written in it is durable when it ends, or was never."""

    def rows(self, statement: str, values: Mapping[str, Any] = _NOTHING) -> list[dict[str, Any]]:
        """What a statement answers."""
        ...

    def do(self, statement: str, values: Mapping[str, Any] = _NOTHING) -> int:
        """How many rows a statement has changed."""
        ...


class Store(Protocol):
    """What keeps incidents; every :class:`~deployguard.store.journal.Journal` does."""

    def transact(self, work: Callable[[Work], Answer]) -> Answer:
        """Do some work in one transaction, alone: others who would write wait for it.

        The work may be done twice, when it is not known whether the first time was heard. So it
        looks first whether it was done already, and touches nothing but what it is given.
        """
        ...

    def read(self, statement: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """What one statement answers that writes nothing."""
        ...


class SqliteWork:
    """:class:`Work` on a connection to SQLite. Somebody else begins and ends the transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        #: For an :class:`~deployguard.store.outbox.Outbox` that joins the transaction.
        self.connection = connection

    def rows(self, statement: str, values: Mapping[str, Any] = _NOTHING) -> list[dict[str, Any]]:
        found = self.connection.execute(tables(statement, ""), values).fetchall()
        return [dict(row) for row in found]

    def do(self, statement: str, values: Mapping[str, Any] = _NOTHING) -> int:
        return self.connection.execute(tables(statement, ""), values).rowcount


class PostgresWork:
    """:class:`Work` on a connection to PostgreSQL whose rows are dictionaries."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def rows(self, statement: str, values: Mapping[str, Any] = _NOTHING) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.connection.execute(
            _for_postgres(statement), values
        ).fetchall()
        return found

    def do(self, statement: str, values: Mapping[str, Any] = _NOTHING) -> int:
        changed: int = self.connection.execute(_for_postgres(statement), values).rowcount
        return changed


def tables(statement: str, prefix: str) -> str:
    """The statement with the names that tables have in a store."""
    return re.sub(r"@(\w+)", lambda found: prefix + found[1], statement)


@functools.lru_cache(maxsize=200)
def _for_postgres(statement: str) -> str:
    return re.sub(r"(?<!:):(\w+)", r"%(\1)s", tables(statement, POSTGRES_PREFIX))


def storable(value: Any) -> Any:
    """PostgreSQL takes neither NUL nor half of a surrogate pair, in JSON not even escaped; SQLite
    takes no surrogates in a text."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    if isinstance(value, Mapping):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value
