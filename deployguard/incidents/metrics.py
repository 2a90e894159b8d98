"""The metrics of a store: deploys and incidents, by week, month or quarter.

Two statements are all that is asked of the store. Neither reads an outcome or a timeline, which are
long, so that ten thousand transactions are counted in a fraction of a second.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from deployguard.incidents.periods import Kind, Period, periods
from deployguard.incidents.tally import (
    Cause,
    Deploy,
    Tally,
    Timed,
    Trend,
    causes,
    tally,
    trends,
)
from deployguard.store.work import Store

__all__ = ["Metrics", "measure"]

Placed = TypeVar("Placed", Deploy, Timed)

_INCIDENTS = """
SELECT id, title, service, environment, severity, state, origin, signature, impact_at, detected_at,
    acknowledged_at, mitigated_at, resolved_at, cause
FROM @incidents WHERE detected_at >= :since AND state <> 'cancelled'
    AND (CAST(:service AS TEXT) IS NULL OR service = :service)
    AND (CAST(:environment AS TEXT) IS NULL OR environment = :environment)
ORDER BY detected_at, id
"""

_TRANSACTIONS = """
SELECT id, plan, environment, status, started_at, ended_at, changed_at FROM @transactions
WHERE started_at >= :since AND status IN ('committed', 'rolled_back', 'needs_person')
    AND (CAST(:service AS TEXT) IS NULL OR plan = :service)
    AND (CAST(:environment AS TEXT) IS NULL OR environment = :environment)
ORDER BY started_at, id
"""

#: Incidents are linked to deploys at once or later, never before.
_LINKS = """
SELECT link.value AS deploy, link.incident, one.impact_at, one.detected_at
FROM @incident_links link JOIN @incidents one ON one.id = link.incident
WHERE link.kind = 'transaction' AND one.state <> 'cancelled' AND link.linked_at >= :since
"""


@dataclass(frozen=True)
class Metrics:
    """``whole`` is over all of ``periods``, which ``tallies`` go with; ``groups`` is the whole by
    service and environment. ``compared`` are the two periods of ``trends``."""

    kind: Kind
    service: str | None
    environment: str | None
    periods: tuple[Period, ...]
    tallies: tuple[Tally, ...]
    whole: Tally
    groups: Mapping[tuple[str, str], Tally]
    compared: tuple[str, str] | None
    trends: tuple[Trend, ...]
    causes: tuple[Cause, ...]
    incidents: tuple[Timed, ...]


def measure(
    store: Store,
    now: float,
    *,
    by: Kind = "month",
    count: int = 6,
    service: str | None = None,
    environment: str | None = None,
) -> Metrics:
    """Measure the last ``count`` periods, of a service, of an environment, or of all."""
    spans = periods(by, now, count)
    since, until = spans[0].start, spans[-1].end
    asked = {"since": since, "service": service, "environment": environment}
    links = store.read(_LINKS, {"since": since})
    deploys = _deploys(store.read(_TRANSACTIONS, asked), links)
    deploys = [one for one in deploys if one.at <= until]
    of_failures = {one.transaction for one in deploys if one.failed}
    failed = {link["incident"] for link in links if link["deploy"] in of_failures}
    rows = store.read(_INCIDENTS, asked)
    incidents = [_timed(row, row["id"] in failed) for row in rows if row["detected_at"] <= until]
    days = sum(span.days for span in spans)
    tallies = tuple(_within(span, deploys, incidents) for span in spans)
    done = [pair for pair in zip(spans, tallies, strict=True) if pair[0].whole][-2:]
    return Metrics(
        kind=by,
        service=service,
        environment=environment,
        periods=tuple(spans),
        tallies=tallies,
        whole=tally(deploys, incidents, days),
        groups=_groups(deploys, incidents, days),
        compared=(done[0][0].name, done[1][0].name) if len(done) == 2 else None,
        trends=tuple(trends(done[0][1], done[1][1])) if len(done) == 2 else (),
        causes=tuple(causes(incidents)),
        incidents=tuple(incidents),
    )


def _within(period: Period, deploys: list[Deploy], incidents: list[Timed]) -> Tally:
    """The measures of a period; both lists are in the order of time."""
    return tally(_between(period, deploys), _between(period, incidents), period.days)


def _between(period: Period, found: list[Placed]) -> list[Placed]:
    first = bisect_left(found, period.start, key=lambda one: one.at)
    # The last period ends now, and now is in it.
    after = bisect_left(found, period.end, key=lambda one: one.at) if period.whole else len(found)
    return found[first:after]


def _groups(
    deploys: list[Deploy], incidents: list[Timed], days: float
) -> dict[tuple[str, str], Tally]:
    found: dict[tuple[str, str], tuple[list[Deploy], list[Timed]]] = {}
    for deploy in deploys:
        found.setdefault((deploy.service, deploy.environment), ([], []))[0].append(deploy)
    for incident in incidents:
        found.setdefault((incident.service, incident.environment), ([], []))[1].append(incident)
    return {key: tally(*mine, days) for key, mine in sorted(found.items())}


def _deploys(rows: list[dict[str, Any]], links: list[dict[str, Any]]) -> list[Deploy]:
    """What counts as a deployment, and which of them failed."""
    linked: dict[str, list[dict[str, Any]]] = {}
    for link in links:
        linked.setdefault(link["deploy"], []).append(link)
    found = []
    for row in rows:
        mine = linked.get(row["id"], [])
        committed = row["status"] == "committed"
        if not committed and mine and all(link["impact_at"] is None for link in mine):
            continue  # Nothing live was touched, so nothing was deployed.
        # What ended an incident may be linked to it as well; what caused it began before.
        failed = not committed or any(link["detected_at"] >= row["started_at"] for link in mine)
        lead = None
        if committed and row["changed_at"] is not None and row["ended_at"] is not None:
            lead = max(row["ended_at"] - row["changed_at"], 0.0)
        found.append(
            Deploy(row["id"], row["plan"], row["environment"], row["started_at"], failed, lead)
        )
    return found


def _timed(row: dict[str, Any], of_failure: bool) -> Timed:
    impact, detected, mitigated = row["impact_at"], row["detected_at"], row["mitigated_at"]
    start = detected if impact is None else impact
    return Timed(
        incident=row["id"],
        title=row["title"],
        service=row["service"],
        environment=row["environment"],
        severity=row["severity"],
        state=row["state"],
        at=detected,
        cause=row["cause"] or _failed_check(row),
        detect=_after(impact, detected),
        acknowledge=_after(detected, row["acknowledged_at"]),
        mitigate=_after(detected, mitigated),
        resolve=_after(detected, row["resolved_at"]),
        recovery=_after(start, mitigated) if of_failure else None,
    )


def _failed_check(row: Mapping[str, Any]) -> str:
    """``check failed: web http http``: which check of which component, without its words."""
    if row["origin"] not in ("deploy", "watch"):
        return ""
    first = next(iter(json.loads(row["signature"])), "")
    check, colon, _ = first.partition(": ")
    return f"check failed: {check.removeprefix('- ')}" if colon else ""


def _after(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(end - start, 0.0)
