"""Deploys as transactions: the new version healthy, or the old one back and healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from deployguard.api import apply, load, preview, recover, rollback
    from deployguard.drills.drill import drill
    from deployguard.drills.report import DrillReport
    from deployguard.plan.model import Plan
    from deployguard.rollout.outcome import Outcome

__all__ = [
    "DrillReport",
    "Outcome",
    "Plan",
    "__version__",
    "apply",
    "drill",
    "load",
    "preview",
    "recover",
    "rollback",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: `deployguard --help` must not pay for pydantic and paramiko.
    if name in ("apply", "load", "preview", "recover", "rollback"):
        from deployguard import api

        return getattr(api, name)
    if name == "drill":
        from deployguard.drills.drill import drill

        return drill
    if name == "DrillReport":
        from deployguard.drills.report import DrillReport

        return DrillReport
    if name == "Plan":
        from deployguard.plan.model import Plan

        return Plan
    if name == "Outcome":
        from deployguard.rollout.outcome import Outcome

        return Outcome
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
