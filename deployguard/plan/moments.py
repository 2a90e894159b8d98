"""Times of the day and dates, as a plan writes them: ``"15:00"``, ``"2026-12-24"``."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

from deployguard.plan.suggestion import did_you_mean

__all__ = ["NotAMoment", "is_dated", "moment_of", "time_of", "zone_hint", "zone_named"]

_TIME = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")
_DATED = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ T]([0-9]{2}:[0-9]{2}))?")

DAY = timedelta(days=1)


class NotAMoment(ValueError):
    """The text is no time and no date."""


def is_dated(text: str) -> bool:
    """Whether it names a day, and not a time of every day."""
    return _DATED.fullmatch(text) is not None


def time_of(text: str) -> timedelta:
    """How long after midnight. ``24:00`` is the midnight at the end of the day."""
    match = _TIME.fullmatch(text)
    if match is None or (match[1] == "24" and match[2] != "00"):
        raise NotAMoment(text)
    return timedelta(hours=int(match[1]), minutes=int(match[2]))


def moment_of(text: str, *, end: bool) -> datetime:
    """A date, perhaps with a time, on the clock of wherever it is meant.

    A date alone begins with its midnight and ends, with ``end``, with the next.
    """
    match = _DATED.fullmatch(text)
    if match is None:
        raise NotAMoment(text)
    try:
        day = datetime.combine(date.fromisoformat(match[1]), time())
    except ValueError:
        raise NotAMoment(text) from None
    if match[2] is None:
        return day + DAY if end else day
    return day + time_of(match[2])


def zone_named(name: str) -> ZoneInfo:
    """The time zone. Raises :class:`NotAMoment` for one that nobody knows."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        raise NotAMoment(name) from None


def zone_hint(name: str) -> str:
    """What to write instead of a zone that is not there: a place, which keeps summer time."""
    # "CEST" is near "EST" as words go, and seven hours from it.
    places = sorted(zone for zone in available_timezones() if "/" in zone)
    return did_you_mean(name, places) or "name a place, as in Europe/Berlin"
