"""What the containers of a stack have said since the snapshot, and how each of them stands."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from deployguard.onhost.compose.containers import (
    NEVER_STARTED,
    Container,
    Engine,
    EngineFailed,
    find_tool,
)
from deployguard.onhost.excerpts import bounded, shorten
from deployguard.onhost.share import Share
from deployguard.onhost.system import System


def gather(
    collector: Dict[str, Any], share: Share, since: float, system: System
) -> Tuple[bytes, bool, str]:
    """One text of all, a table in front; whether something was cut; what went wrong.

    A container's log gets an equal part of the room, so that one that floods hides no other. Those
    that are not well come last, where somebody looks first; one that said nothing is in the table.
    """
    manager = collector["manager"]
    env = manager.get("env")
    try:
        program = find_tool(manager["tool"], env).engine
        engine = Engine(program, manager["project"], env, system)
        found = engine.containers(max(share.seconds(), 0.1))
    except EngineFailed as error:
        return b"", False, str(error)
    table = _table(found)
    parts: List[bytes] = []
    room = (share.max_bytes - len(table)) // max(len(found), 1)
    truncated, errors = room <= 0, []
    # What was never started has said nothing. Those in trouble are asked before the time is up.
    asked = [one for one in found if one.state not in NEVER_STARTED]
    for one in sorted(asked, key=_trouble, reverse=True):
        if share.over() or room <= 0:
            truncated = True
            break
        words = ["logs", "--timestamps", "--since", str(int(since)), one.id]
        done = engine.run(*words, timeout=share.seconds())
        # Lines of both streams have their time in front.
        lines = sorted((done.stdout + done.stderr).splitlines(), key=lambda line: line[:30])
        text = b"\n".join(lines) + b"\n"
        truncated = truncated or len(text) > room or done.timed_out
        if not done.ok:
            errors.append(done.describe())
        if lines:
            parts.append(b"\n==> %s <==\n" % one.name.encode() + bounded(text, room))
    return b"".join([table, *reversed(parts)]), truncated, "; ".join(errors)


def _trouble(one: Container) -> Tuple[bool, int]:
    return (one.state != "running" or one.health not in ("", "healthy"), one.restarts)


def _table(found: List[Container]) -> bytes:
    lines = []
    for one in found:
        health = ", %s" % one.health if one.health else ""
        lines.append(
            "%s: %s%s, exit status %d, %d restarts, image %s (%s), started %s"
            % (
                one.name,
                one.state,
                health,
                one.exit_code,
                one.restarts,
                one.ref,
                one.image[:19],
                one.started,
            )
        )
        if one.health not in ("", "healthy"):
            lines.append("  health check: %s" % one.test)
            lines.append("  it said: %s" % shorten(one.said, 2000))
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")
