"""Every channel against its peer: a night in order, whatever fails, wherever it is killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployguard.notify import http
from deployguard.notify.delivery import flush
from deployguard.notify.message import Attempt, Receipt
from deployguard.notify.registry import CHANNELS, channel_of
from deployguard.notify.settings import ChannelSettings
from deployguard.store.journal import SqliteJournal
from tests.notify.conftest import SENTINEL, Clock, book_of, keep, opening, quick
from tests.notify.places import PLACES, Place

ALL = list(PLACES)
OVER_HTTP = [name for name in ALL if name not in ("email", "apprise")]

everywhere = pytest.mark.parametrize("place", ALL, indirect=True)
over_http = pytest.mark.parametrize("place", OVER_HTTP, indirect=True)


def a_night(journal: Any, clock: Clock, clean: Any = lambda value: value) -> str:
    """Opened, acknowledged, mitigated, resolved: the id."""
    book = book_of(journal, clock, clean)
    name = book.open(opening()).id
    for event in ("acknowledge", "mitigate", "resolve"):
        clock.now += 1
        book.move(name, event)  # type: ignore[arg-type]
    return name


@everywhere
def test_a_night_in_order(journal: SqliteJournal, place: Place) -> None:
    """Each step arrives once, in its order, when it is sent as it happens."""
    clock = Clock(time.time())
    keep(journal, place.settings())
    book = book_of(journal, clock)
    name = book.open(opening()).id
    assert [one.state for one in flush(journal, clock=clock)] == ["delivered"]
    for event in ("acknowledge", "mitigate", "resolve", "close"):
        clock.now += 1
        book.move(name, event)  # type: ignore[arg-type]
        assert {one.state for one in flush(journal, clock=clock)} <= {"delivered"}
    expected = place.night + (["closed"] if "resolved" in place.night else [])
    assert place.arrived() == (place.night if place.kind == "sms" else expected)
    assert flush(journal, clock=clock) == []


@everywhere
def test_what_waited_keeps_its_order(journal: SqliteJournal, place: Place) -> None:
    """Several steps that wait are sent one after the other; those who would be woken for what is
    over are left to sleep."""
    clock = Clock(time.time())
    keep(journal, place.settings())
    a_night(journal, clock)
    told = flush(journal, clock=clock)
    if place.kind in ("pagerduty", "sms"):
        assert {one.state for one in told} == {"skipped"}
        assert place.arrived() == []
    else:
        assert {one.state for one in told} == {"delivered"}
        assert place.arrived() == place.night


class Crash(BaseException):
    """The process ends here."""


class Doomed:
    """A store whose process dies at one step: before or after a write is durable."""

    def __init__(self, journal: SqliteJournal, fatal: int) -> None:
        self.journal = journal
        self.fatal = fatal
        self.steps = 0

    def step(self) -> None:
        """One more place to die at."""
        self.steps += 1
        if self.steps == self.fatal:
            raise Crash

    def transact(self, work: Callable[[Any], Any]) -> Any:
        """One transaction."""
        self.step()
        answer = self.journal.transact(work)
        self.step()
        return answer

    def read(self, statement: str, values: Any = None) -> Any:
        """One question; nobody dies of it."""
        return self.journal.read(statement, values)

    def delivering(self) -> Any:
        """The lock."""
        return self.journal.delivering()

    def send(self, settings: ChannelSettings, attempt: Attempt) -> Receipt:
        """One message."""
        self.step()
        receipt = channel_of(settings).send(attempt)
        self.step()
        return receipt


@everywhere
def test_a_crash_at_every_step_loses_and_doubles_nothing(place: Place, tmp_path: Path) -> None:
    """The process dies before and after every write, and around every send; the next one finishes.

    Where the other side cannot be asked and has no key, one message may be there twice, and only
    when it died between the answer and the record of it.
    """
    for fatal in range(1, 100):
        reset(place)
        clock = Clock(time.time())
        file = tmp_path / f"{fatal}.db"
        journal = quick(SqliteJournal(file))
        keep(journal, place.settings())
        doomed = Doomed(journal, fatal)
        died = False
        try:
            book = book_of(doomed, clock)
            name = book.open(opening()).id
            flush(doomed, clock=clock, send=doomed.send)
            book.move(name, "mitigate")
            book.move(name, "resolve")
            flush(doomed, clock=clock, send=doomed.send)
        except Crash:
            died = True
        journal.close()

        again = quick(SqliteJournal(file))
        clock.now += 1
        flush(again, clock=clock)
        book = book_of(again, clock)
        for incident in book.lookup.ongoing():
            if incident.state == "open":
                book.move(incident.id, "mitigate")
            book.move(incident.id, "resolve")
        flush(again, clock=clock)
        assert flush(again, clock=clock) == []
        opened = bool(book.lookup.newest(1, None))
        again.close()

        every = [step for step in place.night if "ack" not in step and "identified" not in step]
        expected, found = (every if opened else []), place.arrived()
        if place.once:
            assert found == expected, (fatal, found)
        else:
            assert list(dict.fromkeys(found)) == expected, (fatal, found)
            assert len(found) <= len(expected) + 1
        if not died:
            break
    assert fatal > 15  # every step was reached, or they are not counted any more


def reset(place: Place) -> None:
    """An empty world at the other end."""
    peer = place.peer
    for name in ("messages", "alerts", "incidents", "taken", "requests"):
        if hasattr(peer, name):
            getattr(peer, name).clear()


@everywhere
def test_no_secret_leaves(
    journal: SqliteJournal, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that a plan names, and one that a channel signs in with, are in no payload and in
    nothing that is kept, whatever people and hosts write."""
    monkeypatch.setenv("DATABASE_PASSWORD", SENTINEL)
    clock = Clock(time.time())
    keep(journal, place.settings(), redact=("DATABASE_PASSWORD",))
    book = book_of(journal, clock)
    words = f"it says {SENTINEL}, {place.secret} and password=hunter2hunter2"
    name = book.open(opening(title=f"down: {SENTINEL}", text=words)).id
    flush(journal, clock=clock)
    book.note(name, f"news: {words}", kind="update")
    book.move(name, "mitigate", words)
    book.move(name, "resolve", words, cause=words, fix=words)
    flush(journal, clock=clock)
    assert place.payloads
    kept = [row["payload"] for row in journal.read("SELECT payload FROM @outbox")]
    for text in (*place.payloads, *kept):
        assert SENTINEL not in text
        assert place.secret not in text
        assert "hunter2" not in text


@over_http
def test_a_provider_in_trouble(journal: SqliteJournal, place: Place) -> None:
    """It asks for a pause, fails, hangs up before and after it has done it: tried until it is there
    once, and never before the pause is over."""
    clock = Clock(time.time())
    keep(journal, place.settings(deadline=300.0))
    place.peer.fail(429, headers={"Retry-After": "30"})
    place.peer.fail(500)
    place.peer.fail("drop before")
    if place.once:
        place.peer.fail("drop after", method="POST")
    started = clock.now
    book_of(journal, clock).open(opening())
    (told,) = flush(journal, clock=clock, monotonic=clock, sleep=clock.sleep)
    assert told.state == "delivered"
    assert clock.now - started >= 30
    assert place.arrived() == place.night[:1]


@over_http
@pytest.mark.parametrize("what", ["trickle", "hang"])
def test_a_slow_provider_costs_no_more_than_the_deadline(
    journal: SqliteJournal, place: Place, what: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer never comes, or never ends: given up, kept, and sent by the next command."""
    monkeypatch.setattr(http, "TIMEOUT", 0.3)
    clock = Clock(time.time())
    keep(journal, place.settings(deadline=0.4))
    place.peer.fail(what, times=5)
    book_of(journal, clock).open(opening())
    (told,) = flush(journal, clock=clock)
    assert told.state == "pending"
    place.peer.released.set()
    place.peer.faults.clear()
    monkeypatch.setattr(http, "TIMEOUT", 5.0)
    keep(journal, place.settings(deadline=20.0))
    clock.now += 100
    assert {one.state for one in flush(journal, clock=clock)} == {"delivered"}
    if place.once:
        assert place.arrived() == place.night[:1]


@over_http
def test_a_refusal_waits_for_a_person(journal: SqliteJournal, place: Place) -> None:
    """It is not tried again by itself, what it said is kept, and good news does not follow it."""
    clock = Clock(time.time())
    keep(journal, place.settings())
    place.peer.fail(400, content={"message": f"no, and {place.secret} neither"})
    book = book_of(journal, clock)
    name = book.open(opening()).id
    (told,) = flush(journal, clock=clock)
    assert told.state == "rejected"
    assert "answered 400: no, and" in told.said
    assert place.secret not in told.said
    book.move(name, "mitigate")
    book.move(name, "resolve")
    assert flush(journal, clock=clock) == []
    assert place.arrived() == []


@everywhere
def test_a_secret_that_is_not_there(
    journal: SqliteJournal, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message waits, and says what is missing; where it is there, it is sent."""
    clock = Clock(time.time())
    keep(journal, place.settings())
    for name in place.environ:
        monkeypatch.delenv(name)
    book_of(journal, clock).open(opening())
    (told,) = flush(journal, clock=clock)
    assert told.state == "pending"
    assert told.said == f"${next(iter(place.environ))} is not set here"
    for name, value in place.environ.items():
        monkeypatch.setenv(name, value)
    (told,) = flush(journal, clock=clock, retry=True)
    assert told.state == "delivered"
    assert place.arrived() == place.night[:1]


def test_there_is_a_peer_for_every_kind() -> None:
    """Or a channel would be shown by nothing."""
    assert {name.split()[0] for name in PLACES} == set(CHANNELS)
