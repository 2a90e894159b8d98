"""The delivery itself: order, deadlines, pauses, ends, two at once, a process that is killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deployguard.delivery import Rejected, Undelivered
from deployguard.notify.announce import KIND, deployed
from deployguard.notify.delivery import LONGEST_PAUSE, flush
from deployguard.notify.message import Attempt, Receipt
from deployguard.notify.settings import ChannelSettings, Settings
from deployguard.store.journal import SqliteJournal
from deployguard.store.outbox import Outbox
from tests.notify.conftest import Clock, book_of, keep, opening, quick
from tests.notify.providers import SlackPeer
from tests.notify.test_routing import channel


@pytest.fixture
def clock() -> Clock:
    """Now."""
    return Clock(time.time())


class World:
    """What is sent where; ``troubles`` are raised first, by channel."""

    def __init__(self, **troubles: list[Exception]) -> None:
        self.said: list[str] = []
        self.receipts: list[Receipt | None] = []
        self.troubles = troubles

    def send(self, settings: ChannelSettings, attempt: Attempt) -> Receipt:
        """One message."""
        trouble = self.troubles.get(settings.name)
        if trouble:
            raise trouble.pop(0)
        self.said.append(f"{settings.name} {attempt.message.subject[-3:]} {attempt.message.kind}")
        self.receipts.append(attempt.receipt)
        return {"number": len(self.said)}


def test_a_receipt_is_given_to_the_next(journal: SqliteJournal, clock: Clock) -> None:
    """Of the same lane, and of no other."""
    keep(journal, channel("ops"))
    book, world = book_of(journal, clock), World()
    one, two = book.open(opening()).id, book.open(opening()).id
    book.move(one, "acknowledge")
    book.move(two, "acknowledge")
    flush(journal, clock=clock, send=world.send)
    assert world.said == ["ops 001 opened", "ops 002 opened", *world.said[2:]]
    assert sorted(world.said[2:]) == ["ops 001 acknowledged", "ops 002 acknowledged"]
    assert world.receipts == [None, None, {"number": 1}, {"number": 2}]


def test_one_that_fails_holds_back_its_own(journal: SqliteJournal, clock: Clock) -> None:
    """Another channel goes on; what comes after it on the channel waits, and keeps its order."""
    keep(journal, channel("bad", deadline=5.0), channel("good"))
    book = book_of(journal, clock)
    name = book.open(opening()).id
    book.move(name, "mitigate")
    world = World(bad=[Undelivered("down")] * 3)
    told = flush(journal, clock=clock, monotonic=clock, sleep=clock.sleep, send=world.send)
    assert world.said == ["good 001 opened", "good 001 mitigated"]
    assert {(one.channel, one.state, one.said) for one in told if one.channel == "bad"} == {
        ("bad", "pending", "down"),
        ("bad", "pending", ""),
    }
    clock.now += 60
    flush(journal, clock=clock, monotonic=clock, sleep=clock.sleep, send=world.send)
    assert world.said[2:] == ["bad 001 opened", "bad 001 mitigated"]


def test_the_pauses_grow(journal: SqliteJournal, clock: Clock) -> None:
    """1, 2, 4, … seconds up to a quarter of an hour; as long as the other side wants, if longer."""
    keep(journal, channel("ops", deadline=100_000.0, expires=1e9))
    book_of(journal, clock).open(opening())
    times: list[float] = []

    def send(_: ChannelSettings, attempt: Attempt) -> Receipt:
        times.append(clock.now)
        if len(times) == 14:
            return {}
        raise Undelivered("busy", retry_after=5000.0 if len(times) == 13 else None)

    flush(journal, clock=clock, monotonic=clock, sleep=clock.sleep, send=send)
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 5000]
    assert max(pauses[:-1]) == LONGEST_PAUSE


def test_what_is_not_due_is_left_alone(journal: SqliteJournal, clock: Clock) -> None:
    """Until its time; a person who asks for it does not wait."""
    keep(journal, channel("ops", deadline=1.0))
    book_of(journal, clock).open(opening())
    world = World(ops=[Undelivered("busy", retry_after=600)])
    flush(journal, clock=clock, monotonic=clock, sleep=clock.sleep, send=world.send)
    (told,) = flush(journal, clock=clock, monotonic=clock, sleep=clock.sleep, send=world.send)
    assert (told.attempts, world.said) == (1, [])
    (told,) = flush(journal, clock=clock, retry=True, send=world.send)
    assert (told.state, world.said) == ("delivered", ["ops 001 opened"])


def test_one_channel_that_hangs_delays_no_other(journal: SqliteJournal, clock: Clock) -> None:
    """It is let go only when the other one has had everything."""
    keep(journal, channel("slow"), channel("quick"))
    book = book_of(journal, clock)
    name = book.open(opening()).id
    book.move(name, "mitigate")
    through = threading.Event()
    world = World()

    def send(settings: ChannelSettings, attempt: Attempt) -> Receipt:
        if settings.name == "slow":
            assert through.wait(60)
        receipt = world.send(settings, attempt)
        if world.said[-1] == "quick 001 mitigated":
            through.set()
        return receipt

    flush(journal, clock=clock, send=send)
    assert world.said[:2] == ["quick 001 opened", "quick 001 mitigated"]
    assert world.said[2:] == ["slow 001 opened", "slow 001 mitigated"]


def test_what_is_too_old_is_given_up(journal: SqliteJournal, clock: Clock) -> None:
    """With what kept it back; the end of it is not told either."""
    keep(journal, channel("ops", deadline=1.0, expires=600.0))
    book = book_of(journal, clock)
    name = book.open(opening()).id
    world = World(ops=[Undelivered("down")])
    flush(journal, clock=clock, monotonic=clock, sleep=clock.sleep, send=world.send)
    book.move(name, "mitigate")
    clock.now += 601
    states = {
        one.kind: (one.state, one.said)
        for one in flush(journal, clock=clock, retry=True, send=world.send)
    }
    assert states["opened"] == ("rejected", "it did not arrive in time; down")
    assert states["mitigated"][0] in ("rejected", "skipped")
    assert world.said == []


def test_a_refused_beginning(journal: SqliteJournal, clock: Clock) -> None:
    """What waits behind it is skipped where it is good news, and sent where it is not."""
    keep(journal, channel("ops"))
    book = book_of(journal, clock)
    name = book.open(opening()).id
    for event in ("acknowledge", "mitigate", "reopen", "resolve"):
        clock.now += 1
        book.move(name, event)  # type: ignore[arg-type]
    world = World(ops=[Rejected("no such channel", "mend it")])
    told = flush(journal, clock=clock, send=world.send)
    assert [(one.kind, one.state) for one in told] == [
        ("opened", "rejected"),
        ("acknowledged", "skipped"),
        ("mitigated", "skipped"),
        ("reopened", "delivered"),
        ("resolved", "delivered"),
    ]
    assert told[0].said == "no such channel (mend it)"
    assert told[1].said == "nobody there was told of the trouble"


def test_a_bug_in_a_channel(journal: SqliteJournal, clock: Clock) -> None:
    """It costs its own message a try; its text, which may hold anything, is not kept."""
    keep(journal, channel("ops", deadline=1.0), channel("good"))
    book_of(journal, clock).open(opening())
    world = World(ops=[KeyError("xoxb-secret")])
    told = {
        one.channel: one
        for one in flush(journal, clock=clock, monotonic=clock, sleep=clock.sleep, send=world.send)
    }
    assert told["good"].state == "delivered"
    assert told["ops"].said.startswith("unforeseen KeyError at test_delivery.py:")
    assert "xoxb" not in told["ops"].said


def test_the_plan_is_mended_meanwhile(journal: SqliteJournal, clock: Clock) -> None:
    """What waits is sent as the plan says now."""
    keep(journal, channel("ops", deadline=1.0, options={"url": "old"}))
    book_of(journal, clock).open(opening())
    seen: list[str] = []

    def send(settings: ChannelSettings, attempt: Attempt) -> Receipt:
        seen.append(settings.options["url"])
        if len(seen) == 1:
            raise Undelivered("gone", retry_after=60)
        return {}

    flush(journal, clock=clock, send=send)
    keep(journal, channel("ops", options={"url": "new"}))
    flush(journal, clock=clock, retry=True, send=send)
    assert seen == ["old", "new"]


def test_two_at_once(journal: SqliteJournal, clock: Clock, tmp_path: Path) -> None:
    """While one delivers another waits for it, and then finds nothing left to do."""
    keep(journal, channel("ops"))
    book_of(journal, clock).open(opening())
    other = quick(SqliteJournal(tmp_path / "journal.db"))
    world = World()
    seen: list[Any] = []
    waiting = threading.Event()

    def second() -> None:
        seen.append(flush(other, clock=clock, send=world.send, sleep=lambda _: waiting.set()))

    thread = threading.Thread(target=second)

    def send(settings: ChannelSettings, attempt: Attempt) -> Receipt:
        thread.start()
        assert waiting.wait(60)
        return world.send(settings, attempt)

    assert [one.state for one in flush(journal, clock=clock, send=send)] == ["delivered"]
    thread.join(60)
    assert (seen, world.said) == ([[]], ["ops 001 opened"])
    other.close()


def test_the_end_of_a_deploy(journal: SqliteJournal, clock: Clock) -> None:
    """To those that want it, once; a failed one that is an incident only as a change."""
    settings = keep(
        journal,
        channel("team", deploys=True),
        channel("oncall", "pagerduty", deploys=True),
        channel("boss"),
    )

    def end(transaction: str, **changes: Any) -> int:
        values = {
            "transaction": transaction,
            "version": "v2",
            "summary": "v2 is live",
            "ended_at": clock.now,
            "committed": True,
            "incident": "",
        }
        return deployed(
            journal, settings, {**values, **changes}, clean=lambda value: value, clock=clock
        )

    assert end("001") == 2
    assert end("001") == 0
    assert end("002", committed=False, incident="INC-1") == 1
    world = World()
    flush(journal, clock=clock, send=world.send)
    assert sorted(world.said) == [
        *("oncall 001 deployed", "oncall 002 deploy_failed", "team 001 deployed"),
    ]
    assert isinstance(settings, Settings)


DOOMED = """
import os, signal, sys, time
from deployguard.incidents.book import Book
from deployguard.incidents.entries import Opening
from deployguard.notify.announce import Announcer
from deployguard.notify.delivery import flush
from deployguard.notify.registry import channel_of
from deployguard.store.journal import SqliteJournal

file, where = sys.argv[1:]
journal = SqliteJournal(file)
clean = lambda value: value
book = Book(journal, actor="ann", hooks=[Announcer(clean, time.time)])
book.open(Opening("API down", 1, service="shop", environment="production"), key="one")

def send(settings, attempt):
    if where == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    receipt = channel_of(settings).send(attempt)
    if where == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return receipt

flush(journal, send=send)
"""


@pytest.mark.parametrize("where", ["before", "after", "never"])
def test_a_process_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """SIGKILL around the request to a real server: the next process finishes, and posts nothing
    twice."""
    peer = SlackPeer()
    monkeypatch.setenv("SLACK_TOKEN", peer.secret)
    options = {"token_env": "SLACK_TOKEN", "channel": peer.channel, "base_url": f"{peer.url}/api"}
    file = tmp_path / "journal.db"
    journal = SqliteJournal(file)
    keep(journal, channel("ops", "slack", options=options))

    def run(when: str) -> int:
        argv = [sys.executable, "-c", DOOMED, str(file), when]
        return subprocess.run(argv, check=False).returncode

    assert run(where) == (0 if where == "never" else -signal.SIGKILL)
    assert run("never") == 0
    assert len(peer.messages) == 1
    (entry,) = Outbox(journal, clock=time.time).newest(KIND, 5)
    assert entry.state == "delivered"
    assert entry.result["ts"] == peer.messages[0]["ts"]
    assert os.stat(file).st_mode & 0o077 == 0
    journal.close()
    peer.close()
