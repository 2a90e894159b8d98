"""Freezes, and the hours in which deploys are welcome, by the clock on the wall of a time zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from deployguard.guards.base import Answers, Known, Verdict
from deployguard.plan.model import Window, WindowGuard
from deployguard.plan.moments import DAY, is_dated, moment_of, time_of, zone_named

__all__ = ["judge", "verdict"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: How many freezes may follow one another without a gap; and how far ahead an end is looked for.
_CHAINED = 400

Span = tuple[datetime, datetime]


def judge(spec: WindowGuard, known: Known, answers: Answers) -> Iterator[Verdict]:
    """One verdict for all hosts, by the clock of this machine."""
    yield verdict(spec, known.world.now())


def verdict(spec: WindowGuard, now: float) -> Verdict:
    """Whether a deploy may begin at ``now``, UTC seconds. Pure."""
    zone = zone_named(spec.zone)
    # Compared as a clock on the wall shows it: an hour that comes twice counts both times.
    wall = datetime.fromtimestamp(now, timezone.utc).astimezone(zone).replace(tzinfo=None)
    for freeze in spec.freeze:
        if _within(freeze, wall) is not None:
            why = f": {freeze.why}" if freeze.why else ""
            until = _end(spec.freeze, wall)
            words = f"frozen{why}; it is {_shown(wall, zone)}, and the freeze ends {until}"
            return Verdict("window", False, f"{words} ({spec.zone})")
    if spec.allow and not any(_within(window, wall) for window in spec.allow):
        words = f"it is {_shown(wall, zone)}, and deploys begin {_next(spec.allow, wall)}"
        return Verdict("window", False, f"{words} ({spec.zone})")
    return Verdict("window", True, f"no freeze at {_shown(wall, zone)} ({spec.zone})")


def _within(window: Window, wall: datetime) -> Span | None:
    """The span of a window that holds a moment."""
    return next((span for span in _spans(window, wall) if span[0] <= wall < span[1]), None)


def _spans(window: Window, wall: datetime, ahead: int = 0) -> Iterator[Span]:
    """The spans that may hold a moment, and those that begin within days ``ahead`` of it."""
    if is_dated(window.start):
        yield moment_of(window.start, end=False), moment_of(window.end, end=True)
        return
    start, end = time_of(window.start), time_of(window.end)
    if end <= start:
        end += DAY  # over midnight; the window belongs to the day on which it begins
    midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0)
    for offset in range(-1, ahead + 1):
        day = midnight + timedelta(days=offset)
        if not window.days or _DAYS[day.weekday()] in window.days:
            yield day + start, day + end


def _end(freezes: tuple[Window, ...], wall: datetime) -> str:
    """When no freeze holds any more."""
    end = wall
    for _ in range(_CHAINED):
        spans = [span for freeze in freezes if (span := _within(freeze, end)) is not None]
        if not spans:
            return _moment(end)
        end = max(span[1] for span in spans)
    return "not within a year"


def _next(windows: tuple[Window, ...], wall: datetime) -> str:
    """When the next window begins."""
    starts = [
        start for window in windows for start, _ in _spans(window, wall, ahead=7) if start > wall
    ]
    return _moment(min(starts)) if starts else "never again: the windows are over"


def _shown(wall: datetime, zone: ZoneInfo) -> str:
    name = wall.replace(tzinfo=zone).tzname() or ""
    return f"{_moment(wall)} {name}".strip()


def _moment(wall: datetime) -> str:
    return wall.strftime("%a %Y-%m-%d %H:%M")
