"""Files that exist only in production, and that a deploy would take away.

Asked always: of a tree that deployguard has not deployed nobody knows which files belong to the
host, so those that the release does not have are named. A plan may ask for more: that the release
has certain files, that certain files never go, that not many go at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from deployguard.guards.base import Answers, HostView, Known, Verdict, some
from deployguard.guards.drift import saved
from deployguard.onhost.trees.patterns import Patterns
from deployguard.plan.model import StructureGuard

__all__ = ["always", "judge"]


def always(known: Known) -> Iterator[Verdict]:
    """One verdict for each component on each host."""
    for host in known.hosts:
        for name in host.components:
            yield _only_there(known, host, name)


def judge(spec: StructureGuard, known: Known, answers: Answers) -> Iterator[Verdict]:
    """One verdict on what the release has, and one for each host on what would go."""
    for name in known.plan.components:
        if spec.component in (None, name) and spec.needs:
            missing = [path for path in spec.needs if not known.has(name, path)]
            if missing:
                words = f"the release of {name} does not have {some(missing)} (build it again)"
                yield Verdict("structure", False, words)
            else:
                yield Verdict("structure", True, f"{name}: the release has {some(spec.needs)}")
    if spec.protect or spec.removed is not None:
        for host in known.hosts:
            yield from _goes(spec, host)


def _goes(spec: StructureGuard, host: HostView) -> Iterator[Verdict]:
    protected = Patterns(spec.protect)
    for name in host.components:
        if spec.component not in (None, name):
            continue
        going = [path for path, _ in host.looked["components"][name]["removed"]]
        lost = [path for path in going if protected.match(path)]
        if lost:
            words = f"{name}: {some(lost)} would be gone, and the plan protects it"
            mend = "add it to the release, or take it out of `protect`"
            yield Verdict("structure", False, f"{words} ({mend})", host.name)
        elif spec.removed is not None and len(going) > spec.removed:
            words = f"{name}: {len(going):,} paths would be gone, and {spec.removed:,} are the most"
            yield Verdict("structure", False, f"{words}: {some(going)}", host.name)
        else:
            yield Verdict(
                "structure", True, f"{name}: {len(going):,} paths would be gone", host.name
            )


def _only_there(known: Known, host: HostView, name: str) -> Verdict:
    component = host.components[name]
    lost = host.looked["components"][name]["only_on_host"]
    if not lost:
        return Verdict("structure", True, f"{name}: nothing would be lost", host.name)
    if saved(known, host, name):
        words = f"{name}: files that only the host has will be saved: {some(lost)}"
        return Verdict("structure", True, words, host.name)
    way = "shared" if component.layout == "releases" else "keep"
    message = (
        f"{component.path} has files that the release does not have and that would be gone: "
        f"{some(lost)} (name them under `{way}`, add them to the release, or deploy with "
        "--drift save)"
    )
    return Verdict("structure", False, message, host.name)
