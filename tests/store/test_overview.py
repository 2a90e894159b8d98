"""Where each service stood last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployguard.store.journal import Journal, SqliteJournal
from deployguard.store.overview import newest_of_each, without_end
from deployguard.store.postgres import PostgresJournal


@pytest.fixture(params=["sqlite", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """A new journal of either kind."""
    opened: Journal
    if request.param == "sqlite":
        opened = SqliteJournal(tmp_path / "journal.db")
    else:
        opened = PostgresJournal(request.getfixturevalue("server").url)
    yield opened
    opened.close()


def deployed(journal: Journal, name: str, at: float, *, code: int | None, **more: Any) -> None:
    """A transaction that ended with a code, or has no end."""
    row = {"plan": "over", "version": "v1", "environment": "test", "source": "p", "owner": "o"}
    journal.begin({**row, **more, "id": name, "started_at": at}, ["web1"])
    if code is not None:
        end = {"ended_at": at + 1, "status": "committed", "exit_code": code, "summary": name}
        journal.end(name, end)


def test_the_newest_that_has_ended(journal: Journal) -> None:
    """One of each service and environment; what is at work is told apart."""
    deployed(journal, "over-2", 20.0, code=3)
    deployed(journal, "over-1", 10.0, code=0)
    deployed(journal, "over-3", 15.0, code=0, environment="live")
    deployed(journal, "over-5", 40.0, code=None)
    deployed(journal, "over-4", 30.0, code=None)
    found = [row for row in newest_of_each(journal) if row["plan"] == "over"]
    assert [(row["id"], row["environment"], row["exit_code"], row["summary"]) for row in found] == [
        ("over-3", "live", 0, "over-3"),
        ("over-2", "test", 3, "over-2"),
    ]
    begun = [row["id"] for row in without_end(journal) if row["plan"] == "over"]
    assert begun == ["over-4", "over-5"]
