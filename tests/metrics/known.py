"""A store whose metrics were worked out by hand. Now is 2026-11-21T12:00:00Z, a Saturday."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from deployguard.incidents.book import Book
from deployguard.incidents.entries import Opening
from deployguard.store.journal import Journal

__all__ = ["NOW", "OCTOBER", "SEPTEMBER", "Known"]

NOW = 1795262400.0
DAY = 86400.0
NOVEMBER = NOW - 20.5 * DAY
OCTOBER = NOVEMBER - 31 * DAY
SEPTEMBER = OCTOBER - 30 * DAY


class Known:
    """Puts deploys and incidents into a store, at moments of its own."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._now = NOW
        self._book = Book(journal, actor="ann", clock=lambda: self._now)
        self._ids: Iterator[int] = count()

    def deploy(self, at: float, status: str = "committed", **changes: Any) -> str:
        """A transaction that took ten seconds; its id."""
        name = f"20261101T000000-shop-{next(self._ids):06x}"
        values: dict[str, Any] = {
            "id": name,
            "plan": "shop",
            "version": "v2",
            "environment": "production",
            "source": "plan.yaml",
            "owner": "ann",
            "started_at": at,
            "changed_at": None,
            **changes,
        }
        self.journal.begin(values, ["web1"])
        code = {"committed": 0, "unchanged": 0, "rolled_back": 3, "needs_person": 4, "refused": 5}
        ended = {"ended_at": at + 10, "status": status, "exit_code": code[status], "summary": ""}
        self.journal.end(name, ended)
        return name

    def incident(
        self,
        at: float,
        *deploys: str,
        impact: float | None = None,
        ack: float | None = None,
        mitigated: float | None = None,
        resolved: float | None = None,
        cause: str = "",
        **changes: Any,
    ) -> str:
        """An incident that was detected at a moment; the others are seconds after that."""
        self._now = at
        values: dict[str, Any] = {
            "title": "shop v2 failed",
            "severity": 2,
            "service": "shop",
            "environment": "production",
            "origin": "deploy",
            "signature": ("web http http: answered <n>",),
            "detected_at": at,
            "impact_at": None if impact is None else at - impact,
            "links": tuple(("transaction", deploy) for deploy in deploys),
        }
        name = self._book.open(Opening(**{**values, **changes})).id
        for event, after in (("acknowledge", ack), ("mitigate", mitigated), ("resolve", resolved)):
            if after is not None:
                self._now = at + after
                said = cause if event == "resolve" else ""
                person = event == "acknowledge"
                self._book.move(name, event, cause=said, person=person)  # type: ignore[arg-type]
        return name

    def cancelled(self, at: float, *deploys: str) -> None:
        """One that was none."""
        self._book.move(self.incident(at, *deploys, impact=5), "cancel")
