"""A transaction as a page shows it: everything worked out, so that the template only places it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from deployguard import __version__
from deployguard.errors import ExitCode
from deployguard.evidence.timeline import Row, iso, lasting, rows
from deployguard.report.page.evidence import Evidence, gather
from deployguard.report.page.health import Matrix, matrix
from deployguard.report.page.lanes import Lanes, lanes
from deployguard.report.page.render import render
from deployguard.rollout.outcome import Event, Finding, HostOutcome, Outcome

__all__ = ["Page", "made", "report"]

_VERDICTS: dict[ExitCode, tuple[str, str]] = {
    ExitCode.COMMITTED: ("The new version is live and healthy", "good"),
    ExitCode.ROLLED_BACK: ("It failed; the old version is back, verified and healthy", "warn"),
    ExitCode.NEEDS_PERSON: ("It failed, and a person is needed", "bad"),
    ExitCode.REFUSED: ("It was refused; nothing was touched", "warn"),
    ExitCode.LOCKED: ("Another transaction held the hosts; nothing was touched", "warn"),
    ExitCode.INTERRUPTED: ("It was interrupted; `deployguard recover PLAN` finishes it", "bad"),
}

_GOOD = ("committed", "restored", "untouched", "aborted")


@dataclass(frozen=True)
class Host:
    """A host in the table, in words."""

    host: str
    state: str
    tone: str
    verified: bool
    healthy: bool
    before: str
    after: str
    restore: str
    healthy_at: str
    error: str


@dataclass(frozen=True)
class Page:
    """What the template needs. ``evidence_base`` is what links to files begin with, or ``None``."""

    outcome: Outcome
    owner: str
    heading: str
    verdict: str
    tone: str
    sign: Event | None
    findings: tuple[Finding, ...]
    rows: tuple[Row, ...]
    lanes: Lanes
    spoken: str
    matrix: Matrix | None
    hosts: tuple[Host, ...]
    restored: bool
    versions: tuple[str, ...]
    evidence: Evidence | None
    evidence_base: str | None
    issue: str | None
    incident_page: str | None

    def link_to(self, name: str) -> str:
        """The address of a file of evidence."""
        return f"{self.evidence_base}/{quote(name)}"


def made(
    outcome: Outcome,
    owner: str,
    *,
    evidence_base: str | None = None,
    incident_page: Callable[[str], str] | None = None,
) -> Page:
    """Work out what is shown of a transaction that has ended."""
    verdict, tone = _VERDICTS.get(outcome.exit_code, ("It failed", "bad"))
    if outcome.status == "unchanged":
        verdict = "Nothing had to be changed"
    sign = min(
        (event for event in outcome.timeline if event.status == "failed"),
        key=lambda event: event.at,
        default=None,
    )
    url = outcome.incident_url or ""
    page = incident_page(outcome.incident) if incident_page and outcome.incident else None
    return Page(
        outcome=outcome,
        owner=owner,
        heading=f"{outcome.plan} {outcome.version} in {outcome.environment}: "
        + outcome.status.replace("_", " "),
        verdict=f"{verdict} (exit code {int(outcome.exit_code)})",
        tone=tone,
        sign=sign,
        findings=tuple(sorted(outcome.findings, key=lambda finding: not finding.critical)),
        rows=tuple(rows(outcome.timeline, milliseconds=True)),
        lanes=lanes(outcome),
        spoken=_spoken(outcome, sign),
        matrix=matrix(outcome),
        hosts=tuple(_host(host, outcome) for host in outcome.hosts),
        restored=any(host.state == "restored" for host in outcome.hosts),
        versions=tuple(_versions(outcome)),
        evidence=gather(outcome.forensics),
        evidence_base=evidence_base,
        # A link to anything else would run what somebody wrote there.
        issue=url if url.startswith(("https://", "http://")) else None,
        incident_page=page,
    )


def report(row: Mapping[str, Any], now: float, evidence_base: str | None) -> str:
    """One page that needs nothing else, from a row of the journal that is redacted already."""
    outcome = Outcome.from_dict(row["outcome"])
    page = made(outcome, str(row["owner"]), evidence_base=evidence_base)
    return render("report.html", page=page, now=now, version=__version__)


def _spoken(outcome: Outcome, sign: Event | None) -> str:
    """The drawing in a sentence or two."""
    count = len(outcome.hosts)
    words = (
        f"{count} host{'s' if count != 1 else ''}, "
        f"{lasting(outcome.ended_at - outcome.started_at)} from the start to the end."
    )
    if sign is not None:
        where = f" of {sign.host}" if sign.host else ""
        after = lasting(max(sign.at - outcome.started_at, 0.0))
        words += f" The first failure is the phase {sign.phase}{where}, {after} after the start."
    return words + " The table below has every event."


def _host(host: HostOutcome, outcome: Outcome) -> Host:
    back = [
        event
        for event in outcome.timeline
        if (event.host, event.phase, event.status) == (host.host, "restore", "done")
    ]
    healthy_at = back[-1].detail.get("healthy_at") if back else None
    seconds = host.seconds.get("restore")
    return Host(
        host=host.host,
        state=host.state,
        tone="good" if host.state in _GOOD else "bad",
        verified=host.verified,
        healthy=host.healthy,
        before=_named(host.versions_before),
        after=_named(host.versions_after),
        restore="" if seconds is None else lasting(seconds),
        healthy_at="" if healthy_at is None else iso(float(healthy_at), milliseconds=True),
        error=host.error,
    )


def _named(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'nothing'}" for name, version in sorted(versions.items()))


def _versions(outcome: Outcome) -> Iterable[str]:
    """Each change of a component, with the hosts that have seen it."""
    found: dict[str, list[str]] = {}
    for host in outcome.hosts:
        for name in sorted({*host.versions_before, *host.versions_after}):
            before, after = host.versions_before.get(name), host.versions_after.get(name)
            if before != after:
                words = f"{name}: {before or 'nothing'} → {after or 'nothing'}"
                found.setdefault(words, []).append(host.host)
            elif host.state == "restored" and outcome.version != before:
                words = f"{name}: {before or 'nothing'} → {outcome.version}, and back"
                found.setdefault(words, []).append(host.host)
    for words, hosts in found.items():
        shown = ", ".join(hosts[:10]) + (f" and {len(hosts) - 10} more" if len(hosts) > 10 else "")
        yield f"{words} on {shown}"
