"""Space that must stay free on a file system."""

from __future__ import annotations

from collections.abc import Iterator

from deployguard.guards.base import Answers, HostView, Known, Verdict
from deployguard.plan.model import DiskGuard

__all__ = ["judge"]


def judge(spec: DiskGuard, known: Known, answers: Answers) -> Iterator[Verdict]:
    """One verdict for each host."""
    for host in known.hosts:
        passed, words = _host(spec, host)
        yield Verdict("disk", passed, words, host.name)


def _host(spec: DiskGuard, host: HostView) -> tuple[bool, str]:
    there = host.looked["disks"].get(spec.path)
    if there is None:
        return False, f"{spec.path} is not a directory on the host"
    for wanted, unit in ((spec.free, "bytes"), (spec.inodes, "inodes")):
        parts = host.looked["components"].values()
        needed = sum(int(part["space"][f"needed_{unit}"]) for part in parts)
        left = int(there[unit]) - needed
        if wanted is not None and left < wanted:
            return False, (
                f"{spec.path} would have {max(left, 0):,} {unit} free after the deploy; the plan "
                f"asks for {wanted:,}"
            )
    return True, f"room enough in {spec.path}"
