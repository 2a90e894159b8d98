"""The rules for guards that look at more than one key. Each yields findings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from deployguard.plan.document import Finding, Path
from deployguard.plan.suggestion import did_you_mean

if TYPE_CHECKING:
    from deployguard.plan.guard import BaselineGuard, ChangeSizeGuard, DiskGuard
    from deployguard.plan.model import Plan
    from deployguard.plan.names import Names

__all__ = ["guard_findings"]


def guard_findings(plan: Plan, base: str | None, names: Names) -> Iterator[Finding]:
    """What is wrong with the guards of a plan.

    ``base`` is the directory of the plan file; ``None`` leaves out whether local files are there.
    """
    for index, guard in enumerate(plan.guards):
        rule = _RULES.get(guard.kind)
        if rule is not None:
            yield from rule(guard.spec, ("guards", index, guard.kind), base, names)


def _disk(guard: DiskGuard, where: Path, base: str | None, names: Names) -> Iterator[Finding]:
    if guard.free is None and guard.inodes is None:
        yield Finding(where, "asks for nothing", "add free: 2 GiB or inodes: 10000")


def _change_size(
    guard: ChangeSizeGuard, where: Path, base: str | None, names: Names
) -> Iterator[Finding]:
    if guard.files is None and guard.size is None and guard.commits is None:
        yield Finding(where, "asks for nothing", "add files: 200, bytes: 20 MB or commits: 10")
    if guard.commits is not None and base is not None:
        folder = os.path.join(base, guard.checkout)
        if not os.path.isdir(folder):
            yield Finding(
                (*where, "checkout"),
                f'"{guard.checkout}" is not a folder',
                "name the git checkout that the release was built from",
            )


def _baseline(
    guard: BaselineGuard, where: Path, base: str | None, names: Names
) -> Iterator[Finding]:
    for index, name in enumerate(guard.allow):
        component = name.partition("/")[0]
        if names.components is not None and component not in names.components:
            hint = did_you_mean(component, names.components)
            yield Finding((*where, "allow", index), f'there is no component "{component}"', hint)


_RULES: dict[str, Callable[[Any, Path, str | None, Names], Iterator[Finding]]] = {
    "disk": _disk,
    "change_size": _change_size,
    "baseline": _baseline,
}
