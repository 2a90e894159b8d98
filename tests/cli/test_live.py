"""What is to be seen of a transaction while it runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployguard import api
from deployguard.errors import ExitCode
from deployguard.rollout.outcome import Event
from deployguard.store.opening import open_journal
from deployguard.store.trail import Step, Trail, steps_of
from tests.cli.conftest import Site

THE_STEPS = ["connect", "inspect", "stage", "switch", "check", "commit"]


def test_each_step_is_on_the_trail_when_it_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks on sees it then, and nothing of it is left at the end: the outcome has it."""
    monkeypatch.setenv("DEPLOYGUARD_STATE", str(site.root / "state"))
    journal = open_journal()
    seen: list[Step] = []

    def listen(event: Event) -> None:
        (running,) = journal.unended("")
        if event.host and event.status != "progress":
            seen.append(steps_of(journal.path, running)[-1])
            assert (seen[-1].phase, seen[-1].status) == (event.phase, event.status)

    ended = api.apply(api.load(site.plan), listen=listen, store=journal)
    assert ended.exit_code == ExitCode.COMMITTED
    begun = [step.phase for step in seen if step.status == "started" and step.phase in THE_STEPS]
    assert begun[:5] == THE_STEPS[:5]
    assert steps_of(journal.path, ended.transaction) == []
    assert list((journal.path.parent / "live").iterdir()) == []


def test_a_run_that_was_killed(tmp_path: Path) -> None:
    """Its trail stays, but for half a line; a later run takes it away when it is a week old."""
    journal = tmp_path / "journal.db"
    trail: Trail[Event] = Trail(None)
    trail.begin(journal, "T/1")
    trail(Event(1.0, "switch", "started", "web1"))
    trail(Event(2.0, "stage", "progress", "web1", "50 %"))
    (file,) = (tmp_path / "live").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    with file.open("a") as half:
        half.write('[3.0, "check", "sta')
    assert steps_of(journal, "T/1") == [Step(1.0, "switch", "started", "web1", "")]
    os.utime(file, (1.0, 1.0))
    Trail[Event](None).begin(journal, "T2")
    assert steps_of(journal, "T/1") == []


def test_no_room_for_it(tmp_path: Path) -> None:
    """Then nobody sees it, and nothing else happens."""
    (tmp_path / "live").write_text("in the way")
    heard: list[Event] = []
    trail: Trail[Event] = Trail(heard.append)
    trail.begin(tmp_path / "journal.db", "T1")
    event = Event(1.0, "switch", "started", "web1")
    trail(event)
    trail.end()
    assert heard == [event]
    assert steps_of(tmp_path / "journal.db", "T1") == []
