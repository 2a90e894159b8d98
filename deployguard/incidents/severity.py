"""How bad it is, in four words, and how soon somebody has to act. Pure.

When it is unsure the worse one is taken. What a level asks for is counted from the moment at which
the incident was detected; a target that asks for the next business day ends with that day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta, timezone, tzinfo
from typing import Any, Literal

from deployguard.errors import UsageError

__all__ = [
    "BUSINESS_DAY",
    "LEVELS",
    "Level",
    "Target",
    "Targets",
    "due",
    "level_named",
    "name_of",
    "word",
]

Level = Literal[1, 2, 3, 4]

LEVELS: dict[Level, str] = {1: "critical", 2: "high", 3: "medium", 4: "low"}

#: Instead of a number of seconds.
BUSINESS_DAY = "next_business_day"

#: When a business day ends.
CLOSING = time(17, 0)

Span = float | str

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


@dataclass(frozen=True)
class Target:
    """Seconds, or :data:`BUSINESS_DAY`: until somebody says that they are at it, until the cause is
    gone, and from one escalation of what is overdue to the next."""

    acknowledge: Span
    resolve: Span
    escalate: Span


_DEFAULT: dict[str, Target] = {
    "critical": Target(15 * _MINUTE, 1 * _HOUR, 15 * _MINUTE),
    "high": Target(30 * _MINUTE, 4 * _HOUR, 1 * _HOUR),
    "medium": Target(2 * _HOUR, 24 * _HOUR, 4 * _HOUR),
    "low": Target(BUSINESS_DAY, 7 * _DAY, 1 * _DAY),
}


@dataclass(frozen=True)
class Targets:
    """The target of each level, and the time zone of the business days."""

    levels: Mapping[str, Target] = field(default_factory=lambda: dict(_DEFAULT))
    zone: str = "UTC"

    def of(self, level: int) -> Target:
        """What a severity asks for."""
        return self.levels[name_of(level)]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        levels = {name: dict(target.__dict__) for name, target in self.levels.items()}
        return {**levels, "zone": self.zone}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Targets:
        """What :meth:`as_dict` was made from; what it leaves out is as it is by default."""
        levels = {
            name: Target(**{**target.__dict__, **data.get(name, {})})
            for name, target in _DEFAULT.items()
        }
        return cls(levels, str(data.get("zone", "UTC")))


def name_of(level: int) -> str:
    """``critical``, ``high``, ``medium`` or ``low``."""
    return next(name for number, name in LEVELS.items() if number == level)


def level_named(word: str) -> Level:
    """The level that a word or a number names. Raises :class:`UsageError`."""
    for level, name in LEVELS.items():
        if word.lower() in (name, str(level)):
            return level
    known = ", ".join(f"{name} ({level})" for level, name in LEVELS.items())
    raise UsageError(f'"{word}" is no severity', hint=f"it is one of {known}")


def word(level: int) -> str:
    """How a severity is shown: ``critical (1)``."""
    return f"{name_of(level)} ({level})"


def due(start: float, span: Span, zone: str = "UTC") -> float:
    """When a target that runs from ``start`` is missed; both UTC seconds since the epoch."""
    if not isinstance(span, str):
        return start + span
    begun = datetime.fromtimestamp(start, _zone(zone))
    day = begun.date() + timedelta(days=1)
    while day.weekday() >= 5:
        day += timedelta(days=1)
    return datetime.combine(day, CLOSING, begun.tzinfo).timestamp()


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return timezone.utc
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # The plan was checked where it was written. To fail here would leave a target without an
        # end for the sake of a few hours.
        return timezone.utc
