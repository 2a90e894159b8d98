"""One sample of one check, whatever its kind.

The kinds that need more than a line or two have a module each, which is imported with the first
check of its kind: a program starts sooner without the protocols that nobody asks for.
"""

from __future__ import annotations

from typing import Callable, Dict

from deployguard.onhost.probes.base import (
    HEALTHY,
    KILL_GRACE,
    UNHEALTHY,
    UNKNOWN,
    CheckData,
    Finding,
    Sample,
    connection_state,
    finding,
)
from deployguard.onhost.system import System


def sample(check: CheckData, system: System) -> Sample:
    """Look once. Never raises: what goes wrong with the look itself is ``unknown``."""
    at, began = system.now(), system.monotonic()
    try:
        found = _PROBES[check["kind"]](check, system)
    except KeyError as error:
        found = finding(UNKNOWN, "the check cannot be made: no %s" % error)
    except Exception as error:  # noqa: BLE001 - a broken probe is not a broken service
        found = finding(UNKNOWN, "the check failed: %s: %s" % (type(error).__name__, error))
    return {
        "check": check["id"],
        "state": found.state,
        "message": found.message,
        "final": found.final,
        "observed": found.observed,
        "at": at,
        "seconds": system.monotonic() - began,
    }


def no_answer(check: CheckData, system: System, seconds: float) -> Sample:
    """The sample of a probe that did not come back."""
    return {
        "check": check["id"],
        "state": UNKNOWN,
        "message": "no answer within %.1f s" % check["timeout"],
        "final": False,
        "observed": {},
        "at": system.now(),
        "seconds": seconds,
    }


def probe_port(check: CheckData, _: System) -> Finding:
    """Connect, and hang up."""
    import socket

    place = "%s port %d" % (check["address"], check["number"])
    try:
        connection = socket.create_connection(
            (check["address"], check["number"]), timeout=max(check["timeout"], 0.001)
        )
    except socket.gaierror as error:
        return finding(UNKNOWN, "cannot resolve %s: %s" % (check["address"], error.strerror))
    except socket.timeout:
        return finding(UNHEALTHY, "%s did not answer within %.1f s" % (place, check["timeout"]))
    except ConnectionRefusedError:
        return finding(UNHEALTHY, "%s is closed" % place)
    except OSError as error:
        return finding(connection_state(error), "%s: %s" % (place, error.strerror or error))
    connection.close()
    return finding(HEALTHY, "%s accepts connections" % place)


def probe_command(check: CheckData, system: System) -> Finding:
    """Run the command; status 0 is healthy."""
    result = system.run(
        check["argv"],
        env=check.get("env"),
        cwd=check.get("directory"),
        timeout=check["timeout"],
        max_output=16384,
        grace=KILL_GRACE,
    )
    observed = {"status": result.status}
    if result.ok:
        return finding(HEALTHY, "the command ended with status 0", observed=observed)
    # 126 and 127 say that it could not be run at all.
    state = UNKNOWN if result.status in (126, 127) else UNHEALTHY
    return finding(state, result.describe(), observed=observed)


def probe_process(check: CheckData, system: System) -> Finding:
    """Ask whoever runs the process."""
    from deployguard.onhost.probes import process as managers

    return managers.ask(check["manager"], check["timeout"], system)


def probe_http(check: CheckData, system: System) -> Finding:
    """Make one GET request."""
    from deployguard.onhost.probes import http

    return http.get(check, system)


def probe_postgres(check: CheckData, system: System) -> Finding:
    """Sign in and ask."""
    from deployguard.onhost.probes import postgres

    return postgres.look(check, system)


def probe_mysql(check: CheckData, system: System) -> Finding:
    """Sign in and ask."""
    from deployguard.onhost.probes import mysql

    return mysql.look(check, system)


def probe_redis(check: CheckData, system: System) -> Finding:
    """Sign in and ask."""
    from deployguard.onhost.probes import redis

    return redis.look(check, system)


def probe_prometheus(check: CheckData, system: System) -> Finding:
    """Compare a number with its bounds."""
    from deployguard.onhost.probes import prometheus

    return prometheus.look(check, system)


def probe_tls(check: CheckData, system: System) -> Finding:
    """Judge a certificate."""
    from deployguard.onhost.probes import tls

    return tls.look(check, system)


def probe_logs(check: CheckData, system: System) -> Finding:
    """Look for errors that are new."""
    from deployguard.onhost.probes import logs as errors

    return errors.look(check, system)


def probe_container(check: CheckData, system: System) -> Finding:
    """Ask the engine for the containers of one service."""
    from deployguard.onhost.probes import container as containers

    return containers.service(check, system)


_PROBES: Dict[str, Callable[[CheckData, System], Finding]] = {
    "process": probe_process,
    "port": probe_port,
    "tcp": probe_port,
    "http": probe_http,
    "command": probe_command,
    "postgres": probe_postgres,
    "mysql": probe_mysql,
    "redis": probe_redis,
    "prometheus": probe_prometheus,
    "tls": probe_tls,
    "logs": probe_logs,
    "container": probe_container,
}
