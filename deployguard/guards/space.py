"""Room for the new tree and for a rescue, bytes and inodes. Asked always."""

from __future__ import annotations

from collections.abc import Iterator

from deployguard.guards.base import HostView, Known, Verdict

__all__ = ["judge"]


def judge(known: Known) -> Iterator[Verdict]:
    """One verdict for each component on each host."""
    for host in known.hosts:
        for name in host.components:
            yield _component(host, name)


def _component(host: HostView, name: str) -> Verdict:
    space = host.looked["components"][name]["space"]
    for unit in ("bytes", "inodes"):
        needed, free = int(space[f"needed_{unit}"]), int(space[f"free_{unit}"])
        if needed > free:
            words = (
                f"{name} needs {needed:,} {unit} in {space['path']} with the reserve for a rescue, "
                f"and {free:,} are free"
            )
            return Verdict("space", False, words, host.name)
    return Verdict("space", True, f"{name}: room enough in {space['path']}", host.name)
