"""The last thing a run says: what is live where, what failed and why, and what to do next.

Plain functions from an outcome to lines, for the terminal and for the job summary on GitHub.
"""

from __future__ import annotations

from collections.abc import Iterator

from deployguard.errors import EXPLANATIONS, ExitCode, with_plan
from deployguard.rollout.outcome import Finding, HostOutcome, Outcome

__all__ = ["color_of", "finding_text", "hosts_named", "lines", "markdown", "version_words"]

#: More hosts that ended alike than this are counted, not named.
NAMED_HOSTS = 6
#: More findings than this are in the forensics and in `--json` only.
SHOWN_FINDINGS = 20

#: How a host ends that was only looked at.
_UNTOUCHED = ("untouched", "aborted", "unreachable")


def lines(outcome: Outcome) -> Iterator[tuple[str, bool]]:
    """The summary block, line by line; the flag says that the line is a heading."""
    seconds = outcome.ended_at - outcome.started_at
    code = outcome.exit_code
    meaning, act = _meaning(outcome)
    yield f"{outcome.summary}", True
    transaction = f"transaction {outcome.transaction}, " if outcome.transaction else ""
    yield (
        f"  {outcome.plan} {outcome.version} in {outcome.environment}, {seconds:.1f} s, "
        f"{transaction}exit code {int(code)} ({meaning})",
        False,
    )
    if outcome.hosts:
        yield "live now", True
        for hosts, text in _alike(outcome):
            yield f"  {hosts_named(hosts)}: {text}", False
    if outcome.findings:
        yield "what failed", True
        for finding in outcome.findings[:SHOWN_FINDINGS]:
            for line in finding_text(finding).splitlines():
                yield f"  {line}", False
            for line in finding.evidence.splitlines()[-5:]:
                yield f"    | {line}", False
        if len(outcome.findings) > SHOWN_FINDINGS:
            yield f"  … and {len(outcome.findings) - SHOWN_FINDINGS} more", False
    yield from _overridden(outcome)
    for name, value in _places(outcome):
        yield f"{name}: {value}", False
    for error in outcome.report_errors:
        yield f"not reported: {error}", False
    if not outcome:
        yield f"next: {act}", False


def _overridden(outcome: Outcome) -> Iterator[tuple[str, bool]]:
    if outcome.overrides:
        yield "overridden", True
    for each in outcome.overrides:
        yield f"  {each.guard}: {each.reason} (by {each.by})", False
        for words in each.refused:
            yield f"    | {words}", False


def markdown(outcome: Outcome) -> str:
    """The same for a job summary on GitHub."""
    meaning, act = _meaning(outcome)
    mark = "✅" if outcome else "🔁" if outcome.exit_code == ExitCode.ROLLED_BACK else "❌"
    code = outcome.exit_code
    text = [
        f"## {mark} {_cell(outcome.plan)} {_cell(outcome.version)} → {_cell(outcome.environment)}",
        "",
        f"**{_cell(outcome.summary)}**",
        "",
        f"Transaction `{outcome.transaction or 'none'}`, "
        f"{outcome.ended_at - outcome.started_at:.1f} s, "
        f"exit code {int(code)}: {meaning}.",
        "",
    ]
    if outcome.hosts:
        text += ["| hosts | now |", "|---|---|"]
        text += [
            f"| {_cell(hosts_named(hosts))} | {_cell(now)} |" for hosts, now in _alike(outcome)
        ]
        text.append("")
    if outcome.findings:
        text += ["### What failed", "", "| host | check | what |", "|---|---|---|"]
        text += [
            f"| {_cell(finding.host)} | {_cell(_check(finding))} | {_cell(finding.message)} |"
            for finding in outcome.findings
        ]
        text.append("")
    if outcome.overrides:
        text += [
            "### Overridden guards",
            "",
            "| guard | had said | reason | by |",
            "|---|---|---|---|",
        ]
        text += [
            f"| {_cell(each.guard)} | {_cell('; '.join(each.refused))} | {_cell(each.reason)} "
            f"| {_cell(each.by)} |"
            for each in outcome.overrides
        ]
        text.append("")
    text += [f"- {name}: {_cell(value)}" for name, value in _places(outcome)]
    text += [f"- not reported: {_cell(error)}" for error in outcome.report_errors]
    if not outcome:
        text += ["", f"**Next:** {act}"]
    return "\n".join(text) + "\n"


def _meaning(outcome: Outcome) -> tuple[str, str]:
    """What the exit code means here, and what to do next."""
    explanation = EXPLANATIONS[outcome.exit_code]
    untouched = all(host.state in _UNTOUCHED for host in outcome.hosts)
    if outcome.exit_code == ExitCode.ROLLED_BACK and outcome.hosts and untouched:
        # There was nothing to roll back, and what failed may be no fault of the release.
        act = "Mend what failed, then deploy again; `deployguard doctor PLAN` looks at the hosts."
        return "failed; nothing was touched", with_plan(act, outcome.source)
    return explanation.meaning, with_plan(explanation.act, outcome.source)


def color_of(outcome: Outcome) -> str:
    """Green, yellow where the old version is safe, red where it is not known to be."""
    if outcome:
        return "green"
    safe = (ExitCode.ROLLED_BACK, ExitCode.REFUSED, ExitCode.LOCKED)
    return "yellow" if outcome.exit_code in safe else "red"


def finding_text(finding: Finding) -> str:
    """One finding in one line."""
    who = " ".join(filter(None, (finding.host, finding.component, _check(finding))))
    aside = "" if finding.critical else " (not critical)"
    return f"{who}: {finding.message}{aside}"


def hosts_named(hosts: list[str]) -> str:
    """The names, or how many there are and the first few."""
    if len(hosts) <= NAMED_HOSTS:
        return ", ".join(hosts)
    return f"{len(hosts)} hosts ({', '.join(hosts[: NAMED_HOSTS - 1])}, …)"


def _check(finding: Finding) -> str:
    return (
        finding.layer if finding.name in ("", finding.layer) else f"{finding.layer} {finding.name}"
    )


def _places(outcome: Outcome) -> Iterator[tuple[str, str]]:
    if outcome.forensics:
        yield "forensics", outcome.forensics
    if outcome.incident:
        yield "incident", outcome.incident
    if outcome.incident_url:
        yield "issue" if outcome.incident else "incident", outcome.incident_url
    if outcome.postmortem:
        yield "post-mortem", outcome.postmortem


def _alike(outcome: Outcome) -> Iterator[tuple[list[str], str]]:
    """Hosts that ended alike, with what there is to say of them; trouble comes first."""
    explained = {finding.host for finding in outcome.findings}
    groups: dict[str, list[str]] = {}
    for host in sorted(outcome.hosts, key=_calm):
        # What failed is said once, with its evidence, below.
        error = "" if host.host in explained else host.error
        groups.setdefault(_now(host) + (f"; {error}" if error else ""), []).append(host.host)
    for text, names in groups.items():
        yield names, text


def _calm(host: HostOutcome) -> bool:
    return not host.error and host.verified and host.healthy


def version_words(version: str | None) -> str:
    """What is live, for people: a version, nothing, or what nobody knows the version of."""
    return "as it was found" if version == "adopted" else version or "nothing"


def _now(host: HostOutcome) -> str:
    versions = ", ".join(
        f"{component} {version_words(version)}"
        for component, version in host.versions_after.items()
    )
    state = host.state
    if state == "restored":
        state += ", files verified" if host.verified else ", files NOT verified"
        state += ", healthy" if host.healthy else ", NOT healthy"
        if host.healthy and host.sick:
            state += f" as before, but for {', '.join(host.sick)}"
    elif state == "stuck":
        state += ": not restored, a person is needed"
    elif state == "held":
        state += ": waits for a person to choose"
    return f"{versions} ({state})" if versions else state


def _cell(text: str) -> str:
    """Text from elsewhere, so that it cannot break out of a table or become HTML."""
    flat = " ".join(text.split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
