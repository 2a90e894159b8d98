"""Who is told of what: by severity, by escalation, and never of an end without a beginning."""

from __future__ import annotations

import time
from typing import Any

import pytest

from deployguard.notify.announce import KIND
from deployguard.notify.settings import ChannelSettings
from deployguard.store.journal import SqliteJournal
from deployguard.store.outbox import Outbox
from tests.notify.conftest import Clock, book_of, keep, opening


def channel(name: str, kind: str = "webhook", **changes: Any) -> ChannelSettings:
    """A channel that is told of everything."""
    values: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "options": {"to": ["+4915112345678", "+4915187654321"]} if kind == "sms" else {},
        "at_least": 4,
        "escalations": 0,
        "audience": "team",
        "deploys": False,
        "deadline": 20.0,
        "expires": 86400.0,
    }
    return ChannelSettings(**{**values, **changes})


def kinds(journal: SqliteJournal) -> dict[str, list[str]]:
    """What is put into the outbox, by channel and recipient."""
    found: dict[str, list[str]] = {}
    for entry in Outbox(journal, clock=time.time).pending(KIND):
        message = entry.payload["message"]
        name = entry.payload["channel"]["name"] + message["recipient"][-3:]
        found.setdefault(name, []).append(message["kind"])
    return found


@pytest.fixture
def clock() -> Clock:
    """Now."""
    return Clock(time.time())


def test_a_whole_night_by_kind_of_channel(journal: SqliteJournal, clock: Clock) -> None:
    """Everything to the team; to the others what they have a word for, and what concerns them."""
    keep(
        journal,
        channel("team"),
        channel("boss", audience="management"),
        channel("partners", audience="partners"),
        channel("oncall", "pagerduty"),
        channel("phone", "sms"),
        channel("page", "statuspage", audience="customers"),
    )
    book = book_of(journal, clock)
    name = book.open(opening(severity=2)).id
    book.move(name, "acknowledge")
    book.note(name, "a thought")
    book.assign(name, commander="ann")
    book.regrade(name, 1)
    book.note(name, "half of it is back", kind="update")
    book.move(name, "mitigate")
    book.move(name, "resolve")
    book.move(name, "close")
    book.move(name, "reopen")
    book.move(name, "cancel")
    everything = [
        *("opened", "acknowledged", "severity", "update", "mitigated", "resolved"),
        *("closed", "reopened", "cancelled"),
    ]
    outside = [kind for kind in everything if kind not in ("severity", "closed")]
    text = ["opened", "update", "mitigated", "resolved", "reopened", "cancelled"]
    assert kinds(journal) == {
        "team": everything,
        "boss": everything,
        "partners": outside,
        "oncall": ["opened", "acknowledged", "severity", "resolved", "reopened", "cancelled"],
        "phone678": text,
        "phone321": text,
        "page": outside,
    }


def test_what_gets_worse_reaches_more_people(journal: SqliteJournal, clock: Clock) -> None:
    """A channel joins in when it is bad enough, hears the rest, and hears of it also when it is
    no longer that bad."""
    keep(journal, channel("all"), channel("worst", at_least=1))
    book = book_of(journal, clock)
    name = book.open(opening(severity=3)).id
    book.move(name, "acknowledge")
    assert kinds(journal) == {"all": ["opened", "acknowledged"]}
    book.regrade(name, 1)
    book.regrade(name, 4)
    book.move(name, "resolve")
    assert kinds(journal)["worst"] == ["severity", "severity", "resolved"]


def test_what_is_overdue_reaches_more_people(journal: SqliteJournal, clock: Clock) -> None:
    """`escalations: 2` hears of it at the second escalation, and not before."""
    keep(journal, channel("first"), channel("second", escalations=2))
    book = book_of(journal, clock)
    book.open(opening())
    for _ in range(2):
        clock.now += 16 * 60
        book.check()
    found = kinds(journal)
    assert found == {"first": ["opened", "escalated", "escalated"], "second": ["escalated"]}


@pytest.mark.parametrize("event", ["acknowledge", "mitigate", "resolve", "cancel"])
def test_no_good_news_to_those_who_know_of_nothing(
    journal: SqliteJournal, clock: Clock, event: Any
) -> None:
    """A channel that is new in the plan, or that was below the severity."""
    keep(journal, channel("worst", at_least=1))
    book = book_of(journal, clock)
    name = book.open(opening(severity=2)).id
    keep(journal, channel("worst", at_least=1), channel("new"))
    book.move(name, event)
    book.note(name, "news", kind="update")
    assert kinds(journal) == {}


def test_what_was_refused_was_not_told(journal: SqliteJournal, clock: Clock) -> None:
    """The end is not told where the beginning was refused; worse news is."""
    keep(journal, channel("team"))
    book = book_of(journal, clock)
    name = book.open(opening(severity=2)).id
    outbox = Outbox(journal, clock=clock)
    (entry,) = outbox.pending(KIND)
    outbox.refused(entry, "no")
    book.move(name, "mitigate")
    assert kinds(journal) == {}
    book.move(name, "reopen")
    book.move(name, "resolve")
    assert kinds(journal) == {"team": ["reopened", "resolved"]}


def test_another_service_is_another_matter(journal: SqliteJournal, clock: Clock) -> None:
    """An incident is told as the plan of its service and environment says, or to nobody."""
    keep(journal, channel("team"))
    book = book_of(journal, clock)
    book.open(opening(service="wiki"))
    book.open(opening(environment="staging"))
    assert kinds(journal) == {}


def test_a_repeated_write_is_told_once(journal: SqliteJournal, clock: Clock) -> None:
    """The same key again changes nothing, and tells nothing."""
    keep(journal, channel("team"))
    book = book_of(journal, clock)
    name = book.open(opening(), key="deploy/1").id
    assert book.open(opening(), key="deploy/1").id == name
    assert kinds(journal) == {"team": ["opened"]}
