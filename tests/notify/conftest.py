"""A store with the notifications of a shop, and a channel of each kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployguard.incidents.book import Book
from deployguard.incidents.entries import Opening
from deployguard.notify import http
from deployguard.notify.announce import Announcer
from deployguard.notify.settings import ChannelSettings, Settings
from deployguard.store.journal import SqliteJournal
from deployguard.store.work import Work
from tests.notify.peer import Peer
from tests.notify.places import PLACES, Place

SENTINEL = "sentinel-7f3a9c-of-the-database"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here needs seconds for an answer; those who never answer are not waited for."""
    monkeypatch.setattr(http, "TIMEOUT", 5.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """The channel that the test names; nothing may be wrong with its requests at the end."""
    folder = tmp_path / "peer"
    folder.mkdir()
    with PLACES[request.param](folder) as made:
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        yield made
        if isinstance(made.peer, Peer):
            assert made.peer.violations == []


class Clock:
    """Moved by hand, and by those who sleep on it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Time goes by."""
        self.now += seconds


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    """An empty store."""
    opened = quick(SqliteJournal(tmp_path / "journal.db"))
    yield opened
    opened.close()


def quick(journal: SqliteJournal) -> SqliteJournal:
    """The same without waiting for the disk: what dies here is a process, and no machine."""
    journal.connection.execute("PRAGMA synchronous=OFF")
    return journal


def keep(journal: Any, *channels: ChannelSettings, **more: Any) -> Settings:
    """Have a store know the notifications of the shop."""
    settings = Settings("shop", "production", "Acme Shop", channels=channels, **more)

    def within(work: Work) -> None:
        work.do(
            "INSERT INTO @notify_plans VALUES ('shop', 'production', :settings, 0) "
            "ON CONFLICT (service, environment) DO UPDATE SET settings = excluded.settings",
            {"settings": json.dumps(settings.as_dict())},
        )

    journal.transact(within)
    return settings


def book_of(journal: Any, clock: Clock, clean: Any = lambda value: value) -> Book:
    """The book of incidents with the hook, as Ann writes in it."""
    return Book(journal, actor="ann", clean=clean, clock=clock, hooks=[Announcer(clean, clock)])


def opening(**changes: Any) -> Opening:
    """The shop is down."""
    values: dict[str, Any] = {
        "title": "API down",
        "severity": 1,
        "service": "shop",
        "environment": "production",
    }
    return Opening(**{**values, **changes})
