"""What is known of a service in an incident, as records, and what that means. Pure.

What was asked and not answered is unknown, and unknown never counts as healthy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from deployguard.incidents.severity import Level
from deployguard.response.history import Past

__all__ = [
    "Assessment",
    "CheckSeen",
    "Deploy",
    "ErrorKind",
    "HostSeen",
    "LogSeen",
    "Metric",
    "Note",
    "resource_notes",
    "suggested_severity",
]

#: Kinds of checks that look at something other than the component itself.
DEPENDENCIES = frozenset({"postgres", "mysql", "redis", "tcp", "tls", "prometheus"})

#: A deploy this long ago is recent.
RECENT = 24 * 3600.0

_GIB = 1024**3


@dataclass(frozen=True)
class CheckSeen:
    """One look at one check. ``state`` is ``healthy``, ``unhealthy`` or ``unknown``."""

    host: str
    component: str
    kind: str
    name: str
    critical: bool
    state: str
    message: str

    @property
    def healthy(self) -> bool:
        """Whether it is."""
        return self.state == "healthy"

    @property
    def dependency(self) -> bool:
        """Whether it looks at what the component needs rather than at the component."""
        return self.kind in DEPENDENCIES


@dataclass(frozen=True)
class Metric:
    """One query of Prometheus: the message of now, and the numbers now and before, if there are."""

    name: str
    state: str
    message: str
    now: float | None = None
    before: float | None = None


@dataclass(frozen=True)
class ErrorKind:
    """Lines of errors that say the same; ``new`` if none before the moment was like them."""

    shape: str
    count: int
    first: str
    new: bool


@dataclass(frozen=True)
class LogSeen:
    """The errors of one log since the moment and before; ``unknown`` says why there are none."""

    host: str
    component: str
    name: str
    lines_before: int = 0
    errors_before: int = 0
    lines: int = 0
    errors: int = 0
    kinds: tuple[ErrorKind, ...] = ()
    timed: bool = True
    unknown: str = ""

    @property
    def news(self) -> tuple[ErrorKind, ...]:
        """Kinds that are new; none where there is no log from before to compare with."""
        if not (self.timed and self.lines_before):
            return ()
        return tuple(kind for kind in self.kinds if kind.new)


@dataclass(frozen=True)
class Deploy:
    """What brought a version to a component of a host, by the host's own record."""

    host: str
    component: str
    version: str
    transaction: str
    at: float
    previous: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostSeen:
    """One host. ``error`` says why it could not be asked; ``unfinished`` are transactions there,
    in words; ``resources`` as :mod:`deployguard.onhost.evidence.hostfacts` has them."""

    host: str
    error: str = ""
    hint: str = ""
    live: tuple[Deploy, ...] = ()
    unfinished: tuple[str, ...] = ()
    resources: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Note:
    """Something that stands out, for a person to read; ``host`` is empty for all of them."""

    host: str
    text: str


@dataclass(frozen=True)
class Assessment:
    """Everything that was found out, at one moment."""

    at: float
    seconds: float
    since: float
    hosts: tuple[HostSeen, ...]
    checks: tuple[CheckSeen, ...] = ()
    metrics: tuple[Metric, ...] = ()
    logs: tuple[LogSeen, ...] = ()
    recent: tuple[Past, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def failing(self) -> tuple[CheckSeen, ...]:
        """Checks that are not healthy, the critical ones first."""
        bad = [one for one in self.checks if not one.healthy]
        return tuple(sorted(bad, key=lambda one: not one.critical))

    @property
    def unreachable(self) -> tuple[HostSeen, ...]:
        """Hosts that could not be asked."""
        return tuple(one for one in self.hosts if one.error)

    @property
    def healthy(self) -> bool:
        """Whether every host answered, and every check that matters is healthy."""
        return not self.unreachable and not any(one.critical for one in self.failing)

    @property
    def dependencies(self) -> tuple[CheckSeen, ...]:
        """Dependencies that are not healthy."""
        return tuple(one for one in self.failing if one.dependency)

    def live_versions(self) -> tuple[str, ...]:
        """Versions that are live anywhere."""
        return tuple(dict.fromkeys(one.version for host in self.hosts for one in host.live))

    def last_change(self) -> float | None:
        """When a host last got the version that it runs."""
        return max((one.at for host in self.hosts for one in host.live), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        level, why = suggested_severity(self)
        return {**asdict(self), "healthy": self.healthy, "suggests": level, "because": why}


def suggested_severity(assessment: Assessment) -> tuple[Level, str]:
    """How bad it looks from here, and why. When it is unsure the worse one is taken."""
    asked = len(assessment.hosts)
    hit = {one.host for one in assessment.failing if one.critical}
    hit |= {one.host for one in assessment.unreachable}
    if hit and len(hit) >= asked:
        return 1, "a critical check fails, or nobody answers, on every host"
    if hit:
        return 2, f"a critical check fails, or nobody answers, on {len(hit)} of {asked} hosts"
    if assessment.failing or any(one.state != "healthy" for one in assessment.metrics):
        return 3, "only checks that are not critical fail"
    if any(log.news for log in assessment.logs):
        return 3, "all checks are healthy, and there are new kinds of errors in the logs"
    return 4, "all checks are healthy"


def resource_notes(host: str, resources: Mapping[str, Any]) -> Iterator[Note]:
    """What stands out of the resources of a host."""
    if resources.get("unknown"):
        yield Note(host, f"resources: {resources['unknown']}")
        return
    for disk in _unique(resources.get("disks", ())):
        for unit, free, whole in (
            ("bytes", disk.get("bytes_free"), disk.get("bytes")),
            ("inodes", disk.get("inodes_free"), disk.get("inodes")),
        ):
            if free is not None and whole and free < whole * 0.1:
                words = f"{free / _GIB:.1f} GiB" if unit == "bytes" else f"{free} inodes"
                yield Note(host, f"{disk['path']} is nearly full: {words} free, {free / whole:.0%}")
    memory = resources.get("memory_bytes") or {}
    total, left = memory.get("MemTotal"), memory.get("MemAvailable")
    if total and left is not None and left < total * 0.1:
        yield Note(host, f"memory is short: {left / _GIB:.1f} of {total / _GIB:.1f} GiB available")
    load, cpus = resources.get("load") or [], (resources.get("host") or {}).get("cpus") or 1
    if load and load[0] > 2 * cpus:
        yield Note(host, f"load {load[0]:.1f} on {cpus} CPUs")


def _unique(disks: Iterable[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """One of the paths on each disk, as far as their numbers tell them apart."""
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for disk in disks:
        found.setdefault((disk.get("bytes"), disk.get("bytes_free"), disk.get("inodes")), disk)
    return list(found.values())


#: What a person, or a flag, may choose; in the order in which they are shown.
Choice = Literal["rollback", "hotfix", "mitigate", "none"]
