"""What a transaction reports while it runs (:class:`Event`) and when it ended (:class:`Outcome`).

Both are plain data: the command line, the journal, the incident and a deploy script all read the
same records, and none of them can change what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

from deployguard.errors import ExitCode
from deployguard.health.finding import Finding

__all__ = ["Event", "Finding", "HostOutcome", "Listener", "Outcome", "Override", "PHASES"]

#: The columns of the progress display, in order. ``restore`` only shows in a rescue.
PHASES = ("connect", "inspect", "stage", "switch", "check", "commit", "restore")

Record = TypeVar("Record")

Phase = Literal["connect", "inspect", "stage", "switch", "check", "commit", "restore", "report"]
Status = Literal["started", "progress", "done", "failed", "note"]


@dataclass(frozen=True)
class Event:
    """Something that happened. ``at`` is UTC seconds since the epoch, from the controller's clock;
    ``host`` is empty for what concerns the whole transaction."""

    at: float
    phase: Phase
    status: Status
    host: str = ""
    message: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


@dataclass(frozen=True)
class HostOutcome:
    """How one host ended.

    ``state`` is the last record read back from the host's own journal (``committed``,
    ``restored``, ``aborted``, ``prepared``, ``stuck``, ``untouched``, ``unreachable``, …), never
    what the controller asked for. ``verified`` says that the files were compared by hash there.
    ``sick`` are the ids of the checks that were not healthy before the deploy and, after a
    restore, are not now: ``healthy`` asks nothing of those.
    """

    host: str
    state: str
    verified: bool = False
    healthy: bool = False
    versions_before: dict[str, str | None] = field(default_factory=dict)
    versions_after: dict[str, str | None] = field(default_factory=dict)
    error: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    forensics: str | None = None
    sick: tuple[str, ...] = ()


@dataclass(frozen=True)
class Override:
    """A guard that refused and was gone over: why, by whom, and what it had said."""

    guard: str
    reason: str
    by: str
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How the transaction ended. ``bool(outcome)`` is true when the new version is committed."""

    transaction: str
    plan: str
    version: str
    environment: str
    exit_code: ExitCode
    status: Literal[
        "committed",
        "unchanged",
        "rolled_back",
        "needs_person",
        "refused",
        "locked",
        "interrupted",
        "failed",
    ]
    summary: str
    started_at: float
    ended_at: float
    hosts: tuple[HostOutcome, ...] = ()
    findings: tuple[Finding, ...] = ()
    timeline: tuple[Event, ...] = ()
    forensics: str | None = None
    incident: str | None = None
    incident_url: str | None = None
    postmortem: str | None = None
    report_errors: tuple[str, ...] = ()
    overrides: tuple[Override, ...] = ()
    #: The plan as a command line names it: its path, with options where it needs them.
    source: str = ""

    def __bool__(self) -> bool:
        return self.exit_code == ExitCode.COMMITTED

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the exit code is a number in it."""
        data = asdict(self)
        data["exit_code"] = int(self.exit_code)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Outcome:
        """What :meth:`as_dict` was made from. Fields that another version wrote are left out."""
        return cls(
            **{
                **_known(cls, data),
                "exit_code": ExitCode(data["exit_code"]),
                "hosts": tuple(_made(HostOutcome, item) for item in data["hosts"]),
                "findings": tuple(_made(Finding, item) for item in data["findings"]),
                "timeline": tuple(_made(Event, item) for item in data["timeline"]),
                "report_errors": tuple(data["report_errors"]),
                "overrides": tuple(
                    Override(**{**_known(Override, item), "refused": tuple(item["refused"])})
                    for item in data.get("overrides", ())
                ),
            }
        )


def _made(kind: Callable[..., Record], data: Mapping[str, Any]) -> Record:
    return kind(**_known(kind, data))


def _known(kind: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in data.items() if name in names}
