"""What a controller and the jobs of its hosts, which run elsewhere, write to each other.

One row a host holds the last order to its job, how many orders it has answered, and which attempt
at the job counts: a job may be entered again when its worker died, and from then on the earlier
entry is not heard any more. Everything that is written here is sealed by those who write it; what
stands here in clear is who works on what.

Nothing in here depends on a clock. Both sides count beats, and whoever waits for one looks at a
clock of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployguard.store.database import Database

__all__ = ["Entry", "Job", "Mailbox", "Message", "Run"]


@dataclass(frozen=True)
class Entry:
    """A job that was entered. ``attempt`` counts from 1; ``held`` is the highest epoch under which
    an earlier attempt is known to have held the host, 0 where none is."""

    attempt: int
    held: int


@dataclass(frozen=True)
class Job:
    """The row of one host."""

    host: str
    worker: str
    attempt: int
    withdrawn: bool
    held: int
    beats: int
    ordered: int
    answered: int
    content: bytes


@dataclass(frozen=True)
class Run:
    """What the controller shows of itself."""

    beats: int
    closed: bool


@dataclass(frozen=True)
class Message:
    """Something that a job says; numbers of a host only grow."""

    host: str
    number: int
    content: bytes


class Mailbox:
    """See the module. Every method is durable when it returns, and may be repeated.

    Each raises :class:`~deployguard.errors.JournalUnavailable`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- the controller's side ---------------------------------------------------------------

    def open(self, transaction: str, hosts: Sequence[str]) -> None:
        """Make the rows. The transaction stands in the journal already."""
        run = ("INSERT INTO deployguard_runs VALUES (%s) ON CONFLICT DO NOTHING", (transaction,))
        jobs = (
            "INSERT INTO deployguard_jobs (transaction_id, host) SELECT %s, unnest(%s::text[]) "
            "ON CONFLICT DO NOTHING",
            (transaction, list(hosts)),
        )
        self._database.do_all([run, jobs])

    def order(self, transaction: str, host: str, number: int, content: bytes) -> None:
        """What the job is to do next; its last order has been answered."""
        self._database.do(
            "UPDATE deployguard_jobs SET ordered = %s, content = %s "
            "WHERE transaction_id = %s AND host = %s AND ordered < %s",
            (number, content, transaction, host, number),
        )

    def hear(self, transaction: str, known: Mapping[str, int]) -> list[Message]:
        """Messages above the numbers that are known, by host, in their order."""
        rows = self._database.rows(
            "SELECT host, number, content FROM deployguard_messages "
            "JOIN unnest(%s::text[], %s::bigint[]) AS known (host, last) USING (host) "
            "WHERE transaction_id = %s AND number > last ORDER BY host, number",
            (list(known), list(known.values()), transaction),
        )
        return [Message(row["host"], row["number"], bytes(row["content"])) for row in rows]

    def beat(self, transaction: str) -> None:
        """The controller is there."""
        self._database.do(
            "UPDATE deployguard_runs SET beats = beats + 1 WHERE transaction_id = %s",
            (transaction,),
        )

    def close(self, transaction: str) -> None:
        """The controller leaves: every job ends, and leaves its host to itself."""
        self._database.do(
            "UPDATE deployguard_runs SET closed = true WHERE transaction_id = %s", (transaction,)
        )

    def withdraw(self, transaction: str, host: str) -> None:
        """Nobody may enter the job of a host any more, and who has counts as gone."""
        self._database.do(
            "UPDATE deployguard_jobs SET withdrawn = true WHERE transaction_id = %s AND host = %s",
            (transaction, host),
        )

    # -- a job's side ------------------------------------------------------------------------

    def enter(self, transaction: str, host: str, worker: str) -> Entry | None:
        """Work on a host from now on, in place of whoever did; ``None`` when that is over."""
        rows = self._database.rows(
            "UPDATE deployguard_jobs AS job "
            "SET attempt = job.attempt + 1, worker = %s, beats = job.beats + 1 "
            "FROM deployguard_runs AS run WHERE run.transaction_id = %s AND NOT run.closed "
            "AND job.transaction_id = run.transaction_id AND job.host = %s "
            "AND NOT job.withdrawn RETURNING job.attempt, job.held",
            (worker, transaction, host),
        )
        return Entry(rows[0]["attempt"], rows[0]["held"]) if rows else None

    def say(
        self,
        transaction: str,
        host: str,
        attempt: int,
        messages: Iterable[tuple[int, bytes]],
        *,
        answered: int = 0,
        held: int = 0,
    ) -> None:
        """Say something, numbered; of an attempt that does not count any more nobody hears.

        ``answered`` is the order that is carried out by now, ``held`` the epoch under which the job
        has the host.
        """
        mine = (transaction, host, attempt)
        statements: list[tuple[str, Sequence[Any]]] = [
            (
                "INSERT INTO deployguard_messages SELECT transaction_id, host, %s, %s "
                "FROM deployguard_jobs WHERE transaction_id = %s AND host = %s AND attempt = %s "
                "ON CONFLICT DO NOTHING",
                (number, content, *mine),
            )
            for number, content in messages
        ]
        if answered or held:
            statements.append(
                (
                    "UPDATE deployguard_jobs SET answered = GREATEST(answered, %s), "
                    "held = GREATEST(held, %s) "
                    "WHERE transaction_id = %s AND host = %s AND attempt = %s",
                    (answered, held, *mine),
                )
            )
        self._database.do_all(statements)

    def alive(self, transaction: str, attempts: Mapping[str, int]) -> None:
        """The jobs of these hosts are at work."""
        self._database.do(
            "UPDATE deployguard_jobs AS job SET beats = beats + 1 "
            "FROM unnest(%s::text[], %s::int[]) AS mine (host, attempt) "
            "WHERE transaction_id = %s AND job.host = mine.host AND job.attempt = mine.attempt",
            (list(attempts), list(attempts.values()), transaction),
        )

    # -- both --------------------------------------------------------------------------------

    def run(self, transaction: str) -> Run | None:
        """The controller's row; ``None`` when the transaction has come to its end."""
        rows = self._database.rows(
            "SELECT beats, closed FROM deployguard_runs WHERE transaction_id = %s", (transaction,)
        )
        return Run(rows[0]["beats"], rows[0]["closed"]) if rows else None

    def jobs(self, transaction: str, hosts: Sequence[str] | None = None) -> list[Job]:
        """The rows of these hosts, or of all."""
        rows: list[dict[str, Any]] = self._database.rows(
            "SELECT host, worker, attempt, withdrawn, held, beats, ordered, answered, content "
            "FROM deployguard_jobs WHERE transaction_id = %s "
            "AND (%s::text[] IS NULL OR host = ANY(%s::text[]))",
            (transaction, hosts and list(hosts), hosts and list(hosts)),
        )
        return [Job(**{**row, "content": bytes(row["content"])}) for row in rows]

    def put(self, transaction: str, name: str, pieces: Iterable[bytes]) -> None:
        """Leave a parcel, in pieces of a few megabytes at most."""
        for number, piece in enumerate(pieces):
            self._database.do(
                "INSERT INTO deployguard_parcels VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (transaction_id, name, number) "
                "DO UPDATE SET content = EXCLUDED.content",
                (transaction, name, number, piece),
            )

    def take(self, transaction: str, name: str) -> Iterator[bytes]:
        """The pieces of a parcel, one at a time; none where there is no such parcel."""
        number = 0
        while True:
            rows = self._database.rows(
                "SELECT content FROM deployguard_parcels "
                "WHERE transaction_id = %s AND name = %s AND number = %s",
                (transaction, name, number),
            )
            if not rows:
                return
            yield bytes(rows[0]["content"])
            number += 1
