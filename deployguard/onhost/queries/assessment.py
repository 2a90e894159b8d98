"""What a host says of itself in an incident: checks, resources, errors in logs. Changes nothing.

Everything is looked at at the same time and within one deadline: what has not come by then is
``unknown``, and what came is answered. A machine in trouble answers slowly, and half of an answer
in ten seconds is worth more than all of it in ten minutes.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, List, Sequence, Tuple

from deployguard.onhost.probes import healthcheck
from deployguard.onhost.share import Share
from deployguard.onhost.system import System

SECONDS = 10.0
#: Of the processes with the most memory and those with the most time on the CPU.
_PROCESSES = 5
#: What is no look at how a service stands now: it compares with what was before a deploy.
_COMPARES = frozenset({"logs"})


def assess(args: Dict[str, Any], system: System) -> Dict[str, Any]:
    """Answer ``{"checks", "resources", "logs", "at", "seconds"}``.

    ``args``: ``checks`` as in ``look``; ``logs``, each with ``id``, ``component`` and ``log``
    (a :class:`~deployguard.onhost.logs.source.Source`; or ``containers``, the manager of a stack;
    or ``kubernetes``, how a cluster is asked); ``since``, the moment that divides their lines;
    ``disks``; ``seconds`` for all of it. ``checks`` are those of :func:`healthcheck.watch`, or
    ``None`` where none came in time.
    """
    began, seconds = system.monotonic(), float(args.get("seconds", SECONDS))
    lanes = system.lanes()
    checks = [check for check in args.get("checks", ()) if check["kind"] not in _COMPARES]
    wanted: Dict[str, Callable[[], Any]] = {}
    if checks:
        wanted["checks"] = functools.partial(healthcheck.watch, checks, system, mode="once")
    if "disks" in args:
        disks, ends = list(args["disks"]), began + seconds / 2
        wanted["resources"] = lambda: _resources(disks, ends, system)
    for source in args.get("logs", ()):
        look = functools.partial(_log, source, float(args["since"]), seconds / 2, system)
        wanted["log " + source["id"]] = look
    for key, call in wanted.items():
        lanes.start(key, call)
    found: Dict[str, Any] = {}
    while len(found) < len(wanted):
        arrived = lanes.wait(max(began + seconds - system.monotonic(), 0.0))
        if arrived is None:
            break
        key, result = arrived
        if isinstance(result, Exception):
            raise result  # each of them answers for what it could not see
        found[key] = result
    late = {"unknown": "no answer within %g s" % seconds}
    return {
        "checks": found.get("checks", {}).get("checks") if checks else [],
        "resources": found.get("resources", late if "disks" in args else {}),
        "logs": [
            dict(found.get("log " + one["id"], late), id=one["id"], component=one["component"])
            for one in args.get("logs", ())
        ],
        "at": system.now(),
        "seconds": system.monotonic() - began,
    }


def _resources(disks: Sequence[str], ends: float, system: System) -> Dict[str, Any]:
    from deployguard.onhost.evidence import hostfacts

    facts = hostfacts.gather(disks, Share(0, ends, system.monotonic), system.now())
    processes = facts.pop("processes", {"count": 0, "largest": []})
    facts.pop("sockets", None)
    largest: List[Dict[str, Any]] = processes["largest"]
    busiest = sorted(largest, key=lambda one: -one["cpu_seconds"])
    facts["processes"] = {
        "count": processes["count"],
        "largest": largest[:_PROCESSES],
        "busiest": busiest[:_PROCESSES],
    }
    return facts


def _log(source: Dict[str, Any], since: float, seconds: float, system: System) -> Dict[str, Any]:
    # Only an incident needs these modules.
    from deployguard.onhost.compose.containers import EngineFailed
    from deployguard.onhost.logs import source as logs
    from deployguard.onhost.queries import errorlogs

    name = errorlogs.name_of(source["log"])
    try:
        before, after, timed = errorlogs.halves(source["log"], since, seconds, system)
    except (logs.Unreadable, EngineFailed) as error:
        return {"name": name, "unknown": str(error)}
    found: Tuple[Dict[str, Any], Dict[str, Any]] = errorlogs.compared(before, after)
    return {"name": name, "timed": timed, "before": found[0], "since": found[1]}
