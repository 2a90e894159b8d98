"""The journal on this machine: one record of a decision, whoever writes, and clear errors."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from deployguard.errors import ExitCode, InternalError
from deployguard.store.journal import SqliteJournal
from tests.cli.outcomes import rolled_back

NOBODY = 65534
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the journal goes; its folder is not there yet."""
    return tmp_path / "state" / "journal.db"


def begin(journal: SqliteJournal, name: str, at: float = 1.0, plan: str = "shop") -> None:
    """A transaction that has begun."""
    about = {"plan": plan, "version": "v2", "environment": "production"}
    who = {"source": "plan.yaml", "owner": "ann@laptop"}
    journal.begin({"id": name, "started_at": at, **about, **who}, ["web1", "web2"])


def _decide(file: Path, wish: str, start: Barrier, answers: Any) -> None:
    start.wait()
    answers.put((wish, SqliteJournal(file).decide("one", wish)))


def test_two_processes_decide_at_once(file: Path) -> None:
    """One record stands; everybody is told that one, whoever asked for what."""
    wishes = ["commit", "abort"] * 4
    for _ in range(5):
        for old in file.parent.glob("*"):
            old.unlink()
        start, answers = FORK.Barrier(len(wishes)), FORK.Queue()
        # The file itself is made by all of them at once as well.
        children = [FORK.Process(target=_decide, args=(file, w, start, answers)) for w in wishes]
        for child in children:
            child.start()
        told = [answers.get(timeout=30) for _ in wishes]
        for child in children:
            child.join()
        journal = SqliteJournal(file)
        assert {answer for _, answer in told} == {journal.decision("one")}
        journal.close()


def test_a_decision_is_not_changed(file: Path) -> None:
    """Who comes second is answered with what stands."""
    journal = SqliteJournal(file)
    assert journal.decision("one") is None
    assert journal.decide("one", "abort") == "abort"
    assert journal.decide("one", "commit") == "abort"
    assert SqliteJournal(file).decision("one") == "abort"


def test_history_is_newest_first_and_by_plan(file: Path) -> None:
    """The order is that of the beginnings, not of the ids; limit and plan narrow it."""
    journal = SqliteJournal(file)
    begin(journal, "b", at=3.0)
    begin(journal, "a", at=1.0)
    begin(journal, "c", at=2.0, plan="wiki")
    assert [row["id"] for row in journal.history()] == ["b", "c", "a"]
    assert [row["id"] for row in journal.history(limit=1)] == ["b"]
    assert [row["id"] for row in journal.history(plan="shop")] == ["b", "a"]
    assert journal.history(plan="nobody's") == []
    first = journal.history()[0]
    assert (first["status"], first["hosts"], first["ended_at"]) == (
        "running",
        ["web1", "web2"],
        None,
    )


def test_an_end_is_read_as_it_was_written(file: Path) -> None:
    """The whole outcome is there for another process, names that are no UTF-8 included."""
    journal = SqliteJournal(file)
    begin(journal, "one")
    outcome = rolled_back(transaction="one", summary="file caf\udce9 was changed").as_dict()
    journal.end("one", outcome)
    found = SqliteJournal(file).get("one")
    assert found is not None
    assert (found["status"], found["exit_code"]) == ("rolled_back", int(ExitCode.ROLLED_BACK))
    assert found["summary"] == "file caf\\udce9 was changed"
    assert found["outcome"]["summary"] == "file caf\udce9 was changed"
    assert journal.get("another") is None


def test_ids_by_their_beginning(file: Path) -> None:
    """All that begin so, and no pattern; the one that is exactly it stands alone."""
    journal = SqliteJournal(file)
    for name in ("20-a", "20-ab", "21-a"):
        begin(journal, name)
    assert journal.named("20-a") == ["20-a"]
    assert journal.named("20") == ["20-a", "20-ab"]
    assert journal.named("2", limit=2) == ["20-a", "20-ab"]
    assert journal.named("%") == journal.named("2_") == []


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_only_its_owner_reads_it(file: Path, mask: int) -> None:
    """The file, what SQLite keeps beside it, and the folder; also one that was open before."""
    before = os.umask(mask)
    try:
        journal = SqliteJournal(file)
        begin(journal, "one")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
        assert "journal.db-wal" in modes
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        journal.close()
        file.chmod(0o644)
        SqliteJournal(file).close()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_the_journal_of_a_newer_version(file: Path) -> None:
    """It is left alone: who wrote it knows more of it than we do."""
    SqliteJournal(file).close()
    with sqlite3.connect(file) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(InternalError, match="written by a newer deployguard") as caught:
        SqliteJournal(file)
    assert caught.value.hint == "upgrade deployguard"


def test_the_journal_of_an_older_version(file: Path) -> None:
    """What it lacks is added, and what it has stays."""
    old = SqliteJournal(file)
    begin(old, "one")
    old.decide("one", "commit")
    old.connection.executescript("DROP TABLE debts; PRAGMA user_version = 1;")
    old.close()
    journal = SqliteJournal(file)
    journal.owe("one", {"web1": "it went away"})
    assert [debt["host"] for debt in journal.debts()] == ["web1"]
    assert journal.decision("one") == "commit"


@pytest.mark.parametrize("damage", ["no database", "a hole"])
def test_a_damaged_file(file: Path, damage: str) -> None:
    """One error that says which file and what to do, when it is opened or when it is read."""
    journal = SqliteJournal(file)
    for number in range(200):
        begin(journal, f"transaction-{number}", at=number)
    journal.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal.close()
    size = file.stat().st_size
    with file.open("r+b") as damaged:
        if damage == "a hole":
            damaged.seek(4096)
            damaged.write(b"\xff" * (size - 4096))
        else:
            damaged.write(b"this was a journal once\n" * 10)
    with pytest.raises(InternalError) as caught:
        SqliteJournal(file).history(limit=1000)
    assert f"the journal {file} is damaged: " in caught.value.message
    assert f"move it and {file}-wal away" in caught.value.hint
    # The mend mends it.
    file.rename(f"{file}.damaged")
    assert SqliteJournal(file).history() == []


@pytest.fixture
def powerless() -> Iterator[None]:
    """Not root, for whom no folder is closed."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written(tmp_path: Path, powerless: None) -> None:
    """The file is named, and the variable that names another place."""
    closed = Path("/usr") if os.geteuid() == NOBODY else tmp_path
    if closed == tmp_path:
        tmp_path.chmod(0o500)
    file = closed / "state" / "journal.db"
    with pytest.raises(InternalError) as caught:
        SqliteJournal(file)
    assert f"the journal {file} cannot be used: [Errno 13]" in caught.value.message
    assert "DEPLOYGUARD_STATE" in caught.value.hint


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    """The same for whatever else is in the way."""
    (tmp_path / "state").write_text("not a folder")
    with pytest.raises(InternalError, match="cannot be used: "):
        SqliteJournal(tmp_path / "state" / "journal.db")


def test_somebody_keeps_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is not given back is an error after a while, and says who to look for."""
    monkeypatch.setattr("deployguard.store.journal._PATIENCE", 0.1)
    journal = SqliteJournal(file)
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InternalError, match="another program has held") as caught:
            begin(journal, "one")
    assert f"fuser {file}" in caught.value.hint


OVERRIDE = {"guard": "ci", "reason": "down", "by": "ann@laptop", "refused": ["v2 is not green"]}


def test_overrides(file: Path) -> None:
    """They are in the history at once, whatever becomes of the deploy; once, if told twice."""
    journal = SqliteJournal(file)
    begin(journal, "one")
    begin(journal, "two", at=2.0)
    journal.override("one", [OVERRIDE, {**OVERRIDE, "guard": "window"}])
    journal.override("one", [OVERRIDE])
    two, one = SqliteJournal(file).history()
    assert two["overrides"] == []
    assert [each["guard"] for each in one["overrides"]] == ["ci", "window"]
    whole = journal.get("one")
    assert whole is not None and OVERRIDE.items() <= whole["overrides"][0].items()


def test_a_journal_that_knows_no_overrides(file: Path) -> None:
    """Made by the version before: the table is added."""
    old = SqliteJournal(file)
    begin(old, "one")
    old.connection.executescript("DROP TABLE overrides; PRAGMA user_version = 2;")
    old.close()
    journal = SqliteJournal(file)
    journal.override("one", [OVERRIDE])
    assert journal.history()[0]["overrides"][0]["reason"] == "down"
