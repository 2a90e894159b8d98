"""The state of a service, as whoever runs it sees it.

Polling for ``active`` alone passes most of the time while a unit with ``Restart=always`` dies over
and over. So the count of restarts and the identity of the running instance are part of the answer,
and a restart that is due counts as one already.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List

from deployguard.onhost.probes.base import (
    HEALTHY,
    KILL_GRACE,
    UNHEALTHY,
    UNKNOWN,
    Finding,
    ProcessManager,
    finding,
)
from deployguard.onhost.system import System

PROPERTIES = (
    "LoadState,ActiveState,SubState,Type,Result,NRestarts,MainPID,ExecMainCode,ExecMainStatus,"
    "ExecMainStartTimestampMonotonic,InvocationID"
)
_CLD_EXITED = "1"


def ask(manager: ProcessManager, timeout: float, system: System) -> Finding:
    """The state of the service by its own manager."""
    driver = manager["driver"]
    if driver == "systemd":
        return _systemd(manager, timeout, system)
    if driver == "process":
        return _pid_file(manager, system)
    if driver == "command":
        return _status_command(manager, timeout, system)
    if driver == "pm2":
        from deployguard.onhost.probes import pm2 as probe_pm2

        return probe_pm2.sample(dict(manager), timeout, system)
    if driver == "compose":
        from deployguard.onhost.probes import container as probe_container

        return probe_container.stack(manager, timeout, system)
    if driver == "kubernetes":
        from deployguard.onhost.probes import kubernetes as probe_kubernetes

        return probe_kubernetes.sample(manager, timeout, system)
    return finding(UNKNOWN, "no way to ask the driver %r" % driver)


def systemctl(scope: str) -> List[str]:
    """The start of a systemctl command line for the system or the user manager."""
    return ["systemctl", "--user"] if scope == "user" else ["systemctl"]


def _systemd(manager: ProcessManager, timeout: float, system: System) -> Finding:
    unit = manager["unit"]
    argv = [*systemctl(manager.get("scope", "system")), "show", unit, "--property=" + PROPERTIES]
    env = manager.get("env")
    result = system.run(argv, env=env, timeout=timeout, max_output=65536, grace=KILL_GRACE)
    if not result.ok:
        return finding(UNKNOWN, result.describe())
    properties = dict(line.split("=", 1) for line in result.text.splitlines() if "=" in line)
    if "ActiveState" not in properties:
        return finding(UNKNOWN, "systemctl says nothing about %s" % unit)
    return judge_unit(unit, properties)


def judge_unit(unit: str, properties: Dict[str, str]) -> Finding:
    """What the properties of ``systemctl show`` mean."""
    active = properties["ActiveState"]
    sub = properties.get("SubState", "")
    observed = _observe_unit(properties)
    if properties.get("LoadState") in ("not-found", "bad-setting", "masked", "error"):
        message = "%s cannot be loaded: %s" % (unit, properties["LoadState"])
        return finding(UNHEALTHY, message, final=True, observed=observed)
    if active in ("active", "reloading", "refreshing"):
        return finding(HEALTHY, "%s is %s (%s)" % (unit, active, sub), observed=observed)
    if active == "inactive" and _ran_once(properties):
        return finding(HEALTHY, "%s ran and ended well" % unit, observed=observed)
    message = "%s is %s (%s)%s" % (unit, active, sub, _how_it_ended(properties))
    if sub == "auto-restart":
        message += "; systemd will start it again"
    return finding(UNHEALTHY, message, active in ("failed", "inactive"), observed)


def _observe_unit(properties: Dict[str, str]) -> Dict[str, Any]:
    sub = properties.get("SubState", "")
    observed: Dict[str, Any] = {"active": properties["ActiveState"], "sub": sub}
    if properties.get("NRestarts", "").isdigit():
        # The count goes up when the new process starts; it died before that.
        observed["restarts"] = int(properties["NRestarts"]) + (sub == "auto-restart")
        if sub == "auto-restart":
            observed["restart_due"] = True
    if properties.get("InvocationID"):
        observed["instance"] = properties["InvocationID"]
    if properties.get("MainPID", "0") != "0":
        observed["pid"] = int(properties["MainPID"])
    if properties.get("Result", "success") != "success":
        observed["result"] = properties["Result"]
    return observed


def _ran_once(properties: Dict[str, str]) -> bool:
    """A unit of type oneshot is not active any more when its work is done."""
    return (
        properties.get("Type") == "oneshot"
        and properties.get("Result") == "success"
        and properties.get("ExecMainStartTimestampMonotonic", "0") not in ("", "0")
    )


def _how_it_ended(properties: Dict[str, str]) -> str:
    code = properties.get("ExecMainCode", "0")
    status = properties.get("ExecMainStatus", "0")
    parts = []
    if properties.get("Result", "success") != "success":
        parts.append("result %s" % properties["Result"])
    if code == _CLD_EXITED and status != "0":
        parts.append("exit status %s" % status)
    elif code not in ("0", "", _CLD_EXITED):
        parts.append("signal %s" % status)
    return ": " + ", ".join(parts) if parts else ""


def _pid_file(manager: ProcessManager, system: System) -> Finding:
    path = manager["pid_file"]
    try:
        with open(path, "rb") as stream:
            identity = json.loads(stream.read(65536))
        pid, start_time = int(identity["pid"]), identity.get("start_time")
    except FileNotFoundError:
        return finding(UNHEALTHY, "no process was started: %s is absent" % path, final=True)
    except OSError as error:
        return finding(UNKNOWN, "cannot read %s: %s" % (path, error.strerror))
    except (ValueError, KeyError, TypeError, AttributeError):
        return finding(UNKNOWN, "%s holds no process identity" % path)
    now = system.process_start_time(pid)
    if now is None or now != start_time:
        return finding(UNHEALTHY, "process %d is gone" % pid, final=True)
    observed = {"pid": pid, "instance": "%d:%d" % (pid, now)}
    return finding(HEALTHY, "process %d is running" % pid, observed=observed)


def _status_command(manager: ProcessManager, timeout: float, system: System) -> Finding:
    result = system.run(
        manager["argv"],
        env=manager.get("env"),
        timeout=timeout,
        max_output=16384,
        grace=KILL_GRACE,
    )
    observed = {"status": result.status}
    if result.ok:
        return finding(HEALTHY, "the status command says it runs", observed=observed)
    if result.timed_out or result.status in (126, 127):
        return finding(UNKNOWN, result.describe(), observed=observed)
    return finding(UNHEALTHY, result.describe(), observed=observed)
