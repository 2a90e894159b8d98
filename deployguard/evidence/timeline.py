"""Events as the rows of an incident's timeline: ISO 8601, UTC, one line each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

__all__ = ["Row", "iso", "lasting", "parse_iso", "rows", "span"]

# What a phase is called when it starts, ends well and fails.
_WORDS = {
    "connect": ("Connecting", "Connected", "Connection failed"),
    "inspect": ("Inspecting the live state", "Live state captured", "Inspection failed"),
    "stage": ("Staging the new version", "New version staged and verified", "Staging failed"),
    "switch": ("Switching", "Switched, services started", "Switch failed"),
    "check": ("Health checks started", "Health checks passed", "Health check failed"),
    "commit": ("Committing", "Committed", "Commit failed"),
    "restore": ("Restore started", "Restored and verified", "Restore failed"),
    "report": ("Reporting", "Reported", "Report failed"),
}


class Happening(Protocol):
    """What a row is made of: the fields of ``deployguard.rollout.outcome.Event``."""

    @property
    def at(self) -> float: ...
    @property
    def phase(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def message(self) -> str: ...


@dataclass(frozen=True)
class Row:
    """One line of the timeline. ``failed`` rows are the ones a reader looks for."""

    time: str
    host: str
    event: str
    details: str
    failed: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``metadata.json``."""
        return {
            "time": self.time,
            "host": self.host,
            "event": self.event,
            "details": self.details,
            "failed": self.failed,
        }


def iso(at: float, *, milliseconds: bool = False) -> str:
    """UTC seconds since the epoch as ``2023-12-11T10:05:00Z``."""
    moment = datetime.fromtimestamp(at, timezone.utc)
    text = moment.isoformat(timespec="milliseconds" if milliseconds else "seconds")
    return text.removesuffix("+00:00") + "Z"


def lasting(seconds: float) -> str:
    """``0.4 s``, ``42 s``, ``12 min``, ``3.5 h``, ``2.1 d``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"


def parse_iso(text: str) -> float:
    """UTC seconds since the epoch of a moment in ISO 8601; in UTC where it names no time zone.

    Raises :class:`ValueError`.
    """
    moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace("z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


def rows(
    events: Iterable[Happening], *, progress: bool = False, milliseconds: bool = False
) -> list[Row]:
    """The rows in the order of time; events of the same instant keep theirs.

    Progress reports are left out unless asked for: a transfer tells every second how far it is.
    """
    wanted = [event for event in events if progress or event.status != "progress"]
    return [
        Row(
            time=iso(event.at, milliseconds=milliseconds),
            host=event.host,
            event=_words(event),
            details=event.message,
            failed=event.status == "failed",
        )
        for event in sorted(wanted, key=lambda event: event.at)
    ]


def span(
    events: Iterable[Happening], first: tuple[str, str], last: tuple[str, str]
) -> float | None:
    """Seconds from the first event with (phase, status) ``first`` to the last with ``last``, as
    from the failed check to the restored host; ``None`` if either did not happen."""
    listed = list(events)
    begins = [event.at for event in listed if (event.phase, event.status) == first]
    ends = [event.at for event in listed if (event.phase, event.status) == last]
    return max(ends) - min(begins) if begins and ends else None


def _words(event: Happening) -> str:
    if event.phase not in _WORDS:
        return f"{event.phase} {event.status}"
    started, done, failed = _WORDS[event.phase]
    return {"started": started, "done": done, "failed": failed}.get(
        event.status, event.phase.capitalize()
    )
