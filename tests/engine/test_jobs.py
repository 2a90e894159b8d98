"""A job that dies anywhere is entered again, and joins what it has left: a real host program, a
real database, and processes that are killed."""

from __future__ import annotations

import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import deployguard
from deployguard import api
from deployguard.engine.remote import Remote
from deployguard.errors import EngineUnavailable, ExitCode, Interrupted
from deployguard.rollout.outcome import Event, Outcome
from deployguard.store.postgres import PostgresJournal
from tests.cli.conftest import Site
from tests.engine.processes import Processes
from tests.fleet.container import until
from tests.postgres import Postgres

BROKEN = 'raise SystemExit("no configuration")\n'


def deploy(
    site: Site,
    journal: PostgresJournal,
    engine: Processes,
    version: str,
    monkeypatch: pytest.MonkeyPatch,
    events: list[Event] | None = None,
) -> Outcome:
    """Deploy with jobs in the engine's processes."""
    monkeypatch.setattr(api, "_engine", lambda url, plan, journal: Remote(engine, journal))
    plan = deployguard.load(site.plan, version=version)
    listen = events.append if events is not None else None
    return deployguard.apply(plan, store=journal, engine=engine.url, listen=listen)


def killed(point: str) -> Processes:
    """An engine whose first process dies at a point."""
    return Processes({"controller": [{"point": f"{point} here", "action": "kill"}]})


def served(site: Site) -> str:
    """What the service answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{site.port}/", timeout=5) as answer:
        body: str = answer.read().decode()
    return body


@pytest.fixture
def live(site: Site, journal: PostgresJournal) -> Site:
    """v1 is live; v2 is good and v3 is not."""
    site.release("v2")
    site.release("v3", BROKEN)
    assert deployguard.apply(deployguard.load(site.plan), store=journal)
    return site


def test_a_deploy_and_a_rescue(
    live: Site, journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without an engine, with progress, evidence and history; the mailbox is empty then."""
    events: list[Event] = []
    good = deploy(live, journal, Processes(), "v2", monkeypatch, events)
    assert good.exit_code == ExitCode.COMMITTED, good.summary
    assert "v2" in served(live)
    steps = [(event.phase, event.status) for event in events if event.host == "here"]
    assert steps.index(("connect", "done")) < steps.index(("stage", "done"))
    assert steps.index(("stage", "done")) < steps.index(("commit", "done"))
    assert ("switch", "progress") in steps
    bad = deploy(live, journal, Processes(), "v3", monkeypatch)
    assert bad.exit_code == ExitCode.ROLLED_BACK, bad.summary
    assert "v2" in served(live)
    assert bad.forensics is not None and bad.hosts[0].forensics == bad.forensics
    assert next(found.component for found in bad.findings if found.critical) == "web"
    again = deploy(live, journal, Processes(), "v2", monkeypatch)
    assert again.status == "unchanged"
    rows = [row["status"] for row in journal.history(3)]
    assert rows == ["unchanged", "rolled_back", "committed"]
    assert journal.mailbox().run(bad.transaction) is None


@pytest.mark.parametrize(
    ("point", "version", "code"),
    [
        # Nobody has begun: the second entry does.
        pytest.param("before begin", "v2", ExitCode.COMMITTED, marks=pytest.mark.slow),
        # The host has dropped what was staged, or goes back.
        pytest.param("after begin", "v2", ExitCode.ROLLED_BACK, marks=pytest.mark.slow),
        pytest.param("after stage", "v2", ExitCode.ROLLED_BACK, marks=pytest.mark.slow),
        pytest.param("after arm", "v2", ExitCode.ROLLED_BACK, marks=pytest.mark.slow),
        ("after switch", "v2", ExitCode.ROLLED_BACK),
        # The vote stands, told or not.
        ("after prepare", "v2", ExitCode.COMMITTED),
        pytest.param("before commit", "v2", ExitCode.COMMITTED, marks=pytest.mark.slow),
        pytest.param("after commit", "v2", ExitCode.COMMITTED, marks=pytest.mark.slow),
        # What has begun to go back goes back.
        pytest.param("before restore", "v3", ExitCode.ROLLED_BACK, marks=pytest.mark.slow),
        pytest.param("after restore", "v3", ExitCode.ROLLED_BACK, marks=pytest.mark.slow),
    ],
)
def test_a_worker_dies(
    live: Site,
    journal: PostgresJournal,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    version: str,
    code: ExitCode,
) -> None:
    """The second entry joins the first; nothing is unfinished then."""
    engine = killed(point)
    outcome = deploy(live, journal, engine, version, monkeypatch)
    assert engine.entries == 2
    assert outcome.exit_code == code, outcome.summary
    assert ("v2" if outcome else "v1") in served(live)
    plan = deployguard.load(live.plan, version=version)
    assert deployguard.recover(plan, store=journal).summary == "nothing is unfinished"


def test_an_engine_that_is_gone(
    live: Site, journal: PostgresJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a deploy: the controller brings the host back over its own connection."""
    wait = {"point": "after switch here", "action": "wait", "path": str(tmp_path / "waits")}
    engine = Processes({"controller": [wait]})

    def listen(event: Event) -> None:
        if (event.phase, event.status) == ("switch", "started"):
            engine.collapse()

    monkeypatch.setattr(api, "_engine", lambda url, plan, journal: Remote(engine, journal))
    plan = deployguard.load(live.plan, version="v2")
    outcome = deployguard.apply(plan, store=journal, engine=engine.url, listen=listen)
    assert outcome.exit_code == ExitCode.ROLLED_BACK, outcome.summary
    assert "v1" in served(live)
    notes = [event.message for event in outcome.timeline if event.status == "note"]
    assert any("taken over from here" in note for note in notes), notes
    assert deployguard.recover(plan, store=journal).summary == "nothing is unfinished"


def test_a_database_that_is_gone(
    live: Site,
    journal: PostgresJournal,
    server: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For good, in the middle of a switch: no host hears of a decision, and it is brought back."""
    wait = {"point": "after switch here", "action": "wait", "path": str(tmp_path / "waits")}
    engine = Processes({"controller": [wait]})
    impatient = PostgresJournal(server.url, patience=0.5)

    def listen(event: Event) -> None:
        if (event.phase, event.status) == ("switch", "started"):
            server.stop()

    monkeypatch.setattr(api, "_engine", lambda url, plan, journal: Remote(engine, impatient))
    plan = deployguard.load(live.plan, version="v2")
    try:
        outcome = deployguard.apply(plan, store=impatient, engine=engine.url, listen=listen)
    finally:
        engine.collapse()
        server.start()
        impatient.close()
    assert outcome.exit_code == ExitCode.ROLLED_BACK, outcome.summary
    assert "the journal database cannot be used" in outcome.hosts[0].error
    assert "v1" in served(live)
    assert deployguard.recover(plan, store=journal).exit_code == ExitCode.COMMITTED


def test_nobody_listens(
    live: Site, journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong with those who hear the jobs: nobody waits for an answer for ever."""
    engine = Processes()
    broken = threading.Event()

    def listen(event: Event) -> None:
        if event.phase == "stage" and event.status == "started" and not broken.is_set():
            broken.set()
            raise BrokenPipeError("nobody reads what is shown")

    monkeypatch.setattr(api, "_engine", lambda url, plan, journal: Remote(engine, journal))
    plan = deployguard.load(live.plan, version="v2")
    outcome = deployguard.apply(plan, store=journal, engine=engine.url, listen=listen)
    assert outcome.exit_code == ExitCode.ROLLED_BACK, outcome.summary
    assert "nobody listens" in outcome.hosts[0].error
    assert "v1" in served(live)
    assert deployguard.recover(plan, store=journal).summary == "nothing is unfinished"


def test_a_terminal_that_takes_no_more(
    live: Site, journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shows the progress may be held up: the controller shows its jobs that it is there."""
    beats: list[int] = []

    def listen(event: Event) -> None:
        if (event.phase, event.status) == ("stage", "started"):
            other = PostgresJournal(journal.url)
            mailbox = other.mailbox()
            (transaction,) = journal.unended("")

            def grown() -> bool:
                run = mailbox.run(transaction)
                assert run is not None
                beats.append(run.beats)
                return beats[-1] > beats[0] + 2

            assert until(grown, time.monotonic() + 60, 0.1)
            other.close()

    engine = Processes()
    monkeypatch.setattr(api, "_engine", lambda url, plan, journal: Remote(engine, journal))
    plan = deployguard.load(live.plan, version="v2")
    outcome = deployguard.apply(plan, store=journal, engine=engine.url, listen=listen)
    assert beats[-1] > beats[0] + 2
    assert outcome.exit_code == ExitCode.COMMITTED, outcome.summary


def test_interrupted_before_it_begins(
    live: Site, journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the workers are asked: no job is made, and it ends with 7."""
    engine = Processes()
    stop = threading.Event()

    def interrupted(*_: object) -> dict[str, str]:
        stop.set()
        raise Interrupted("interrupted")

    monkeypatch.setattr(engine, "problems", interrupted)
    monkeypatch.setattr(api, "_engine", lambda url, plan, journal: Remote(engine, journal))
    plan = deployguard.load(live.plan, version="v2")
    outcome = deployguard.apply(plan, store=journal, engine=engine.url, stop=stop)
    assert outcome.exit_code == ExitCode.INTERRUPTED, outcome.summary
    assert engine.entries == 0
    assert deployguard.recover(plan, store=journal).summary == "nothing is unfinished"


def test_workers_that_cannot_deploy(
    live: Site, journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each says why; no host hears of it."""
    monkeypatch.setenv("DEPLOYGUARD_JOURNAL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setattr("deployguard.engine.workers._PATIENCE", 0.1)
    with pytest.raises(EngineUnavailable, match="here: the journal database cannot be used"):
        deploy(live, journal, Processes(), "v2", monkeypatch)
    assert "v1" in served(live)
    assert journal.history(1)[0]["exit_code"] == ExitCode.REFUSED


def test_what_an_engine_is_given(
    live: Site, journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It carries no password and nothing of the plan, in whatever form it passes a job on."""
    with_password = PostgresJournal(journal.url.replace("deployer@", "deployer:sentinel0word@"))
    engine = Processes()
    outcome = deploy(live, with_password, engine, "v2", monkeypatch)
    with_password.close()
    assert outcome.exit_code == ExitCode.COMMITTED, outcome.summary
    (carried,) = engine.carried
    assert b"sentinel0word" not in carried and str(live.root).encode() not in carried
    assert b"here" in carried


def test_what_a_job_shows_of_itself() -> None:
    """Engines log what they are given."""
    from deployguard.engine.job import HostJob

    job: Any = HostJob("20261121T000000-shop-abc", "web1", "postgresql://db/x", b"k" * 32, 60.0)
    assert "kkkk" not in repr(job) and "web1" in repr(job)
