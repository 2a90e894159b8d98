"""What a drill found, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from deployguard.errors import ExitCode

__all__ = ["DrillReport", "HostDrilled", "ScenarioDrilled"]


@dataclass(frozen=True)
class HostDrilled:
    """How one host ended in one scenario.

    ``ended`` is what is live: wholly the ``old`` version, wholly the ``new`` one, or ``neither``,
    also where the host could not be read. ``by`` is who brought it there: the ``deploy`` itself,
    the ``host`` when nobody was left, or ``recover``. ``seconds`` are those from the start of the
    deploy until nothing was unfinished on the host. ``left`` is what was left behind, ``problems``
    is every way in which the promise was broken here.
    """

    host: str
    ended: Literal["old", "new", "neither"]
    by: Literal["deploy", "host", "recover"]
    seconds: float
    versions: dict[str, str | None]
    verified: bool
    healthy: bool
    left: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScenarioDrilled:
    """How one scenario went.

    ``happened`` is false when the deploy ended before the fault's turn came. ``deploy`` is the exit
    status of the deploy, negative for a signal. ``look_at`` is where to read on.
    """

    scenario: str
    what: str
    kept: bool
    happened: bool
    deploy: int
    seconds: float
    hosts: tuple[HostDrilled, ...] = ()
    problems: tuple[str, ...] = ()
    transaction: str = ""
    look_at: tuple[str, ...] = ()


@dataclass(frozen=True)
class DrillReport:
    """The whole drill. ``bool(report)`` is true when every scenario kept the promise."""

    plan: str
    environment: str
    old: str
    new: str
    exit_code: ExitCode
    summary: str
    started_at: float
    ended_at: float
    scenarios: tuple[ScenarioDrilled, ...] = ()
    not_run: tuple[str, ...] = ()
    #: The plan as a command line names it: its path, with options where it needs them.
    source: str = ""

    def __bool__(self) -> bool:
        return self.exit_code == ExitCode.COMMITTED

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the exit code is a number in it."""
        data = asdict(self)
        data["exit_code"] = int(self.exit_code)
        return data
