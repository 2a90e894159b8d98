"""The state of a compose stack, and of the containers of one service.

``process`` asks whether the containers run; what their own health checks say is another layer, and
is the check ``container``. A container that crashes is started again by the engine within
milliseconds, so the count of restarts and the moment of the last start are part of the answer.
"""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from deployguard.onhost.compose.containers import Container, Engine, EngineFailed, find_tool
from deployguard.onhost.excerpts import last_line
from deployguard.onhost.places import read_json
from deployguard.onhost.probes.base import (
    HEALTHY,
    UNHEALTHY,
    UNKNOWN,
    CheckData,
    Finding,
    ProcessManager,
    finding,
)
from deployguard.onhost.system import System


def stack(manager: ProcessManager, timeout: float, system: System) -> Finding:
    """Whether all services of the stack run.

    ``excused`` names those that need not: they were down before the deploy.
    """
    try:
        found = _containers(manager, timeout, system)
    except EngineFailed as error:
        return finding(UNKNOWN, str(error))
    record = read_json(manager["record"]) or {}
    names = record.get("services") or sorted({one.service for one in found})
    if not names or not found:
        return finding(UNHEALTHY, "project %s has no container" % manager["project"], final=True)
    excused = set(manager.get("excused", ()))
    down: List[str] = []
    words: List[str] = []
    final = False
    for name in names:
        mine = [one for one in found if one.service == name]
        fault = _fault(mine, name in manager.get("one_shot", ()))
        if fault:
            down.append(name)
            if name not in excused:
                words.append("%s %s" % (name, fault))
                final = final or not any(one.awake for one in mine)
    lasting = set(names) - excused - set(manager.get("one_shot", ()))
    observed = _observed([one for one in found if one.service in lasting])
    observed.update(services=len(names), down=down)
    if words:
        return finding(UNHEALTHY, "; ".join(words), final, observed)
    running = "%d of %d services run" % (len(names) - len(down), len(names))
    return finding(HEALTHY, running, observed=observed)


def service(check: CheckData, system: System) -> Finding:
    """Whether the containers of one service run, and are healthy where they have a health check."""
    manager, name = check["manager"], check["service"]
    if manager.get("driver") != "compose":
        return finding(UNKNOWN, "the component is no compose stack")
    try:
        found = [c for c in _containers(manager, check["timeout"], system) if c.service == name]
    except EngineFailed as error:
        return finding(UNKNOWN, str(error))
    if not found:
        return finding(UNHEALTHY, "%s has no container" % name, final=True)
    one_shot = name in manager.get("one_shot", ())
    observed = _observed([] if one_shot else found)
    fault = _fault(found, one_shot)
    if fault:
        final = not any(one.awake for one in found)
        return finding(UNHEALTHY, "%s %s" % (name, fault), final, observed)
    sick = [one for one in found if one.health not in ("", "healthy")]
    if sick:
        worst = sick[0]
        observed.update(health=worst.health, test=worst.test, said=last_line(worst.said, 300))
        said = ": " + observed["said"] if observed["said"] else ""
        return finding(
            UNHEALTHY, "the container of %s says %s%s" % (name, worst.health, said), False, observed
        )
    checked = [one for one in found if one.health]
    if checked:
        observed.update(health="healthy", test=checked[0].test)
    words = "is healthy" if checked else "runs, and has no health check of its own"
    return finding(HEALTHY, "%s %s" % (name, words), observed=observed)


def _containers(manager: ProcessManager, timeout: float, system: System) -> Sequence[Container]:
    """One look at the engine serves all checks that ask for it at the same time."""
    env = manager.get("env")
    program = find_tool(manager["tool"], env).engine
    engine = Engine(program, manager["project"], env, system)
    key = "%s %s" % (program, manager["project"])
    found: List[Container] = system.together(key, lambda: engine.containers(max(timeout, 1.0)))
    return found


def _fault(mine: Sequence[Container], one_shot: bool) -> str:
    """Why a service does not run; empty when it does."""
    if not mine:
        return "has no container"
    for one in mine:
        if one.state == "running" or (one_shot and one.state == "exited" and one.exit_code == 0):
            continue
        if one.state == "restarting":
            return "restarts over and over, exit status %d" % one.exit_code
        if one.state in ("exited", "stopped"):
            return "ended with status %d" % one.exit_code
        return "is %s" % one.state
    return ""


def _observed(found: Sequence[Container]) -> Dict[str, Any]:
    """Of containers that are not to end; ``instance`` changes with every start of any of them."""
    if not found:
        return {}
    parts = sorted("%s@%s" % (one.id[:12], one.started) for one in found)
    return {
        "states": {one.name: one.state for one in found},
        "restarts": sum(one.restarts for one in found),
        "instance": " ".join(parts),
    }
