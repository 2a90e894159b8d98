"""The incident issue: what a person who was not there needs to work from. Pure text.

Everything here goes to a place many people can read, so the caller passes a ``redact`` function and
every piece that came from a host or a check goes through it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from deployguard.errors import EXPLANATIONS, ExitCode, with_plan
from deployguard.incidents.deploys import severity, touched
from deployguard.incidents.fingerprint import fingerprint, signature
from deployguard.incidents.lookup import Similar
from deployguard.incidents.record import Incident
from deployguard.incidents.severity import Level, name_of, word
from deployguard.plan.model import GitHubIncident, Plan
from deployguard.report.github import IncidentReport
from deployguard.rollout.outcome import Event, Finding, HostOutcome, Outcome

__all__ = ["render"]

Redact = Callable[[str], str]

#: Lines of evidence shown for one finding; the whole is in the forensics.
EVIDENCE_LINES = 20


def render(
    outcome: Outcome,
    plan: Plan,
    github: GitHubIncident,
    redact: Redact,
    incident: Incident | None = None,
    similar: Sequence[Similar] = (),
) -> IncidentReport:
    """The issue, and the comment in case one is open already.

    Where the incident could not be kept, ``None``, the issue says the same without its id.
    """
    level = incident.severity if incident is not None else severity(outcome)[0]
    state = "rolled back" if touched(outcome) else "stopped before anything was touched"
    if outcome.exit_code != ExitCode.ROLLED_BACK:
        state = "NOT restored"
    body = redact("\n".join(_body(outcome, level, incident, similar)))
    return IncidentReport(
        repo=github.repo,
        title=redact(f"{outcome.plan} {outcome.version} failed in {outcome.environment}: {state}"),
        body=body,
        labels=(*github.labels, f"severity:{name_of(level)}"),
        fingerprint=_fingerprint(outcome, incident),
        transaction=outcome.transaction,
        comment="It failed again.\n\n" + body,
    )


def _fingerprint(outcome: Outcome, incident: Incident | None) -> str:
    """The same for every failure of one incident: its issue is filed once, then commented."""
    if incident is not None:
        return incident.fingerprint
    return fingerprint(outcome.plan, outcome.environment, signature(outcome))


def _body(
    outcome: Outcome, level: Level, incident: Incident | None, similar: Sequence[Similar]
) -> Iterable[str]:
    yield f"**{_line(outcome.summary)}**"
    yield ""
    yield "| | |"
    yield "|---|---|"
    if incident is not None:
        yield f"| Incident | `{incident.id}` |"
    yield f"| Severity | {word(level)} |"
    yield f"| Deploy | {outcome.plan} `{outcome.version}` to {outcome.environment} |"
    yield f"| Back on | {_versions(outcome)} |"
    yield f"| Transaction | `{outcome.transaction}` |"
    yield f"| Started | {_utc(outcome.started_at)} |"
    yield f"| Ended | {_utc(outcome.ended_at)}, after {_took(outcome)} |"
    yield f"| Exit code | {int(outcome.exit_code)}: {EXPLANATIONS[outcome.exit_code].meaning} |"
    yield f"| Forensics | {_code(outcome.forensics or 'none were collected')} |"
    if outcome.postmortem:
        yield f"| Post-mortem | {_code(outcome.postmortem)}, a draft |"
    yield ""
    yield "## What failed"
    yield ""
    if not outcome.findings:
        yield "No check reported a failure; see the timeline."
    for finding in outcome.findings:
        yield from _finding(finding)
    yield ""
    if similar:
        yield from _similar(similar)
    if outcome.overrides:
        yield from _overrides(outcome)
    yield "## Hosts"
    yield ""
    yield "| host | ended as | files verified | healthy | version | restore took |"
    yield "|---|---|---|---|---|---|"
    for host in outcome.hosts:
        yield _host(host)
    yield ""
    yield "## How the restore was verified"
    yield ""
    yield from _verification(outcome)
    yield ""
    yield "## Timeline (UTC)"
    yield ""
    yield "| time | host | phase | what |"
    yield "|---|---|---|---|"
    for event in outcome.timeline:
        yield _event(event)
    yield ""
    yield "## Next"
    yield ""
    yield f"- {with_plan(EXPLANATIONS[outcome.exit_code].act, outcome.source)}"
    if outcome.forensics:
        yield f"- Look into `{outcome.forensics}`; `sha256sum -c SHA256SUMS` proves it unchanged."
    if incident is not None:
        yield f"- `deployguard incident ack {incident.id}` says that you are at it."
    yield (
        f"- `deployguard history {outcome.transaction}`, on the machine that deployed, shows every "
        "step again."
    )


def _finding(finding: Finding) -> Iterable[str]:
    where = " ".join(part for part in (finding.host, finding.component) if part)
    kind = "" if finding.critical else " (not critical)"
    yield f"- **{finding.layer} {finding.name}**{kind} on {where or 'the fleet'}: " + _line(
        finding.message
    )
    if finding.evidence:
        lines = finding.evidence.splitlines()[-EVIDENCE_LINES:]
        yield ""
        yield "  ```"
        yield from (f"  {line.replace('```', '` ` `')}" for line in lines)
        yield "  ```"


def _similar(similar: Sequence[Similar]) -> Iterable[str]:
    yield "## It failed like this before"
    yield ""
    yield "| incident | when | what | what ended it |"
    yield "|---|---|---|---|"
    for one in similar:
        past = one.incident
        fix = _line(one.fixed_by) or "nobody wrote it down"
        yield f"| {past.id} | {_utc(past.opened_at)} | {_line(past.title)} | {fix} |"
    yield ""


def _overrides(outcome: Outcome) -> Iterable[str]:
    yield "## Guards that were overridden"
    yield ""
    yield "| guard | what it had said | reason given | by |"
    yield "|---|---|---|---|"
    for each in outcome.overrides:
        said = _line("; ".join(each.refused))
        yield f"| {each.guard} | {said} | {_line(each.reason)} | {_line(each.by)} |"
    yield ""


def _host(host: HostOutcome) -> str:
    versions = ", ".join(sorted({str(v) for v in host.versions_after.values() if v})) or "none"
    took = f"{host.seconds['restore']:.2f} s" if "restore" in host.seconds else ""
    yes = {True: "yes", False: "NO"}
    state = host.state + (f": {_line(host.error)}" if host.error else "")
    return (
        f"| {host.host} | {state} | {yes[host.verified]} | {yes[host.healthy]} | {versions} "
        f"| {took} |"
    )


def _verification(outcome: Outcome) -> Iterable[str]:
    restored = [host for host in outcome.hosts if host.state == "restored"]
    if not restored:
        yield "Nothing was restored."
        return
    yield (
        "Every file of the old tree was read again and compared with the snapshot by SHA-256, "
        "mode, owner, mtime and link target, and the checks that were healthy before the deploy "
        "were made again:"
    )
    yield ""
    for host in restored:
        proof = "identical and healthy" if host.verified and host.healthy else "NOT proven"
        if host.sick:
            proof += f"; not healthy, as before the deploy: {_line(', '.join(host.sick))}"
        yield f"- {host.host}: {proof}"


def _event(event: Event) -> str:
    what = _line(event.message) or event.status
    if event.status == "failed":
        what = f"**failed**: {what}"
    return f"| {_utc(event.at)} | {event.host} | {event.phase} | {what} |"


def _versions(outcome: Outcome) -> str:
    versions = {str(v) for host in outcome.hosts for v in host.versions_before.values() if v}
    return ", ".join(_code(version) for version in sorted(versions)) or "nothing was live before"


def _took(outcome: Outcome) -> str:
    return f"{outcome.ended_at - outcome.started_at:.1f} s"


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"


def _line(text: str) -> str:
    """One table cell's worth: no line breaks, no bars."""
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`" if text and not text.startswith("none") else text
