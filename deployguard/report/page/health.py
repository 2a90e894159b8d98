"""How each check of each host went, from the start of the deploy to its end. Pure.

The end of a ``check`` phase and of a restore has it on record: when a check changed, and to what.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deployguard.rollout.outcome import Event, Outcome

__all__ = ["Cell", "Matrix", "Row", "matrix"]

#: How many columns; a moment of the table is the middle between two.
COLUMNS = 12
#: More rows than these are in the forensics.
MOST = 200

SYMBOLS = {"healthy": "✓", "unhealthy": "✗", "unknown": "?", "": "·"}
WORDS = {
    "healthy": "healthy",
    "unhealthy": "unhealthy",
    "unknown": "unknown",
    "": "not looked at",
}


@dataclass(frozen=True)
class Cell:
    """How a check was at the end of a slice of time."""

    state: str

    @property
    def symbol(self) -> str:
        """What is shown."""
        return SYMBOLS.get(self.state, "?")

    @property
    def words(self) -> str:
        """What is read aloud."""
        return WORDS.get(self.state, self.state)


@dataclass(frozen=True)
class Row:
    """One check of one host; ``ended`` is its last state."""

    host: str
    check: str
    cells: tuple[Cell, ...]
    ended: str


@dataclass(frozen=True)
class Matrix:
    """Rows, and the seconds since the start at which each column ends."""

    columns: tuple[float, ...]
    rows: tuple[Row, ...]
    left_out: int


def matrix(outcome: Outcome) -> Matrix | None:
    """The health of a transaction over time; ``None`` where nothing was checked."""
    seen: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for event in outcome.timeline:
        for at, check, state in _looks(event):
            seen.setdefault((event.host, check), []).append((at, state))
    if not seen:
        return None
    for event in outcome.timeline:
        # From here on the services are stopped and the old ones come: what was known is past.
        if (event.phase, event.status) == ("restore", "started"):
            for host, check in seen:
                if host == event.host:
                    seen[host, check].append((event.at, ""))
    start = outcome.started_at
    last = max(at for looks in seen.values() for at, _ in looks)
    end = max(outcome.ended_at, last)
    step = (end - start) / COLUMNS or 1.0
    columns = [(number + 1) * step for number in range(COLUMNS)]
    rows = []
    for (host, check), looks in seen.items():
        looks.sort()
        cells = []
        for after in columns:
            known = [state for at, state in looks if at <= start + after + 1e-6]
            cells.append(Cell(known[-1] if known else ""))
        ended = next((state for _, state in reversed(looks) if state), "")
        rows.append(Row(host, check, tuple(cells), ended))
    rows.sort(key=lambda row: not any(cell.state == "unhealthy" for cell in row.cells))
    return Matrix(tuple(columns), tuple(rows[:MOST]), max(len(rows) - MOST, 0))


def _looks(event: Event) -> Iterable[tuple[float, str, str]]:
    health = event.detail.get("health")
    for look in health if isinstance(health, list | tuple) else ():
        at, check, state = look[:3]
        yield float(at), str(check), str(state)
