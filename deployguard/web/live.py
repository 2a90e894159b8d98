"""Where a transaction that is at work stands, from the steps that it has left. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from deployguard.store.trail import Step

__all__ = ["hosts", "where"]


def hosts(names: Iterable[str], steps: Sequence[Step]) -> list[tuple[str, Step | None]]:
    """Each host with its last step; ``None`` for one that has not begun."""
    last = {step.host: step for step in steps if step.host}
    return [(name, last.get(name)) for name in names]


def where(steps: Sequence[Step]) -> str:
    """In a line: how many hosts are at which step, the step that is furthest behind first."""
    last = {step.host: step for step in steps if step.host}
    order = list(dict.fromkeys(step.phase for step in steps))
    counted = Counter((step.phase, step.status) for step in last.values())
    found = sorted(counted.items(), key=lambda item: order.index(item[0][0]))
    return ", ".join(f"{phase} {status} on {count}" for (phase, status), count in found)
