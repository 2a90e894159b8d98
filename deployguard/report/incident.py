"""The incident issue: what a person who was not there needs to work from. Pure text.

Everything here goes to a place many people can read, so the caller passes a ``redact`` function and
every piece that came from a host or a check goes through it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Literal

from deployguard.errors import EXPLANATIONS, ExitCode, with_plan
from deployguard.plan.model import GitHubIncident, Plan
from deployguard.report.github import IncidentReport
from deployguard.rollout.outcome import Event, Finding, HostOutcome, Outcome

__all__ = ["fingerprint", "render", "severity"]

Redact = Callable[[str], str]

#: Lines of evidence shown for one finding; the whole is in the forensics.
EVIDENCE_LINES = 20


def severity(outcome: Outcome) -> Literal[1, 2, 3]:
    """1: a host is not restored. 2: users were hit and the old version is back. 3: nothing live
    was touched. When unsure the higher one."""
    if outcome.exit_code in (ExitCode.NEEDS_PERSON, ExitCode.INTERRUPTED, ExitCode.INTERNAL):
        return 1
    if any(host.state in ("restored", "committed") for host in outcome.hosts):
        return 2
    return 3


def fingerprint(outcome: Outcome) -> str:
    """The same for every failure of the same deploy: its issue is filed once, then commented."""
    return f"{outcome.plan}/{outcome.environment}/{outcome.version}"


def render(outcome: Outcome, plan: Plan, github: GitHubIncident, redact: Redact) -> IncidentReport:
    """The issue, and the comment in case one is open already."""
    body = redact("\n".join(_body(outcome, plan)))
    words = {1: "critical", 2: "high", 3: "medium"}[severity(outcome)]
    state = "NOT restored" if severity(outcome) == 1 else "rolled back"
    if severity(outcome) == 3:
        state = "stopped before anything was touched"
    return IncidentReport(
        repo=github.repo,
        title=redact(f"{outcome.plan} {outcome.version} failed in {outcome.environment}: {state}"),
        body=body,
        labels=(*github.labels, f"severity:{words}"),
        fingerprint=fingerprint(outcome),
        transaction=outcome.transaction,
        comment=redact("\n".join(["It failed again.", "", *_body(outcome, plan)])),
    )


def _body(outcome: Outcome, plan: Plan) -> Iterable[str]:
    yield f"**{_line(outcome.summary)}**"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| Severity | {severity(outcome)} |"
    yield f"| Deploy | {outcome.plan} `{outcome.version}` to {outcome.environment} |"
    yield f"| Back on | {_versions(outcome)} |"
    yield f"| Transaction | `{outcome.transaction}` |"
    yield f"| Started | {_utc(outcome.started_at)} |"
    yield f"| Ended | {_utc(outcome.ended_at)}, after {_took(outcome)} |"
    yield f"| Exit code | {int(outcome.exit_code)}: {EXPLANATIONS[outcome.exit_code].meaning} |"
    yield f"| Forensics | {_code(outcome.forensics or 'none were collected')} |"
    yield ""
    yield "## What failed"
    yield ""
    if not outcome.findings:
        yield "No check reported a failure; see the timeline."
    for finding in outcome.findings:
        yield from _finding(finding)
    yield ""
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
