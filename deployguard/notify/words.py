"""The texts of messages: facts about an incident or a deploy, put into the template of an audience.

The templates are in ``templates/``, one an audience; a plan may have others. One that fails late,
because of a fact it did not expect, is no reason to tell nobody: the shipped one stands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from deployguard.evidence.timeline import iso
from deployguard.incidents.record import Entry, Incident, Link
from deployguard.incidents.severity import name_of
from deployguard.notify.settings import Settings
from deployguard.plan.message import SAMPLE, rendered
from deployguard.plan.template import TemplateFault

__all__ = ["facts_of", "lasted", "shipped", "words_for"]


@cache
def shipped(audience: str) -> str:
    """The template that deployguard has for an audience."""
    return (files("deployguard.notify") / "templates" / f"{audience}.j2").read_text("utf-8")


def words_for(settings: Settings, audience: str, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Title and text for an audience."""
    own = settings.templates.get(audience)
    if own is not None:
        try:
            return rendered(own, facts)
        except TemplateFault:
            pass
    return rendered(shipped(audience), facts)


def facts_of(
    settings: Settings,
    kind: str,
    incident: Incident,
    entry: Entry | None,
    links: tuple[Link, ...] = (),
) -> dict[str, Any]:
    """What a template may say about an incident; the names are those of ``SAMPLE``."""
    at = incident.opened_at if entry is None else entry.at
    start = incident.detected_at if incident.impact_at is None else incident.impact_at
    end = next((t for t in (incident.mitigated_at, incident.resolved_at) if t is not None), at)
    facts = {
        "kind": kind,
        "product": settings.product,
        "service": incident.service,
        "environment": incident.environment,
        "incident": incident.id,
        "severity": name_of(incident.severity),
        "level": int(incident.severity),
        "state": incident.state,
        "title": incident.title,
        "text": "" if entry is None else entry.text,
        "at": iso(at),
        "since": iso(incident.detected_at),
        "impact": "" if incident.impact_at is None else iso(incident.impact_at),
        "lasted": lasted(max(end - start, 0.0)),
        "acknowledge_by": iso(incident.acknowledge_by),
        "acknowledged_by": incident.acknowledged_by,
        "commander": incident.commander,
        "escalations": incident.escalations,
        "fix": incident.fix,
        "cause": incident.cause,
        "links": {link.kind: link.value for link in links},
        "version": "",
        "transaction": next((link.value for link in links if link.kind == "transaction"), ""),
    }
    assert facts.keys() == SAMPLE.keys()
    return facts


def lasted(seconds: float) -> str:
    """A span in words: ``8 s``, ``12 min``, ``3 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
