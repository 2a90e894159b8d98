"""What the end of a deploy makes of incidents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployguard.errors import ExitCode
from deployguard.incidents import deploys
from deployguard.incidents.book import Book
from deployguard.incidents.record import Entry, Incident
from deployguard.incidents.severity import Targets
from deployguard.rollout.outcome import Event, Outcome
from deployguard.store.journal import SqliteJournal
from tests.cli.outcomes import committed, finding, host, outcome, rolled_back

NOON = 1795262400.0


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """No incident yet; it is five seconds past noon."""
    journal = SqliteJournal(tmp_path / "journal.db")
    yield Book(journal, clock=lambda: NOON + 5)
    journal.close()


def events(*hosts: str, back: bool = True) -> tuple[Event, ...]:
    """A deploy that switched at noon, failed two seconds later and was restored in one."""
    found = []
    for name in hosts:
        found += [
            Event(NOON - 1, "connect", "done", name),
            Event(NOON, "switch", "started", name),
            Event(NOON + 2, "check", "failed", name, "answered 503"),
            Event(NOON + 3, "restore", "done" if back else "failed", name),
        ]
    return tuple(found)


def failing(number: int = 1, **changes: Any) -> Outcome:
    """A deploy that failed on web1 and is back there."""
    values = {
        "transaction": f"2026-shop-{number}",
        "timeline": events("web1"),
        "started_at": NOON - 2,
        "ended_at": NOON + 4,
        "summary": "v2 failed on web1; 1 host restored, files verified, healthy",
        "hosts": (host("web1"),),
    }
    return rolled_back(**{**values, **changes})


def stuck(number: int = 1, **changes: Any) -> Outcome:
    """A deploy that failed and is not back."""
    values = {
        "transaction": f"2026-shop-{number}",
        "hosts": (host("web1", "stuck", verified=False, healthy=False),),
        "timeline": events("web1", back=False),
        "findings": (finding(),),
        "ended_at": NOON + 4,
    }
    return outcome(ExitCode.NEEDS_PERSON, "needs_person", **{**values, **changes})


def follow(book: Book, ended: Outcome, **rules: Any) -> Incident:
    """The incident of a deploy."""
    found = deploys.failed(ended, book, targets=Targets(), **rules)
    assert found is not None
    return found[0]


def written(book: Book, incident: Incident) -> list[Entry]:
    """Its entries in the order in which they were written."""
    return sorted(book.lookup.timeline(incident.id), key=lambda entry: entry.number)


def kinds(book: Book, incident: Incident) -> list[str]:
    """The same in one word each."""
    return [entry.kind for entry in written(book, incident)]


def test_a_verified_restore_is_mitigated_not_resolved(book: Book) -> None:
    """High, because users were hit; every moment is the journal's; nobody has acknowledged it."""
    incident = follow(book, failing())
    assert (incident.state, incident.severity, incident.origin) == ("mitigated", 2, "deploy")
    assert incident.title == "shop v2 failed in production"
    assert (incident.impact_at, incident.detected_at, incident.mitigated_at) == (
        NOON,
        NOON + 2,
        NOON + 3,
    )
    assert incident.acknowledged_at is None and incident.resolved_at is None
    assert kinds(book, incident) == ["opened", "impact", "detected", "mitigated"]
    happened = [entry.kind for entry in book.lookup.timeline(incident.id)]
    assert happened == ["impact", "detected", "mitigated", "opened"]
    assert {link.kind: link.value for link in book.lookup.links(incident.id)} == {
        "transaction": "2026-shop-1",
        "forensics": "forensics-out/x",
    }


def test_what_is_not_back_is_critical_and_open(book: Book) -> None:
    """A person is needed."""
    incident = follow(book, stuck())
    assert (incident.state, incident.severity, incident.mitigated_at) == ("open", 1, None)


@pytest.mark.parametrize(
    ("ended", "rules", "level"),
    [
        (failing(), {}, 2),
        (stuck(hosts=(host("web1", verified=False),)), {}, 1),
        (failing(), {"canary": ["web1"]}, 3),
        (failing(hosts=(host("web1"), host("web2"))), {"canary": ["web1"]}, 2),
        (failing(hosts=(host("web1"), host("web2", "aborted"))), {"canary": ["web1"]}, 3),
        (failing(hosts=(host("web1", "committed"), host("web2"))), {"canary": ["web2"]}, 2),
        (failing(hosts=(host("web1", "unreachable"),)), {}, 3),
        (stuck(), {"canary": ["web1"]}, 1),
        (stuck(), {"at_most": 4}, 4),
        (failing(), {"at_most": 1}, 2),
    ],
)
def test_rules_for_the_severity(ended: Outcome, rules: dict[str, Any], level: int) -> None:
    """Not restored: 1. Users were hit: 2. Canaries only, or nothing live: 3. Not worse than the
    plan says that it can be."""
    assert deploys.severity(ended, **rules)[0] == level


def test_nothing_was_touched(book: Book) -> None:
    """Nobody was hit, so there is nothing to mitigate, and no post-mortem is due."""
    ended = failing(hosts=(host("web1", "unreachable"),), timeline=(), forensics=None)
    incident = follow(book, ended, postmortem=100.0)
    assert (incident.state, incident.severity, incident.impact_at) == ("open", 3, None)
    assert incident.postmortem_by is None
    assert follow(book, stuck(2), postmortem=100.0).postmortem_by is not None


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ExitCode.REFUSED, "refused"),
        (ExitCode.LOCKED, "locked"),
        (ExitCode.INTERRUPTED, "interrupted"),
        (ExitCode.USAGE, "failed"),
        (ExitCode.COMMITTED, "unchanged"),
        (ExitCode.COMMITTED, "committed"),
    ],
)
def test_what_is_no_incident(book: Book, code: ExitCode, status: str) -> None:
    """A refusal by a guard above all."""
    assert deploys.failed(outcome(code, status), book, targets=Targets()) is None
    assert book.lookup.newest() == []


def test_the_same_failure_again_joins(book: Book) -> None:
    """Another version, the same words: one incident with both deploys, and the second is told."""
    first = follow(book, failing(1))
    second = follow(book, failing(2, version="v3", summary="v3 failed on web1; 1 host restored"))
    assert second == first
    assert kinds(book, first)[-1] == "joined"
    assert "v3 failed in the same way" in written(book, first)[-1].text
    linked = {one.value for one in book.lookup.links(first.id) if one.kind == "transaction"}
    assert linked == {"2026-shop-1", "2026-shop-2"}


def test_told_twice_of_one_deploy(book: Book) -> None:
    """It is written down once."""
    incident = follow(book, failing())
    before = book.lookup.timeline(incident.id)
    assert follow(book, failing()) == incident
    assert book.lookup.timeline(incident.id) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"findings": (finding(message="connection refused"),)},
        {"environment": "staging"},
        {"plan": "wiki"},
    ],
)
def test_another_failure_is_another_incident(book: Book, changes: dict[str, Any]) -> None:
    """Other words, another environment, another service."""
    assert follow(book, failing(1)).id != follow(book, failing(2, **changes)).id


def test_what_is_over_is_not_joined_but_named(book: Book) -> None:
    """A new incident; the old one is listed with what ended it."""
    old = follow(book, failing(1))
    book.move(old.id, "resolve", cause="pool too large", fix="pool set to 20")
    new = follow(book, failing(2))
    assert new.id != old.id
    (similar,) = book.lookup.similar(new)
    assert (similar.incident.id, similar.likeness, similar.fixed_by) == (
        old.id,
        1.0,
        "pool set to 20",
    )


def test_what_was_deployed_next_counts_as_the_fix(book: Book) -> None:
    """Where nobody wrote one down; a cancelled incident is not listed at all."""
    old = follow(book, failing(1))
    journal = book._store
    about = {"plan": "shop", "environment": "production", "source": "p", "owner": "ann"}
    for number, (version, status) in enumerate((("v2.1", "rolled_back"), ("v2.2", "committed"))):
        name = f"later-{number}"
        begun = {"id": name, "version": version, "started_at": NOON + 100 + number, **about}
        journal.begin(begun, ["web1"])  # type: ignore[attr-defined]
        journal.end(name, outcome(ExitCode.COMMITTED, status).as_dict())  # type: ignore[attr-defined]
    book.move(old.id, "resolve")
    (similar,) = book.lookup.similar(follow(book, failing(2)))
    assert similar.fixed_by == "v2.2 was deployed next"
    book.move(similar.incident.id, "reopen")
    book.move(similar.incident.id, "cancel")
    assert book.lookup.similar(follow(book, failing(3))) == []


def test_worse_the_second_time(book: Book) -> None:
    """It was mitigated; now the old version is not back: critical, and open again."""
    first = follow(book, failing(1))
    book.move(first.id, "acknowledge")
    again = follow(book, stuck(2))
    assert (again.id, again.state, again.severity) == (first.id, "open", 1)
    assert again.mitigated_at is None and again.acknowledged_at is None
    assert "opened again" in written(book, first)[-1].text


def test_better_the_second_time(book: Book) -> None:
    """It was open; the same deploy again ends with the old version back: mitigated, still bad."""
    follow(book, stuck(1))
    again = follow(book, failing(2))
    assert (again.state, again.severity) == ("mitigated", 1)


def test_a_deploy_that_goes_well_is_noted(book: Book) -> None:
    """In the incident of its service that is not over, and nowhere else."""
    incident = follow(book, failing())
    other = follow(book, failing(2, plan="wiki"))
    well = committed(transaction="2026-shop-9", version="v3", ended_at=NOON + 60)
    assert [one.id for one in deploys.committed(well, book)] == [incident.id]
    assert kinds(book, incident)[-1] == "deployed"
    assert "deployed" not in kinds(book, other)
    assert deploys.committed(outcome(ExitCode.COMMITTED, "unchanged"), book) == []


def test_recover_mitigates(book: Book) -> None:
    """What it has ended; where it could not, that is written down, and stays open."""
    incident = follow(book, stuck(1))
    not_yet = outcome(ExitCode.NEEDS_PERSON, "needs_person", transaction="2026-shop-1")
    deploys.recovered(not_yet, book, targets=Targets())
    assert book.lookup.get(incident.id).state == "open"
    done = outcome(ExitCode.COMMITTED, "rolled_back", transaction="2026-shop-1,2026-shop-7")
    deploys.recovered(done, book, targets=Targets())
    assert book.lookup.get(incident.id).state == "mitigated"
    assert kinds(book, incident)[-2:] == ["noted", "mitigated"]
    assert len(book.lookup.newest()) == 1


def test_recover_finds_what_nobody_has_told(book: Book) -> None:
    """The controller died; a person is needed, and there is no incident: it is opened, once."""
    found = outcome(ExitCode.NEEDS_PERSON, "needs_person", transaction="2026-shop-1")
    for _ in range(2):
        deploys.recovered(found, book, targets=Targets())
    (incident,) = book.lookup.newest()
    assert (incident.state, incident.severity) == ("open", 1)
    nothing = outcome(ExitCode.COMMITTED, "unchanged", transaction="")
    assert deploys.recovered(nothing, book, targets=Targets()) == []
