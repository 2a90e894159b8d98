"""The journal that several controllers share, against a real server that goes and comes back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.errors import JournalUnavailable, UsageError
from deployguard.store.journal import Journal
from deployguard.store.opening import open_journal
from deployguard.store.postgres import PostgresJournal
from tests.cli.outcomes import rolled_back
from tests.postgres import Postgres


@pytest.fixture
def journal(server: Postgres) -> Iterator[Journal]:
    """Empty, and one that does not wait for long."""
    opened = PostgresJournal(server.url, patience=20.0)
    opened._database.do("TRUNCATE deployguard_transactions CASCADE")
    yield opened
    opened.close()


def begin(journal: Journal, name: str, at: float = 1.0, plan: str = "shop") -> None:
    """A transaction that has begun."""
    about = {"plan": plan, "version": "v2", "environment": "production"}
    who = {"source": "plan.yaml", "owner": "ann@laptop"}
    journal.begin({"id": name, "started_at": at, **about, **who}, ["web1", "web2"])


def test_a_transaction_from_begin_to_end(journal: Journal) -> None:
    """What one controller writes the other reads."""
    begin(journal, "one")
    begin(journal, "two", at=2.0, plan="wiki")
    assert journal.unended("shop") == ["one"] and journal.unended("") == ["one", "two"]
    assert journal.decision("one") is None
    assert journal.decide("one", "abort") == "abort"
    assert journal.decide("one", "commit") == "abort"
    outcome = rolled_back().as_dict()
    outcome["summary"] = "web1: a file named \0 and \udcff"
    journal.end("one", outcome)
    other = PostgresJournal(journal.url)  # type: ignore[attr-defined]
    found = other.get("one")
    assert found is not None and found["hosts"] == ["web1", "web2"]
    assert found["exit_code"] == 3 and found["summary"] == "web1: a file named \\0 and \\udcff"
    assert found["outcome"]["status"] == "rolled_back"
    assert [row["id"] for row in other.history()] == ["two", "one"]
    assert [row["id"] for row in other.history(1)] == ["two"]
    assert [row["id"] for row in other.history(plan="shop")] == ["one"]
    assert other.unended("shop") == [] and other.get("three") is None
    assert other.named("o") == ["one"] and other.named("") == ["one", "two"]
    other.close()


def test_debts(journal: Journal) -> None:
    """Kept until they are settled, the first reason stands."""
    begin(journal, "one")
    journal.owe("one", {"web1": "no route", "web2": "refused"})
    journal.owe("one", {"web1": "another reason"})
    assert [(d["host"], d["reason"]) for d in journal.debts()] == [
        ("web1", "no route"),
        ("web2", "refused"),
    ]
    journal.settled("one", ["web1", "web9"])
    assert [debt["host"] for debt in journal.debts()] == ["web2"]


def test_overrides(journal: Journal) -> None:
    """Once, whoever looks; with NUL and half of a surrogate pair in the words of a host."""
    begin(journal, "one")
    words = ["a file named \0 and \udcff"]
    override = {"guard": "drift", "reason": "mine", "by": "ann@laptop", "refused": words}
    journal.override("one", [override])
    journal.override("one", [override])
    (row,) = journal.history()
    assert [(each["guard"], each["reason"]) for each in row["overrides"]] == [("drift", "mine")]
    whole = journal.get("one")
    assert whole is not None and whole["outcome"] is None
    assert whole["overrides"][0]["refused"] == ["a file named \\0 and \\udcff"]


def test_many_decide_at_once(journal: Journal, server: Postgres) -> None:
    """One record stands; everybody is told that one."""
    begin(journal, "one")
    wishes = ["commit", "abort"] * 4
    start, told = threading.Barrier(len(wishes)), []

    def wish(decision: str) -> None:
        mine = PostgresJournal(server.url)
        start.wait()
        told.append(mine.decide("one", decision))
        mine.close()

    threads = [threading.Thread(target=wish, args=(decision,)) for decision in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == len(wishes) and set(told) == {journal.decision("one")}


def test_a_server_that_crashes_and_comes_back(journal: Journal, server: Postgres) -> None:
    """A statement waits for it, and what was answered before the crash is still there."""
    begin(journal, "one")
    assert journal.decide("one", "commit") == "commit"
    server.stop()
    back = threading.Thread(target=server.start)
    back.start()
    assert journal.decide("one", "abort") == "commit"
    back.join()


def test_a_server_that_is_gone_for_good(server: Postgres) -> None:
    """One error that says what to do; no hanging."""
    journal = PostgresJournal(server.url, patience=0.3)
    begin(journal, "gone")
    server.stop()
    with pytest.raises(JournalUnavailable, match="cannot be used") as caught:
        journal.decide("gone", "commit")
    assert "deployguard recover" in caught.value.hint
    with pytest.raises(JournalUnavailable):
        PostgresJournal(server.url, patience=0.3)


def test_a_server_that_does_not_answer(server: Postgres) -> None:
    """Frozen, and its kernel answers for it: that counts as away, and it is asked anew."""
    journal = PostgresJournal(server.url, answer_within=1.0)
    begin(journal, "frozen")
    (row,) = journal.read("SELECT pg_backend_pid() AS pid")
    os.kill(row["pid"], signal.SIGSTOP)
    try:
        assert journal.decide("frozen", "abort") == "abort"
        (again,) = journal.read("SELECT pg_backend_pid() AS pid")
        assert again["pid"] != row["pid"]
    finally:
        os.kill(row["pid"], signal.SIGCONT)
        journal.close()


def test_nobody_waits_who_has_to_leave(server: Postgres) -> None:
    """A signal ends the wait for a database that is away."""
    journal = PostgresJournal(server.url, patience=3600.0)
    begin(journal, "left")
    stop = threading.Event()
    journal.heed(stop)
    server.stop()
    said: list[str] = []

    def decide() -> None:
        try:
            journal.decide("left", "abort")
        except JournalUnavailable as error:
            said.append(error.message)

    waiting = threading.Thread(target=decide, daemon=True)
    waiting.start()
    stop.set()
    waiting.join(60)
    assert len(said) == 1 and "cannot be used" in said[0]
    server.start()


def test_a_url_that_is_none_is_not_repeated() -> None:
    """What is wrong with it is told, and there may be a password in it."""
    with pytest.raises(JournalUnavailable, match="cannot be used") as caught:
        PostgresJournal("postgresql://ann:secret0word@[::1/x")
    assert "secret0word" not in caught.value.message


@pytest.mark.parametrize("name", ["nosuch", "no%20such"])
def test_a_database_that_is_not_there(server: Postgres, name: str) -> None:
    """It is not waited for."""
    url = server.url.rpartition("/")[0] + "/" + name
    with pytest.raises(JournalUnavailable, match="does not exist"):
        open_journal(url)


@pytest.mark.parametrize("url", ["mysql://db/x", "journal.db", "//db"])
def test_no_url_of_a_journal(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A usage error that shows what one looks like."""
    monkeypatch.setenv("DEPLOYGUARD_STATE", str(tmp_path))
    with pytest.raises(UsageError, match="postgresql://"):
        open_journal(url)
    monkeypatch.setenv("DEPLOYGUARD_JOURNAL", url)
    with pytest.raises(UsageError, match="postgresql://"):
        open_journal()
    monkeypatch.delenv("DEPLOYGUARD_JOURNAL")
    assert open_journal().path == tmp_path / "journal.db"
