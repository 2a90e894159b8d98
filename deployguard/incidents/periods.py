"""Weeks, months and quarters, in UTC. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal, get_args

__all__ = ["KINDS", "Kind", "Period", "periods"]

Kind = Literal["week", "month", "quarter"]

KINDS: tuple[Kind, ...] = get_args(Kind)

_DAY = 86400.0


@dataclass(frozen=True)
class Period:
    """From ``start``, which is in it, to ``end``, which is not; ``whole`` when it is over."""

    name: str
    start: float
    end: float
    whole: bool

    @property
    def days(self) -> float:
        """How many days of it have passed."""
        return (self.end - self.start) / _DAY


def periods(kind: Kind, now: float, count: int) -> list[Period]:
    """The last so many, oldest first; the one that ``now`` is in ends with it."""
    start = _start(kind, datetime.fromtimestamp(now, timezone.utc))
    found = [Period(_name(kind, start), start.timestamp(), now, whole=False)]
    while len(found) < count:
        before = _start(kind, start - timedelta(days=1))
        found.append(Period(_name(kind, before), before.timestamp(), start.timestamp(), whole=True))
        start = before
    return found[::-1]


def _start(kind: Kind, moment: datetime) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == "week":
        return day - timedelta(days=day.weekday())
    if kind == "quarter":
        return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    return day.replace(day=1)


def _name(kind: Kind, start: datetime) -> str:
    """``2026-W47`` as ISO 8601 counts weeks, ``2026-11``, ``2026-Q4``."""
    if kind == "week":
        year, week, _ = start.isocalendar()
        return f"{year}-W{week:02d}"
    if kind == "quarter":
        return f"{start.year}-Q{(start.month + 2) // 3}"
    return f"{start.year}-{start.month:02d}"
