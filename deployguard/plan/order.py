"""In what order components start and hosts are taken.

Stopping goes the other way round: ``reversed(components_on(plan, host))``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployguard.plan.model import Component, Host, Plan, Task

__all__ = [
    "batches",
    "components_on",
    "find_cycle",
    "hosts_in_order",
    "hosts_named",
    "runner_of",
    "start_order",
    "tasks_on",
]


def start_order(components: Mapping[str, Component]) -> list[str]:
    """Names with every component after those it needs; otherwise in the order of the file.

    Raises :class:`ValueError` for a cycle, which a loaded plan cannot have.
    """
    order: list[str] = []
    done: set[str] = set()
    waiting = list(components)
    while waiting:
        ready = next(
            (
                name
                for name in waiting
                if all(need in done or need not in components for need in components[name].needs)
            ),
            None,
        )
        if ready is None:
            raise ValueError(f"components need one another in a circle: {', '.join(waiting)}")
        waiting.remove(ready)
        order.append(ready)
        done.add(ready)
    return order


def find_cycle(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """One circle of names, ``[a, b, a]``, or an empty list."""
    finished: set[str] = set()
    for start in needs:
        trail: list[str] = []
        pending: list[tuple[str, bool]] = [(start, False)]
        while pending:
            name, leaving = pending.pop()
            if leaving:
                trail.pop()
                finished.add(name)
            elif name in trail:
                return [*trail[trail.index(name) :], name]
            elif name not in finished:
                trail.append(name)
                pending.append((name, True))
                pending += [(need, False) for need in reversed(list(needs.get(name, ())))]
    return []


def hosts_named(hosts: Mapping[str, Host], names: Sequence[str]) -> list[str]:
    """The hosts meant by a list of hosts and groups, in the order of the file; all when empty."""
    if not names or "all" in names:
        return list(hosts)
    wanted = set(names)
    return [
        name for name, host in hosts.items() if name in wanted or not wanted.isdisjoint(host.groups)
    ]


def _applies(host_name: str, host: Host, names: Sequence[str]) -> bool:
    return (
        not names
        or "all" in names
        or host_name in names
        or any(group in names for group in host.groups)
    )


def components_on(plan: Plan, host_name: str) -> list[str]:
    """The components of one host in the order in which they start."""
    host = plan.hosts[host_name]
    return [
        name
        for name in start_order(plan.components)
        if _applies(host_name, host, plan.components[name].hosts)
    ]


def tasks_on(plan: Plan, host_name: str) -> list[str]:
    """The names of the tasks that apply to one host, in the order of the file.

    A task of a component applies where the component runs. ``once`` is not looked at; see
    :func:`runner_of`.
    """
    host = plan.hosts[host_name]
    return [
        task.name
        for task in plan.tasks
        if _applies(host_name, host, task.hosts)
        and (
            task.component is None
            or _applies(host_name, host, plan.components[task.component].hosts)
        )
    ]


def runner_of(plan: Plan, task: Task, able: Collection[str]) -> str | None:
    """The host on which a task runs that runs only once: the first able one it applies to."""
    return next(
        (name for name in plan.hosts if name in able and task.name in tasks_on(plan, name)), None
    )


def hosts_in_order(plan: Plan) -> list[str]:
    """The hosts that have something to deploy, in the order of the file.

    An inventory is often shared and names machines that this plan does not touch.
    """
    return [
        name
        for name, host in plan.hosts.items()
        if any(_applies(name, host, component.hosts) for component in plan.components.values())
        or any(task.hosts and _applies(name, host, task.hosts) for task in plan.tasks)
    ]


def batches(serial: Sequence[int | str], host_names: Sequence[str]) -> list[list[str]]:
    """Split hosts as Ansible's ``serial`` does.

    The last entry repeats until all hosts are taken; a percentage is of all hosts, rounded down,
    and at least one host.
    """
    total = len(host_names)
    result: list[list[str]] = []
    taken = 0
    sizes = list(serial) or ["100%"]
    while taken < total:
        entry = sizes[min(len(result), len(sizes) - 1)]
        size = max(1, _size(entry, total))
        result.append(list(host_names[taken : taken + size]))
        taken += size
    return result


def _size(entry: int | str, total: int) -> int:
    if isinstance(entry, int):
        return entry
    if entry.endswith("%"):
        return int(total * float(entry[:-1]) / 100)
    return int(entry)
