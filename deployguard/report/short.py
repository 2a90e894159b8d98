"""The short incident report: a page for those who were not there, before the post-mortem."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from deployguard.evidence.timeline import iso
from deployguard.incidents.severity import word
from deployguard.report.postmortem.blocks import cell, table
from deployguard.report.postmortem.facts import Facts
from deployguard.report.postmortem.parts import detection, downtime

__all__ = ["report"]


def report(facts: Facts, redact: Callable[[str], str]) -> str:
    """The report in Markdown."""
    return redact("\n".join(_lines(facts))) + "\n"


def _lines(facts: Facts) -> Iterable[str]:
    incident = facts.incident
    yield f"# Incident report {incident.id}: {cell(incident.title)}"
    yield ""
    yield f"As of {iso(facts.written_at)}."
    yield ""
    yield "## Summary"
    yield ""
    yield f"- **Severity**: {word(incident.severity)}"
    yield f"- **State**: {incident.state}"
    where = " in ".join(part for part in (incident.service, incident.environment) if part)
    yield f"- **Service**: {cell(where) or 'not said'}"
    yield f"- **Duration**: {_duration(facts)}"
    yield f"- **Commander**: {cell(incident.commander) or 'nobody'}"
    yield f"- **Owner**: {cell(incident.owner) or 'nobody'}"
    yield ""
    yield "## Detection"
    yield ""
    yield from detection(facts)
    yield ""
    yield "## Impact"
    yield ""
    yield from downtime(facts)
    yield ""
    yield "## Timeline"
    yield ""
    moments = (
        ("Impact began", incident.impact_at),
        ("Detected", incident.detected_at),
        ("Acknowledged", incident.acknowledged_at),
        ("Mitigated", incident.mitigated_at),
        ("Resolved", incident.resolved_at),
        ("Closed", incident.closed_at),
    )
    yield from table(
        ("Step", "When (UTC)"),
        ((what, "not yet" if at is None else iso(at)) for what, at in moments),
    )
    yield ""
    yield "## Root cause"
    yield ""
    yield cell(incident.cause) or "Not known yet."
    yield ""
    yield "## Resolution"
    yield ""
    yield cell(incident.fix) or "Not resolved, or nobody wrote down how."
    yield ""
    yield "## Prevention"
    yield ""
    drafts = facts.linked("postmortem")
    yield f"See the post-mortem: {cell(drafts[-1])}" if drafts else "There is no post-mortem yet."
    if facts.similar:
        yield ""
        yield "## Before this"
        yield ""
    for one in facts.similar:
        fix = one.fixed_by or "nobody wrote down what ended it"
        yield f"- {one.incident.id} {cell(one.incident.title)}: {cell(fix)}"


def _duration(facts: Facts) -> str:
    incident = facts.incident
    start = incident.impact_at if incident.impact_at is not None else incident.detected_at
    if incident.mitigated_at is None:
        return f"since {iso(start)}, not mitigated yet"
    return (
        f"{max(incident.mitigated_at - start, 0.0):.1f} s, from {iso(start)} until "
        f"{iso(incident.mitigated_at)}"
    )
