"""Whether the promise was kept in one scenario: pure, from what was seen before and afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from deployguard.drills.deploys import Deployed
from deployguard.drills.hosts import Reading
from deployguard.drills.report import HostDrilled, ScenarioDrilled
from deployguard.drills.scenarios import Scenario
from deployguard.errors import ExitCode
from deployguard.plan.model import Plan

__all__ = ["Ends", "judged"]

#: Who brought a host to its end, and how many seconds after the start of the deploy.
Ends = tuple[Literal["deploy", "host", "recover"], float]

#: What a controller says of a fault on a host.
_SIGNS = {
    "kill": "the connection was lost",
    "cut": "the connection was lost",
    "full": "No space left on device",
}
#: A deploy that ends with one of these was not disturbed, it did not take place.
_NO_DEPLOY = (ExitCode.INTERNAL, ExitCode.USAGE, ExitCode.REFUSED, ExitCode.LOCKED)


def judged(
    scenario: Scenario,
    plan: Plan,
    victim: str,
    deployed: Deployed,
    ends: Mapping[str, Ends],
    before: Mapping[str, Reading],
    after: Mapping[str, Reading],
    transaction: str,
    decision: str | None,
) -> ScenarioDrilled:
    """One scenario, from the readings of all hosts before it and after the recovery.

    ``decision`` is the one on record here, ``commit`` or ``abort``.
    """
    hosts = tuple(
        _host(reading, before[name], plan.version, ends[name]) for name, reading in after.items()
    )
    problems = list(_of_all(scenario, plan, deployed, hosts, decision))
    kept = not problems and not any(host.problems for host in hosts)
    return ScenarioDrilled(
        scenario=scenario.name,
        what=scenario.what,
        kept=kept,
        happened=_happened(scenario, victim, deployed),
        deploy=deployed.code,
        seconds=deployed.seconds,
        hosts=hosts,
        problems=tuple(problems),
        transaction=transaction,
        look_at=() if kept else tuple(_places(plan, deployed, transaction)),
    )


def _host(reading: Reading, before: Reading, new: str, end: Ends) -> HostDrilled:
    versions = reading.versions or {}
    problems = []
    ended: Literal["old", "new", "neither"] = "neither"
    if reading.error:
        problems.append(f"it cannot be read: {reading.error}")
    elif versions == before.versions:
        changed = [
            part for part, was in (before.manifests or {}).items() if was != _of(reading, part)
        ]
        changed += _files_changed(before, reading)
        ended = "neither" if changed else "old"
        problems += [f"{part} is not as it was before" for part in changed]
    elif set(versions.values()) == {new}:
        ended = "new"
    else:
        live = ", ".join(f"{part} {version}" for part, version in versions.items())
        problems.append(f"it is neither old nor new: {live}")
    if reading.differences:
        ended = "neither"
    problems += reading.differences
    problems += [f"not healthy: {words}" for words in reading.sick]
    problems += [f"unfinished: transaction {words}" for words in reading.unfinished]
    left = (*(f"lock of {words}" for words in reading.locks), *reading.left)
    left = tuple(dict.fromkeys(left))
    problems += [f"left behind: {words}" for words in left]
    return HostDrilled(
        host=reading.host,
        ended=ended,
        by=end[0],
        seconds=round(end[1], 1),
        versions=dict(versions),
        verified=not reading.error and not reading.differences,
        healthy=not reading.error and not reading.sick,
        left=left,
        problems=tuple(problems),
    )


def _of(reading: Reading, part: str) -> str | None:
    return (reading.manifests or {}).get(part)


def _files_changed(before: Reading, after: Reading) -> list[str]:
    """Managed files that are not what they were: content, mode, owner or time."""
    now = {file["path"]: file for file in after.files}
    return [file["path"] for file in before.files if now.get(file["path"]) != file]


def _of_all(
    scenario: Scenario,
    plan: Plan,
    deployed: Deployed,
    hosts: tuple[HostDrilled, ...],
    decision: str | None,
) -> list[str]:
    found = []
    ends = {host.ended for host in hosts}
    together = plan.max_fail_percentage == 0 and plan.on_failure != "restore_batch"
    if together and {"old", "new"} <= ends:
        found.append("the hosts do not agree")
    against = {"commit": "old", "abort": "new"}.get(decision or "")
    if together and against in ends:
        found.append(
            f"the decision on record is {decision}, and a host is on the {against} version"
        )
    if scenario.unhealthy and "new" in ends and together:
        found.append("a version that was not healthy was committed")
    if deployed.code in _NO_DEPLOY:
        words = deployed.error or str(deployed.outcome.get("summary", "")) or deployed.words[-400:]
        found.append(f"the deploy did not take place, it ended with {deployed.code}: {words}")
    kills = any(action == "kill" for _, action in scenario.controller)
    if deployed.code < 0 and not kills:
        found.append(f"the deploy had to be killed after {deployed.seconds:.0f} s")
    return found


def _happened(scenario: Scenario, victim: str, deployed: Deployed) -> bool:
    """Whether the deploy came to the fault, by what it said before it ended."""
    failed = [
        str(line.get("message", ""))
        for line in deployed.lines
        if line.get("type") == "event" and line.get("status") == "failed"
        if line.get("host") == victim
    ]
    signs = [_SIGNS[action] for _, action in scenario.host]
    if scenario.unhealthy:
        signs.append("a drill has")
    points = scenario.faults(victim, "")["controller"]
    return all(any(sign in words for words in failed) for sign in signs) and all(
        fault["point"] in deployed.points for fault in points
    )


def _places(plan: Plan, deployed: Deployed, transaction: str) -> list[str]:
    found = []
    if transaction:
        found.append(f"`deployguard history {transaction}`")
        found.append(f"the folder transactions/{transaction} in the state directory of each host")
    forensics = deployed.outcome.get("forensics")
    if forensics:
        found.append(str(forensics))
    found.append(f"`deployguard status {plan.arguments} --verify`")
    return found
