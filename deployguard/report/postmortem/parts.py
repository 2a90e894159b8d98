"""What the machine writes into each block of a post-mortem. Pure: from facts to lines.

A box is ticked only where the journals prove it; a sentence says only what they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from deployguard.evidence.timeline import iso
from deployguard.incidents.deploys import touched
from deployguard.incidents.severity import word
from deployguard.report.postmortem.blocks import cell, table
from deployguard.report.postmortem.facts import Down, Facts, first_at, restored, stopped
from deployguard.rollout.outcome import Finding, Outcome

__all__ = ["BLOCKS", "title_of"]

Part = Callable[[Facts], Iterable[str]]

#: Lines of a list that is longer are in the forensics.
MOST = 20


def title_of(facts: Facts) -> str:
    """The heading of the document."""
    return f"Post-mortem: {facts.incident.title}"


def about(facts: Facts) -> Iterable[str]:
    """The head: which incident, which versions, until when."""
    incident, deploy = facts.incident, facts.first
    rows = [
        ("Incident", incident.id),
        ("Issue", ", ".join(facts.linked("issue")) or "none"),
        ("Severity", word(incident.severity)),
        ("State", incident.state),
        ("Service", incident.service or "not said"),
        ("Environment", incident.environment or "not said"),
        ("Date", iso(incident.detected_at)[:10]),
    ]
    if deploy is not None:
        failed = list(dict.fromkeys(one.version for one in facts.deploys))
        rows += [
            ("Failed version", ", ".join(failed)),
            ("Back on", ", ".join(_back_on(deploy)) or "nothing: see the hosts"),
            ("Duration of the deploy", f"{deploy.ended_at - deploy.started_at:.1f} s"),
            ("Services down", _longest(facts)),
        ]
    if facts.committed:
        live = (f"{one.version} at {iso(one.ended_at)}" for one in facts.committed)
        rows.append(("Deployed", ", ".join(live)))
    if incident.postmortem_by is not None:
        rows.append(("Due", iso(incident.postmortem_by)))
    rows.append(("Facts as of", iso(facts.written_at)))
    yield from table(("", ""), rows)


def summary(facts: Facts) -> Iterable[str]:
    """Two or three sentences of what is certain."""
    incident, deploy = facts.incident, facts.first
    if deploy is None:
        yield cell(
            f"{incident.title} was opened by {_opener(facts)} at {iso(incident.opened_at)} as "
            f"{word(incident.severity)}."
        )
        for one in facts.committed:
            when = "before" if one.ended_at <= incident.opened_at else "after"
            yield cell(f"{one.version} was deployed {when} that, at {iso(one.ended_at)}.")
        return
    sign = next((event for event in deploy.timeline if event.status == "failed"), None)
    yield cell(
        f"The deploy of {deploy.plan} {deploy.version} to {deploy.environment} began at "
        f"{iso(deploy.started_at)} and failed: {deploy.summary}."
    )
    if sign is not None:
        yield cell(f"The first sign came at {iso(sign.at)}: {_sign(sign.host, sign.message)}")
    back = restored(deploy)
    if not touched(deploy):
        yield "Nothing live was touched."
    elif back is not None:
        seconds = back - (sign.at if sign is not None else deploy.started_at)
        yield (
            f"The last host was back on the old version, verified and healthy, at {iso(back)}, "
            f"{seconds:.1f} s after that."
        )
    else:
        yield "Not every host is proven to be back on the old version."
    if len(facts.deploys) > 1:
        yield f"It failed {len(facts.deploys)} times."


def timeline(facts: Facts) -> Iterable[str]:
    """Every event on record."""
    yield from table(
        ("Time (UTC)", "Host", "Event", "Details", "Source"),
        ((iso(m.at), m.host, m.event, m.details, m.source) for m in facts.timeline()),
    )
    yield ""
    sources = [f"{facts.name_of(one)} is transaction `{one.transaction}`" for one in facts.all]
    sources.append(f"INC is the timeline of {facts.incident.id}")
    yield f"Sources: {'; '.join(sources)}."


def durations(facts: Facts) -> Iterable[str]:
    """How long what took, with both ends."""
    yield from table(
        ("What", "From (UTC)", "To (UTC)", "Took"),
        ((s.what, iso(s.start), iso(s.end), f"{s.seconds:.1f} s") for s in facts.spells()),
    )


def failed(facts: Facts) -> Iterable[str]:
    """What the checks and the steps found."""
    deploy = facts.first
    if deploy is None:
        yield "No deploy that failed is linked to this incident."
        return
    if not deploy.findings:
        yield "No check reported a failure; see the timeline."
        return
    yield from table(
        ("Host", "Component", "Check", "Critical", "What it found"),
        (
            (f.host, f.component, _check(f), "yes" if f.critical else "no", f.message)
            for f in deploy.findings[:MOST]
        ),
    )
    if len(deploy.findings) > MOST:
        yield ""
        yield f"{len(deploy.findings) - MOST} more are in the forensics."


def factors(facts: Facts) -> Iterable[str]:
    """What is on record that may have contributed; nothing is claimed to have."""
    found = [
        f"The guard {over.guard} was overridden by {over.by}: {over.reason}"
        for deploy in facts.all
        for over in deploy.overrides
    ]
    found += [
        f"It failed like this before: {one.incident.id}, {iso(one.incident.opened_at)[:10]}"
        for one in facts.similar
    ]
    for deploy in facts.deploys:
        found += [
            f"Layers disagreed on {f.host}: {f.message}"
            for f in deploy.findings
            if f.layer == "disagreement"
        ]
    if not found:
        yield "Nothing is on record: no guard was overridden, and no earlier incident is like it."
    yield from (f"- {cell(text)}" for text in dict.fromkeys(found))


def detection(facts: Facts) -> Iterable[str]:
    """How it was noticed, and by what."""
    incident, deploy = facts.incident, facts.first
    if deploy is None:
        who = _opener(facts).capitalize()
        yield f"{who} noticed it and opened the incident at {iso(incident.opened_at)}."
        return
    finding = next((f for f in deploy.findings if f.critical), None)
    yield f"deployguard noticed it at {iso(incident.detected_at)}, without a person."
    if finding is not None:
        yield cell(f"What failed was {_check(finding)} of {finding.component or 'the deploy'}.")


def response(facts: Facts) -> Iterable[str]:
    """The response against its targets, and whether the safeguards held."""
    incident = facts.incident
    rows = [
        ("Impact began", _moment(incident.impact_at), "", ""),
        (
            "Detected",
            _moment(incident.detected_at),
            _after(incident.impact_at, incident.detected_at),
            "",
        ),
        (
            "Acknowledged",
            _moment(incident.acknowledged_at),
            _after(incident.detected_at, incident.acknowledged_at),
            f"by {iso(incident.acknowledge_by)}: "
            + _kept(incident.acknowledged_at, incident.acknowledge_by),
        ),
        (
            "Mitigated",
            _moment(incident.mitigated_at),
            _after(incident.detected_at, incident.mitigated_at),
            "",
        ),
        (
            "Resolved",
            _moment(incident.resolved_at),
            _after(incident.detected_at, incident.resolved_at),
            f"by {iso(incident.resolve_by)}: " + _kept(incident.resolved_at, incident.resolve_by),
        ),
    ]
    yield from table(("Step", "When (UTC)", "After", "Target"), rows)
    yield ""
    yield f"Escalated {incident.escalations} times." if incident.escalations else "Not escalated."
    issues = [entry for entry in facts.entries if entry.kind == "linked"]
    for entry in issues:
        yield cell(f"Told at {iso(entry.at)}: {entry.text}.")


def safeguards(facts: Facts) -> Iterable[str]:
    """Whether the rescue did what it promises, host by host."""
    hosts = [(facts.name_of(d), h) for d in facts.deploys for h in d.hosts]
    if not hosts:
        yield "No deploy that failed is linked to this incident."
        return
    yield from table(
        ("Deploy", "Host", "Ended as", "Files verified", "Healthy", "Version now", "Restore took"),
        (
            (
                name,
                host.host,
                host.state,
                "yes" if host.verified else "NO",
                "yes" if host.healthy else "NO",
                ", ".join(sorted({str(v) for v in host.versions_after.values() if v})) or "none",
                f"{host.seconds['restore']:.1f} s" if "restore" in host.seconds else "",
            )
            for name, host in hosts
        ),
    )


def downtime(facts: Facts) -> Iterable[str]:
    """How long services were down, as the checks saw it."""
    rows = [
        (facts.name_of(deploy), down.host, iso(down.start), _moment(down.end), _length(down))
        for deploy in facts.deploys
        for down in facts.down(deploy)
    ]
    if not rows:
        yield "No service was stopped by a deploy."
        return
    yield (
        "From the stop of the services of a host to the first moment at which every check that "
        "matters was healthy again; the new version may have answered in between, so this is the "
        "most that it can have been:"
    )
    yield ""
    yield from table(("Deploy", "Host", "Stopped (UTC)", "Healthy again (UTC)", "At most"), rows)


def data(facts: Facts) -> Iterable[str]:
    """What is proven of the files; what became of the data nobody but people know."""
    hosts = [host for deploy in facts.deploys for host in deploy.hosts]
    mine = [host for host in hosts if host.state == "restored"]
    if not mine:
        yield "Nothing was restored, so nothing is proven here."
    for host in mine:
        yield (
            f"- {_box(host.verified)} Every file of the old version is back on {cell(host.host)}, "
            "compared by SHA-256, mode, owner, time and link target"
        )
    names = {host.host for host in hosts}
    left = sorted(names - {host.host for host in mine} - _untouched(facts))
    if left:
        yield f"- [ ] Not proven: {cell(', '.join(left))}"


def done(facts: Facts) -> Iterable[str]:
    """What was done, with its time: by deployguard, and by people as they wrote it down."""
    for deploy in facts.deploys:
        name, start, back = facts.name_of(deploy), stopped(deploy), restored(deploy)
        begun = first_at(deploy, status="started", phase="restore")
        if begun is not None:
            yield f"- [x] {iso(begun)} The restore began by itself ({name})"
        if back is not None and start is not None:
            yield f"- [x] {iso(back)} Every host that was touched was back, verified ({name})"
        if deploy.forensics:
            yield f"- [x] Evidence was collected and sealed in {cell(deploy.forensics)}"
    for entry in facts.entries:
        if entry.kind in ("acknowledged", "resolved", "deployed", "noted"):
            yield f"- [x] {iso(entry.at)} {cell(f'{entry.kind}: {entry.text} ({entry.actor})')}"
    if facts.incident.cause:
        yield f"- [x] The cause is written down: {cell(facts.incident.cause)}"
    if facts.incident.fix:
        yield f"- [x] What fixed it is written down: {cell(facts.incident.fix)}"


def appendix(facts: Facts) -> Iterable[str]:
    """Where to read on."""
    yield "### Evidence"
    yield ""
    folders = facts.linked("forensics")
    for folder in folders:
        yield f"- {cell(folder)} on the machine that deployed; `sha256sum -c SHA256SUMS` in it"
    if not folders:
        yield "None was collected."
    yield ""
    yield "### Incidents like this one"
    yield ""
    for one in facts.similar:
        past = one.incident
        fix = one.fixed_by or "nobody wrote down what ended it"
        when = iso(past.opened_at)[:10]
        yield f"- {past.id}, {when}, {cell(past.title)} ({past.state}): {cell(fix)}"
    if not facts.similar:
        yield "None: this is the first of its kind here."
    yield ""
    yield "### Links"
    yield ""
    for link in facts.links:
        yield f"- {link.kind}: {cell(link.value)}"
    yield ""
    yield "### Commands"
    yield ""
    yield f"- `deployguard incident show {facts.incident.id}`"
    yield from (f"- `deployguard history {deploy.transaction}`" for deploy in facts.all)


def _opener(facts: Facts) -> str:
    return "the watch" if facts.incident.origin == "watch" else "a person"


def _untouched(facts: Facts) -> set[str]:
    hit = {host for deploy in facts.deploys for host in touched(deploy)}
    return {host.host for deploy in facts.deploys for host in deploy.hosts} - hit


def _back_on(deploy: Outcome) -> list[str]:
    return sorted(
        {
            str(version)
            for host in deploy.hosts
            if host.state == "restored"
            for version in host.versions_after.values()
            if version
        }
    )


def _check(finding: Finding) -> str:
    if finding.name in ("", finding.layer):
        return finding.layer
    return f"{finding.layer} {finding.name}"


def _longest(facts: Facts) -> str:
    """The longest that the services of a host were down."""
    found = [down for deploy in facts.deploys for down in facts.down(deploy)]
    if not found:
        return "not at all"
    if any(down.end is None for down in found):
        return "longer than anybody saw"
    return f"{max((down.end or 0.0) - down.start for down in found):.1f} s at most"


def _sign(host: str, message: str) -> str:
    return f"{host}: {message}" if host else message


def _moment(at: float | None) -> str:
    return "not yet" if at is None else iso(at)


def _after(start: float | None, end: float | None) -> str:
    return "" if start is None or end is None else f"{max(end - start, 0.0):.1f} s"


def _kept(at: float | None, by: float) -> str:
    if at is None:
        return "open"
    return "kept" if at <= by else "missed"


def _length(down: Down) -> str:
    return "nobody saw it" if down.end is None else f"{down.end - down.start:.1f} s"


def _box(true: bool) -> str:
    return "[x]" if true else "[ ]"


#: The blocks of a document, each with what writes it.
BLOCKS: dict[str, Part] = {
    "about": about,
    "summary": summary,
    "timeline": timeline,
    "durations": durations,
    "failed": failed,
    "factors": factors,
    "detection": detection,
    "response": response,
    "safeguards": safeguards,
    "downtime": downtime,
    "data": data,
    "done": done,
    "appendix": appendix,
}
