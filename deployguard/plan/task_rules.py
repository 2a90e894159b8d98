"""The rules for tasks: names, inverses, and what a migration must say of itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from deployguard.plan.document import Finding, Path
from deployguard.plan.order import hosts_named
from deployguard.plan.suggestion import did_you_mean

if TYPE_CHECKING:
    from deployguard.plan.model import Plan, Task
    from deployguard.plan.names import Names

__all__ = ["task_findings"]


def task_findings(plan: Plan, names: Names, targets: Collection[str] | None) -> Iterator[Finding]:
    """What is wrong with the tasks of a plan; ``targets`` are the hosts and groups there are."""
    seen: dict[str, str] = {}
    for block, tasks in (("tasks", plan.tasks), ("always", plan.always)):
        for index, task in enumerate(tasks):
            where: Path = (block, index)
            if not task.name.strip():
                yield Finding((*where, "name"), "must not be empty")
            elif task.name in seen:
                yield Finding(
                    (*where, "name"),
                    f'"{task.name}" is the name of {seen[task.name]} already',
                    "names tell tasks apart in journals and reports",
                )
            seen.setdefault(task.name, f"{block}[{index}]")
            for number, target in enumerate(task.hosts):
                if targets is not None and target not in targets:
                    hint = did_you_mean(target, sorted(targets))
                    place = (*where, "hosts", number)
                    yield Finding(place, f'there is no host or group "{target}"', hint)
            yield from _component(plan, names, task, where)
            if block == "always":
                yield from _always(task, where)
            elif task.migration is not None:
                yield from _migration(plan, task, where)
            else:
                yield from _inverse(task, where)


def _component(plan: Plan, names: Names, task: Task, where: Path) -> Iterator[Finding]:
    if task.component is None:
        return
    if names.components is not None and task.component not in names.components:
        hint = did_you_mean(task.component, names.components)
        yield Finding((*where, "component"), f'there is no component "{task.component}"', hint)
    elif task.component in plan.components and task.hosts:
        own = hosts_named(plan.hosts, task.hosts)
        its = hosts_named(plan.hosts, plan.components[task.component].hosts)
        if own and its and set(own).isdisjoint(its):
            yield Finding(
                (*where, "hosts"),
                f"{task.component} runs on none of these hosts",
                "a task of a component runs where the component does",
                on_key=True,
            )


def _always(task: Task, where: Path) -> Iterator[Finding]:
    for field in ("undo", "undo_less", "migration", "unchanged", "dump"):
        if getattr(task, field) is not None:
            yield Finding(
                (*where, field),
                f"a task in always runs whatever the outcome and has no {field}",
                "remove it",
                on_key=True,
            )


def _inverse(task: Task, where: Path) -> Iterator[Finding]:
    for field in ("unchanged", "dump"):
        if getattr(task, field) is not None:
            mend = "add migration: reversible, expand_only or irreversible"
            yield Finding((*where, field), f"{field} is for migrations", mend, on_key=True)
    if task.undo is None and task.undo_less is None:
        yield Finding(
            where,
            f'the task "{task.name}" has no undo, so it could not be taken back',
            "add undo: [command], or undo_less: and why it needs none",
            on_key=True,
        )
    elif task.undo is not None and task.undo_less is not None:
        yield Finding(
            (*where, "undo_less"),
            "a task has undo or undo_less, not both",
            "remove one",
            on_key=True,
        )
    elif task.undo_less is not None and not task.undo_less.strip():
        yield Finding((*where, "undo_less"), "must say why no inverse is needed")


def _migration(plan: Plan, task: Task, where: Path) -> Iterator[Finding]:
    kind = task.migration
    if kind == "reversible" and task.undo is None:
        yield Finding(
            where,
            f'the migration "{task.name}" is reversible and has no undo',
            "add undo: [the command of its down step], or say expand_only or irreversible",
            on_key=True,
        )
    if kind != "reversible" and task.undo is not None:
        words = "stays after a failure" if kind == "expand_only" else "cannot be taken back"
        yield Finding(
            (*where, "undo"),
            f"a migration that is {kind} {words}, and has no undo",
            "remove it, or say reversible",
            on_key=True,
        )
    if task.undo_less is not None:
        mend = "remove it"
        yield Finding((*where, "undo_less"), f"{kind} says it already", mend, on_key=True)
    if task.unchanged is not None and kind != "irreversible":
        mend = "remove it"
        yield Finding(
            (*where, "unchanged"), f"unchanged is for irreversible, not {kind}", mend, on_key=True
        )
    if "once" in task.model_fields_set and not task.once:
        mend = "remove it"
        yield Finding((*where, "once"), "a migration runs once per transaction", mend, on_key=True)
    if kind != "expand_only":
        yield from _apart(plan, where)
    yield from _dump(task, where)


def _apart(plan: Plan, where: Path) -> Iterator[Finding]:
    """Hosts that go back while others stay would run the old code under the new schema."""
    mend = "expand in one release and contract in a later one, or let all hosts go back"
    if plan.on_failure == "restore_batch":
        words = "on_failure: restore_batch leaves old code under the new schema"
        yield Finding((*where, "migration"), words, mend)
    if plan.max_fail_percentage > 0:
        words = "max_fail_percentage leaves old code under the new schema"
        yield Finding((*where, "migration"), words, mend)


def _dump(task: Task, where: Path) -> Iterator[Finding]:
    dump = task.dump
    if dump is None:
        return
    place = (*where, "dump")
    if (dump.postgresql is None) == (dump.command is None):
        mend = "write dump: {postgresql: shop}, or dump: {command: [program]}"
        yield Finding(place, "needs postgresql or command, and not both", mend)
    if dump.opens is not None and not any("{path}" in word for word in dump.opens):
        mend = "as in [pg_restore, --list, '{path}']"
        yield Finding((*place, "opens"), "the command does not say {path}", mend)
    if dump.postgresql is not None and "password" in dump.postgresql.lower():
        mend = "use ~/.pgpass, or peer authentication with `user`"
        yield Finding((*place, "postgresql"), "a password here would be for all to read", mend)
