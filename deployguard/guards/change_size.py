"""How much a release changes at once: files, bytes, commits.

Of a component that is not there yet everything is new, and nothing is asked. The sizes are those of
the host where most changes. Commits are counted in a checkout that knows the live version and the
new one as revisions, unless the host itself said how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from deployguard.guards.base import Answers, HostView, Known, Unknown, Verdict
from deployguard.plan.model import ChangeSizeGuard

__all__ = ["judge"]

MEND = "deploy in smaller steps, or raise the bound in the plan"


def judge(spec: ChangeSizeGuard, known: Known, answers: Answers) -> Iterator[Verdict]:
    """One verdict for all hosts."""
    found: list[str] = []
    over: list[str] = []
    for most, unit in ((spec.files, "files"), (spec.size, "bytes")):
        if most is None:
            continue
        count, host = max(((_size(host, unit), host.name) for host in known.hosts), default=(0, ""))
        found.append(f"{count:,} {unit}")
        if count > most:
            over.append(f"{count:,} {unit} change on {host}, and {most:,} are the most")
    if spec.commits is not None:
        try:
            count = _commits(spec, known)
        except Unknown as unknown:
            over.append(f"how many commits is not known: {unknown}; {unknown.mend}")
        else:
            found.append(f"{count:,} commits")
            if count > spec.commits:
                over.append(f"{count:,} commits at once, and {spec.commits:,} are the most")
    if over:
        yield Verdict("change_size", False, f"{'; '.join(over)} ({MEND})")
    else:
        yield Verdict("change_size", True, f"{', '.join(found)} to change")


def _size(host: HostView, unit: str) -> int:
    """Of everything that changes on one host, where something is live."""
    total = 0
    for name in host.components:
        if host.live(name).get("state") != "absent":
            total += int(host.looked["components"][name]["change"][unit])
    return total


def _commits(spec: ChangeSizeGuard, known: Known) -> int:
    """The most that lie between what is live anywhere and the new version."""
    checkout = os.path.join(os.path.dirname(known.plan.source), spec.checkout)
    counted: dict[str, int] = {}
    most = 0
    for host in known.hosts:
        for name in host.components:
            live = host.live(name)
            if live.get("state") == "absent":
                continue
            said = host.looked["components"][name].get("commits")
            if said is not None:
                most = max(most, int(said))
                continue
            version = live.get("version")
            if version is None:
                raise Unknown(
                    f"{name} on {host.name} was not deployed from here, so it has no version",
                    "leave `commits` out until it was deployed once",
                )
            if version not in counted:
                counted[version] = known.world.count_commits(checkout, version, known.version)
            most = max(most, counted[version])
    return most
