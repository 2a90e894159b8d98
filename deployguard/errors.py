"""Every way deployguard can end, each with its message, its exit code and who must act.

The exit code belongs to the error class, so that a new failure cannot be invented without
deciding what the caller sees. ``deployguard explain CODE`` and ``docs/exit-codes.md`` are made
from this table; a test checks that the codes and the classes agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "ActionFailed",
    "ConnectionLost",
    "DeployguardError",
    "EngineUnavailable",
    "ExitCode",
    "HostFailure",
    "InternalError",
    "Interrupted",
    "JournalUnavailable",
    "Locked",
    "Mistake",
    "PlanInvalid",
    "ProtocolError",
    "Refused",
    "RestoreFailed",
    "RolledBack",
    "Unreachable",
    "UsageError",
    "EXPLANATIONS",
    "with_plan",
]


class ExitCode(IntEnum):
    """The stable exit codes of the command line."""

    COMMITTED = 0
    INTERNAL = 1
    USAGE = 2
    ROLLED_BACK = 3
    NEEDS_PERSON = 4
    REFUSED = 5
    LOCKED = 6
    INTERRUPTED = 7
    OVERDUE = 8
    UNHEALTHY = 9
    CHANGES = 10


@dataclass(frozen=True)
class Explanation:
    """What an exit code means and what the person reading it does next.

    ``PLAN`` behind a command stands for the plan file; see :func:`with_plan`.
    """

    meaning: str
    detail: str
    act: str


EXPLANATIONS: dict[ExitCode, Explanation] = {
    ExitCode.COMMITTED: Explanation(
        "committed, healthy",
        "Every host runs the new version and passed its checks, or there was nothing to do.",
        "Nothing. `deployguard status PLAN` shows what is live.",
    ),
    ExitCode.INTERNAL: Explanation(
        "deployguard's own error",
        "deployguard itself failed. Hosts that were mid-switch restore themselves when the lease "
        "ends.",
        "Run `deployguard status PLAN`, then `deployguard recover PLAN`. Please report the "
        "traceback.",
    ),
    ExitCode.USAGE: Explanation(
        "bad usage or plan",
        "The command line, the plan file or an artifact has mistakes. Hosts may have been "
        "connected; nothing on them was touched.",
        "Mend the lines named in the message; `deployguard validate PLAN` checks them alone.",
    ),
    ExitCode.ROLLED_BACK: Explanation(
        "failed, rolled back, verified and healthy",
        "The new version failed. Every touched host has the old version back, its files verified "
        "by hash, its checks as good as before the deploy.",
        "Read what failed and the forensics folder, mend the release, deploy again.",
    ),
    ExitCode.NEEDS_PERSON: Explanation(
        "failed, and the restore failed or is unverified: a person is needed",
        "At least one host is named as not restored, or held behind a migration that cannot be "
        "taken back. Nothing was pruned: the old and the new tree are both still there.",
        "Go to the hosts named, read what failed, then run `deployguard recover PLAN`.",
    ),
    ExitCode.REFUSED: Explanation(
        "refused by a guard; nothing was touched",
        "A guard, drift, the space check or the engine said no before anything live was changed.",
        "Read the refusal; it names the guard, the host and the mend.",
    ),
    ExitCode.LOCKED: Explanation(
        "locked by another transaction",
        "Another transaction holds the same path on a host; the message names it, and since when.",
        "Wait for it, or run `deployguard recover PLAN` if its run is dead.",
    ),
    ExitCode.INTERRUPTED: Explanation(
        "interrupted: handed over to the hosts, or in doubt",
        "The run was interrupted. Hosts restore themselves; prepared hosts wait for the decision.",
        "Run `deployguard recover PLAN`.",
    ),
    ExitCode.OVERDUE: Explanation(
        "overdue: an incident or a post-mortem waits for a person",
        "`incident check` found a target that was missed, or `postmortem check` a post-mortem that "
        "is not finished. Nothing on a host was asked or touched.",
        "Look at what is named; `deployguard incident list` has every incident that is not over.",
    ),
    ExitCode.UNHEALTHY: Explanation(
        "not healthy: a check that matters fails, and no deploy is at work on it",
        "`incident respond` did what was chosen and a check still fails, or `watch` ended while "
        "one did. What was done is in the incident.",
        "`deployguard incident list` names it; `deployguard incident respond PLAN` has the "
        "options.",
    ),
    ExitCode.CHANGES: Explanation(
        "there are changes",
        "`plan --detailed-exitcode` found differences between the plan and the hosts, or "
        "`status --verify` between what is live and what was deployed.",
        "Nothing, or `deployguard apply PLAN`.",
    ),
}


_PLAN = re.compile(r"(`deployguard [a-z]+(?: [a-z]+)?) PLAN\b")


def with_plan(text: str, plan: str) -> str:
    """A mend with the plan where it says ``PLAN``, so that the command can be copied and run.

    ``plan`` is how a command line names it (:attr:`deployguard.plan.model.Plan.arguments`).
    """
    return _PLAN.sub(lambda found: f"{found[1]} {plan}", text) if plan else text


class DeployguardError(Exception):
    """Root of the tree. ``hint`` says how to mend it; never holds a secret."""

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InternalError(DeployguardError):
    """deployguard broke one of its own rules."""


class JournalUnavailable(InternalError):
    """The controller's journal cannot be read or written."""


class UsageError(DeployguardError):
    """The command line does not make sense."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, order=True)
class Mistake:
    """One mistake in a plan or inventory file, with its place.

    ``line`` and ``column`` count from 1; ``where`` is the dotted path in the document, such as
    ``components.backend.chekcs``.
    """

    file: str
    line: int
    column: int
    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}"
        where = f" {self.where}:" if self.where else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{place}{where} {self.message}{hint}"


class PlanInvalid(DeployguardError):
    """The plan has mistakes; all of them are in ``mistakes``, in file order.

    ``subject`` says what they are in, if that is not the plan itself.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, mistakes: list[Mistake], *, subject: str = "the plan") -> None:
        self.mistakes = sorted(mistakes)
        self.subject = subject
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class Refused(DeployguardError):
    """A guard, drift or the space check refused; nothing live was touched.

    ``refusals`` has a (host, guard, message) for each that did; the host is empty where it is about
    all of them.
    """

    exit_code = ExitCode.REFUSED

    def __init__(
        self, message: str, *, hint: str = "", refusals: Iterable[tuple[str, str, str]] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.refusals = tuple(refusals)


class EngineUnavailable(Refused):
    """The engine that is to run the hosts' transactions cannot; nothing was begun."""


class Locked(DeployguardError):
    """Another transaction holds a path this one needs."""

    exit_code = ExitCode.LOCKED


class Interrupted(DeployguardError):
    """The run was interrupted and handed over to the hosts."""

    exit_code = ExitCode.INTERRUPTED


class RolledBack(DeployguardError):
    """The deploy failed and every touched host is verified back on the old version."""

    exit_code = ExitCode.ROLLED_BACK


class RestoreFailed(DeployguardError):
    """The deploy failed and at least one host could not be restored or verified."""

    exit_code = ExitCode.NEEDS_PERSON


class HostFailure(DeployguardError):
    """Something failed on, or on the way to, one host. ``host`` is its name in the plan."""

    exit_code = ExitCode.ROLLED_BACK

    def __init__(self, host: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{host}: {message}", hint=hint)
        self.host = host
        self.reason = message


class Unreachable(HostFailure):
    """No connection could be made to the host within the deadline."""


class ConnectionLost(HostFailure):
    """The connection broke while the host program was at work; the outcome there is unknown."""


class ProtocolError(HostFailure):
    """The host program answered something that is not in the protocol."""


class ActionFailed(HostFailure):
    """The host program reports that a step failed. ``kind`` is the host's error kind."""

    def __init__(
        self,
        host: str,
        message: str,
        *,
        kind: str = "failed",
        detail: object = None,
        hint: str = "",
    ) -> None:
        super().__init__(host, message, hint=hint)
        self.kind = kind
        self.detail = detail
