"""The look before the leap: ``plan`` runs the very steps that ``apply`` begins with, and stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployguard.drivers.registry import driver_of
from deployguard.errors import DeployguardError, with_plan
from deployguard.guards.base import Verdict
from deployguard.rollout import guards, revisions, transaction
from deployguard.rollout.deployment import Run
from deployguard.rollout.member import Member, live_version
from deployguard.rollout.preview import ComponentPreview, GuardPreview, HostPreview, Preview

__all__ = ["inspect", "preview"]


def inspect(run: Run) -> dict[str, DeployguardError]:
    """Connect and look on every host, changing nothing. Answers what went wrong, by host.

    Raises :class:`~deployguard.errors.PlanInvalid` for an artifact that is damaged or unsafe.
    """

    def look(member: Member) -> DeployguardError | None:
        try:
            transaction.connect(run.context, member)
            transaction.inspect(run.context, member)
        except DeployguardError as error:
            return error
        return None

    run.open_sources()
    with run.executor() as executor:
        answers = list(executor.map(look, run.members))
    return {m.name: error for m, error in zip(run.members, answers, strict=True) if error}


def preview(run: Run, failures: Mapping[str, DeployguardError]) -> Preview:
    """The answer of ``plan``, from members that :func:`inspect` has looked at."""
    hosts = []
    able = [member for member in run.members if member.name not in failures]
    verdicts = guards.verdicts(run.context, able, foresee=True) if able else []
    for member in run.members:
        if member.name in failures:
            error = failures[member.name]
            mend = with_plan(error.hint, run.plan.arguments)
            hosts.append(HostPreview(member.name, error=member.said(error), hint=mend))
            continue
        parts = tuple(_component(member, name) for name in member.order)
        hosts.append(HostPreview(member.name, parts, _shown(verdicts, member.name)))
    shown = _shown(verdicts, "")
    return Preview(run.plan.name, run.version, run.plan.environment, tuple(hosts), shown)


def _shown(verdicts: Sequence[Verdict], host: str) -> tuple[GuardPreview, ...]:
    """The verdicts on one host, or on all of them for an empty name."""
    return tuple(
        (
            verdict.guard,
            not verdict.refuses,
            f"overridden ({verdict.overridden}): {verdict.message}"
            if verdict.overridden
            else verdict.message,
        )
        for verdict in verdicts
        if verdict.host == host
    )


def _component(member: Member, name: str) -> ComponentPreview:
    looked = member.looked["components"][name]
    component = member.components[name]
    kinds = ("changed", "added", "removed")
    drift = [f"{kind} {path}" for kind in kinds for path in looked["drift"][kind]]
    drift += [f"only on the host: {path}" for path in looked["only_on_host"]]
    return ComponentPreview(
        component=name,
        version_live=live_version(looked["live"]),
        version_new=str(member.new_version(name)),
        added=tuple((path, size) for path, size in looked["added"]),
        changed=tuple((path, size) for path, size in looked["changed"]),
        removed=tuple((path, size) for path, size in looked["removed"]),
        files=tuple((file["path"], file["change"]) for file in looked["files"]),
        restarts=tuple(driver_of(component).titles(component)),
        drift=tuple(drift),
        bytes_to_send=int(looked["missing_bytes"]),
        revision=revisions.moved(looked),
    )
