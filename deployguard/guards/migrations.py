"""Migrations that a rollback would go back over. Asked always, answered for a rollback only.

A migration that is reversible is taken back by the live code, before the old code comes back; the
plan has to know its down step. One that is irreversible has changed a schema that the old code may
not know. One of a version further back has a down step that this plan does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deployguard.guards.base import HostView, Known, Verdict

__all__ = ["judge"]


def judge(known: Known) -> Iterator[Verdict]:
    """One verdict for each host that remembers a migration."""
    if not known.rollback:
        return
    for host in known.hosts:
        for name in host.components:
            over = list(host.live(name).get("migrations", ()))
            if over:
                yield _component(known, host, name, over)


def _component(known: Known, host: HostView, name: str, over: list[Mapping[str, Any]]) -> Verdict:
    plan = {task.name: task.migration for task in known.plan.tasks}
    live = host.live(name).get("version")
    for one in over:
        task, version = one["task"], one["version"]
        if one["kind"] == "expand_only":
            continue
        if one["kind"] == "irreversible":
            words = (
                f"{name} {version} came with {task}, which cannot be taken back: the code of "
                f"{known.version} may not know the schema (go on only if it does)"
            )
            return Verdict("migrations", False, words, host.name)
        if version != live:
            words = (
                f"{task} of {name} {version} would have to be taken back, and only that version "
                "knows how (go back one version at a time)"
            )
            return Verdict("migrations", False, words, host.name)
        if plan.get(task) != "reversible":
            words = (
                f"{task} of {name} {version} would have to be taken back, and the plan does not "
                "say how (deploy with the plan of that version)"
            )
            return Verdict("migrations", False, words, host.name)
    tasks = ", ".join(dict.fromkeys(one["task"] for one in over))
    return Verdict("migrations", True, f"{name}: the way back over {tasks} is known", host.name)
