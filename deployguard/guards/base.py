"""What a guard is given, and what it answers.

A guard is a module with one function, ``judge(spec, known, answers)``, which yields verdicts: one
for each host, or one for all. It is given its block of the plan and all that is known by then; it
changes nothing. What it wants to know of a host beyond the comparison of trees it asks for as data,
with ``questions(spec, plan, host)``, and gets as ``answers``. What it asks of the world beyond the
hosts comes in with ``known`` as well, so that a test needs no world.
:mod:`deployguard.guards.registry` has the list of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployguard.github.checks import Commit
from deployguard.plan.model import CiGuard, Component, Plan

__all__ = [
    "Answers",
    "Ask",
    "Consent",
    "HostView",
    "Known",
    "Question",
    "Unknown",
    "Verdict",
    "World",
    "some",
]

#: Names shown before "and N more".
SHOWN = 20

#: Asked of a host, as data; :mod:`deployguard.onhost.queries.questions` has the kinds.
Question = dict[str, Any]

#: What hosts answered to one guard: by host, then by the name of the question.
Answers = Mapping[str, Mapping[str, Any]]


class Unknown(Exception):
    """What a guard wants to know cannot be found out; what is not known is never good.

    The message says why, ``mend`` what to do about it.
    """

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.mend = mend


@dataclass(frozen=True)
class Verdict:
    """One guard's answer. ``host`` is empty for what concerns all of them.

    ``message`` says what was found, with its mend where it refuses. ``overridden`` is the reason
    for going on all the same; empty where nobody gave one.
    """

    guard: str
    passed: bool
    message: str
    host: str = ""
    overridden: str = ""

    @property
    def refuses(self) -> bool:
        """Whether the deploy ends here."""
        return not self.passed and not self.overridden

    def __str__(self) -> str:
        who = f"{self.host}: " if self.host else ""
        return f"{who}{self.guard}: {self.message}"


@dataclass(frozen=True)
class HostView:
    """One host that was looked at: ``looked`` is what the host program answered."""

    name: str
    components: Mapping[str, Component]
    looked: Mapping[str, Any]

    def live(self, component: str) -> Mapping[str, Any]:
        """``state`` (``managed``, ``foreign`` or ``absent``) and ``version`` of what is live."""
        found: Mapping[str, Any] = self.looked["components"][component]["live"]
        return found


@dataclass(frozen=True)
class Consent:
    """What a person is asked: ``lines`` are shown, and ``answer`` has to be typed within
    ``deadline`` seconds."""

    lines: tuple[str, ...]
    answer: str
    deadline: float


Ask = Callable[[Consent], bool]


@dataclass(frozen=True)
class World:
    """What guards ask of the world beyond the hosts. Each may raise :class:`Unknown`.

    ``commit`` reads what GitHub knows of a commit. ``count_commits`` counts those between two
    revisions of a checkout, given as checkout, old and new. ``look`` answers a question that is
    otherwise a host's on this machine. ``ask`` asks a person; ``None`` where there is nobody.
    """

    environ: Mapping[str, str]
    now: Callable[[], float]
    commit: Callable[[CiGuard, str], Commit]
    count_commits: Callable[[str, str, str], int]
    look: Callable[[Question], Mapping[str, Any]]
    ask: Ask | None = None


def _no_release(component: str, path: str) -> bytes | None:
    return None


@dataclass(frozen=True)
class Known:
    """All that a guard may judge by.

    ``drift`` is the policy of the command line, which wins over the plan's. ``fix`` says that this
    deploy is meant to mend what is not healthy now. ``read`` is the content of a small file of the
    new release, ``has`` whether it has one; ``foresee`` says that nothing is going to be done.
    """

    plan: Plan
    version: str
    hosts: Sequence[HostView]
    world: World
    owner: str = ""
    drift: str | None = None
    fix: bool = False
    foresee: bool = False
    rollback: bool = False
    overrides: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[str, str], bytes | None] = _no_release
    has: Callable[[str, str], bool] = lambda component, path: False


def some(names: Sequence[str], most: int = SHOWN) -> str:
    """The first of the names, and how many there are beside them."""
    shown = ", ".join(_printable(name) for name in names[:most])
    rest = len(names) - most
    return f"{shown} and {rest} more" if rest > 0 else shown


def _printable(name: str) -> str:
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)
