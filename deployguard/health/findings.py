"""The results of the host's checks as findings, with the evidence in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from deployguard.health.disagreement import disagreements
from deployguard.health.finding import Finding

__all__ = ["UNSETTLED", "from_imports", "from_results", "lies_before", "step_failed"]

#: How the message of a check begins that had not failed for good when the watch ended.
UNSETTLED = "not settled when the watch ended: "


class Versioned(Protocol):
    """Where a component comes from, as far as it matters here."""

    @property
    def version(self) -> str: ...


def from_results(
    host: str, result: Mapping[str, Any], sources: Mapping[str, Versioned]
) -> list[Finding]:
    """One finding for each check that is not healthy, then the layers that disagree.

    ``result`` is what ``healthcheck.watch`` returned on the host. Checks that had failed for good
    come before those that were merely not there yet when the watch ended. A check that a restore
    does not ask for is not critical.
    """
    checks = list(result.get("checks", []))
    failed = [check for check in checks if check["state"] != "healthy" or not check["settled"]]
    failed.sort(key=lambda check: (not check["required"], not check["settled"]))
    versions = {name: source.version for name, source in sources.items()}
    return [_of_check(host, check) for check in failed] + disagreements(host, checks, versions)


def from_imports(host: str, looked: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """One finding for each ``imports`` check that is not healthy, or that could not be made."""
    return [
        Finding(
            host,
            str(check["component"]),
            "imports",
            str(check["name"]),
            str(check["message"])
            if check["state"] == "unhealthy"
            else f"whether its modules resolve is not known: {check['message']}",
            bool(check["critical"]),
        )
        for check in looked
        if check["state"] != "healthy"
    ]


def lies_before(host: str, baseline: Mapping[str, Any] | None) -> list[Finding]:
    """Containers that contradicted their endpoints before the deploy, which is not to blame.

    A deploy that breaks and comes back is when somebody reads this.
    """
    found = disagreements(host, list((baseline or {}).get("checks", [])), {})
    return [
        replace(one, message=f"before the deploy already: {one.message}")
        for one in found
        if one.name == "container/http"
    ]


def step_failed(host: str, operation: str, reason: str, mend: str = "") -> Finding:
    """A step of the procedure that broke; ``operation`` is its id, ``component:name``."""
    component, colon, name = operation.partition(":")
    if not colon:
        component, name = "", operation
    return Finding(host, component, "step", name or "step", reason, evidence=mend)


def _of_check(host: str, check: Mapping[str, Any]) -> Finding:
    message = str(check["message"])
    if not check["settled"]:
        message = UNSETTLED + message
    return Finding(
        host=host,
        component=str(check["component"]),
        layer=str(check["layer"]),
        name=str(check["name"]),
        message=message,
        critical=bool(check["required"]),
        evidence=_evidence(check),
    )


def _evidence(check: Mapping[str, Any]) -> str:
    """What stands behind the message, one fact a line."""
    lines = [f"{check['id']}: {check['state']} after {check['samples']} samples"]
    after = check.get("first_healthy_after")
    lines.append("never healthy" if after is None else f"first healthy after {after:.2f} s")
    if check.get("restarts"):
        lines.append(f"restarts since the start: {check['restarts']}")
    for name, value in sorted(check.get("observed", {}).items()):
        lines.append(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
    return "\n".join(lines)
