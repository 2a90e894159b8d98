"""What this project's own transactions say about the next one: how long, and how often it works.

Pure, from the rows of the store. What was never measured is not known, and that is said: nobody
is told "about 15 minutes" by a table that somebody made up.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Estimate", "History", "Past", "estimate", "history_of", "past_of", "read_history"]

#: As many of the newest transactions are read; older ones say little about today's hosts.
READ = 60
#: From so many on, the 90th percentile says more than the longest.
_MANY = 10


@dataclass(frozen=True)
class Past:
    """One transaction that has ended.

    ``downtime`` is the longest that a host took from its services' stop until its checks had
    passed; ``restored`` the longest from the failure until the old version was proven healthy, in
    one that failed; ``took`` the whole. Seconds; ``None`` where it was not measured. ``back`` says
    that it brought a version which had been live before.
    """

    transaction: str
    version: str
    status: str
    started_at: float
    ended_at: float
    exit_code: int = 0
    before: tuple[str, ...] = ()
    back: bool = False
    downtime: float | None = None
    restored: float | None = None

    @property
    def took(self) -> float:
        """Seconds from the start to the end."""
        return self.ended_at - self.started_at


@dataclass(frozen=True)
class Estimate:
    """How long something is going to take, by how long it took: ``n`` times, of ``what``.

    ``median`` and ``high`` are seconds; ``high_is`` is ``p90``, or ``longest`` of a few. Without
    one time that was measured, both are ``None``.
    """

    n: int = 0
    what: str = ""
    median: float | None = None
    high: float | None = None
    high_is: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return self.median is not None


@dataclass(frozen=True)
class History:
    """The transactions of a plan in an environment, oldest first."""

    past: tuple[Past, ...] = ()
    #: Seconds from the detection of an incident until a new version was committed.
    fixes: tuple[float, ...] = ()
    #: Whether it was healthy afterwards, each time that somebody chose to mitigate.
    mitigated: tuple[bool, ...] = ()

    @property
    def committed(self) -> tuple[Past, ...]:
        """Those that went well and changed something."""
        return tuple(one for one in self.past if one.status == "committed")

    @property
    def rollbacks(self) -> tuple[Past, ...]:
        """Those that went back to a version, however they ended."""
        return tuple(one for one in self.past if one.back)

    @property
    def deploys(self) -> tuple[Past, ...]:
        """Those that brought a new version and came as far as touching something."""
        touched = ("committed", "rolled_back", "needs_person")
        return tuple(one for one in self.past if not one.back and one.status in touched)

    def of_version(self, version: str) -> tuple[Past, ...]:
        """Those that brought a version."""
        return tuple(one for one in self.past if one.version == version)

    def since(self, moment: float) -> tuple[Past, ...]:
        """Those that ended after a moment."""
        return tuple(one for one in self.past if one.ended_at >= moment)


def estimate(seconds: Iterable[float | None], what: str) -> Estimate:
    """The median, and the 90th percentile or the longest, of what was measured."""
    known = sorted(value for value in seconds if value is not None)
    if not known:
        return Estimate(0, what)
    if len(known) >= _MANY:
        high = statistics.quantiles(known, n=10, method="inclusive")[-1]
        return Estimate(len(known), what, statistics.median(known), high, "p90")
    return Estimate(len(known), what, statistics.median(known), known[-1], "longest")


def history_of(
    rows: Sequence[Mapping[str, Any]],
    fixes: Iterable[float] = (),
    mitigated: Iterable[bool] = (),
) -> History:
    """The history that rows of the table of transactions add up to, in any order.

    A row has ``id``, ``version``, ``status``, ``exit_code``, ``started_at``, ``ended_at`` and
    ``outcome``: the mapping of :meth:`Outcome.as_dict`, or that as JSON.
    """
    was_live: dict[str, int] = {}
    ended = [row for row in rows if row["ended_at"] is not None and row["status"]]
    past = [past_of(row, was_live) for row in sorted(ended, key=_order)]
    return History(tuple(past), tuple(fixes), tuple(mitigated))


def _order(row: Mapping[str, Any]) -> tuple[float, str]:
    return float(row["ended_at"]), str(row["id"])


def past_of(row: Mapping[str, Any], was_live: dict[str, int]) -> Past:
    """One row; ``was_live`` has the versions that were live before it, each with its place in the
    order in which they first were, and learns those of the row."""
    raw = row["outcome"] or {}
    outcome: Mapping[str, Any] = json.loads(raw) if isinstance(raw, str) else raw
    hosts: Sequence[Mapping[str, Any]] = outcome.get("hosts", ())
    before = sorted(
        {
            version
            for host in hosts
            for version in (host.get("versions_before") or {}).values()
            if version is not None
        }
    )
    version = str(row["version"])
    for one in before:
        was_live.setdefault(one, len(was_live))
    newest = max((was_live[one] for one in before), default=-1)
    back = was_live.get(version, newest) < newest
    if row["status"] in ("committed", "unchanged"):
        was_live.setdefault(version, len(was_live))
    seconds = [host.get("seconds") or {} for host in hosts]
    return Past(
        transaction=str(row["id"]),
        version=version,
        status=str(row["status"]),
        started_at=float(row["started_at"]),
        ended_at=float(row["ended_at"]),
        exit_code=int(row["exit_code"] or 0),
        before=tuple(before),
        back=back,
        # Where nothing was live nothing was down.
        downtime=_longest(seconds, "switch", "check")
        if row["status"] == "committed" and before
        else None,
        restored=_longest(seconds, "restore"),
    )


def _longest(hosts: Iterable[Mapping[str, float]], *phases: str) -> float | None:
    """Of the hosts that went through all of some phases, the longest sum of these."""
    sums = [sum(one[phase] for phase in phases) for one in hosts if all(p in one for p in phases)]
    return max(sums, default=None)


def read_history(store: Any, plan: str, environment: str) -> History:
    """The newest transactions of a plan in an environment, with what incidents tell of them."""
    rows = store.read(
        "SELECT id, version, status, exit_code, started_at, ended_at, outcome FROM @transactions "
        "WHERE plan = :plan AND environment = :environment AND ended_at IS NOT NULL "
        "ORDER BY started_at DESC LIMIT :limit",
        {"plan": plan, "environment": environment, "limit": READ},
    )
    history = history_of(rows)
    incidents = store.read(
        "SELECT detected_at FROM @incidents WHERE service = :plan AND environment = :environment "
        "AND state <> 'cancelled' ORDER BY detected_at DESC LIMIT :limit",
        {"plan": plan, "environment": environment, "limit": READ},
    )
    responses = store.read(
        "SELECT e.detail FROM @incident_entries e JOIN @incidents i ON i.id = e.incident "
        "WHERE e.kind = 'responded' AND i.service = :plan AND i.environment = :environment "
        "ORDER BY e.happened_at DESC LIMIT :limit",
        {"plan": plan, "environment": environment, "limit": READ},
    )
    details = [json.loads(row["detail"]) for row in responses]
    return History(
        history.past,
        tuple(_fixes([float(row["detected_at"]) for row in incidents], history.past)),
        tuple(bool(one.get("healthy")) for one in details if one.get("choice") == "mitigate"),
    )


def _fixes(detected: Iterable[float], past: Sequence[Past]) -> Iterable[float]:
    """How long after each incident the next new version was live."""
    for moment in detected:
        later = [
            one.ended_at
            for one in past
            if one.status == "committed" and not one.back and one.ended_at > moment
        ]
        if later:
            yield min(later) - moment
