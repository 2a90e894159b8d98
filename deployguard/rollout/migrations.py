"""Which migrations a transaction runs, on which host, in which direction.

A migration runs once, on the first host that it applies to, and that host goes first and alone: no
new code runs anywhere under the old schema. On the way back that host comes last, when no new code
runs any more elsewhere. Pure, but for what is read of the members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployguard.plan.model import Plan, Task
from deployguard.plan.order import batches, runner_of, tasks_on
from deployguard.rollout.member import Context, Member, Migration

__all__ = [
    "Migration",
    "batches_of",
    "migrations_of",
    "once_of",
    "points",
    "recorded",
    "tasks_of",
]


def migrations_of(context: Context, members: Sequence[Member]) -> tuple[Migration, ...]:
    """The migrations of this transaction, on members that can take part.

    A rollback runs none but those that the live version came with, the other way round.
    """
    able = {member.name: member for member in members}
    found = []
    for task in context.plan.tasks:
        host = runner_of(context.plan, task, able)
        if task.migration is None or host is None:
            continue
        if not context.rollback:
            found.append(Migration(task.name, task.migration, host))
            continue
        ran = next((one for one in recorded(able[host]) if one["task"] == task.name), None)
        if ran is not None and task.migration == "reversible":
            back = ran["direction"] == "up"
            found.append(Migration(task.name, "reversible", host, "down" if back else "up"))
    return tuple(found)


def once_of(context: Context, members: Sequence[Member]) -> dict[str, str]:
    """The host for each task that runs only once and is no migration."""
    able = [member.name for member in members]
    found = {}
    for task in context.plan.tasks:
        host = runner_of(context.plan, task, able) if task.once else None
        if host is not None and task.migration is None:
            found[task.name] = host
    return found


def recorded(member: Member) -> list[dict[str, Any]]:
    """The migrations that a rollback of this host goes back over, newest first, each once."""
    found: list[dict[str, Any]] = []
    for looked in member.looked.get("components", {}).values():
        found += [one for one in looked["live"].get("migrations", ()) if one not in found]
    return found


def tasks_of(context: Context, member: Member) -> list[Task]:
    """The plan's tasks that run on this host in this transaction."""
    mine = {one.task for one in context.migrations if one.host == member.name}
    here = set(tasks_on(context.plan, member.name))
    chosen = []
    for task in context.plan.tasks:
        if task.migration is not None:
            runs = task.name in mine
        elif task.once:
            runs = context.once.get(task.name) == member.name
        else:
            runs = task.name in here
        if runs:
            chosen.append(task)
    return chosen


def batches_of(
    plan: Plan, names: Sequence[str], migrations: Sequence[Migration]
) -> list[list[str]]:
    """The hosts batch by batch; each host with a migration before all others, and alone."""
    first = list(dict.fromkeys(one.host for one in migrations))
    order = [*first, *(name for name in names if name not in first)]
    found: list[list[str]] = []
    for batch in batches(plan.serial, order):
        found += [[name] for name in batch if name in first]
        rest = [name for name in batch if name not in first]
        found += [rest] if rest else []
    return found


def points(migrations: Sequence[Migration], hosts: Sequence[str]) -> list[str]:
    """The migrations without return that have begun when these hosts were switched."""
    return [one.task for one in migrations if one.no_return and one.host in hosts]
