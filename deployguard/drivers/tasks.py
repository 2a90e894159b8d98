"""The plan's tasks as operations; migrations with what keeps old code from a new schema."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from deployguard.drivers.base import Action, Operation, Site, operation, run
from deployguard.plan.model import Task

__all__ = ["down_steps", "task_steps"]


def task_steps(
    tasks: Sequence[Task], at: str, sites: Mapping[str, Site], down: Collection[str], dumps: str
) -> list[Operation]:
    """The operations of the tasks that run at one place of the procedure.

    ``down`` names the migrations that this transaction takes back instead, ``dumps`` is where dumps
    go on the host: a path to which the name of the task is added.
    """
    operations: list[Operation] = []
    for task in tasks:
        if task.at != at or task.name in down:
            continue
        directory = _directory(task, sites, before_swap=at == "before_stop")
        if directory is None:
            continue
        operations += _dump(task, dumps)
        undo = [_command(task, task.undo, directory)] if task.undo is not None else []
        do = [_command(task, task.run, directory)]
        step = operation("task", task.name, f"run {task.name}", do, undo)
        # Unlike a driver's, nobody promises that a second time does no harm.
        operations.append({**step, "undo_once": True, **_migration(task, directory)})
    return operations


def down_steps(
    tasks: Sequence[Task], sites: Mapping[str, Site], down: Collection[str], dumps: str
) -> list[Operation]:
    """The down steps of a rollback, newest first.

    They run while the services are stopped and the newer tree is still the live one: it has the
    code that knows the way back. Undone, when the rollback fails, by the same code.
    """
    operations: list[Operation] = []
    for task in reversed(tasks):
        if task.name not in down or task.undo is None:
            continue
        directory = ""
        if task.component is not None:
            if task.component not in sites:
                continue
            directory = sites[task.component].working_directory
        operations += _dump(task, dumps)
        do, undo = _command(task, task.undo, directory), _command(task, task.run, directory)
        step = operation("task", task.name, f"take {task.name} back", [do], [undo])
        operations.append({**step, "undo_once": True, **_migration(task, directory)})
    return operations


def _directory(task: Task, sites: Mapping[str, Site], *, before_swap: bool) -> str | None:
    """Where it runs: empty for a task of no component, ``None`` where its component is not."""
    if task.component is None:
        return ""
    if task.component not in sites:
        return None
    site = sites[task.component]
    return site.tree if before_swap else site.working_directory


def _command(task: Task, argv: Sequence[str], directory: str) -> Action:
    return run(argv, env=task.env, cwd=directory or None, timeout=task.timeout)


def _migration(task: Task, directory: str) -> dict[str, Any]:
    """What the host has to know of a migration."""
    if task.migration is None:
        return {}
    about: dict[str, Any] = {"migration": task.name}
    if task.migration == "reversible":
        about["undo_or_stop"] = True
    elif task.migration == "irreversible":
        about["no_return"] = task.name
        if task.unchanged is not None:
            about["unchanged"] = _command(task, task.unchanged, directory)
    return about


def _dump(task: Task, dumps: str) -> list[Operation]:
    dump = task.dump
    if dump is None:
        return []
    argv, opens = dump.command, dump.opens
    if dump.postgresql is not None:
        argv = ("pg_dump", "--format=custom", f"--dbname={dump.postgresql}")
        opens = opens or ("pg_restore", "--list", "{path}")
    assert argv is not None
    name = re.sub(r"[^A-Za-z0-9._-]", "_", task.name)
    action = {
        "act": "dump",
        "argv": list(argv),
        "env": dict(task.env),
        "user": dump.user,
        "opens": list(opens or ()),
        "path": f"{dumps}~{name}.dump",
        "timeout": dump.timeout,
        "keep": dump.keep,
    }
    # No undo: it is kept, whatever becomes of the deploy.
    return [operation("task", f"{task.name}:dump", f"dump before {task.name}", [action], [])]
