"""What goes wrong in a drill, and when: one table, in the order in which a drill runs it.

A scenario is data. ``HOST`` in its points stands for the host that it befalls, the last one with
something to deploy: by then every other host is as far as it gets. ``COMPONENT`` is the first
component there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from deployguard.errors import UsageError
from deployguard.plan.suggestion import did_you_mean

__all__ = ["SCENARIOS", "Scenario", "chosen"]


@dataclass(frozen=True)
class Scenario:
    """One thing that goes wrong.

    ``controller`` and ``host`` are pairs of a point and an action; see :mod:`deployguard.faults`.
    ``commits`` says that the new version is live afterwards, ``lease`` that hosts have to wait for
    the end of theirs; both are for the estimate, and nothing is judged by them.
    """

    group: str
    when: str
    what: str
    controller: tuple[tuple[str, str], ...] = ()
    host: tuple[tuple[str, str], ...] = ()
    unhealthy: bool = False
    commits: bool = False
    lease: bool = False

    @property
    def name(self) -> str:
        """Each is named once: the group, and when in the deploy it happens."""
        return f"{self.group}-{self.when}" if self.when else self.group

    def faults(self, host: str, component: str) -> dict[str, Any]:
        """The faults of one run that befall ``host``."""

        def named(point: str) -> str:
            return point.replace("HOST", host).replace("COMPONENT", component)

        controller = [{"point": named(p), "action": action} for p, action in self.controller]
        on_host = [{"point": named(p), "action": action} for p, action in self.host]
        return {
            "controller": controller,
            "hosts": {host: on_host},
            "unhealthy": [host] if self.unhealthy else [],
            "incidents": False,
        }


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "bad-health",
        "",
        "the new version starts, and its checks count as failed on one host",
        unhealthy=True,
    ),
    Scenario(
        "controller-killed",
        "before-switch",
        "deployguard here gets SIGKILL when the undo is armed and nothing is touched on the host",
        controller=(("before switch HOST", "kill"),),
        lease=True,
    ),
    Scenario(
        "controller-killed",
        "after-switch",
        "deployguard here gets SIGKILL when the new version was started",
        controller=(("after switch HOST", "kill"),),
        lease=True,
    ),
    Scenario(
        "controller-killed",
        "after-vote",
        "deployguard here gets SIGKILL when every host has voted and nothing is decided",
        controller=(("before decide", "kill"),),
    ),
    Scenario(
        "controller-killed",
        "after-decision",
        "deployguard here gets SIGKILL when the commit is recorded and no host has heard of it",
        controller=(("after decide", "kill"),),
        commits=True,
    ),
    Scenario(
        "program-killed",
        "after-staging",
        "the program on the host gets SIGKILL when the new tree stands beside the live one",
        host=(("after staged", "kill"),),
    ),
    Scenario(
        "program-killed",
        "in-switch",
        "the program on the host gets SIGKILL when services are stopped and the tree is swapped",
        host=(("after done COMPONENT:tree", "kill"),),
    ),
    Scenario(
        "program-killed",
        "after-switch",
        "the program on the host gets SIGKILL when the new version was started",
        host=(("after switched", "kill"),),
    ),
    Scenario(
        "program-killed",
        "after-vote",
        "the program on the host gets SIGKILL when its vote is on the disk and not sent",
        host=(("after prepared", "kill"),),
    ),
    Scenario(
        "program-killed",
        "after-commit",
        "the program on the host gets SIGKILL when the commit is on the disk, before it clears up",
        host=(("after committed", "kill"),),
        commits=True,
        lease=True,
    ),
    Scenario(
        "program-killed",
        "with-controller",
        "the program on the host gets SIGKILL after the switch, and then deployguard here as well: "
        "only the dead-man is left",
        host=(("after switched", "kill"),),
        controller=(("before decide", "kill"),),
        lease=True,
    ),
    Scenario(
        "connection-cut",
        "before-switch",
        "the connection is lost when the undo is armed and nothing is touched on the host",
        host=(("after armed", "cut"),),
    ),
    Scenario(
        "connection-cut",
        "after-switch",
        "the connection is lost when the new version was started",
        host=(("after switched", "cut"),),
    ),
    Scenario(
        "connection-cut",
        "after-vote",
        "the connection is lost when the vote is on the disk and not sent",
        host=(("after prepared", "cut"),),
    ),
    Scenario(
        "disk-full",
        "before-switch",
        "the disk of the host is full when the new tree is staged",
        host=(("before staged", "full"),),
    ),
    Scenario(
        "disk-full",
        "in-switch",
        "the disk of the host is full when services are stopped, before the tree is swapped",
        host=(("before intent COMPONENT:tree", "full"),),
    ),
    Scenario(
        "disk-full",
        "after-switch",
        "the disk of the host is full when the new version was started",
        host=(("before switched", "full"),),
    ),
    Scenario(
        "disk-full",
        "at-vote",
        "the disk of the host is full when its vote is to be written",
        host=(("before prepared", "full"),),
    ),
    Scenario(
        "interrupted",
        "after-switch",
        "deployguard here gets SIGINT, as by Ctrl-C, when the new version was started",
        controller=(("after switch HOST", "interrupt"),),
    ),
    Scenario(
        "interrupted",
        "after-vote",
        "deployguard here gets SIGTERM, as of a CI job, when the host has voted",
        controller=(("after prepare HOST", "terminate"),),
    ),
)


def chosen(only: Iterable[str] = ()) -> tuple[Scenario, ...]:
    """The scenarios that names or groups stand for, all of them when there are none.

    Raises :class:`UsageError` for a name that is not known.
    """
    wanted = list(only)
    names = [*dict.fromkeys(s.group for s in SCENARIOS), *(s.name for s in SCENARIOS if s.when)]
    for name in wanted:
        if name not in names:
            mend = did_you_mean(name, names) or "`deployguard drill --list` shows them all"
            raise UsageError(f'there is no scenario "{name}"', hint=mend)
    return tuple(s for s in SCENARIOS if not wanted or s.name in wanted or s.group in wanted)
