"""Incidents as they are read: one, the ongoing, those of a service, and those like one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from deployguard.errors import UsageError
from deployguard.incidents.fingerprint import fingerprint, likeness
from deployguard.incidents.machine import State
from deployguard.incidents.record import COLUMNS, Entry, Incident, Link
from deployguard.store.work import Store, Work

__all__ = ["Lookup", "Similar", "incident_in", "is_id"]

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM @incidents"  # noqa: S608 - our own columns
_ONGOING = "state IN ('open', 'acknowledged', 'mitigated')"

#: Failures that have this much in common are the same one.
SAME = 0.5
#: Where an incident has to be named, so many are.
NAMED = 6
#: Of a service with more incidents than this, the newest are compared.
COMPARED = 500
_ID = re.compile(r"(?:INC-)?(\d{8}-\d{3,})", re.IGNORECASE)


@dataclass(frozen=True)
class Similar:
    """An earlier incident that was like this one: how much, from 0 to 1, and what ended it."""

    incident: Incident
    likeness: float
    fixed_by: str


def is_id(text: str) -> bool:
    """Whether a word names an incident: ``INC-20261121-003``, in any case, ``INC-`` left out."""
    return _ID.fullmatch(text) is not None


def incident_in(work: Work, incident: str) -> Incident:
    """The incident of an id. Raises :class:`UsageError`."""
    rows = work.rows(f"{_SELECT} WHERE id = :id", {"id": incident})
    if not rows:
        raise UsageError(
            f"there is no incident {incident}", hint="`deployguard incident list --all` has them"
        )
    return Incident.of(rows[0])


class Lookup:
    """Asks a store; writes nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, incident: str) -> Incident:
        """The incident of an id. Raises :class:`UsageError`."""
        found = self._incidents("WHERE id = :id", id=_whole(incident))
        if not found:
            raise UsageError(
                f"there is no incident {incident}",
                hint="`deployguard incident list --all` has them",
            )
        return found[0]

    def only(self, state: State | None = None) -> Incident:
        """The one incident that is ongoing, or that is in a state.

        Raises :class:`UsageError` when there is none, or several.
        """
        wanted = _ONGOING if state is None else "state = :state"
        found = self._incidents(f"WHERE {wanted} ORDER BY severity, opened_at, id", state=state)
        words = state or "ongoing"
        if len(found) == 1:
            return found[0]
        if not found:
            raise UsageError(
                f"no incident is {words}", hint="name one; `deployguard incident list --all`"
            )
        names = "; ".join(f"{one.id} {one.title}" for one in found[:NAMED])
        raise UsageError(f"{len(found)} incidents are {words}", hint=f"name one: {names}")

    def ongoing(self, service: str | None = None, environment: str | None = None) -> list[Incident]:
        """Those that are not over, the worst first. One of the service of which nobody has said in
        which environment it is may be in any."""
        found = self._incidents(f"WHERE {_ONGOING} ORDER BY severity, clock_at, id")
        return [
            one
            for one in found
            if service in (None, one.service)
            and (environment in (None, one.environment) or (service and not one.environment))
        ]

    def newest(self, limit: int = 20, service: str | None = None) -> list[Incident]:
        """Whatever their state, newest first."""
        return self._incidents(
            "WHERE CAST(:service AS TEXT) IS NULL OR service = :service "
            "ORDER BY opened_at DESC, id DESC LIMIT :limit",
            service=service,
            limit=limit,
        )

    def since(self, moment: float) -> list[Incident]:
        """Opened at ``moment`` or later, oldest first."""
        return self._incidents("WHERE opened_at >= :moment ORDER BY opened_at, id", moment=moment)

    def needing_postmortem(self) -> list[Incident]:
        """Those that need a post-mortem, or have a draft of one, and are not closed, the one that
        is due first first."""
        return self._incidents(
            "WHERE state NOT IN ('closed', 'cancelled') AND (postmortem_by IS NOT NULL OR id IN "
            "(SELECT incident FROM @incident_links WHERE kind = 'postmortem')) "
            "ORDER BY coalesce(postmortem_by, detected_at), id"
        )

    def of_link(self, kind: str, value: str) -> list[Incident]:
        """Those that a transaction, a ticket and so on is linked to, newest first."""
        return self._incidents(
            "WHERE id IN (SELECT incident FROM @incident_links WHERE kind = :kind AND "
            "value = :value) ORDER BY opened_at DESC, id DESC",
            kind=kind,
            value=value,
        )

    def timeline(self, incident: str) -> list[Entry]:
        """Its entries in the order in which things happened."""
        rows = self._store.read(
            "SELECT * FROM @incident_entries WHERE incident = :id ORDER BY happened_at, number",
            {"id": incident},
        )
        return [Entry.of(row) for row in rows]

    def links(self, incident: str) -> list[Link]:
        """Its links, in the order in which they were made."""
        rows = self._store.read(
            "SELECT kind, value, linked_at FROM @incident_links WHERE incident = :id "
            "ORDER BY linked_at, kind, value",
            {"id": incident},
        )
        return [Link(**row) for row in rows]

    def similar(self, incident: Incident, most: int = 5) -> list[Similar]:
        """Earlier incidents of the same service that failed alike, the most alike first, each with
        what ended it: what somebody wrote, or the version that was committed next."""
        earlier = self._incidents(
            "WHERE service = :service AND id <> :id AND opened_at <= :before "
            "ORDER BY opened_at DESC LIMIT :limit",
            service=incident.service,
            id=incident.id,
            before=incident.opened_at,
            limit=COMPARED,
        )
        graded = [(likeness(one.signature, incident.signature), one) for one in earlier]
        alike = [(grade, one) for grade, one in graded if grade > 0 and one.state != "cancelled"]
        alike.sort(key=lambda pair: (-pair[0], -pair[1].opened_at))
        return [Similar(one, grade, self.fixed_by(one)) for grade, one in alike[:most]]

    def fixed_by(self, incident: Incident) -> str:
        """What ended an incident; empty when nobody knows."""
        if incident.fix:
            return incident.fix
        rows = self._store.read(
            "SELECT version FROM @transactions WHERE started_at > :after AND plan = :service AND "
            "environment = :environment AND status = 'committed' ORDER BY started_at LIMIT 1",
            {
                "after": incident.detected_at,
                "service": incident.service,
                "environment": incident.environment,
            },
        )
        return f"{rows[0]['version']} was deployed next" if rows else ""

    @staticmethod
    def same_failure(
        work: Work, service: str, environment: str, signature: Iterable[str]
    ) -> Incident | None:
        """The ongoing incident of the same failure: the same fingerprint, or half of its words."""
        signature = tuple(signature)
        rows = work.rows(
            f"{_SELECT} WHERE {_ONGOING} AND service = :service AND environment = :environment",
            {"service": service, "environment": environment},
        )
        wanted = fingerprint(service, environment, signature)
        graded = [
            (1.0 if one.fingerprint == wanted else likeness(one.signature, signature), one)
            for one in map(Incident.of, rows)
        ]
        alike = [pair for pair in graded if pair[0] >= SAME]
        return max(alike, key=lambda pair: (pair[0], pair[1].opened_at))[1] if alike else None

    def _incidents(self, where: str, **values: Any) -> list[Incident]:
        return [Incident.of(row) for row in self._store.read(f"{_SELECT} {where}", values)]


def _whole(incident: str) -> str:
    found = _ID.fullmatch(incident)
    return f"INC-{found[1]}" if found else incident
