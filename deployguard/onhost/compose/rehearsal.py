"""The tool reads the compose file of the new tree, before anything is made or stopped."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from deployguard.onhost.compose.containers import EngineFailed, find_tool
from deployguard.onhost.compose.stack import command
from deployguard.onhost.system import System

_SECONDS = 60.0


def rehearse(question: Mapping[str, Any], tree: str, system: System) -> Optional[Dict[str, str]]:
    """What the tool says against the file in ``tree``: ``message`` and ``hint``, or ``None``.

    Of a tree that gets paths of the host at the swap it cannot be said before.
    """
    if not question["whole"]:
        return None
    try:
        tool = find_tool(question["tool"], question.get("env"))
    except EngineFailed as error:
        return {"message": str(error), "hint": error.hint}
    if tool.engine == "podman":
        return None  # podman-compose before 1.0.4 has no such command
    call = dict(question, directory=tree)
    done = system.run(
        [*command(call, tool.argv), "config", "-q"],
        env=question.get("env"),
        cwd=tree,
        timeout=_SECONDS,
    )
    if done.ok:
        return None
    return {
        "message": "the compose file of the new version is no good: %s" % done.describe(),
        "hint": "mend it in the release",
    }
