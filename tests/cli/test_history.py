"""``history``: the list, and one transaction whole."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deployguard.plan.model import GitHubIncident, Plan
from deployguard.report import incident
from deployguard.rollout.outcome import Event, Outcome
from deployguard.store.journal import SqliteJournal
from tests.cli.conftest import Run, Site
from tests.cli.outcomes import host, rolled_back

BROKEN = 'raise SystemExit("no configuration")\n'
ID = "20261121T034622-shop-7f3a1c"


@pytest.fixture
def journal(deployguard: Run, tmp_path: Path) -> SqliteJournal:
    """The journal that the command line uses."""
    return SqliteJournal(tmp_path / "controller-state" / "journal.db")


def begin(journal: SqliteJournal, name: str, at: float = 1.0) -> None:
    """A transaction that has begun."""
    about = {"plan": "shop", "version": "v2", "environment": "production"}
    who = {"source": "my plan.yaml", "owner": "ann@laptop"}
    journal.begin({"id": name, "started_at": at, **about, **who}, ["web1", "web2"])


def test_one_transaction_whole(deployguard: Run, site: Site) -> None:
    """A failed deploy is told again from its id: the end, the hosts, what failed, every step."""
    assert deployguard("apply", site.plan).code == 0
    failed = deployguard("apply", site.plan, "--release", site.release("v2", BROKEN), "--json")
    outcome = failed.lines[-1]
    name = outcome["transaction"]
    shown = deployguard("history", name, "--json")
    assert shown.code == 0
    (line,) = shown.lines
    assert (line["type"], line["id"], line["decision"]) == ("transaction", name, "abort")
    said = {key: value for key, value in outcome.items() if key != "type"}
    assert line["outcome"] == said
    for words in (
        outcome["summary"],
        "here: web v1 (restored, files verified, healthy)",
        "no configuration",
        "exit code 3",
        "forensics: ",
        f"with {site.plan}",
        "here switch done",
        "here restore done: restored and verified",
    ):
        assert words in shown.err


def test_the_beginning_of_an_id_is_enough(deployguard: Run, journal: SqliteJournal) -> None:
    """Like git: the shortest prefix that only one has; else the candidates are named."""
    for name in (ID, "20261121T034622-shop-7f4000", "20261122T000000-shop-000000"):
        begin(journal, name)
    found = deployguard("history", "20261122", "--json")
    assert (found.code, found.lines[0]["id"]) == (0, "20261122T000000-shop-000000")
    several = deployguard("history", "20261121T034622-shop-7f")
    assert several.code == 2
    assert ID in several.err and "20261121T034622-shop-7f4000" in several.err
    for unknown in ("2025", "", "%"):
        none = deployguard("history", unknown)
        assert (none.code, none.out) == (2, "")
        assert "`deployguard history` lists them" in none.err


def test_one_that_never_ended(deployguard: Run, journal: SqliteJournal) -> None:
    """A run that was killed has no outcome: what is known is said, and who can say more."""
    begin(journal, ID)
    journal.decide(ID, "commit")
    ran = deployguard("history", ID)
    assert ran.code == 0
    for words in ("has no end here", "web1, web2", "decision: commit", "by ann@laptop"):
        assert words in ran.err
    assert "`deployguard status 'my plan.yaml'`" in ran.err


def test_an_outcome_of_another_version_is_shown(deployguard: Run, journal: SqliteJournal) -> None:
    """Fields that are new, or not there yet, keep nobody from reading an old record."""
    begin(journal, ID)
    record = rolled_back(transaction=ID).as_dict()
    del record["source"]
    record["new_field"] = record["hosts"][0]["new_field"] = 1
    journal.end(ID, record)
    ran = deployguard("history", ID)
    assert ran.code == 0
    assert "web1 web http: answered 503" in ran.err


def test_an_outcome_is_read_as_it_was_written() -> None:
    """From the record the very same outcome is made."""
    event = Event(time.time(), "switch", "done", "web1", "well", {"seconds": 1.0})
    written = rolled_back(timeline=(event,), hosts=(host("web1", seconds={"restore": 1.0}),))
    assert Outcome.from_dict(written.as_dict()) == written


def test_the_incident_names_the_command(deployguard: Run, journal: SqliteJournal) -> None:
    """What the issue tells people to run shows the transaction."""
    shown = rolled_back(transaction=ID)
    begin(journal, ID)
    journal.end(ID, shown.as_dict())
    plan = Plan.model_construct(name="shop")
    filed = incident.render(shown, plan, GitHubIncident(repo="acme/shop"), str)
    (line,) = [line for line in filed.body.splitlines() if "deployguard history" in line]
    _, *arguments = line.split("`")[1].split()
    ran = deployguard(*arguments)
    assert ran.code == 0
    assert shown.summary in ran.err


def test_a_damaged_journal_is_one_clear_error(deployguard: Run, journal: SqliteJournal) -> None:
    """No traceback and no bug report: the file, and what to do with it."""
    journal.close()
    journal.path.write_bytes(b"this was a journal once\n" * 1000)
    ran = deployguard("history")
    assert ran.code == 1
    assert f"error: the journal {journal.path} is damaged" in ran.err
    assert "hint: move it and" in ran.err
    assert "this is a bug" not in ran.err
