"""The rules for `respond`: names, inverses, hosts, variables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from deployguard.plan.document import Finding, Path
from deployguard.plan.suggestion import did_you_mean

if TYPE_CHECKING:
    from deployguard.plan.model import Plan

__all__ = ["respond_findings"]


def respond_findings(
    plan: Plan, targets: Collection[str] | None, environ: Mapping[str, str] | None
) -> Iterator[Finding]:
    """What is wrong with the block; ``targets`` are the hosts and groups there are, ``environ`` the
    variables that are set, each ``None`` where that is not known."""
    respond = plan.respond
    seen: dict[str, str] = {}
    for block, steps in (("contain", respond.contain), ("mitigate", respond.mitigate)):
        for index, step in enumerate(steps):
            where: Path = ("respond", block, index)
            if not step.name.strip():
                yield Finding((*where, "name"), "must not be empty")
            elif step.name in seen:
                yield Finding(
                    (*where, "name"),
                    f'"{step.name}" is the name of {seen[step.name]} already',
                    "names tell steps apart, and what was done from what was undone",
                )
            seen.setdefault(step.name, f"{block}[{index}]")
            yield from _named((*where, "hosts"), step.hosts, targets)
            yield from _inverse(step.undo, step.undo_less, step.name, where)
            if block == "mitigate" and "severity" in step.model_fields_set:
                mend = "remove it; somebody chooses these"
                yield Finding((*where, "severity"), "is of contain only", mend, on_key=True)
    if respond.writes is not None:
        yield from _named(("respond", "writes", "hosts"), respond.writes.hosts, targets)
    prometheus = respond.prometheus
    if prometheus is None:
        return
    place: Path = ("respond", "prometheus")
    if prometheus.host is not None and targets is not None and prometheus.host not in plan.hosts:
        hint = did_you_mean(prometheus.host, sorted(plan.hosts))
        yield Finding((*place, "host"), f'there is no host "{prometheus.host}"', hint)
    if prometheus.max is not None and prometheus.error_rate is None:
        mend = "add error_rate, or remove max"
        yield Finding((*place, "max"), "is the most that error_rate may be", mend, on_key=True)
    name = prometheus.token_env
    if name is not None and environ is not None and not environ.get(name):
        words = f"the environment variable {name} is not set"
        yield Finding((*place, "token_env"), words, f"export {name} where deployguard runs")


def _named(
    where: Path, wanted: Collection[str], targets: Collection[str] | None
) -> Iterator[Finding]:
    for number, target in enumerate(wanted):
        if targets is not None and target not in targets:
            hint = did_you_mean(target, sorted(targets))
            yield Finding((*where, number), f'there is no host or group "{target}"', hint)


def _inverse(
    undo: tuple[str, ...] | None, undo_less: str | None, name: str, where: Path
) -> Iterator[Finding]:
    if undo is None and undo_less is None:
        yield Finding(
            where,
            f'the step "{name}" has no undo, so it could not be taken back',
            "add undo: [command], or undo_less: and why it needs none",
            on_key=True,
        )
    elif undo is not None and undo_less is not None:
        yield Finding(
            (*where, "undo_less"), "a step has undo or undo_less, not both", "remove one", True
        )
    elif undo_less is not None and not undo_less.strip():
        yield Finding((*where, "undo_less"), "must say why no inverse is needed")
