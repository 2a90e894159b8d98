"""From a check as a plan has it to what one look on the host finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployguard.health.checks import compile_checks
from deployguard.onhost.probes import healthcheck
from deployguard.onhost.probes.base import CheckData, Sample
from deployguard.onhost.probes.registry import sample
from deployguard.onhost.system import System
from deployguard.plan.model import Component


def compiled(check: Mapping[str, Any], manager: Mapping[str, Any] | None = None) -> CheckData:
    """The check of a component called ``shop``, as the host gets it."""
    component = Component.model_validate({"artifact": "x", "path": "/srv/shop", "checks": [check]})
    # A service is watched unasked; the check itself comes last.
    return compile_checks("shop", component, "v2", manager or {})[-1]


def look(kind: str, **options: Any) -> Sample:
    """One look of a check of this kind."""
    return sample(compiled({kind: options}), System())


def watched(check: CheckData, mode: str, baseline: dict[str, Any] | None = None) -> dict[str, Any]:
    """The result of watching one check, and the check's own part of it."""
    result = healthcheck.watch([check], System(), mode=mode, baseline=baseline)
    return {**result, "check": result["checks"][0] if result["checks"] else None}


def judged(check: CheckData, mode: str, baseline: dict[str, Any]) -> Sample:
    """One look of a check as it is judged in this mode against a baseline."""
    return sample(healthcheck.as_judged(check, mode, baseline["check"]), System())
