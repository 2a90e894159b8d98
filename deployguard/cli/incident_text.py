"""Incidents in words, for the terminal: plain functions from records to lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from deployguard.cli.moments import relative, span
from deployguard.evidence.timeline import iso
from deployguard.incidents.lookup import Similar
from deployguard.incidents.record import Entry, Incident, Link
from deployguard.incidents.severity import name_of, word
from deployguard.notify.delivery import Told

__all__ = ["Line", "color_of", "heading", "listed", "next_step", "shown", "similar_lines"]

#: A line and its colour.
Line = tuple[str, str | None]


def color_of(incident: Incident) -> str | None:
    """Red while users may be hit, yellow while it is not over."""
    if incident.state in ("open", "acknowledged"):
        return "red"
    return "yellow" if incident.state == "mitigated" else None


def heading(incident: Incident) -> str:
    """The first line about an incident."""
    return f"{incident.id} {word(incident.severity)} is {incident.state}: {incident.title}"


def listed(incident: Incident, now: float) -> str:
    """One line of a list."""
    parts = [
        incident.id,
        f"{name_of(incident.severity):<8}",
        f"{incident.state:<12}",
        f"{incident.title}{_where(incident)}, {_age(incident, now)}",
    ]
    late = [f"{what} overdue by {span(by)}" for what, by in _overdue(incident, now)]
    who = f"commander {incident.commander}" if incident.commander else ""
    return "  ".join(parts) + "".join(f", {part}" for part in (*late, who) if part)


def shown(
    incident: Incident,
    entries: Iterable[Entry],
    links: Sequence[Link],
    similar: Sequence[Similar],
    now: float,
    told: Sequence[Told] = (),
) -> Iterator[Line]:
    """An incident whole."""
    yield heading(incident), color_of(incident)
    yield from ((f"  {text}", color) for text, color in _facts(incident, now))
    if links:
        yield "links", None
        yield from ((f"  {link.kind} {link.value}", None) for link in links)
    yield from _told(told)
    yield "timeline (UTC)", None
    for entry in entries:
        first, *rest = (entry.text or "").splitlines() or [""]
        yield f"  {iso(entry.at)} {entry.kind:<12} {first}  ({entry.actor})", None
        yield from ((f"    {line}", None) for line in rest)
    yield from similar_lines(similar)
    yield f"next: {next_step(incident)}", None


def similar_lines(similar: Sequence[Similar]) -> Iterator[Line]:
    """Earlier incidents like this one, with what ended them."""
    if similar:
        yield "it failed like this before", None
    for one in similar:
        past = one.incident
        fix = one.fixed_by or "nobody wrote down what ended it"
        share = "" if one.likeness == 1 else f", {one.likeness:.0%} alike"
        yield f"  {past.id} {past.title} ({past.state}{share}): {fix}", None


def next_step(incident: Incident) -> str:
    """What the person who reads this does now."""
    command = f"`deployguard incident {{}} {incident.id}`".format
    if incident.ongoing and incident.acknowledged_at is None:
        return f"{command('ack')} says that you are at it"
    if incident.state in ("open", "acknowledged"):
        return f"{command('mitigate')} when users are served again"
    if incident.state == "mitigated":
        return f"{command('resolve')} with --cause and --fix when it cannot happen again"
    if incident.state == "resolved" and not incident.cause:
        return f"{command('note')} with --cause and --fix says what it was; then `close`"
    if incident.state == "resolved":
        return f"{command('close')} when what there was to learn is written down"
    return f"nothing; {command('reopen')} opens it again"


def _told(told: Sequence[Told]) -> Iterator[Line]:
    """What each channel was told, and what keeps the rest from it."""
    if told:
        yield "told", None
    for channel in dict.fromkeys(one.channel for one in told):
        mine = [one for one in told if one.channel == channel]
        said = dict.fromkeys(one.kind for one in mine if one.state == "delivered")
        yield f"  {channel}: {', '.join(said) or 'nothing'}", None
        for one in mine:
            if one.state in ("pending", "rejected"):
                why = f"{channel}: {one.kind} {one.state}: {one.said or 'not tried yet'}"
                yield f"  {why}", "yellow" if one.state == "pending" else "red"


def _facts(incident: Incident, now: float) -> Iterator[Line]:
    by = {"deploy": "a deploy", "watch": "a watch"}.get(incident.origin, "a person")
    what = _where(incident).strip(" ()")
    yield f"{f'{what}, ' if what else ''}opened by {by} {relative(incident.opened_at, now)}", None
    if incident.impact_at is not None:
        found = span(max(incident.detected_at - incident.impact_at, 0.0))
        yield f"users may be hit since {iso(incident.impact_at)}", None
        yield f"detected {iso(incident.detected_at)}, after {found}", None
    else:
        yield f"detected {iso(incident.detected_at)}", None
    for name, at, by in (
        ("acknowledged", incident.acknowledged_at, incident.acknowledged_by),
        ("mitigated", incident.mitigated_at, ""),
        ("resolved", incident.resolved_at, ""),
    ):
        if at is not None:
            after = span(max(at - incident.clock_at, 0.0))
            yield f"{name} {iso(at)}{f' by {by}' if by else ''}, after {after}", None
    if incident.ongoing:
        missed = incident.overdue(now)
        if incident.acknowledged_at is None:
            color = "red" if "acknowledge" in missed else None
            yield f"to be acknowledged by {relative(incident.acknowledge_by, now)}", color
        color = "red" if "resolve" in missed else None
        yield f"to be resolved by {relative(incident.resolve_by, now)}", color
    if incident.escalations:
        yield f"escalated to level {incident.escalations}", None
    yield f"commander: {incident.commander or 'nobody'}; owner: {incident.owner or 'nobody'}", None
    if incident.cause:
        yield f"cause: {incident.cause}", None
    if incident.fix:
        yield f"fix: {incident.fix}", None


def _where(incident: Incident) -> str:
    parts = [incident.service, incident.environment]
    text = " in ".join(part for part in parts if part)
    return f" ({text})" if text else ""


def _age(incident: Incident, now: float) -> str:
    ended = incident.closed_at if incident.state in ("closed", "cancelled") else None
    if incident.state == "resolved":
        ended = incident.resolved_at
    if ended is not None:
        return f"took {span(max(ended - incident.detected_at, 0.0))}"
    return f"since {span(max(now - incident.detected_at, 0.0))}"


def _overdue(incident: Incident, now: float) -> Iterator[tuple[str, float]]:
    ends = {"acknowledge": incident.acknowledge_by, "resolve": incident.resolve_by}
    for what in incident.overdue(now):
        yield what, now - ends[what]
