"""An incident, the entries of its timeline and its links, as they are kept.

The entries are the truth and are never changed; the incident is what they add up to, kept beside
them so that it can be asked for. Times are UTC seconds since the epoch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from deployguard.incidents.machine import ONGOING, State
from deployguard.incidents.severity import Level, Targets, name_of

__all__ = ["COLUMNS", "LINKS", "Entry", "Incident", "Link", "LinkKind"]

LinkKind = Literal["transaction", "forensics", "issue", "ticket", "postmortem"]

LINKS: tuple[LinkKind, ...] = ("transaction", "forensics", "issue", "ticket", "postmortem")


@dataclass(frozen=True)
class Incident:
    """How an incident stands.

    ``impact_at`` is when users may first have been hit, where that is known; ``clock_at`` is what
    the targets count from: the detection, or the last time it was opened again. ``origin`` is
    ``deploy``, ``watch`` or ``person``. ``signature`` has the words of the failure with what
    differs from one time to the next masked; ``fingerprint`` is the same for the same failure of
    the same service.
    """

    id: str
    state: State
    severity: Level
    title: str
    service: str
    environment: str
    origin: str
    opened_at: float
    detected_at: float
    clock_at: float
    acknowledge_by: float
    resolve_by: float
    fingerprint: str = ""
    signature: tuple[str, ...] = ()
    targets: Targets = field(default_factory=Targets)
    impact_at: float | None = None
    acknowledged_at: float | None = None
    acknowledged_by: str = ""
    mitigated_at: float | None = None
    resolved_at: float | None = None
    closed_at: float | None = None
    escalations: int = 0
    escalated_at: float | None = None
    commander: str = ""
    owner: str = ""
    cause: str = ""
    fix: str = ""
    postmortem_by: float | None = None

    @property
    def ongoing(self) -> bool:
        """Whether its clocks run."""
        return self.state in ONGOING

    def overdue(self, now: float) -> list[str]:
        """What should have happened by ``now``: ``acknowledge``, ``resolve``."""
        if not self.ongoing:
            return []
        missed = ["resolve"] if now > self.resolve_by else []
        if self.acknowledged_at is None and now > self.acknowledge_by:
            missed.insert(0, "acknowledge")
        return missed

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the severity is a word in it."""
        data = asdict(self)
        data["severity"] = name_of(self.severity)
        data["targets"] = self.targets.as_dict()
        return data

    def row(self) -> dict[str, Any]:
        """The columns of the table, but for those of the id's parts."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["signature"] = json.dumps(self.signature)
        values["targets"] = json.dumps(self.targets.as_dict())
        return values

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Incident:
        """The incident of a row."""
        values = {name: row[name] for name in COLUMNS}
        values["signature"] = tuple(json.loads(row["signature"]))
        values["targets"] = Targets.from_dict(json.loads(row["targets"]))
        return cls(**values)


#: The columns of an incident, in the order of its fields.
COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(Incident))


@dataclass(frozen=True)
class Entry:
    """One line of a timeline. ``at`` is when it happened, ``recorded_at`` when it was written."""

    number: int
    at: float
    recorded_at: float
    kind: str
    actor: str
    text: str
    detail: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Entry:
        """The entry of a row."""
        return cls(
            row["number"],
            row["happened_at"],
            row["recorded_at"],
            row["kind"],
            row["actor"],
            row["said"],
            json.loads(row["detail"]),
        )


@dataclass(frozen=True)
class Link:
    """Where to read on: a transaction of deployguard, a folder of forensics, an issue, a ticket, a
    post-mortem."""

    kind: str
    value: str
    linked_at: float
