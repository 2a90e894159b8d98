"""What an event makes of an incident: the fields that change. Pure.

Every entry of a timeline carries its changes, so that an incident can be made again from its
entries alone (:func:`rebuilt`), and is then the one that stands in the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from deployguard.errors import UsageError
from deployguard.evidence.timeline import iso
from deployguard.incidents.machine import Event, step
from deployguard.incidents.record import Entry, Incident
from deployguard.incidents.severity import Level, Targets, due

__all__ = ["Changes", "changed", "clocks", "escalation", "moved", "rebuilt", "regraded"]

Changes = dict[str, Any]

#: Clocks of several machines differ a little.
_AHEAD = 5.0


def changed(incident: Incident, changes: Mapping[str, Any]) -> Incident:
    """The incident after some changes, which may come from JSON."""
    values = dict(changes)
    if "targets" in values and not isinstance(values["targets"], Targets):
        values["targets"] = Targets.from_dict(values["targets"])
    if "signature" in values:
        values["signature"] = tuple(values["signature"])
    return replace(incident, **values)


def rebuilt(entries: Iterable[Entry]) -> Incident:
    """The incident that some entries add up to, in the order of their numbers."""
    first, *rest = sorted(entries, key=lambda entry: entry.number)
    incident = changed(_EMPTY, first.detail["changes"])
    for entry in rest:
        incident = changed(incident, entry.detail.get("changes", {}))
    return incident


def clocks(level: Level, targets: Targets, start: float) -> Changes:
    """When the targets of a severity are missed that run from ``start``."""
    target = targets.of(level)
    return {
        "acknowledge_by": due(start, target.acknowledge, targets.zone),
        "resolve_by": due(start, target.resolve, targets.zone),
    }


def moved(
    incident: Incident, event: Event, *, at: float | None, now: float, actor: str, person: bool
) -> Changes:
    """What an event changes that happened ``at`` a moment, or now. ``person`` is false for what
    deployguard does by itself, which acknowledges nothing.

    Raises :class:`UsageError` for an event that the state does not allow, or a time that is
    not possible.
    """
    if event == "acknowledge" and incident.ongoing and incident.acknowledged_at is not None:
        raise UsageError(
            f"{incident.id} is acknowledged already, by {incident.acknowledged_by} at "
            f"{iso(incident.acknowledged_at)}",
            hint=f"`deployguard incident assign {incident.id} commander NAME` hands it over",
        )
    state = step(incident.id, incident.state, event)
    at = _moment(incident, event, at, now, person)
    changes: Changes = {"state": state}
    if event == "reopen":
        return changes | {
            "clock_at": at,
            "acknowledged_at": None,
            "acknowledged_by": "",
            "mitigated_at": None,
            "resolved_at": None,
            "closed_at": None,
            "escalations": 0,
            "escalated_at": None,
            **clocks(incident.severity, incident.targets, at),
        }
    hands_on = event in ("acknowledge", "mitigate", "resolve")
    if hands_on and person and incident.acknowledged_at is None:
        # Who mitigates it is at it.
        changes |= {"acknowledged_at": at, "acknowledged_by": actor}
    if event == "mitigate" or (event == "resolve" and incident.mitigated_at is None):
        changes["mitigated_at"] = at
    if event == "resolve":
        changes["resolved_at"] = at
    if event in ("close", "cancel"):
        changes["closed_at"] = at
    return changes


def regraded(incident: Incident, level: Level) -> Changes:
    """What another severity changes: its targets count from the same moment."""
    return {"severity": level, **clocks(level, incident.targets, incident.clock_at)}


def escalation(incident: Incident, now: float) -> tuple[list[str], Changes]:
    """What is overdue, and the changes of an escalation; none soon after the last one."""
    missed = incident.overdue(now)
    span = incident.targets.of(incident.severity).escalate
    last = incident.escalated_at
    if not missed or (last is not None and now < due(last, span, incident.targets.zone)):
        return missed, {}
    return missed, {"escalations": incident.escalations + 1, "escalated_at": now}


def _moment(incident: Incident, event: Event, at: float | None, now: float, person: bool) -> float:
    """When an event happened: not before the one that it follows.

    A person who says otherwise is told. Where nobody said, it is the clock of another machine.
    """
    earliest, what = incident.detected_at, "it was detected"
    if event != "acknowledge":
        for moment, words in (
            (incident.mitigated_at, "it was mitigated"),
            (incident.resolved_at, "it was resolved"),
            (incident.closed_at, "it was over"),
        ):
            if moment is not None and moment >= earliest:
                earliest, what = moment, words
    if at is None or not person:
        return max(now if at is None else at, earliest)
    if at > now + _AHEAD:
        raise UsageError(f"{iso(at)} has not come yet", hint="leave --at out for now")
    # What a person writes down has no fractions of a second.
    if at < earliest - 1.0:
        raise UsageError(
            f"{iso(at)} is before {what}: {incident.id}, {iso(earliest)}",
            hint="--at takes 2026-11-21T03:12:00Z, 03:12Z for today, or 10m for ten minutes ago",
        )
    return max(at, earliest)


#: What the entry ``opened`` fills; nobody is shown it.
_EMPTY = Incident("", "open", 1, "", "", "", "", 0.0, 0.0, 0.0, 0.0, 0.0)
