"""What is to be written down about an incident, and what those are told who listen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployguard.incidents.record import Entry, Incident
from deployguard.incidents.severity import Level, Targets

__all__ = ["AUTOMATIC", "Draft", "Opening", "Overdue", "Transition"]

#: Who writes what no person did.
AUTOMATIC = "deployguard"


@dataclass(frozen=True)
class Draft:
    """An entry to be written. ``at`` is now where it is left out."""

    kind: str
    text: str
    at: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Opening:
    """An incident to be opened. ``before`` are entries of what happened until then."""

    title: str
    severity: Level
    service: str = ""
    environment: str = ""
    origin: str = "person"
    signature: tuple[str, ...] = ()
    targets: Targets = field(default_factory=Targets)
    detected_at: float | None = None
    impact_at: float | None = None
    commander: str = ""
    owner: str = ""
    text: str = ""
    before: tuple[Draft, ...] = ()
    #: Where users are served again already: when that was, and how.
    mitigated: Draft | None = None
    links: tuple[tuple[str, str], ...] = ()
    #: Seconds after the detection by which the post-mortem is due.
    postmortem: float | None = None


@dataclass(frozen=True)
class Transition:
    """What happened to an incident; ``before`` is ``None`` for one that was opened just now."""

    before: Incident | None
    after: Incident
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Overdue:
    """An incident with a target that was missed; whether that was escalated just now."""

    incident: Incident
    missed: tuple[str, ...]
    escalated: bool
