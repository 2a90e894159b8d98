"""What a guard is given, and what it answers.

A guard is a module with one function, ``judge(spec, known)``, which yields verdicts: one for each
host, or one for all. It is given its block of the plan and all that is known by then; it changes
nothing, and what it asks of the world beyond the hosts comes in with ``known`` as well, so that a
test needs no world. :mod:`deployguard.guards.registry` has the list of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deployguard.github.checks import Commit
from deployguard.plan.model import CiGuard, Component, Plan

__all__ = ["HostView", "Known", "Unknown", "Verdict", "World", "some"]

#: Names shown before "and N more".
SHOWN = 20


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
class World:
    """What guards ask of the world beyond the hosts. Each may raise :class:`Unknown`.

    ``commit`` reads what GitHub knows of a commit. ``count_commits`` counts those between two
    revisions of a checkout, given as checkout, old and new.
    """

    environ: Mapping[str, str]
    commit: Callable[[CiGuard, str], Commit]
    count_commits: Callable[[str, str, str], int]


@dataclass(frozen=True)
class Known:
    """All that a guard may judge by.

    ``drift`` is the policy of the command line, which wins over the plan's. ``fix`` says that this
    deploy is meant to mend what is not healthy now.
    """

    plan: Plan
    version: str
    hosts: tuple[HostView, ...]
    world: World
    drift: str | None = None
    fix: bool = False


def some(names: list[str] | tuple[str, ...], most: int = SHOWN) -> str:
    """The first of the names, and how many there are beside them."""
    shown = ", ".join(_printable(name) for name in names[:most])
    rest = len(names) - most
    return f"{shown} and {rest} more" if rest > 0 else shown


def _printable(name: str) -> str:
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)
