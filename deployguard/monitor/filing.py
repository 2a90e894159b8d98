"""The receiver that keeps incidents: opens or joins one, notes what joins, mitigates at the end.

Whoever is to be told of incidents is told by what listens to the book, as of any other incident.
"""

from __future__ import annotations

from collections.abc import Iterable

from deployguard.incidents.book import Book
from deployguard.incidents.change import Changes
from deployguard.incidents.entries import Draft, Opening
from deployguard.incidents.fingerprint import shape
from deployguard.incidents.record import Incident
from deployguard.incidents.severity import Level, level_named
from deployguard.monitor.grouping import Alert, GroupKey, Notice
from deployguard.plan.model import Plan
from deployguard.report.incidents import targets_of

__all__ = ["Filing", "severity", "words"]

#: Alerts that are named before "and N more".
_NAMED = 5


class Filing:
    """Incidents by group; ``known`` are those of an earlier run."""

    def __init__(self, plan: Plan, book: Book, known: Iterable[tuple[GroupKey, str]] = ()) -> None:
        self._plan = plan
        self._book = book
        self.incidents: dict[GroupKey, str] = dict(known)

    def told(self, notice: Notice) -> Incident | None:
        """Write one notice down; the incident it is in."""
        known = self.incidents.get(notice.group)
        found = self._book.lookup.get(known) if known is not None else None
        if not notice.fires:
            self.incidents.pop(notice.group, None)
            return self._over(found) if found is not None else None
        if found is None or not found.ongoing:
            found = self._join(notice) or self._open(notice)
            self.incidents[notice.group] = found.id
            return found
        said = "still: " if notice.again else ""
        return self._book.note(found.id, said + words(notice.fires), kind="alert")

    def _over(self, incident: Incident) -> Incident:
        said = "every check that had failed is healthy again"
        if incident.state in ("open", "acknowledged"):
            return self._book.move(incident.id, "mitigate", said, person=False)
        return self._book.note(incident.id, said, kind="alert")

    def _join(self, notice: Notice) -> Incident | None:
        """What fires in one transaction is one incident; and whoever left a transaction unfinished
        has opened one for it."""
        service, environment, transaction = notice.group
        lookup = self._book.lookup
        there = lookup.of_link("transaction", transaction) if transaction else []
        if any(alert.kind == "restore" for alert in notice.fires):
            there = [*there, *lookup.ongoing(service, environment)]
        for one in there:
            if one.ongoing:
                said = f"seen by the watch: {words(notice.fires)}"
                return self._book.note(one.id, said, kind="joined")
        return None

    def _open(self, notice: Notice) -> Incident:
        fires = sorted(notice.fires, key=lambda alert: (not alert.critical, alert.since))
        since = min(alert.since for alert in fires)
        level, why = severity(self._plan, fires)
        _, component, check = fires[0].key
        transaction = notice.group[2]
        hit = any(alert.critical or alert.kind == "restore" for alert in fires)
        wanted = self._plan.rescue.postmortem
        # A plan with one component often has its name.
        what = " ".join(dict.fromkeys(filter(None, (self._plan.name, component, check))))
        opening = Opening(
            title=f"{what} fails in {self._plan.environment}",
            severity=level,
            service=self._plan.name,
            environment=self._plan.environment,
            origin="watch",
            signature=_signature(fires, list(self._plan.hosts)),
            targets=targets_of(self._plan),
            detected_at=since,
            impact_at=since if any(alert.critical for alert in fires) else None,
            text=f"{why}: {words(fires)}",
            links=(("transaction", transaction),) if transaction else (),
            postmortem=wanted.due if hit and wanted.draft else None,
        )

        def join(_: Incident) -> tuple[Changes, list[Draft]]:
            return {}, [Draft("joined", f"seen by the watch: {words(fires)}", since)]

        return self._book.open_or_join(opening, join=join)[0]


def severity(plan: Plan, fires: Iterable[Alert]) -> tuple[Level, str]:
    """How bad what fires is, and why: as of an assessment, and no worse than the plan can be."""
    fires = list(fires)
    hit = {alert.key[0] for alert in fires if alert.critical}
    level: Level = 3
    why = "no critical check fails"
    if any(alert.kind == "restore" for alert in fires):
        level, why = 1, "a transaction could not be finished"
    elif len(hit) >= len(plan.hosts):
        level, why = 1, "a critical check fails on every host"
    elif hit:
        level, why = 2, f"a critical check fails on {len(hit)} of {len(plan.hosts)} hosts"
    most = level_named(plan.rescue.incident.severity.at_most)
    return max(level, most), why


def words(fires: Iterable[Alert]) -> str:
    """What fires, in a line."""
    each = [
        f"{' '.join(filter(None, alert.key))}: {alert.message}"
        for alert in sorted(fires, key=lambda alert: (not alert.critical, alert.key))
    ]
    more = f"; and {len(each) - _NAMED} more" if len(each) > _NAMED else ""
    return "; ".join(each[:_NAMED]) + more


def _signature(fires: Iterable[Alert], hosts: list[str]) -> tuple[str, ...]:
    """As that of a deploy that failed with the same checks, so that they are one incident."""
    found = set()
    for alert in fires:
        text = alert.message
        for host in sorted(hosts, key=len, reverse=True):
            text = text.replace(host, "<host>")
        _, component, check = alert.key
        found.add(f"{component or '-'} {alert.layer or alert.kind} {check}: {shape(text)}")
    return tuple(sorted(found))
