"""The state of processes as PM2 sees it: its word, the restarts it counts, and which they are."""

from __future__ import annotations

from typing import Any, Dict, Sequence

from deployguard.onhost.pm2 import daemon as pm2
from deployguard.onhost.probes.base import HEALTHY, UNHEALTHY, UNKNOWN, Finding, finding
from deployguard.onhost.system import System


def sample(manager: pm2.Service, timeout: float, system: System) -> Finding:
    """What a process check sees: PM2's word, the restarts it counts, and which instance it is.

    "online" says that there is a process, and nothing of what it does; the restarts tell one that
    dies and is started again between two looks.
    """
    try:
        place = pm2.place_of(manager)
        found = pm2.processes(place, system, timeout)
    except (pm2.Unusable, pm2.Unclear) as error:
        return finding(UNKNOWN, str(error))
    if found is None:
        return finding(UNHEALTHY, "no daemon of %s runs" % place.words())
    apps = pm2.named(found, manager["names"])
    missing = [name for name in manager["names"] if name not in apps]
    if missing:
        message = "%s knows no process %s" % (place.words(), ", ".join(missing))
        return finding(UNHEALTHY, message, final=True)
    entries = [entry for name in manager["names"] for entry in apps[name]]
    return _judge(manager, entries, system.now())


def _judge(manager: pm2.Service, entries: Sequence[pm2.Process], now: float) -> Finding:
    bad = [entry for entry in entries if not _is_up(entry)]
    worst = sorted(bad, key=lambda entry: _SEVERITY.get(pm2.status(entry), 0))[:1]
    word = pm2.status(worst[0]) if worst else "online"
    observed: Dict[str, Any] = {
        "pm2": word,
        "restarts": sum(_restarts(entry, manager) for entry in entries),
        "instance": " ".join(_instance(entry) for entry in entries),
    }
    if any(pm2.status(entry) == "waiting restart" for entry in entries):
        observed["restart_due"] = True
    names = ", ".join(dict.fromkeys(str(entry["name"]) for entry in entries))
    if worst:
        env = worst[0]["pm2_env"]
        message = "PM2 says %s is %s" % (worst[0]["name"], word)
        if word in ("errored", "stopped") and env.get("exit_code") is not None:
            message += ", exit code %s" % env["exit_code"]
        return finding(UNHEALTHY, message, word in ("errored", "stopped"), observed)
    ups = [now - float(entry["pm2_env"].get("pm_uptime") or 0) / 1000.0 for entry in entries]
    observed["uptime"] = round(max(min(ups), 0.0), 1)
    many = " (%d processes)" % len(entries) if len(entries) > 1 else ""
    message = "PM2 says %s is online%s, up %.1f s" % (names, many, observed["uptime"])
    return finding(HEALTHY, message, observed=observed)


_SEVERITY = {"errored": -3, "stopped": -2, "waiting restart": -1}


def _is_up(entry: pm2.Process) -> bool:
    env = entry["pm2_env"]
    if pm2.status(entry) == "online":
        return True
    # A script that is to run once, or when its time comes.
    once = str(env.get("autorestart")).lower() == "false"
    return once and pm2.status(entry) == "stopped" and env.get("exit_code") == 0


def _restarts(entry: pm2.Process, manager: pm2.Service) -> int:
    """How often PM2 started it again by itself; one that is due counts.

    A reload is a restart to PM2, and that one was ours.
    """
    count = int(entry["pm2_env"].get("restart_time") or 0) - bool(manager.get("reloaded"))
    return max(count, 0) + (pm2.status(entry) == "waiting restart")


def _instance(entry: pm2.Process) -> str:
    """Changes when somebody starts, restarts or reloads it; stays when PM2 does so by itself."""
    env = entry["pm2_env"]
    return "%s:%s:%s" % (entry["pm_id"], env.get("unique_id"), env.get("created_at"))
