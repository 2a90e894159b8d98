"""Finds out what the options are made of: the way back, the release that may be a fix, the writes.

The way back is looked at with the very look that a rollback begins with, guards included, so that
what is called possible here is what would be done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deployguard.errors import DeployguardError, HostFailure, PlanInvalid, UsageError
from deployguard.evidence.timeline import iso
from deployguard.plan.load import load
from deployguard.plan.model import Plan
from deployguard.plan.order import hosts_in_order, hosts_named
from deployguard.response.asking import bounded
from deployguard.response.assessment import Assessment
from deployguard.response.options import Candidate, Migration, WayBack, Written
from deployguard.rollout import guards, inspection
from deployguard.rollout.deployment import Run
from deployguard.rollout.member import Connect

__all__ = ["candidate", "target", "way_back", "written"]

#: The trees are compared in it; a large one on a slow disk takes its time.
LOOK_SECONDS = 60.0


def target(assessment: Assessment, to: str | None = None) -> WayBack:
    """The version before the live one, by the hosts' own records; or why there is no such one."""
    if to:
        return WayBack(to)
    found: dict[str, list[str]] = {}
    refused = []
    for host in assessment.hosts:
        for one in host.live:
            # The same version may have been deployed again, over a change by hand.
            older = next((version for version in one.previous if version != one.version), None)
            if older is not None:
                found.setdefault(older, []).append(host.host)
            else:
                refused.append(f"{host.host} has no earlier version of {one.component}")
        if not host.live and not host.error:
            refused.append(f"nothing was deployed to {host.host} yet")
    if len(found) > 1:
        words = "; ".join(f"{v} on {', '.join(hosts)}" for v, hosts in sorted(found.items()))
        refused.append(f"the previous version differs: {words} (name one with --to)")
    return WayBack(next(iter(found)) if len(found) == 1 else "", tuple(refused))


def way_back(
    plan: Plan,
    assessment: Assessment,
    connect: Connect,
    *,
    to: str | None = None,
    variables: Mapping[str, str] | None = None,
    drift: str | None = None,
    overrides: Mapping[str, str] | None = None,
    seconds: float = LOOK_SECONDS,
) -> WayBack:
    """Look at every host as a rollback would, changing nothing."""
    goal = target(assessment, to)
    if goal.refused or not goal.version or assessment.unreachable:
        return goal
    version = goal.version

    def look(_: str) -> WayBack:
        old = load(plan.source, version=version, variables=variables, local_files=False)
        with Run(
            old, connect=connect, version=version, drift=drift, overrides=overrides or {}
        ) as run:
            failures = inspection.inspect(run)
            able = [member for member in run.members if member.name not in failures]
            verdicts = guards.verdicts(run.context, able, foresee=True) if able else []
            refused = [_reason(name, error) for name, error in failures.items()]
            refused += [f"{verdict}" for verdict in verdicts if verdict.refuses]
            return WayBack(
                version,
                tuple(refused),
                tuple(one for member in able for one in _migrations(member.name, member.looked)),
                tuple(one for member in able for one in _changed(member.name, member.looked)),
            )

    answer = bounded(["look"], look, seconds)["look"]
    if isinstance(answer, WayBack):
        return answer
    if isinstance(answer, PlanInvalid):
        return WayBack(version, tuple(str(mistake) for mistake in answer.mistakes[:3]))
    if answer is not None:
        return WayBack(version, (f"{answer.message}",))
    return WayBack(version, unproven=f"no answer within {seconds:.0f} s")


def _reason(host: str, error: DeployguardError) -> str:
    words = error.message if error.message.startswith(host) else f"{host}: {error.message}"
    return f"{words} ({error.hint})" if error.hint else words


def _migrations(host: str, looked: Mapping[str, Any]) -> Iterator[Migration]:
    for component in looked.get("components", {}).values():
        for one in component["live"].get("migrations", ()):
            yield Migration(host, str(one["task"]), str(one["kind"]), str(one["version"]))


def _changed(host: str, looked: Mapping[str, Any]) -> Iterator[str]:
    for component in looked.get("components", {}).values():
        for kind in ("changed", "added", "removed"):
            for path in component["drift"][kind]:
                yield f"{host}: {path}"


def candidate(
    plan: Plan,
    assessment: Assessment,
    *,
    named: bool = False,
    back: str = "",
    variables: Mapping[str, str] | None = None,
) -> Candidate:
    """The release that may be the fix: the plan's, which somebody ``named`` or which is neither
    what is live nor what was."""
    version = plan.version
    if version in assessment.live_versions():
        words = f"{version} is what is live"
        return Candidate(problem=f"{words} (build the fix, then name it with --release)")
    known = {v for host in assessment.hosts for one in host.live for v in one.previous}
    if not named and (version == back or version in known):
        words = f"{version} of the plan is older than what is live"
        return Candidate(problem=f"{words} (name the fix with --release)")
    try:
        load(plan.source, version=version, variables=variables)
    except PlanInvalid as invalid:
        return Candidate(version, f"{version}: {invalid.mistakes[0].message}")
    except UsageError as error:
        return Candidate(version, error.message)
    return Candidate(version)


def written(plan: Plan, assessment: Assessment, connect: Connect) -> Written:
    """How much was written since the last deploy, by the plan's own count."""
    asked = plan.respond.writes
    since = assessment.last_change()
    if asked is None:
        return Written()
    if since is None:
        return Written(unit=asked.unit, unknown="nothing was deployed yet")
    names = _able(plan, assessment, asked.hosts)
    if not names:
        return Written(unit=asked.unit, unknown="no host to ask answers")
    env = {"DEPLOYGUARD_SINCE": iso(since), "DEPLOYGUARD_SINCE_EPOCH": str(int(since))}

    def ask(name: str) -> dict[str, Any]:
        with connect(name, plan.hosts[name]) as session:
            args = {"argv": list(asked.run), "env": env, "timeout": asked.timeout}
            return session.call("run", args, timeout=asked.timeout + 5.0)

    answer = bounded(names[:1], ask, asked.timeout + 10.0)[names[0]]
    if answer is None:
        return Written(unit=asked.unit, unknown="no answer in time")
    if isinstance(answer, DeployguardError):
        reason = answer.reason if isinstance(answer, HostFailure) else answer.message
        return Written(unit=asked.unit, unknown=reason)
    if answer["status"] != 0:
        return Written(unit=asked.unit, unknown=str(answer["message"]))
    try:
        return Written(float(str(answer["output"]).strip()), asked.unit)
    except ValueError:
        said = str(answer["output"]).strip()[:60]
        return Written(unit=asked.unit, unknown=f"{asked.run[0]} printed no number: {said!r}")


def _able(plan: Plan, assessment: Assessment, wanted: Sequence[str]) -> list[str]:
    silent = {one.host for one in assessment.unreachable}
    named = hosts_named(plan.hosts, wanted)
    return [name for name in hosts_in_order(plan) if name in named and name not in silent]
