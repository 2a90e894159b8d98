"""Outcomes to show, without a deploy."""

from __future__ import annotations

from typing import Any

from deployguard.errors import ExitCode
from deployguard.rollout.outcome import Finding, HostOutcome, Outcome

__all__ = ["committed", "finding", "host", "outcome", "rolled_back"]


def host(name: str, state: str = "restored", **changes: Any) -> HostOutcome:
    """A host that is verified and healthy unless said otherwise."""
    version = "v2" if state == "committed" else "v1"
    values: dict[str, Any] = {
        "verified": True,
        "healthy": True,
        "versions_before": {"web": "v1"},
        "versions_after": {"web": version},
    }
    return HostOutcome(name, state, **{**values, **changes})


def finding(**changes: Any) -> Finding:
    """A failed HTTP check."""
    values: dict[str, Any] = {
        "host": "web1",
        "component": "web",
        "layer": "http",
        "name": "http",
        "message": "answered 503",
    }
    return Finding(**{**values, **changes})


def outcome(code: ExitCode, status: Any, **changes: Any) -> Outcome:
    """A transaction that took two seconds."""
    values: dict[str, Any] = {
        "transaction": "20261121T034622-shop-7f3a1c",
        "plan": "shop",
        "version": "v2",
        "environment": "production",
        "summary": "v2 ended",
        "started_at": 100.0,
        "ended_at": 102.0,
    }
    return Outcome(exit_code=code, status=status, **{**values, **changes})


def committed(**changes: Any) -> Outcome:
    """All well."""
    return outcome(
        ExitCode.COMMITTED,
        "committed",
        **{"hosts": (host("web1", "committed"), host("web2", "committed")), **changes},
    )


def rolled_back(**changes: Any) -> Outcome:
    """The old version is back."""
    values = {
        "hosts": (host("web1"), host("web2", "aborted")),
        "findings": (finding(),),
        "forensics": "forensics-out/x",
        "incident_url": "https://github.com/acme/shop/issues/7",
    }
    return outcome(ExitCode.ROLLED_BACK, "rolled_back", **{**values, **changes})
