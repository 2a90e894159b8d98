"""What the live display shows, without a terminal: which host is in which phase.

Events come in, rows come out. A terminal holds perhaps thirty rows and a fleet hundreds of hosts,
so the board picks: hosts in trouble, then hosts at work, and counts the rest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from deployguard.rollout.outcome import PHASES, Event

__all__ = ["Board", "Row"]


@dataclass
class Row:
    """One host: the status of each phase it has reached, and its newest message."""

    host: str
    phases: dict[str, str] = field(default_factory=dict)
    message: str = ""
    started: float = 0.0
    touched: int = 0

    @property
    def current(self) -> str:
        """The newest phase."""
        return next(reversed(self.phases), "")

    @property
    def failed(self) -> bool:
        """Whether any phase failed here."""
        return "failed" in self.phases.values()

    @property
    def at_work(self) -> bool:
        """Whether the newest phase is not over."""
        return self.phases.get(self.current) in ("started", "progress")


class Board:
    """All hosts of a run. Not thread-safe: the recorder passes one event at a time."""

    def __init__(self, hosts: list[str]) -> None:
        self._rows = {host: Row(host) for host in hosts}
        self._clock = 0
        self.message = ""

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        if not event.host:
            self.message = event.message or self.message
            return
        row = self._rows.setdefault(event.host, Row(event.host))
        self._clock += 1
        row.touched = self._clock
        row.started = row.started or event.at
        if event.phase in PHASES and event.status != "note":
            # A phase that comes again, as a second connection does, is the newest again.
            row.phases.pop(event.phase, None)
            row.phases[event.phase] = event.status
        if event.message or event.status == "started":
            row.message = event.message

    @property
    def phases(self) -> list[str]:
        """The columns; ``restore`` only where there is one."""
        restoring = any("restore" in row.phases for row in self._rows.values())
        return [phase for phase in PHASES if phase != "restore" or restoring]

    def rows(self, height: int) -> tuple[list[Row], str]:
        """At most ``height`` rows, in the plan's order, and a line about those left out."""
        rows = list(self._rows.values())
        if len(rows) <= height:
            return rows, ""
        urgency = sorted(rows, key=lambda row: (not row.failed, not row.at_work, -row.touched))
        shown = {row.host for row in urgency[: max(height - 1, 1)]}
        left = [row for row in rows if row.host not in shown]
        return [row for row in rows if row.host in shown], f"+ {len(left)} more: {_census(left)}"

    def headline(self) -> str:
        """How many hosts are where."""
        return _census(list(self._rows.values()))


def _census(rows: list[Row]) -> str:
    counts: Counter[str] = Counter()
    for row in rows:
        over = row.phases.get(row.current) == "done"
        if row.failed and row.current != "restore":
            counts["failed"] += 1
        elif not row.current:
            counts["waiting"] += 1
        elif over and row.current == "commit":
            counts["committed"] += 1
        elif over and row.current == "restore":
            counts["restored"] += 1
        else:
            counts[row.current] += 1
    return ", ".join(f"{number} {name}" for name, number in counts.items())
