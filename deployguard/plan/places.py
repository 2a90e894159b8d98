"""Where a value of a loaded plan stands in its file, for what is only found out later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployguard.errors import Mistake
from deployguard.plan.document import Path, dotted

if TYPE_CHECKING:
    from deployguard.plan.model import Plan

__all__ = ["mistake_at"]


def mistake_at(plan: Plan, path: Path, message: str, hint: str = "") -> Mistake:
    """A mistake at a path of the plan, or at the nearest block above it that the file has.

    ``artifact: app.tar`` is short for a block with ``path``, which has no place of its own.
    """
    while path and dotted(path) not in plan.places:
        path = path[:-1]
    line, column = plan.places.get(dotted(path), (1, 1))
    return Mistake(plan.source, line, column, dotted(path), message, hint)
