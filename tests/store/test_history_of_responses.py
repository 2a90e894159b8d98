"""What `incident respond` reads of the past, from each kind of store."""

from __future__ import annotations

from deployguard.incidents.book import Book
from deployguard.response.history import read_history
from deployguard.store.journal import Journal
from tests.store.test_incidents import NOON, Clock, opening
from tests.store.test_incidents import book as book
from tests.store.test_incidents import clock as clock
from tests.store.test_incidents import journal as journal


def _deployed(journal: Journal, number: int, version: str, before: str | None, at: float) -> None:
    name = f"txn-{number}"
    row = {"id": name, "plan": "shop", "version": version, "environment": "production"}
    journal.begin({**row, "source": "plan.yaml", "owner": "ann", "started_at": at}, ["web1"])
    host = {"versions_before": {"web": before}, "seconds": {"switch": 1.0, "check": number}}
    end = {"ended_at": at + 10, "status": "committed", "exit_code": 0, "summary": "done"}
    journal.end(name, {**end, "hosts": [host]})


def test_the_past_of_a_service(journal: Journal, book: Book, clock: Clock) -> None:
    """Transactions, how long fixes took, and how mitigations went; those of others are left out."""
    _deployed(journal, 1, "v1", None, NOON - 5000)
    _deployed(journal, 2, "v2", "v1", NOON - 4000)
    incident = book.open(opening(detected_at=NOON - 3900))
    _deployed(journal, 3, "v1", "v2", NOON - 3800)
    _deployed(journal, 4, "v3", "v1", NOON - 3000)
    detail = {"choice": "mitigate", "healthy": True}
    book.note(incident.id, "mitigate: limit", kind="responded", detail=detail)
    found = read_history(journal, "shop", "production")
    assert [(one.version, one.back, one.downtime) for one in found.past] == [
        ("v1", False, None),
        ("v2", False, 3.0),
        ("v1", True, 4.0),
        ("v3", False, 5.0),
    ]
    # A rollback is no fix: the next new version is.
    assert found.fixes == (NOON - 2990 - (NOON - 3900),)
    assert found.mitigated == (True,)
    assert read_history(journal, "shop", "staging").past == ()
