"""What is to be told is kept alike in both stores, and sent by one at a time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployguard.delivery import Undelivered
from deployguard.notify import tidying
from deployguard.notify.announce import KIND, silence
from deployguard.notify.delivery import flush, told_of
from deployguard.notify.message import Attempt, Receipt
from deployguard.notify.settings import ChannelSettings, known
from deployguard.store.journal import Journal, SqliteJournal
from deployguard.store.outbox import Outbox
from deployguard.store.postgres import PostgresJournal
from tests.notify.conftest import Clock, book_of, keep, opening
from tests.notify.test_routing import channel
from tests.store.test_incidents import again


@pytest.fixture(params=["sqlite", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """An empty store of each kind."""
    opened: Journal
    if request.param == "sqlite":
        opened = SqliteJournal(tmp_path / "journal.db")
    else:
        opened = PostgresJournal(request.getfixturevalue("server").url, patience=20.0)
        for table in ("incidents", "transactions", "outbox", "notify_lanes", "notify_plans"):
            opened._database.do(f"TRUNCATE deployguard_{table} CASCADE", ())
    yield opened
    opened.close()


class Crash(BaseException):
    """The process ends here."""


def test_a_night_on_several_machines(journal: Journal) -> None:
    """One opens it, another acknowledges and resolves it: in order, each knowing what came back."""
    clock = Clock(time.time())
    keep(journal, channel("ops"))
    said: list[tuple[str, Receipt | None]] = []

    def send(_: ChannelSettings, attempt: Attempt) -> Receipt:
        said.append((attempt.message.kind, attempt.receipt))
        return {"thread": "t1", "last": len(said)}

    name = book_of(journal, clock).open(opening(title="down \0 \udcff")).id
    flush(journal, clock=clock, send=send)
    other = again(journal)
    settings = known(other, "shop", "production")
    assert settings is not None
    assert [each.name for each in settings.channels] == ["ops"]
    book = book_of(other, clock)
    book.move(name, "acknowledge")
    book.move(name, "resolve")
    assert [one.state for one in flush(other, clock=clock, send=send)] == ["delivered"] * 2
    assert said == [
        ("opened", None),
        ("acknowledged", {"thread": "t1", "last": 1}),
        ("resolved", {"thread": "t1", "last": 2}),
    ]
    assert flush(journal, clock=clock, send=send) == []
    assert [(one.kind, one.state) for one in told_of(journal, name)] == [
        *(("opened", "delivered"), ("acknowledged", "delivered"), ("resolved", "delivered")),
    ]
    assert silence(other, book.lookup.get(name)) == ""
    elsewhere = book.open(opening(service="wiki"))
    assert silence(other, elsewhere).startswith("channels are known of shop in production")
    other.close()


def test_one_delivers_at_a_time(journal: Journal) -> None:
    """The lock is gone with who had it."""
    other = again(journal)
    with journal.delivering() as first, other.delivering() as second:
        assert (first, second) == (True, False)
    with other.delivering() as second:
        assert second
    other.close()


def test_a_message_is_written_with_what_it_tells(journal: Journal) -> None:
    """Both or none, when the process dies in between."""
    clock = Clock(time.time())
    keep(journal, channel("ops"))
    book = book_of(journal, clock)
    name = book.open(opening()).id

    def dies(_: Any, transition: Any) -> None:
        raise Crash

    book._hooks = (*book._hooks, dies)
    with pytest.raises(Crash):
        book.move(name, "resolve")
    assert book.lookup.get(name).state == "open"
    (entry,) = Outbox(journal, clock=clock).pending(KIND)
    assert entry.payload["message"]["kind"] == "opened"


def test_an_outbox_of_an_earlier_version(tmp_path: Path) -> None:
    """What waits in it is not lost."""
    file = tmp_path / "journal.db"
    with sqlite3.connect(file) as old:
        old.executescript(EARLIER)
    journal = SqliteJournal(file)
    (entry,) = Outbox(journal, clock=time.time).pending()
    assert (entry.key, entry.payload, entry.lane) == ("incident/t", {"title": "x"}, None)
    assert Outbox(file, clock=time.time).pending() == [entry]
    keep(journal, channel("ops"))
    clock = Clock(time.time())
    book_of(journal, clock).open(opening())
    (told,) = flush(journal, clock=clock, send=lambda *_: {})
    assert told.state == "delivered"
    journal.close()


EARLIER = """
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE,
    payload TEXT NOT NULL,
    created_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    delivered_at REAL,
    rejected_at REAL,
    result TEXT,
    CHECK (delivered_at IS NULL OR rejected_at IS NULL)
);
INSERT INTO outbox (kind, key, payload, created_at) VALUES ('github', 'incident/t', '{"title": "x"}', 1);
"""  # noqa: E501 - a row a line


def test_what_was_told_long_ago_is_forgotten(journal: Journal) -> None:
    """90 days after the incident was closed; what is not over, or waits, is kept, however old. One
    that is opened again after that is told as a new one."""
    clock = Clock(time.time())
    keep(journal, channel("ops"), channel("down", deadline=0.5, expires=1e9))
    book = book_of(journal, clock)
    said: list[tuple[str, Receipt | None]] = []

    def send(settings: ChannelSettings, attempt: Attempt) -> Receipt:
        if settings.name == "down":
            raise Undelivered("gone")
        said.append((attempt.message.kind, attempt.receipt))
        return {"thread": len(said)}

    def go() -> None:
        flush(journal, clock=clock, monotonic=clock, sleep=clock.sleep, send=send)

    over, ongoing = book.open(opening()).id, book.open(opening(title="slow")).id
    book.move(over, "resolve")
    book.move(over, "close")
    go()
    kept = [one.key for one in told_of(journal, ongoing)]
    clock.now += tidying.KEPT - 60
    book.note(ongoing, "it goes on", kind="update")
    go()
    assert len([one for one in told_of(journal, over) if one.state == "delivered"]) == 3
    clock.now += 120
    book.note(ongoing, "and on", kind="update")
    go()
    assert {one.state for one in told_of(journal, over)} == {"pending"}
    assert {one.channel for one in told_of(journal, over)} == {"down"}
    assert [one.key for one in told_of(journal, ongoing)][: len(kept)] == kept
    lanes = [row["lane"] for row in journal.read("SELECT lane FROM @notify_lanes")]
    assert lanes == [f"{ongoing}/ops"]
    book.move(over, "reopen")
    go()
    assert said[-1] == ("reopened", None)
    # What is forgotten of issues is what has arrived.
    outbox = Outbox(journal, clock=clock)
    outbox.put("github", "one", {})
    outbox.deliver({"github": lambda payload: {}})
    outbox.put("github", "two", {})
    assert outbox.forget("github", clock.now) == 0
    assert outbox.forget("github", clock.now + 1) == 1
    assert [one.key for one in outbox.newest("github", 5)] == ["two"]
