"""What deploys and incidents add up to in a span of time. Pure.

docs/metrics.md defines each measure, with where the definition is from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployguard.incidents.severity import name_of
from deployguard.incidents.statistics import (
    Summary,
    counts_differ,
    durations_differ,
    shares_differ,
    summary,
)

__all__ = ["DURATIONS", "Cause", "Deploy", "Tally", "Timed", "Trend", "causes", "tally", "trends"]

#: Every duration, with what it is called.
DURATIONS: dict[str, str] = {
    "lead_time": "lead time for changes",
    "recovery": "failed deployment recovery time",
    "detect": "time to detect",
    "acknowledge": "time to acknowledge",
    "mitigate": "time to mitigate",
    "resolve": "time to resolve",
}

#: Nobody wrote down why, and no check said.
UNKNOWN = "not written down"


@dataclass(frozen=True, slots=True)
class Deploy:
    """A deployment: one that changed what is live, or tried to. ``failed`` is a change failure."""

    transaction: str
    service: str
    environment: str
    at: float
    failed: bool
    lead_time: float | None = None


@dataclass(frozen=True)
class Timed:
    """The times of one incident, in seconds; ``None`` for what has not come, or is not known.

    ``recovery`` is set for an incident of a failed deployment. ``cause`` is what somebody wrote,
    otherwise the check that failed.
    """

    incident: str
    title: str
    service: str
    environment: str
    severity: int
    state: str
    at: float
    cause: str
    detect: float | None = None
    acknowledge: float | None = None
    mitigate: float | None = None
    resolve: float | None = None
    recovery: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the severity is a word in it."""
        return {**self.__dict__, "severity": name_of(self.severity)}


@dataclass(frozen=True)
class Tally:
    """The measures of a span of time; ``values`` are the durations that were summed up."""

    days: float
    deployments: int
    failed_deployments: int
    incidents: int
    severities: dict[str, int]
    values: dict[str, tuple[float, ...]] = field(repr=False)
    durations: dict[str, Summary]

    @property
    def frequency(self) -> float:
        """Deployments a day that ended with the new version live."""
        return (self.deployments - self.failed_deployments) / self.days if self.days > 0 else 0.0

    @property
    def change_failure_rate(self) -> float | None:
        """The share of deployments that failed; ``None`` where there was none."""
        return self.failed_deployments / self.deployments if self.deployments else None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "days": self.days,
            "deployments": self.deployments,
            "failed_deployments": self.failed_deployments,
            "deployment_frequency": self.frequency,
            "change_failure_rate": self.change_failure_rate,
            "incidents": self.incidents,
            "severities": self.severities,
            **{name: found.as_dict() for name, found in self.durations.items()},
        }


@dataclass(frozen=True)
class Trend:
    """A measure in two periods, and whether they differ: ``higher``, ``lower``, ``no difference``
    where chance may have made it, or ``too few to say``."""

    measure: str
    before: float | None
    after: float | None
    verdict: str


@dataclass(frozen=True)
class Cause:
    """Incidents with the same cause; ``written`` by a person, or else the check that failed."""

    cause: str
    incidents: int
    share: float


def tally(deploys: Iterable[Deploy], incidents: Iterable[Timed], days: float) -> Tally:
    """The measures of some deploys and incidents over so many days."""
    deploys, incidents = list(deploys), list(incidents)
    values: dict[str, tuple[float, ...]] = {
        "lead_time": tuple(one.lead_time for one in deploys if one.lead_time is not None)
    }
    for name in DURATIONS:
        if name != "lead_time":
            found = (getattr(one, name) for one in incidents)
            values[name] = tuple(value for value in found if value is not None)
    severities = Counter(one.severity for one in incidents)
    return Tally(
        days=days,
        deployments=len(deploys),
        failed_deployments=sum(one.failed for one in deploys),
        incidents=len(incidents),
        severities={name_of(level): severities[level] for level in sorted(severities)},
        values=values,
        durations={name: summary(values[name]) for name in DURATIONS},
    )


def trends(before: Tally, after: Tally) -> list[Trend]:
    """How two periods that are over compare, the one before with the one after."""
    found = [
        Trend(
            "deployment frequency",
            before.frequency,
            after.frequency,
            _verdict(
                counts_differ(
                    before.deployments - before.failed_deployments,
                    before.days,
                    after.deployments - after.failed_deployments,
                    after.days,
                ),
                before.frequency,
                after.frequency,
            ),
        ),
        Trend(
            "change failure rate",
            before.change_failure_rate,
            after.change_failure_rate,
            _verdict(
                shares_differ(
                    before.failed_deployments,
                    before.deployments,
                    after.failed_deployments,
                    after.deployments,
                ),
                before.change_failure_rate,
                after.change_failure_rate,
            ),
        ),
    ]
    for name, words in DURATIONS.items():
        one, other = before.durations[name].median, after.durations[name].median
        differ = durations_differ(before.values[name], after.values[name])
        found.append(Trend(f"{words}, median", one, other, _verdict(differ, one, other)))
    return found


def _verdict(differ: bool | None, before: float | None, after: float | None) -> str:
    if differ is None or before is None or after is None:
        return "too few to say"
    if not differ or before == after:
        return "no difference"
    return "higher" if after > before else "lower"


def causes(incidents: Sequence[Timed], most: int = 5) -> list[Cause]:
    """What incidents were most often about."""
    counted = Counter(one.cause or UNKNOWN for one in incidents)
    ordered = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    return [Cause(cause, count, count / len(incidents)) for cause, count in ordered[:most]]
