"""Every guard by its name in the plan, and those that are asked always."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deployguard.errors import UsageError
from deployguard.guards import (
    approval,
    backup,
    baseline,
    capacity,
    change_size,
    ci,
    disk,
    drift,
    migrations,
    parity,
    revision,
    space,
    structure,
    window,
)
from deployguard.guards.base import Answers, Known, Question, Verdict
from deployguard.plan.model import Plan
from deployguard.plan.suggestion import did_you_mean

__all__ = [
    "ALWAYS",
    "GUARDS",
    "OVERRIDABLE",
    "Kind",
    "approvals",
    "checked_overrides",
    "questions",
    "verdicts",
]


def _no_questions(spec: Any, plan: Plan, host: str) -> dict[str, Question]:
    return {}


@dataclass(frozen=True)
class Kind:
    """One kind of guard.

    ``protects`` says what it is about: ``host`` guards are asked whatever is deployed; ``release``
    guards judge the new version and the moment, and a rollback does not ask them: it goes to what
    ran there before, and somebody needs it now. A guard that is ``last`` is asked when all others
    have let the deploy pass.
    """

    judge: Callable[[Any, Known, Answers], Iterator[Verdict]]
    protects: Literal["host", "release"]
    questions: Callable[[Any, Plan, str], dict[str, Question]] = _no_questions
    last: bool = False


#: By the name that their verdicts have.
ALWAYS: dict[str, Callable[[Known], Iterator[Verdict]]] = {
    "space": space.judge,
    "drift": drift.judge,
    "structure": structure.always,
    "migrations": migrations.judge,
    "revision": revision.judge,
    "agreement": revision.agreement,
}

GUARDS: dict[str, Kind] = {
    "ci": Kind(ci.judge, "release"),
    "change_size": Kind(change_size.judge, "release"),
    "window": Kind(window.judge, "release"),
    "parity": Kind(parity.judge, "release"),
    "capacity": Kind(capacity.judge, "release", capacity.questions),
    "backup": Kind(backup.judge, "release", backup.questions),
    "structure": Kind(structure.judge, "release"),
    "approval": Kind(approval.judge, "release", last=True),
    "baseline": Kind(baseline.judge, "release"),
    "disk": Kind(disk.judge, "host"),
}

#: Guards that a person may override with a reason. Without space there is nothing to go on with, a
#: version that is two commits is none, and who may approve says yes instead.
OVERRIDABLE: tuple[str, ...] = (
    *(name for name, kind in GUARDS.items() if not kind.last),
    "drift",
    "migrations",
    "revision",
)


def questions(plan: Plan, host: str, *, rollback: bool) -> list[Question]:
    """What the guards of the plan want to know of a host, each under an id of its own."""
    asked = []
    for index, (kind, spec) in _of(plan, rollback):
        for name, question in kind.questions(spec, plan, host).items():
            asked.append({**question, "id": f"{index}/{name}"})
    return asked


def verdicts(known: Known, *, rollback: bool) -> Iterator[Verdict]:
    """Every guard's answer: those asked always, then those of the plan in its order.

    Those that are asked last answer here in a preview only.
    """
    for always in ALWAYS.values():
        yield from always(known)
    for index, (kind, spec) in _of(known.plan, rollback):
        if not kind.last or known.foresee:
            yield from kind.judge(spec, known, _answers(known, index))


def approvals(known: Known, *, rollback: bool) -> Iterator[Verdict]:
    """The answers of the guards that are asked last."""
    for index, (kind, spec) in _of(known.plan, rollback):
        if kind.last:
            yield from kind.judge(spec, known, _answers(known, index))


def _of(plan: Plan, rollback: bool) -> Iterator[tuple[int, tuple[Kind, Any]]]:
    """The guards of a plan by their place in it, with what the plan says of each."""
    for index, guard in enumerate(plan.guards):
        kind = GUARDS[guard.kind]
        if not (rollback and kind.protects == "release"):
            yield index, (kind, guard.spec)


def _answers(known: Known, index: int) -> Answers:
    found: dict[str, dict[str, Any]] = {}
    for host in known.hosts:
        for asked, answer in host.looked.get("answers", {}).items():
            number, _, name = asked.partition("/")
            if number == str(index):
                found.setdefault(host.name, {})[name] = answer
    return found


def checked_overrides(overrides: Mapping[str, str] | None) -> dict[str, str]:
    """Reasons by guard, each of a guard there is. Raises :class:`UsageError`."""
    found = dict(overrides or {})
    for name, reason in found.items():
        if name not in OVERRIDABLE:
            hint = did_you_mean(name, OVERRIDABLE, among="those that can be overridden are")
            raise UsageError(f'there is no guard "{name}" to override', hint=hint)
        if not reason.strip():
            raise UsageError(f"{name} is not overridden without a reason", hint=f'{name}="why"')
    return found
