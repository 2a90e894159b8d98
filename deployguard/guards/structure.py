"""Files that exist only in production, and that a deploy would take away. Asked always.

Of a tree that deployguard has not deployed nobody knows which files belong to the host: those that
the release does not have are named, whatever they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from deployguard.guards.base import HostView, Known, Verdict, some
from deployguard.guards.drift import saved

__all__ = ["judge"]


def judge(known: Known) -> Iterator[Verdict]:
    """One verdict for each component on each host."""
    for host in known.hosts:
        for name in host.components:
            yield _component(known, host, name)


def _component(known: Known, host: HostView, name: str) -> Verdict:
    component = host.components[name]
    lost = host.looked["components"][name]["only_on_host"]
    if not lost:
        return Verdict("structure", True, f"{name}: nothing would be lost", host.name)
    if saved(known, host, name):
        words = f"{name}: files that only the host has will be saved: {some(lost)}"
        return Verdict("structure", True, words, host.name)
    way = "keep" if component.layout == "in_place" else "shared"
    message = (
        f"{component.path} has files that the release does not have and that would be gone: "
        f"{some(lost)} (name them under `{way}`, add them to the release, or deploy with "
        "--drift save)"
    )
    return Verdict("structure", False, message, host.name)
