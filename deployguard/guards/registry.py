"""Every guard by its name in the plan, and those that are asked always."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployguard.errors import UsageError
from deployguard.guards import baseline, change_size, ci, disk, drift, space, structure
from deployguard.guards.base import Known, Verdict
from deployguard.plan.suggestion import did_you_mean

__all__ = ["ALWAYS", "GUARDS", "OVERRIDABLE", "Kind", "checked_overrides", "verdicts"]


@dataclass(frozen=True)
class Kind:
    """One kind of guard.

    ``protects`` says what it is about: ``host`` guards are asked whatever is deployed; ``release``
    guards judge the new version and the moment, and a rollback does not ask them: it goes to what
    ran there before, and somebody needs it now.
    """

    judge: Callable[[Any, Known], Iterator[Verdict]]
    protects: str


ALWAYS: tuple[Callable[[Known], Iterator[Verdict]], ...] = (
    space.judge,
    drift.judge,
    structure.judge,
)

GUARDS: dict[str, Kind] = {
    "ci": Kind(ci.judge, "release"),
    "change_size": Kind(change_size.judge, "release"),
    "baseline": Kind(baseline.judge, "release"),
    "disk": Kind(disk.judge, "host"),
}

#: Guards that a person may override with a reason. Without space there is nothing to go on with.
OVERRIDABLE: tuple[str, ...] = (*GUARDS, "drift", "structure")


def verdicts(known: Known, *, rollback: bool = False) -> Iterator[Verdict]:
    """Every guard's answer: those asked always, then those of the plan in its order."""
    for always in ALWAYS:
        yield from always(known)
    for guard in known.plan.guards:
        kind = GUARDS[guard.kind]
        if not (rollback and kind.protects == "release"):
            yield from kind.judge(guard.spec, known)


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
