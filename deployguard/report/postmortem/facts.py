"""What the machine knows of an incident, with where it knows it from. Pure but for the store.

Every moment is that of a journal: nothing is estimated. A duration that has no two ends is not
there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployguard.errors import ExitCode
from deployguard.evidence import timeline
from deployguard.incidents.deploys import touched
from deployguard.incidents.lookup import Lookup, Similar
from deployguard.incidents.record import Entry, Incident, Link
from deployguard.rollout.outcome import Event, Outcome
from deployguard.store.journal import Journal

__all__ = ["Down", "Facts", "Moment", "Spell", "gather"]

#: Entries of the incident that repeat what the deploy's own timeline says.
_REPEATED = ("impact", "detected")

_WORDS = {
    "opened": "Incident opened",
    "joined": "Failed again",
    "acknowledged": "Acknowledged",
    "mitigated": "Mitigated",
    "resolved": "Resolved",
    "closed": "Closed",
    "reopened": "Opened again",
    "cancelled": "Cancelled",
    "severity": "Severity changed",
    "assigned": "Assigned",
    "escalated": "Escalated",
    "linked": "Linked",
    "noted": "Note",
    "deployed": "Deployed",
}


@dataclass(frozen=True)
class Moment:
    """One row of the timeline; ``source`` is ``T1``, ``T2`` … for a transaction, or ``INC``."""

    at: float
    host: str
    event: str
    details: str
    source: str
    failed: bool = False


@dataclass(frozen=True)
class Spell:
    """From one moment to another, both on record."""

    what: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(self.end - self.start, 0.0)


@dataclass(frozen=True)
class Down:
    """How long the services of a host were down at most: from their stop to the first moment at
    which every check that matters was healthy again; ``end`` is ``None`` where nobody saw it."""

    host: str
    start: float
    end: float | None


@dataclass(frozen=True)
class Facts:
    """All of it; ``deploys`` are those that failed, oldest first; ``committed`` those that did not
    and are linked to it: what it came after, and what ended it."""

    incident: Incident
    entries: tuple[Entry, ...]
    links: tuple[Link, ...]
    similar: tuple[Similar, ...]
    deploys: tuple[Outcome, ...]
    written_at: float
    committed: tuple[Outcome, ...] = ()

    @property
    def first(self) -> Outcome | None:
        """The deploy that failed first."""
        return self.deploys[0] if self.deploys else None

    def linked(self, kind: str) -> list[str]:
        """The values of the links of a kind."""
        return [link.value for link in self.links if link.kind == kind]

    def name_of(self, deploy: Outcome) -> str:
        """``T1`` for the first deploy."""
        return f"T{self.all.index(deploy) + 1}"

    @property
    def all(self) -> tuple[Outcome, ...]:
        """Every deploy that is linked to it, oldest first."""
        return tuple(sorted((*self.deploys, *self.committed), key=lambda one: one.started_at))

    def timeline(self) -> list[Moment]:
        """Every event of every journal, in the order of time."""
        found = [
            Moment(event.at, row.host, row.event, row.details, self.name_of(deploy), row.failed)
            for deploy in self.all
            for event, row in _rows(deploy.timeline)
        ]
        found += [
            Moment(entry.at, "", _WORDS.get(entry.kind, entry.kind), _said(entry), "INC")
            for entry in self.entries
            if entry.kind not in _REPEATED or not self.deploys
        ]
        return sorted(found, key=lambda moment: moment.at)

    def spells(self) -> list[Spell]:
        """The durations that have both their ends on record."""
        found: list[Spell] = []
        for deploy in self.all:
            name = f" ({self.name_of(deploy)})" if len(self.all) > 1 else ""
            found.append(Spell(f"the deploy{name}", deploy.started_at, deploy.ended_at))
            if deploy in self.committed:
                continue
            sign = first_at(deploy, status="failed")
            start, back = stopped(deploy), restored(deploy)
            if start is not None and sign is not None:
                found.append(Spell(f"from the first stop to the first sign{name}", start, sign))
            if sign is not None and back is not None:
                words = f"from the first sign to the last host restored and verified{name}"
                found.append(Spell(words, sign, back))
        incident = self.incident
        for what, at in (
            ("acknowledged", incident.acknowledged_at),
            ("mitigated", incident.mitigated_at),
            ("resolved", incident.resolved_at),
        ):
            if at is not None:
                found.append(Spell(f"from the detection until {what}", incident.detected_at, at))
        return found

    def down(self, deploy: Outcome) -> list[Down]:
        """How long each host that was touched was down."""
        found = []
        for host in touched(deploy):
            start = first_at(deploy, host=host, phase="switch", status="started")
            if start is not None:
                found.append(Down(host, start, _served_again(deploy, host)))
        return found


def gather(
    incident: Incident, lookup: Lookup, journal: Journal, now: float, last: Outcome | None = None
) -> Facts:
    """The facts of an incident; ``last`` is a deploy whose end is not in the journal yet."""
    links = lookup.links(incident.id)
    deploys = []
    for transaction in (link.value for link in links if link.kind == "transaction"):
        if last is not None and transaction == last.transaction:
            deploys.append(last)
            continue
        row = journal.get(transaction)
        if row is not None and row["outcome"]:
            deploys.append(Outcome.from_dict(row["outcome"]))
    deploys.sort(key=lambda deploy: deploy.started_at)
    return Facts(
        incident=incident,
        entries=tuple(lookup.timeline(incident.id)),
        links=tuple(links),
        similar=tuple(lookup.similar(incident)),
        deploys=tuple(one for one in deploys if one.exit_code != ExitCode.COMMITTED),
        committed=tuple(one for one in deploys if one.exit_code == ExitCode.COMMITTED),
        written_at=now,
    )


def first_at(
    deploy: Outcome, *, status: str, phase: str | None = None, host: str | None = None
) -> float | None:
    """When something happened first."""
    return min((e.at for e in _matching(deploy.timeline, status, phase, host)), default=None)


def stopped(deploy: Outcome) -> float | None:
    """When the first service was stopped."""
    return min(
        (
            event.at
            for host in touched(deploy)
            for event in _matching(deploy.timeline, "started", "switch", host)
        ),
        default=None,
    )


def restored(deploy: Outcome) -> float | None:
    """When the last host was restored and verified; ``None`` while one is not."""
    if any(host.state not in ("restored", "committed") for host in deploy.hosts if _hit(host)):
        return None
    return max((e.at for e in _matching(deploy.timeline, "done", "restore", None)), default=None)


def _hit(host: object) -> bool:
    return getattr(host, "state", "") not in ("untouched", "aborted", "unreachable")


def _served_again(deploy: Outcome, host: str) -> float | None:
    for event in _matching(deploy.timeline, "done", "restore", host):
        at = event.detail.get("healthy_at")
        return float(at) if at is not None else event.at
    return None


def _matching(
    events: Iterable[Event], status: str, phase: str | None, host: str | None
) -> list[Event]:
    return [
        event
        for event in events
        if event.status == status and phase in (None, event.phase) and host in (None, event.host)
    ]


def _rows(events: Sequence[Event]) -> Iterable[tuple[Event, timeline.Row]]:
    ordered = sorted((e for e in events if e.status != "progress"), key=lambda event: event.at)
    return zip(ordered, timeline.rows(ordered), strict=True)


def _said(entry: Entry) -> str:
    return f"{entry.text} ({entry.actor})" if entry.text else f"({entry.actor})"
