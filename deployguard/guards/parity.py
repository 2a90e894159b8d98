"""What the release was tested with is what it meets here: versions, configuration keys, limits.

Both sides declare themselves. Versions and keys must be the same; a limit may be higher here than
where the release was tested, and not lower.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase

from deployguard.errors import PlanInvalid
from deployguard.guards.base import Answers, Known, Verdict, some
from deployguard.plan.facts import Facts, read_facts
from deployguard.plan.model import ParityGuard

__all__ = ["differences", "judge"]


def judge(spec: ParityGuard, known: Known, answers: Answers) -> Iterator[Verdict]:
    """One verdict for all hosts."""
    folder = os.path.dirname(known.plan.source)
    try:
        here, tested = (
            facts if isinstance(facts, Facts) else read_facts(os.path.join(folder, facts))
            for facts in (spec.facts, spec.tested_in)
        )
    except PlanInvalid as invalid:
        # They were read when the plan was loaded, and have changed since.
        yield Verdict("parity", False, f"{invalid.message} (mend the facts)")
        return
    found = [
        words
        for name, words in differences(here, tested)
        if not any(fnmatchcase(name, pattern) for pattern in spec.allow)
    ]
    if found:
        mend = "test the release with what it meets here, or name what is meant under `allow`"
        yield Verdict("parity", False, f"{some(found)} ({mend})")
    else:
        count = len(here.versions) + len(here.config) + len(here.limits)
        yield Verdict("parity", True, f"{count} facts are as they were tested with")


def differences(here: Facts, tested: Facts) -> Iterator[tuple[str, str]]:
    """Name and words of everything that is not as it was where the release was tested. Pure."""
    for name in dict.fromkeys([*here.versions, *tested.versions]):
        mine, theirs = here.versions.get(name), tested.versions.get(name)
        if mine != theirs:
            yield (
                f"versions.{name}",
                f"{name} {_said(mine)} here, {_said(theirs)} where it was tested",
            )
    for name in tested.config:
        if name not in here.config:
            yield f"config.{name}", f"{name} is not configured here, and was where it was tested"
    for name in here.config:
        if name not in tested.config:
            yield f"config.{name}", f"{name} is configured here, and was not where it was tested"
    for name in dict.fromkeys([*here.limits, *tested.limits]):
        mine_at, theirs_at = here.limits.get(name), tested.limits.get(name)
        if mine_at is None or theirs_at is None or mine_at < theirs_at:
            said = f"{name} is {_number(mine_at)} here, {_number(theirs_at)} where it was tested"
            yield f"limits.{name}", said


def _said(version: str | None) -> str:
    return "is not declared" if version is None else version


def _number(limit: float | None) -> str:
    return "not declared" if limit is None else f"{limit:,.15g}"
