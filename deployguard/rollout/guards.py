"""The guards of a transaction: what is known is put together, and their verdicts are acted on.

``plan`` and ``apply`` come by the same verdicts. A refusal changes nothing on any host; one that a
person overrode with a reason is recorded in the journal before anything else is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deployguard.errors import Refused
from deployguard.guards import baseline, registry
from deployguard.guards.base import HostView, Known, Verdict
from deployguard.rollout.member import Context, Member
from deployguard.rollout.outcome import Override

__all__ = ["approve", "judge", "note_unhealthy", "nothing_to_do", "overrides", "verdicts"]


def verdicts(
    context: Context, members: Sequence[Member], *, foresee: bool = False
) -> list[Verdict]:
    """Every guard's answer for hosts that were looked at, with the overrides of this run.

    ``foresee`` is for a preview: nobody is asked to approve.
    """
    known = _known(context, members, foresee)
    return [
        replace(verdict, overridden=context.overrides[verdict.guard])
        if verdict.refuses and verdict.guard in context.overrides
        else verdict
        for verdict in registry.verdicts(known, rollback=context.rollback)
    ]


def judge(context: Context, members: Sequence[Member]) -> list[Verdict]:
    """The verdicts; raises :class:`Refused` with every reason there is, from all hosts."""
    found = verdicts(context, members)
    _refuse(found)
    return found


def approve(context: Context, members: Sequence[Member]) -> None:
    """Ask whoever may say yes. Raises :class:`Refused`."""
    known = _known(context, members, foresee=False)
    found = list(registry.approvals(known, rollback=context.rollback))
    _refuse(found)
    for verdict in found:
        context.record("inspect", "note", "", verdict.message)


def _refuse(found: Sequence[Verdict]) -> None:
    refusals = [verdict for verdict in found if verdict.refuses]
    if refusals:
        raise Refused(
            "\n".join(str(verdict) for verdict in refusals),
            hint=_hint(refusals),
            refusals=[(verdict.host, verdict.guard, verdict.message) for verdict in refusals],
        )


def overrides(found: Sequence[Verdict], by: str) -> tuple[Override, ...]:
    """What was gone over: one record for each guard, with all that it refused."""
    by_guard: dict[tuple[str, str], list[str]] = {}
    for verdict in found:
        if not verdict.passed and verdict.overridden:
            words = f"{verdict.host}: {verdict.message}" if verdict.host else verdict.message
            by_guard.setdefault((verdict.guard, verdict.overridden), []).append(words)
    return tuple(
        Override(guard, reason, by, tuple(words)) for (guard, reason), words in by_guard.items()
    )


def note_unhealthy(context: Context, members: Sequence[Member]) -> None:
    """Put on the timeline what was not healthy before anything was done."""
    for member in members:
        for words in baseline.unhealthy(_view(member)):
            context.record("inspect", "note", member.name, f"not healthy before: {words}")


def nothing_to_do(members: Sequence[Member]) -> bool:
    """Whether every host already runs exactly this, and is healthy."""
    for member in members:
        looked_at = member.looked.get("baseline") or {}
        if not looked_at.get("healthy"):
            return False
        for name, looked in member.looked["components"].items():
            if looked["live"].get("version") != member.new_version(name):
                return False
            if looked["added"] or looked["changed"] or looked["removed"]:
                return False
            if any(file["change"] != "same" for file in looked["files"]):
                return False
            if looked.get("git", {}).get("moves"):
                return False
            if any(answer.get("drift") for answer in looked["observed"].values()):
                return False
    return True


def _known(context: Context, members: Sequence[Member], foresee: bool) -> Known:
    return Known(
        plan=context.plan,
        version=context.version,
        hosts=tuple(_view(member) for member in members),
        world=context.world,
        owner=context.owner,
        drift=context.drift,
        fix=context.fix,
        foresee=foresee,
        rollback=context.rollback,
        overrides=context.overrides,
        read=lambda component, path: context.sources[component].read(path),
        has=lambda component, path: context.sources[component].has(path),
    )


def _view(member: Member) -> HostView:
    return HostView(member.name, member.components, member.looked)


def _hint(refusals: Sequence[Verdict]) -> str:
    mend = "nothing was touched; `deployguard plan PLAN` shows the details"
    able = list(dict.fromkeys(v.guard for v in refusals if v.guard in registry.OVERRIDABLE))
    if not able:
        return mend
    return f'{mend}; --override {able[0]}="the reason" goes over a guard, and puts it on record'
