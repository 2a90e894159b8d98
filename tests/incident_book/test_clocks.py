"""Targets: when they are missed, and what happens then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployguard.errors import UsageError
from deployguard.evidence.timeline import iso, parse_iso
from deployguard.incidents.book import Book
from deployguard.incidents.entries import Opening, Overdue
from deployguard.incidents.severity import (
    BUSINESS_DAY,
    Target,
    Targets,
    due,
    level_named,
)
from deployguard.store.journal import SqliteJournal

FRIDAY = parse_iso("2026-11-20T22:30:00Z")
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class Clock:
    """Moved by hand."""

    now = FRIDAY

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A Friday night."""
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> Iterator[Book]:
    """No incident yet."""
    journal = SqliteJournal(tmp_path / "journal.db")
    yield Book(journal, actor="ann", clock=clock)
    journal.close()


@pytest.mark.parametrize(
    ("level", "acknowledge", "resolve"),
    [
        (1, "2026-11-20T22:45:00Z", "2026-11-20T23:30:00Z"),
        (2, "2026-11-20T23:00:00Z", "2026-11-21T02:30:00Z"),
        (3, "2026-11-21T00:30:00Z", "2026-11-21T22:30:00Z"),
        (4, "2026-11-23T17:00:00Z", "2026-11-27T22:30:00Z"),
    ],
)
def test_targets_by_severity(book: Book, level: int, acknowledge: str, resolve: str) -> None:
    """15 min and 1 h, 30 min and 4 h, 2 h and 24 h, the next business day and a week."""
    incident = book.open(Opening("down", level))  # type: ignore[arg-type]
    assert iso(incident.acknowledge_by) == acknowledge
    assert iso(incident.resolve_by) == resolve


@pytest.mark.parametrize(
    ("start", "zone", "end"),
    [
        ("2026-11-18T09:00:00Z", "UTC", "2026-11-19T17:00:00Z"),
        ("2026-11-20T22:30:00Z", "UTC", "2026-11-23T17:00:00Z"),
        ("2026-11-21T10:00:00Z", "UTC", "2026-11-23T17:00:00Z"),
        ("2026-11-22T23:59:59Z", "UTC", "2026-11-23T17:00:00Z"),
        # In Auckland it is Monday already, and 17:00 there is early in the morning.
        ("2026-11-22T23:59:59Z", "Pacific/Auckland", "2026-11-24T04:00:00Z"),
        # The last Sunday of March: the clocks go forward, and the day still ends at 17:00.
        ("2027-03-27T12:00:00Z", "Europe/Berlin", "2027-03-29T15:00:00Z"),
        ("2027-03-26T12:00:00Z", "no such/zone", "2027-03-29T17:00:00Z"),
    ],
)
def test_the_next_business_day(start: str, zone: str, end: str) -> None:
    """It ends at 17:00 where the team is, and is never a Saturday or a Sunday."""
    assert iso(due(parse_iso(start), BUSINESS_DAY, zone)) == end


def checked(book: Book) -> list[tuple[str, tuple[str, ...], bool, int]]:
    """What ``check`` finds: title, what was missed, whether it was escalated, the level."""

    def row(one: Overdue) -> tuple[str, tuple[str, ...], bool, int]:
        return one.incident.title, one.missed, one.escalated, one.incident.escalations

    return [row(one) for one in book.check()]


def test_what_is_overdue_is_escalated_again_and_again(book: Book, clock: Clock) -> None:
    """Once when it is missed, then each time the span is over, until somebody is at it."""
    name = book.open(Opening("down", 1)).id
    clock.now += 15 * MINUTE
    assert checked(book) == []
    clock.now += 1
    assert checked(book) == [("down", ("acknowledge",), True, 1)]
    assert checked(book) == [("down", ("acknowledge",), False, 1)]
    clock.now += 15 * MINUTE
    assert checked(book) == [("down", ("acknowledge",), True, 2)]
    book.move(name, "acknowledge")
    assert checked(book) == []
    clock.now = FRIDAY + HOUR + 1
    assert checked(book) == [("down", ("resolve",), True, 3)]
    kinds = [entry.kind for entry in book.lookup.timeline(name)]
    assert kinds == ["opened", "escalated", "escalated", "acknowledged", "escalated"]
    assert book.lookup.timeline(name)[-1].text == "level 3: not resolved in time"
    book.move(name, "resolve")
    clock.now += 10 * DAY
    assert checked(book) == []


def test_a_restore_stops_no_clock_of_a_person(book: Book, clock: Clock) -> None:
    """Mitigated by deployguard, and nobody has looked: an automatic acknowledgement is none."""
    name = book.open(Opening("shop v2 failed", 2)).id
    book.move(name, "mitigate", person=False)
    clock.now += 31 * MINUTE
    assert checked(book) == [("shop v2 failed", ("acknowledge",), True, 1)]
    after = book.move(name, "acknowledge")
    assert (after.state, after.acknowledged_by) == ("mitigated", "ann")
    assert checked(book) == []


def test_the_worst_comes_first(book: Book, clock: Clock) -> None:
    """Then the one that waits longest."""
    book.open(Opening("slow", 3))
    clock.now += 1
    book.open(Opening("down", 1))
    clock.now += 1
    book.open(Opening("down too", 1))
    clock.now += 3 * HOUR
    assert [title for title, *_ in checked(book)] == ["down", "down too", "slow"]


def test_another_severity_has_other_targets(book: Book, clock: Clock) -> None:
    """They count from the same moment, so that what got worse may be overdue at once."""
    name = book.open(Opening("slow", 3)).id
    clock.now += 20 * MINUTE
    after = book.regrade(name, 1, "it is down by now")
    assert after.acknowledge_by == FRIDAY + 15 * MINUTE
    assert checked(book) == [("slow", ("acknowledge",), True, 1)]
    assert book.lookup.timeline(name)[1].text == "medium → critical: it is down by now"
    with pytest.raises(UsageError, match="is critical already"):
        book.regrade(name, 1)


def test_opened_again_the_clocks_start_anew(book: Book, clock: Clock) -> None:
    """And it is to be acknowledged anew."""
    name = book.open(Opening("down", 1)).id
    book.move(name, "resolve")
    clock.now += 2 * DAY
    after = book.move(name, "reopen")
    assert after.acknowledged_at is None and after.mitigated_at is None
    assert after.acknowledge_by == clock.now + 15 * MINUTE
    assert checked(book) == []


def test_targets_of_ones_own(book: Book, clock: Clock) -> None:
    """They are kept with the incident: whoever checks needs no plan."""
    levels = {**Targets().levels, "critical": Target(60.0, BUSINESS_DAY, 30.0)}
    book.open(Opening("down", 1, targets=Targets(levels, "Europe/Berlin")))
    clock.now += 61
    (one,) = book.check()
    assert one.missed == ("acknowledge",)
    assert iso(one.incident.resolve_by) == "2026-11-23T16:00:00Z"
    clock.now += 31
    assert checked(book)[0][2:] == (True, 2)


def _at(book: Book, clock: Clock, **moves: float) -> Callable[[], object]:
    def act() -> object:
        name = book.open(Opening("down", 1)).id
        clock.now += HOUR
        for event, at in moves.items():
            book.move(name, event, at=FRIDAY + at)  # type: ignore[arg-type]
        return book.lookup.get(name)

    return act


def test_moments_that_are_possible(book: Book, clock: Clock) -> None:
    """Written down later, as it was."""
    incident = _at(book, clock, acknowledge=60, mitigate=120, resolve=180)()
    found = (incident.acknowledged_at, incident.mitigated_at, incident.resolved_at)  # type: ignore[attr-defined]
    assert found == (FRIDAY + 60, FRIDAY + 120, FRIDAY + 180)


@pytest.mark.parametrize(
    ("moves", "words"),
    [
        ({"acknowledge": -60}, "is before it was detected"),
        ({"acknowledge": 2 * HOUR}, "has not come yet"),
        ({"mitigate": 600, "resolve": 300}, "is before it was mitigated"),
        ({"resolve": 600, "close": 300}, "is before it was resolved"),
        ({"cancel": 600, "reopen": 300}, "is before it was over"),
    ],
)
def test_moments_that_are_not(
    book: Book, clock: Clock, moves: dict[str, float], words: str
) -> None:
    """An error, and the incident stays as it was."""
    with pytest.raises(UsageError, match=words):
        _at(book, clock, **moves)()


@pytest.mark.parametrize(("word", "level"), [("critical", 1), ("HIGH", 2), ("3", 3), ("low", 4)])
def test_words_for_a_severity(word: str, level: int) -> None:
    """In words or numbers."""
    assert level_named(word) == level


@pytest.mark.parametrize("word", ["5", "p0", "", "sev1"])
def test_no_word_for_a_severity(word: str) -> None:
    """The error has them all."""
    with pytest.raises(UsageError) as caught:
        level_named(word)
    assert caught.value.hint == "it is one of critical (1), high (2), medium (3), low (4)"
