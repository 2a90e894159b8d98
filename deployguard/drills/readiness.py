"""What a drill begins with: one version everywhere, healthy hosts, nothing unfinished. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from deployguard.drills.hosts import Reading
from deployguard.errors import Refused, UsageError
from deployguard.plan.model import Plan
from deployguard.plan.order import hosts_in_order
from deployguard.rollout.preview import Preview

__all__ = ["refuse_no_return", "refuse_unmarked", "refuse_unready", "version_live"]


def refuse_unmarked(plan: Plan) -> None:
    """Raise :class:`Refused` unless every host of the plan may be drilled."""
    unmarked = [name for name in hosts_in_order(plan) if not plan.hosts[name].drill]
    if unmarked:
        raise Refused(
            f"not marked `drill: true`: {', '.join(unmarked)}; nothing was touched",
            hint="a drill breaks deploys on purpose: mark hosts that may be used for that",
        )


def refuse_no_return(plan: Plan) -> None:
    """Raise :class:`Refused` for a plan that a drill could not bring back."""
    tasks = [task.name for task in plan.tasks if task.migration == "irreversible"]
    if tasks:
        raise Refused(
            f"{', '.join(tasks)} cannot be taken back, and a drill goes back every time; nothing "
            "was touched",
            hint="drill a plan without it",
        )


def version_live(plan: Plan, before: Mapping[str, Reading]) -> str:
    """The one version that is live everywhere. Raises :class:`Refused`, :class:`UsageError`."""
    lost = [f"{name}: {reading.error}" for name, reading in before.items() if reading.error]
    if lost:
        hint = next(reading.hint for reading in before.values() if reading.error)
        raise Refused("\n".join([*lost, "nothing was touched"]), hint=hint)
    found: dict[str | None, list[str]] = {}
    for name, reading in before.items():
        for part, version in (reading.versions or {}).items():
            found.setdefault(version, []).append(f"{name} {part}")
    if None in found or not found:
        where = ", ".join(found.get(None, [])) or "any host"
        raise UsageError(
            f"nothing is live yet on {where}; a drill goes from one version to the next",
            hint="deploy the version before this one first: "
            "`deployguard apply PLAN --release VERSION`",
        )
    if len(found) > 1:
        words = "; ".join(f"{version} on {', '.join(on)}" for version, on in found.items())
        raise UsageError(
            f"not all hosts are at one version: {words}",
            hint="deploy one version to all of them first: `deployguard apply PLAN`",
        )
    old = str(next(iter(found)))
    if old == plan.version:
        raise UsageError(
            f"{old} is live already; a drill goes from one version to the next",
            hint="name another: `deployguard drill PLAN --release VERSION`",
        )
    return old


def refuse_unready(before: Mapping[str, Reading], shown: Preview) -> None:
    """Raise :class:`Refused` where a drill would find the same trouble at every scenario."""
    unfinished = [f"{r.host}: {words}" for r in before.values() for words in r.unfinished]
    if unfinished:
        raise Refused("\n".join(unfinished), hint="run `deployguard recover PLAN` first")
    trouble = [
        f"{reading.host}: {words}"
        for reading in before.values()
        for words in (*reading.differences, *reading.sick)
    ]
    if trouble:
        raise Refused(
            "\n".join([*trouble, "nothing was touched"]),
            hint="a drill begins with hosts that are healthy and unchanged: "
            "`deployguard status PLAN --verify`",
        )
    refusals = [f"{host.host}: {host.error}" for host in shown.hosts if host.error]
    refusals += [f"{name}: {words}" for name, ok, words in shown.guards if not ok]
    refusals += [
        f"{host.host}: {name}: {words}"
        for host in shown.hosts
        for name, ok, words in host.guards
        if not ok
    ]
    if refusals:
        raise Refused(
            "\n".join([*refusals, "nothing was touched"]),
            hint="`deployguard plan PLAN` shows what stands in the way",
        )
