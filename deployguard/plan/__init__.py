"""The plan file: text with places, the models, and every rule checked before a host is contacted.

Importing this package is cheap: YAML, Jinja2 and pydantic are imported when a plan is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Bound here after the module of the same name, so that both imports of `load` give the function.
from deployguard.plan.load import load

if TYPE_CHECKING:
    from deployguard.plan.model import Plan

__all__ = ["Plan", "load"]


def __getattr__(name: str) -> Any:
    if name == "Plan":
        from deployguard.plan.model import Plan

        return Plan
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
