"""Texts of notifications from templates: the first line is the title, the rest the body.

What a template may use is in :data:`SAMPLE`; every name is always there, empty where there is
nothing to say. A template of a plan is tried with every kind of message when the plan is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployguard.plan.template import TemplateFault, Templates

__all__ = ["KINDS", "MOST", "SAMPLE", "problem_of", "rendered"]

#: What a message can be about. The last two are ends of deploys.
KINDS = (
    "opened",
    "joined",
    "escalated",
    "severity",
    "acknowledged",
    "mitigated",
    "resolved",
    "closed",
    "cancelled",
    "reopened",
    "update",
    "test",
    "deployed",
    "deploy_failed",
)

#: What a file with a template may have, in bytes.
MOST = 64 * 1024

SAMPLE: dict[str, Any] = {
    "kind": "opened",
    "product": "Shop",
    "service": "shop",
    "environment": "production",
    "incident": "INC-20261121-001",
    "severity": "high",
    "level": 2,
    "state": "mitigated",
    "title": "shop v1.2.4 failed in production",
    "text": "high, because users may have been hit, and the old version is back",
    "at": "2026-11-21T03:12:08Z",
    "since": "2026-11-21T03:12:00Z",
    "impact": "2026-11-21T03:11:58Z",
    "lasted": "8 s",
    "acknowledge_by": "2026-11-21T03:42:00Z",
    "acknowledged_by": "",
    "commander": "",
    "escalations": 0,
    "fix": "",
    "cause": "",
    "links": {"transaction": "20261121T031150-shop-7f3a"},
    "version": "v1.2.4",
    "transaction": "20261121T031150-shop-7f3a",
}

_TEMPLATES = Templates(tuple(SAMPLE))


def rendered(source: str, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Title and body. Raises :class:`~deployguard.plan.template.TemplateFault`."""
    text = _TEMPLATES.render(source, facts).strip()
    title, _, body = text.partition("\n")
    if not title:
        raise TemplateFault(
            f"it says nothing for {facts['kind']}", "its first line is the title of the message"
        )
    return title.strip(), body.strip()


def problem_of(source: str) -> tuple[str, str] | None:
    """What is wrong with a template, and the mend; ``None`` for one that can be used."""
    for kind in KINDS:
        try:
            rendered(source, {**SAMPLE, "kind": kind})
        except TemplateFault as fault:
            return fault.message, fault.hint
    return None
