"""Moments and spans, as people type and read them."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone

import click

from deployguard.evidence.timeline import iso, parse_iso
from deployguard.evidence.timeline import lasting as span

__all__ = ["moment", "read_moment", "relative", "span"]

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])(?:\s*ago)?")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TODAY = re.compile(r"(\d\d):(\d\d)(?::(\d\d))?[Zz]")


def moment(text: str, now: float) -> float:
    """UTC seconds since the epoch: ``2026-11-21T03:12:00Z``, ``03:12Z`` for the last such moment,
    or ``10m`` for ten minutes ago. Raises :class:`ValueError`."""
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return now - float(ago[1]) * _SECONDS[ago[2]]
    clock = _TODAY.fullmatch(text.strip())
    if clock is not None:
        hour, minute, second = (int(part or 0) for part in clock.groups())
        today = datetime.fromtimestamp(now, timezone.utc)
        found = today.replace(hour=hour, minute=minute, second=second, microsecond=0).timestamp()
        return found if found <= now else found - _SECONDS["d"]
    return parse_iso(text)


def read_moment(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """For an option that takes a moment."""
    if value is None:
        return None
    try:
        return moment(value, time.time())
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is no moment; write 2026-11-21T03:12:00Z, 03:12Z, or 10m for ten minutes "
            "ago"
        ) from None


def relative(at: float, now: float) -> str:
    """``2026-11-21T03:27:00Z (in 15 min)``, or ``(12 min ago)``."""
    away = at - now
    return f"{iso(at)} (in {span(away)})" if away >= 0 else f"{iso(at)} ({span(-away)} ago)"
