"""A transaction as lanes: a row for each host, a bar for each phase, from the start to the end.
Pure: from events to numbers, in the units of the drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from deployguard.rollout.outcome import PHASES, Event, Outcome

__all__ = ["Bar", "Lane", "Lanes", "Tick", "lanes"]

#: The drawing: as wide as this, with room for names on the left.
WIDTH = 760.0
LEFT = 130.0
RIGHT = 20.0
TOP = 26.0
HEIGHT = 26.0
#: A bar that is shorter than this could not be seen.
_NARROWEST = 3.0
#: A label needs this much room.
_PER_LETTER = 6.2
#: More hosts than these would not be a picture; those in trouble come first.
MOST = 60
#: Of a long name, so much.
_NAME = 18

_STEPS = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    21600,
    86400,
)


@dataclass(frozen=True)
class Bar:
    """A phase of a host; ``status`` is ``done``, ``failed`` or ``unfinished``."""

    phase: str
    status: str
    start: float
    end: float
    x: float
    width: float
    label: str

    @property
    def words(self) -> str:
        """For who points at it, and for who cannot see it."""
        return f"{self.phase} {self.status}, {self.end - self.start:.2f} s"


@dataclass(frozen=True)
class Lane:
    """A host with its bars; ``y`` is its upper edge, ``text_y`` where its name stands."""

    host: str
    name: str
    state: str
    y: float
    text_y: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Tick:
    """A moment on the axis."""

    x: float
    label: str


@dataclass(frozen=True)
class Lanes:
    """The whole drawing; ``left_out`` are hosts that are not in it."""

    width: float
    height: float
    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...]
    left_out: int
    sign_x: float | None


def lanes(outcome: Outcome) -> Lanes:
    """Draw a transaction."""
    start = outcome.started_at
    end = max([outcome.ended_at, *(event.at for event in outcome.timeline)], default=start)
    scale = (WIDTH - LEFT - RIGHT) / max(end - start, 0.001)

    def place(at: float) -> float:
        return round(LEFT + max(at - start, 0.0) * scale, 1)

    states = {host.host: host.state for host in outcome.hosts}
    hosts = _ordered(states, outcome.timeline)
    drawn = []
    for number, host in enumerate(hosts[:MOST]):
        y = TOP + number * HEIGHT
        bars = []
        for phase, status, begun, over in _spans(outcome.timeline, host, end):
            width = max(round((over - begun) * scale, 1), _NARROWEST)
            label = phase if width > len(phase) * _PER_LETTER + 6 else ""
            bars.append(Bar(phase, status, begun, over, place(begun), width, label))
        name = host if len(host) <= _NAME else host[: _NAME - 1] + "…"
        drawn.append(Lane(host, name, states.get(host, ""), y, y + 17, tuple(bars)))
    failed = [event.at for event in outcome.timeline if event.status == "failed"]
    return Lanes(
        width=WIDTH,
        height=TOP + len(drawn) * HEIGHT + 8,
        lanes=tuple(drawn),
        ticks=tuple(_ticks(end - start, place, start)),
        left_out=len(hosts) - len(drawn),
        sign_x=place(min(failed)) if failed else None,
    )


def _ordered(states: dict[str, str], events: Iterable[Event]) -> list[str]:
    """Those where something failed first."""
    hosts = list(states) or list(dict.fromkeys(event.host for event in events if event.host))
    failed = {event.host for event in events if event.status == "failed"}
    return sorted(hosts, key=lambda host: host not in failed)


def _spans(
    events: Sequence[Event], host: str, end: float
) -> Iterable[tuple[str, str, float, float]]:
    """Phase, status, start and end, in the order in which they began."""
    begun: dict[str, float] = {}
    found: list[tuple[str, str, float, float]] = []
    for event in sorted(events, key=lambda event: event.at):
        if event.host != host or event.phase not in PHASES:
            continue
        if event.status == "started":
            begun.setdefault(event.phase, event.at)
        elif event.status in ("done", "failed"):
            start = begun.pop(event.phase, event.at)
            found.append((event.phase, event.status, start, event.at))
    found += [(phase, "unfinished", start, end) for phase, start in begun.items()]
    return sorted(found, key=lambda span: span[2])


def _ticks(seconds: float, place: Callable[[float], float], start: float) -> Iterable[Tick]:
    step = next((step for step in _STEPS if seconds / step <= 8), _STEPS[-1])
    count = int(seconds / step) + 1
    for number in range(min(count, 12)):
        at = number * step
        yield Tick(place(start + at), f"{at:g} s" if seconds < 180 else f"{at / 60:g} min")
