"""Incidents are kept alike in both stores: ids, timelines that only grow, one writer at a time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployguard.errors import InternalError, JournalUnavailable, UsageError
from deployguard.incidents.book import Book
from deployguard.incidents.change import rebuilt
from deployguard.incidents.entries import Draft, Opening, Transition
from deployguard.store.incident_tables import APPEND_ONLY
from deployguard.store.journal import Journal, SqliteJournal
from deployguard.store.outbox import Outbox
from deployguard.store.postgres import PostgresJournal
from deployguard.store.schema import VERSION
from deployguard.store.work import SqliteWork, Work

NOON = 1795262400.0  # 2026-11-21T12:00:00Z


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Noon."""
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """An empty store of each kind."""
    opened: Journal
    if request.param == "sqlite":
        opened = SqliteJournal(tmp_path / "journal.db")
    else:
        opened = PostgresJournal(request.getfixturevalue("server").url, patience=20.0)
        for table in ("incidents", "transactions"):
            opened._database.do(f"TRUNCATE deployguard_{table} CASCADE", ())
    yield opened
    opened.close()


@pytest.fixture
def book(journal: Journal, clock: Clock) -> Book:
    """The incidents of the store, as Ann writes them."""
    return Book(journal, actor="ann", clock=clock)


def opening(**changes: Any) -> Opening:
    """The shop is down."""
    values: dict[str, Any] = {
        "title": "API down",
        "severity": 1,
        "service": "shop",
        "environment": "production",
        "signature": ("api down",),
    }
    return Opening(**{**values, **changes})


def again(journal: Journal) -> Journal:
    """The same store, as another process sees it."""
    if isinstance(journal, SqliteJournal):
        return SqliteJournal(journal.path)
    return PostgresJournal(journal.url)  # type: ignore[attr-defined]


def test_ids_count_the_day_in_utc(book: Book, clock: Clock) -> None:
    """``INC-20261121-001``; each day begins with 001, and a thousandth has four digits."""
    assert [book.open(opening()).id for _ in range(2)] == ["INC-20261121-001", "INC-20261121-002"]
    clock.now += 86400
    assert book.open(opening()).id == "INC-20261122-001"
    book._store.transact(
        lambda work: work.do("UPDATE @incidents SET number = 999 WHERE day = :d", {"d": "20261122"})
    )
    assert book.open(opening()).id == "INC-20261122-1000"


def test_from_open_to_closed(book: Book, journal: Journal, clock: Clock) -> None:
    """Another process reads the same incident, timeline and links; the timeline adds up to it."""
    name = book.open(opening(links=(("ticket", "OPS-1"),))).id
    for event, said in (("acknowledge", {}), ("mitigate", {}), ("resolve", {"fix": "pool to 20"})):
        clock.now += 60
        book.move(name, event, f"{event} it", **said)  # type: ignore[arg-type]
    book.note(name, "seen \0 and \udcff", links=[("issue", "https://github.com/a/b/issues/1")])
    book.assign(name, commander="ann", owner="bob")
    book.move(name, "close")
    other = Book(again(journal)).lookup
    found = other.get(name.lower())
    assert (found.state, found.severity, found.commander, found.fix) == (
        "closed",
        1,
        "ann",
        "pool to 20",
    )
    assert [found.acknowledged_at, found.mitigated_at, found.resolved_at] == [
        NOON + 60,
        NOON + 120,
        NOON + 180,
    ]
    entries = other.timeline(name)
    assert [entry.kind for entry in entries] == [
        "opened",
        "acknowledged",
        "mitigated",
        "resolved",
        "noted",
        "assigned",
        "closed",
    ]
    assert entries[4].text == "seen \\0 and \\udcff"
    assert rebuilt(entries) == found
    assert {(link.kind, link.value) for link in other.links(name)} == {
        ("ticket", "OPS-1"),
        ("issue", "https://github.com/a/b/issues/1"),
    }
    assert other.of_link("ticket", "OPS-1") == [found]
    assert other.ongoing() == [] and other.newest() == [found]


@pytest.mark.parametrize(
    "statement", ["UPDATE @incident_entries SET said = 'x'", "DELETE FROM @incident_entries"]
)
def test_a_timeline_only_grows(book: Book, journal: Journal, statement: str) -> None:
    """The database itself refuses to change what was written."""
    name = book.open(opening()).id
    with pytest.raises((JournalUnavailable, sqlite3.Error), match=APPEND_ONLY):
        journal.transact(lambda work: work.do(statement))
    assert [entry.kind for entry in book.lookup.timeline(name)] == ["opened"]


def test_what_is_repeated_is_done_once(book: Book, journal: Journal) -> None:
    """The database went away after it had heard: the work is done again, and finds itself done."""
    real = journal.transact

    def twice(work: Any) -> Any:
        real(work)
        return real(work)

    journal.transact = twice  # type: ignore[method-assign]
    name = book.open(opening()).id
    assert book.move(name, "acknowledge").state == "acknowledged"
    joined, opened = book.open_or_join(opening(), join=lambda _: ({}, [Draft("joined", "again")]))
    assert (joined.id, opened) == (name, False)
    assert [entry.kind for entry in book.lookup.timeline(name)] == [
        "opened",
        "acknowledged",
        "joined",
    ]
    assert len(book.lookup.newest()) == 1


def test_many_open_at_once(journal: Journal) -> None:
    """Each gets an id of its own, and of those who see the same failure one opens."""
    count = 8
    start = threading.Barrier(count)
    ids: list[str] = []
    joined: list[str] = []

    def one(number: int) -> None:
        mine = again(journal)
        writer = Book(mine, actor=f"person {number}")
        start.wait()
        ids.append(writer.open(opening(title=f"thing {number}", signature=(f"{number}",))).id)
        same = opening(service="wiki")
        joined.append(writer.open_or_join(same, join=lambda _: ({}, [Draft("joined", "")]))[0].id)
        mine.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == count and len(joined) == count
    assert len(set(joined)) == 1


def test_two_acknowledge_at_once(journal: Journal) -> None:
    """One does; the other is told who was first."""
    name = Book(journal).open(opening()).id
    start = threading.Barrier(2)
    refused: list[str] = []

    def one(actor: str) -> None:
        mine = again(journal)
        start.wait()
        try:
            Book(mine, actor=actor).move(name, "acknowledge")
        except UsageError as error:
            refused.append(error.message)
        mine.close()

    threads = [threading.Thread(target=one, args=(actor,)) for actor in ("ann", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = Book(journal).lookup.get(name).acknowledged_by
    assert len(refused) == 1 and f"acknowledged already, by {first} at " in refused[0]


def test_a_hook_writes_within_the_transaction(journal: Journal, clock: Clock) -> None:
    """What a notifier keeps is there with the transition it tells of, or neither is."""
    told: list[Transition] = []

    def keep(work: Work, transition: Transition) -> None:
        told.append(transition)
        work.do(
            "INSERT INTO @incident_links VALUES (:id, 'ticket', :value, 0)",
            {"id": transition.after.id, "value": f"told {transition.after.state}"},
        )
        if transition.after.state == "resolved":
            raise RuntimeError("the notifier broke")

    book = Book(journal, actor="ann", clock=clock, hooks=[keep])
    name = book.open(opening()).id
    book.move(name, "acknowledge")
    with pytest.raises(RuntimeError):
        book.move(name, "resolve")
    assert [(t.before and t.before.state, t.after.state) for t in told] == [
        (None, "open"),
        ("open", "acknowledged"),
        ("acknowledged", "resolved"),
    ]
    assert book.lookup.get(name).state == "acknowledged"
    assert len(book.lookup.timeline(name)) == 2
    assert [link.value for link in book.lookup.links(name)] == [
        "told acknowledged",
        "told open",
    ]


def test_an_outbox_joins_the_transaction(tmp_path: Path) -> None:
    """In the file of this machine a report becomes durable together with what it tells."""
    journal = SqliteJournal(tmp_path / "journal.db")

    def keep(work: Work, transition: Transition) -> None:
        assert isinstance(work, SqliteWork)
        outbox = Outbox(work.connection, clock=lambda: NOON)
        outbox.put("mail", f"{transition.after.id}/{transition.after.state}", {"to": "ann"})
        if transition.after.state == "acknowledged":
            raise KeyboardInterrupt

    book = Book(journal, hooks=[keep])
    name = book.open(opening()).id
    with pytest.raises(KeyboardInterrupt):
        book.move(name, "acknowledge")
    outbox = Outbox(tmp_path / "journal.db", clock=lambda: NOON)
    assert [entry.key for entry in outbox.pending()] == [f"{name}/open"]
    outbox.close()


def test_a_journal_that_knows_no_incidents(tmp_path: Path) -> None:
    """Made by an earlier version: its transactions stay, and incidents are kept from now on."""
    file = tmp_path / "journal.db"
    with sqlite3.connect(file) as old:
        old.executescript(OLD)
    journal = SqliteJournal(file)
    assert [row["id"] for row in journal.history()] == ["one"]
    assert Book(journal, clock=Clock()).open(opening()).id == "INC-20261121-001"
    journal.begin({**BEGUN, "id": "two", "changed_at": 5.0}, ["web1"])
    (row,) = journal.read("SELECT changed_at FROM @transactions WHERE id = 'two'")
    assert row == {"changed_at": 5.0}


def test_a_database_that_knows_no_incidents(server: Any) -> None:
    """The same for a shared one; and one that is newer is left alone."""
    journal = PostgresJournal(server.url)
    tables = ("schema", "incident_links", "incident_entries", "incidents")
    journal._database.attempt(
        lambda c: [c.execute(f"DROP TABLE deployguard_{name}") for name in tables]  # type: ignore[call-overload]
    )
    journal._database.do("ALTER TABLE deployguard_transactions DROP COLUMN changed_at CASCADE", ())
    journal.close()
    journal = PostgresJournal(server.url)
    journal.begin({**BEGUN, "id": "after", "changed_at": 5.0}, ["web1"])
    assert Book(journal, clock=Clock()).open(opening()).id == "INC-20261121-001"
    journal._database.do("UPDATE deployguard_schema SET version = %s", (VERSION + 1,))
    try:
        with pytest.raises(InternalError, match="written by a newer deployguard"):
            PostgresJournal(server.url)
    finally:
        journal._database.do("UPDATE deployguard_schema SET version = %s", (VERSION,))
        journal.close()


BEGUN = {
    "plan": "shop",
    "version": "v2",
    "environment": "production",
    "source": "plan.yaml",
    "owner": "ann@laptop",
    "started_at": 1.0,
}

#: What the version before incidents made.
OLD = """
PRAGMA journal_mode = WAL;
CREATE TABLE transactions (
    id TEXT PRIMARY KEY, plan TEXT NOT NULL, version TEXT NOT NULL, environment TEXT NOT NULL,
    source TEXT NOT NULL, owner TEXT NOT NULL, hosts TEXT NOT NULL, started_at REAL NOT NULL,
    ended_at REAL, status TEXT NOT NULL DEFAULT 'running', exit_code INTEGER,
    summary TEXT NOT NULL DEFAULT '', outcome TEXT
);
CREATE INDEX transactions_by_time ON transactions (started_at);
CREATE TABLE debts (
    transaction_id TEXT NOT NULL REFERENCES transactions (id), host TEXT NOT NULL,
    reason TEXT NOT NULL, since REAL NOT NULL, PRIMARY KEY (transaction_id, host)
);
CREATE TABLE decisions (
    transaction_id TEXT PRIMARY KEY REFERENCES transactions (id),
    decision TEXT NOT NULL CHECK (decision IN ('commit', 'abort')), at REAL NOT NULL
);
INSERT INTO transactions (id, plan, version, environment, source, owner, hosts, started_at)
    VALUES ('one', 'shop', 'v1', 'production', 'plan.yaml', 'ann', '["web1"]', 1.0);
PRAGMA user_version = 2;
"""
