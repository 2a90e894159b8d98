"""Starts a new stack in the order that its file asks for.

The tools' own ``up`` waits without end for the health of a service that crashes over and over, and
says of a service that is not healthy only that it is not. So the tool makes the containers, and
they are started here: each when those that it needs are as its file demands, or not at all, with
what they say of themselves.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List

from deployguard.onhost.compose import file as composefile
from deployguard.onhost.compose.containers import (
    NEVER_STARTED,
    Container,
    Engine,
    EngineFailed,
    reason,
)
from deployguard.onhost.excerpts import last_line
from deployguard.onhost.system import Completed, System

#: A service that waits for another may well crash once or twice; more often, it is no use waiting.
HOPELESS = 3

#: Compose 2 starts the containers of one service as they are, and no other's.
_TEND = ("up", "-d", "--no-build", "--pull=never", "--no-recreate", "--no-deps")
_POLL = 0.2


def start(
    call: Dict[str, Any], argv: List[str], action: Dict[str, Any], engine: Engine, system: System
) -> List[str]:
    """Make and start all containers; the names of the services. Raises :class:`EngineFailed`.

    ``argv`` is how the tool is asked for the stack. ``action`` has ``timeout``, for all of it, and
    ``by_level`` for a tool that asks for the state of what a service needs when it only makes
    containers.
    """
    deadline = system.monotonic() + action["timeout"]
    config = _tool(call, [*argv, "config"], action, system)
    if not config.ok and engine.program == "podman":
        return _leave_it_to_the_tool(call, argv, action, engine, system)
    if not config.ok:
        raise EngineFailed(config.describe())
    services = composefile.services(config.text)
    if action["by_level"]:
        # The newer tool leaves out what nobody asked for.
        services = composefile.asked_for(services, _profiles(call))
    levels = composefile.levels({name: one.needs for name, one in services.items()})
    for group in levels if action["by_level"] else [[]]:
        words = ["up", "--no-start", "--no-build", *(["--no-deps"] if group else []), *group]
        done = _tool(call, [*argv, *words], action, system)
        if not done.ok:
            raise EngineFailed(done.describe())
    for name in (name for level in levels for name in level):
        for needed, condition in services[name].conditions.items():
            _await(name, needed, condition, deadline, engine, system)
        if services[name].tended and not action["by_level"]:
            started = _tool(call, [*argv, *_TEND, name], action, system)
            if not started.ok:
                raise EngineFailed("%s: %s" % (name, started.describe()))
        else:
            _start(name, engine, action["timeout"])
    return sorted(services)


def _start(name: str, engine: Engine, timeout: float) -> None:
    for one in engine.containers():
        if one.service == name and one.state != "running":
            started = engine.run("start", one.id, timeout=timeout)
            if not started.ok:
                raise EngineFailed("%s: %s" % (name, reason(started)[0]))


def tend(
    call: Dict[str, Any],
    argv: List[str],
    name: str,
    count: int,
    action: Dict[str, Any],
    system: System,
) -> Completed:
    """Have the tool start the ``count`` containers of one service, as they are, and no other's."""
    return _tool(call, [*argv, *_TEND, "--scale=%s=%d" % (name, count), name], action, system)


def _profiles(call: Dict[str, Any]) -> List[str]:
    """The profiles that are asked for, as the tool finds them."""
    if call["profiles"]:
        return list(call["profiles"])
    given = (call["env"] or {}).get("COMPOSE_PROFILES", os.environ.get("COMPOSE_PROFILES"))
    if given is None:
        given = _env_file(os.path.join(call["directory"], call["env_file"] or ".env"))
    return given.split(",")


def _env_file(path: str) -> str:
    found = ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition("=")
                if key.strip() == "COMPOSE_PROFILES":
                    found = value.strip().strip("'\"")
    except OSError:
        pass
    return found


def _tool(
    call: Dict[str, Any], argv: List[str], action: Dict[str, Any], system: System
) -> Completed:
    return system.run(
        argv,
        env=call["env"],
        cwd=call["directory"],
        timeout=action["timeout"],
        max_output=16 * 1024 * 1024,
    )


def _leave_it_to_the_tool(
    call: Dict[str, Any], argv: List[str], action: Dict[str, Any], engine: Engine, system: System
) -> List[str]:
    """podman-compose before 1.0.4 cannot say what is in a file; and it ends with 0 in any case."""
    _tool(call, [*argv, "up", "-d", "--no-build"], action, system)
    found = engine.containers()
    never = sorted({one.service for one in found if one.state in NEVER_STARTED})
    if never or not found:
        raise EngineFailed("nothing was started of %s" % (", ".join(never) or "the stack"))
    return sorted({one.service for one in found})


def _await(
    name: str, needed: str, condition: str, deadline: float, engine: Engine, system: System
) -> None:
    """Return when what ``name`` needs is as its file demands."""
    while True:
        found = [one for one in engine.containers() if one.service == needed]
        if condition == "service_healthy":
            fault = next(filter(None, map(_unhealthy, found)), "")
            met = bool(found) and all(one.health == "healthy" for one in found)
        elif condition == "service_completed_successfully":
            fault = next(filter(None, map(_not_completed, found)), "")
            met = bool(found) and all(one.state in ("exited", "stopped") for one in found)
        else:
            return
        if fault or (not met and system.monotonic() >= deadline):
            wanted = condition[len("service_") :].replace("_", " ")
            words = fault or "it was not in time"
            raise EngineFailed("%s needs %s to be %s: %s" % (name, needed, wanted, words))
        if met:
            return
        system.sleep(_POLL)


def _unhealthy(one: Container) -> str:
    if one.state == "restarting":
        # The engine calls whatever does not run unhealthy, and it may come up the next time.
        hopeless = one.restarts >= HOPELESS
        return "it restarts over and over, exit status %d" % one.exit_code if hopeless else ""
    if not one.awake:
        return "it ended with status %d" % one.exit_code
    if not one.health:
        return "it has no health check"
    if one.health == "unhealthy":
        said = last_line(one.said, 300)
        return "it says unhealthy" + (": " + said if said else "")
    return ""


def _not_completed(one: Container) -> str:
    if one.state in ("exited", "stopped") and one.exit_code != 0:
        return "it ended with status %d" % one.exit_code
    return ""
