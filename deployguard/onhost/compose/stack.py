"""A compose stack on this host: what there is of it, and the steps that no single command does.

A *call* is how the tool is asked for one stack, as data: ``tool`` (a name, or ``auto``),
``project``, ``directory``, ``files``, ``env_file``, ``profiles``, ``env``, and ``record``: the file
in which the host keeps how the stack was started and which services it has. With it a restore
starts the old stack as it was started, and not as the newest plan would.

The question ``compose`` answers (see :func:`observe`)

``tool``, ``engine``, ``version``
    What started what runs; ``tool`` is an argv.
``next``
    ``tool`` and ``version`` for the new stack: the plan may name another tool of the same engine.
``started``
    The call that started what runs, or the plan's where deployguard did not start it.
``recorded``
    The record as it stands, ``None`` where there is none.
``services``
    By name: ``containers``, ``running``, ``healthy`` (its own health check passes).
``levels``
    The services in the order in which they have to start.
``images``, ``refs``, ``tags``, ``ids``
    By service the id of the image that it runs and the name it was made from; by name of an image
    the id that it leads to now, which may be another one; ids of the containers.
``tended``
    Services whose start is more than the engine's, see :mod:`deployguard.onhost.compose.file`.
``networks``, ``config``
    Names of the project's networks; a hash of the resolved file, env files and all.
``refused``
    Instead of all that, where it cannot be told: ``message`` and ``hint``.

The action ``containers`` has a ``verb``: ``hold``, ``retag``, ``stop``, ``start``, ``clear``,
``drop``, ``up``, ``record``, ``forget``. All of them may be repeated.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Callable, Dict, Iterable, List, Optional

from deployguard.onhost import durable
from deployguard.onhost.compose import file as composefile
from deployguard.onhost.compose import up as composeup
from deployguard.onhost.compose.containers import (
    Container,
    Engine,
    EngineFailed,
    Tool,
    find_tool,
    reason,
)
from deployguard.onhost.places import read_json
from deployguard.onhost.system import System

Call = Dict[str, Any]
Action = Dict[str, Any]

#: What the tools look for where no file is named.
DEFAULT_FILES = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
    "container-compose.yaml",
    "container-compose.yml",
)
#: Images of the stack before the last deploy are held under this name, so that nobody prunes them.
HELD = "deployguard-before"

#: What a question has beside the call.
_ASKED = ("field", "kind", "same", "whole")
_STOPS = 3
_CONFIG_SECONDS = 60.0
_POLL = 0.2


def command(call: Call, argv: Iterable[str]) -> List[str]:
    """How ``argv``, a tool, is asked for the stack."""
    words = [*argv, "-p", call["project"]]
    for name in call.get("files", ()):
        words += ["-f", os.path.join(call["directory"], name)]
    if call.get("env_file"):
        words += ["--env-file", os.path.join(call["directory"], call["env_file"])]
    for profile in call.get("profiles", ()):
        words += ["--profile", profile]
    return words


def observe(question: Dict[str, Any], system: System) -> Dict[str, Any]:
    """What there is of a stack; see the top of the module. Never raises for what is missing."""
    call = {name: question[name] for name in question if name not in _ASKED}
    try:
        return _observe(call, system)
    except EngineFailed as error:
        return {"refused": {"message": str(error), "hint": error.hint}}


def _observe(call: Call, system: System) -> Dict[str, Any]:
    recorded = read_json(call["record"])
    started = dict(call, **recorded["started"]) if recorded else call
    wanted = find_tool(call["tool"], call.get("env"))
    tool = _started_by(started, wanted)
    engine = Engine(tool.engine, started["project"], started.get("env"), system)
    found = engine.containers()
    if tool.engine != wanted.engine:
        if found:
            raise EngineFailed(
                "project %s runs under %s, and the plan's tool is %s"
                % (started["project"], tool.engine, " ".join(wanted.argv)),
                "take it down there first, or leave `tool` as it was",
            )
        tool = wanted
        engine = Engine(tool.engine, started["project"], started.get("env"), system)
        found = engine.containers()
    text = _config(started, tool, system, needed=bool(found))
    services = composefile.services(text or "")
    version = _version(tool, system, started.get("env"))
    return {
        "tool": tool.argv,
        "engine": tool.engine,
        "version": version,
        "next": {
            "tool": wanted.argv,
            "version": version if wanted == tool else _version(wanted, system, call.get("env")),
        },
        "started": started,
        "recorded": recorded,
        "services": _by_service(found),
        "levels": _levels(services, found),
        "images": {one.service: one.image for one in found},
        "refs": {one.service: one.ref for one in found if _leads(one.ref)},
        "tags": _tags(services, found, tool, version, engine),
        "ids": sorted(one.id for one in found),
        "tended": sorted(one.name for one in services.values() if one.tended),
        "networks": engine.networks(),
        "config": None if text is None else hashlib.sha256(text.encode()).hexdigest(),
    }


def _started_by(started: Call, wanted: Tool) -> Tool:
    """The tool that started what runs; the plan's, where that one is gone from the host."""
    try:
        return find_tool(started["tool"], started.get("env"))
    except EngineFailed:
        return wanted


def _config(call: Call, tool: Tool, system: System, *, needed: bool) -> Optional[str]:
    """The resolved file of the live tree; ``None`` where there is none and none is needed."""
    directory = call["directory"]
    names = list(call.get("files", ())) or _present(directory)
    missing = [name for name in names if not os.path.isfile(os.path.join(directory, name))]
    if missing or not names:
        if needed:
            raise EngineFailed(
                "project %s has containers, and %s has no %s"
                % (call["project"], directory, ", ".join(missing) or "compose file"),
                "without it they could not be restored: put it back, or take the stack down",
            )
        return None
    done = system.run(
        [*command(call, tool.argv), "config"],
        env=call.get("env"),
        cwd=directory,
        timeout=_CONFIG_SECONDS,
        max_output=16 * 1024 * 1024,
    )
    if done.ok:
        return done.text
    if tool.engine == "podman" and b"invalid choice" in done.stderr:
        return _raw(directory, [*names, call.get("env_file") or ".env"])
    if not needed:
        return None
    raise EngineFailed(
        "the compose file that is live in %s is no good: %s" % (directory, done.describe()),
        "project %s could not be restored with it; mend it there" % call["project"],
    )


def _present(directory: str) -> List[str]:
    return [name for name in DEFAULT_FILES if os.path.isfile(os.path.join(directory, name))][:1]


def _raw(directory: str, names: Iterable[str]) -> str:
    """The files themselves, for a tool (podman-compose before 1.0.4) that cannot resolve them."""
    parts = []
    for name in names:
        try:
            with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
                parts.append(file.read())
        except OSError:
            continue
    # Not read as canonical: there is no telling what people wrote.
    return "".join("# %s\n" % line for part in parts for line in part.splitlines())


def _version(tool: Tool, system: System, env: Optional[Dict[str, str]]) -> str:
    if tool.argv[0] == "podman-compose":
        return ""
    done = system.run([*tool.argv, "version", "--short"], env=env, timeout=30.0)
    return done.text.strip().lstrip("v") if done.ok else ""


def _by_service(found: List[Container]) -> Dict[str, Dict[str, Any]]:
    by_service: Dict[str, Dict[str, Any]] = {}
    for one in found:
        entry = by_service.setdefault(
            one.service, {"containers": 0, "running": 0, "healthy": bool(one.health)}
        )
        entry["containers"] += 1
        entry["running"] += one.awake
        entry["healthy"] = entry["healthy"] and one.health == "healthy"
    return by_service


def _levels(services: Dict[str, composefile.Service], found: List[Container]) -> List[List[str]]:
    names = {one.service for one in found}
    if not services:
        # A tool makes what is needed before what needs it.
        return [[name] for name in dict.fromkeys(one.service for one in found)]
    ordered = composefile.levels({name: one.needs for name, one in services.items()})
    rest = sorted(names - set(services))
    return [*([rest] if rest else []), *ordered]


def _tags(
    services: Dict[str, composefile.Service],
    found: List[Container],
    tool: Tool,
    version: str,
    engine: Engine,
) -> Dict[str, str]:
    """Which image each name leads to: a build or a pull may lead it elsewhere."""
    glue = "-" if tool.engine == "docker" and not version.startswith("1.") else "_"
    refs = {one.ref for one in found}
    for service in services.values():
        built = "%s%s%s" % (engine.project, glue, service.name) if service.build else ""
        refs.add(service.image or built)
    return engine.images(sorted(filter(_leads, refs)))


def _leads(ref: str) -> bool:
    """What is named by its content leads nowhere else, ever."""
    return bool(ref) and "@" not in ref and not ref.startswith("sha256:")


def perform(action: Action, system: System) -> None:
    """Do the action ``containers``. Raises :class:`EngineFailed`."""
    engine = Engine(action["engine"], action["project"], action.get("env"), system)
    _VERBS[action["verb"]](action, engine, system)


def _hold(action: Action, engine: Engine, system: System) -> None:
    """Give each image one more name, so that ``image prune`` leaves it."""
    for service, image in action["images"].items():
        engine.call("tag", image, "%s:%s.%s" % (HELD, action["project"], service))


def _retag(action: Action, engine: Engine, system: System) -> None:
    """Let each name lead to the image that it led to."""
    if not action["tags"]:
        return
    engine.awaited()
    now = engine.images(list(action["tags"]))
    for ref, image in action["tags"].items():
        if now.get(ref) != image:
            engine.call("tag", image, ref)


def _stop(action: Action, engine: Engine, system: System) -> None:
    """Stop whatever of the project is awake, first what needs the others."""
    found = engine.awaited()
    for _ in range(_STOPS):
        if not any(one.awake for one in found):
            return
        _stop_all(found, action, engine)
        # One that was about to be restarted may have slipped through.
        found = engine.containers()
    left = [one.name for one in found if one.awake]
    if left:
        raise EngineFailed("%s would not stop" % ", ".join(left))


def _stop_all(found: List[Container], action: Action, engine: Engine) -> None:
    levels = action.get("levels", [])
    known = {name for level in levels for name in level}
    rest = [one.service for one in found if one.service not in known]
    for level in [rest, *reversed(levels)]:
        awake = [one.id for one in found if one.awake and one.service in level]
        if not awake:
            continue
        words = ["stop"] if action.get("grace") is None else ["stop", "-t", str(action["grace"])]
        done = engine.run(*words, *awake, timeout=action["timeout"])
        if done.timed_out:
            engine.run("kill", *awake, timeout=action["timeout"])


def _start(action: Action, engine: Engine, system: System) -> None:
    """Start so many containers of each service, in order.

    Before the next level comes, those that were healthy are waited for: not longer than
    ``patience`` seconds, since a service need not be healthy for others to run beside it.
    """
    found = engine.awaited()
    troubles = []
    for level in action["levels"]:
        wanted = [name for name in level if action["running"].get(name)]
        for name in wanted:
            mine = sorted((c for c in found if c.service == name), key=lambda c: c.number)
            count = int(action["running"][name])
            if len(mine) < count:
                troubles.append("%s: %d of %d containers are there" % (name, len(mine), count))
            if name in action.get("tended", ()) and len(mine) == count:
                call = action["started"]
                argv = command(call, action["tool"])
                done = composeup.tend(call, argv, name, count, action, system)
                if not done.ok:
                    troubles.append("%s: %s" % (name, done.describe()))
            # That started them, or they are started at least.
            for one in mine[:count]:
                done = engine.run("start", one.id, timeout=action["timeout"])
                if not done.ok:
                    troubles.append("%s: %s" % (name, reason(done)[0]))
        _await(set(wanted) & set(action["healthy"]), action, engine, system)
    if troubles:
        raise EngineFailed("; ".join(troubles))


def _await(services: Iterable[str], action: Action, engine: Engine, system: System) -> None:
    waited = set(services)
    deadline = system.monotonic() + action["patience"]
    while waited and system.monotonic() < deadline:
        found = [one for one in engine.containers() if one.service in waited]
        if all(one.health == "healthy" for one in found):
            return
        system.sleep(_POLL)


def _clear(action: Action, engine: Engine, system: System) -> None:
    """Stop the new stack; of services that the old one did not have nothing stays.

    Volumes stay in any case: what is in them is data.
    """
    _stop(action, engine, system)
    keep = set(action["keep"])
    strange = [one.id for one in engine.containers() if one.service not in keep]
    if strange:
        engine.call("rm", "-f", *strange, timeout=action["timeout"])
    for name in engine.networks():
        if name not in action["networks"]:
            # One that a container of the old stack still names is left.
            engine.run("network", "rm", name)


def _drop(action: Action, engine: Engine, system: System) -> None:
    """Remove the containers that are not among ``ids``, for a tool that cannot recreate them."""
    strange = [one.id for one in engine.awaited() if one.id not in action["ids"]]
    if strange:
        engine.call("rm", "-f", *strange, timeout=action["timeout"])


def _record(action: Action, engine: Engine, system: System) -> None:
    """Put back what the record said before, if there was one."""
    if action["data"] is not None:
        _write(action["record"], action["data"])
    elif os.path.lexists(action["record"]):
        os.unlink(action["record"])


def _write(path: str, data: Dict[str, Any]) -> None:
    # 0600, for the environment.
    durable.write_file(path, json.dumps(data).encode("ascii"), 0o600)


def _up(action: Action, engine: Engine, system: System) -> None:
    """Start the new stack, and keep how."""
    call, tool = action["started"], action["tool"]
    names = composeup.start(call, command(call, tool), action, engine, system)
    _write(action["record"], {"started": call, "services": names})


def _forget(action: Action, engine: Engine, system: System) -> None:
    """After the commit: what the new stack has no use for any more."""
    record = read_json(action["record"]) or {}
    gone = set(action["services"]) - set(record.get("services") or action["services"])
    old = [c.id for c in engine.containers() if c.service in gone and not c.awake]
    if old:
        engine.call("rm", *old, timeout=action["timeout"])


_VERBS: Dict[str, Callable[[Action, Engine, System], None]] = {
    "hold": _hold,
    "retag": _retag,
    "stop": _stop,
    "start": _start,
    "clear": _clear,
    "drop": _drop,
    "up": _up,
    "record": _record,
    "forget": _forget,
}
