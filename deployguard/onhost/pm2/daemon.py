"""PM2 on the host: whose it is, what it runs, and its saved state.

One daemon a ``PM2_HOME`` runs the processes of one user. What it runs is asked over its socket
(:mod:`deployguard.onhost.pm2.rpc`), which never starts a daemon; what is done is done by the
``pm2`` command, as that user, with an environment of its own: PM2 hands the environment of a start
on to the program it starts, and ours (an SSH session, a dead-man at boot) is nobody's business
there.

:mod:`deployguard.onhost.pm2.actions` changes things; nothing here does.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import stat
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from deployguard.onhost.pm2 import rpc as pm2rpc
from deployguard.onhost.system import Completed, System

Service = Dict[str, Any]
Process = Dict[str, Any]

#: For one answer of the daemon, which has to read /proc for each of its processes.
ANSWER = 10.0

#: PM2's words for a process that is on its way up, or will be.
_COMING = ("launching", "waiting restart", "stopping")
_RUNNING = ("online", *_COMING)
_PATHS = ("/usr/local/bin", "/usr/bin", "/bin")

#: What makes a process the one it is; the rest of what PM2 keeps of it changes by itself.
_CONFIGURATION = (
    *("pm_exec_path", "pm_cwd", "args", "node_args", "exec_interpreter", "exec_mode"),
    *("autorestart", "cron_restart", "max_memory_restart", "watch", "kill_timeout", "wait_ready"),
)
#: What PM2 writes down for some commands only, and means anyway.
_DEFAULTS = {"autorestart": True, "watch": False, "wait_ready": False}
#: PM2's own marks among the environment of a process.
_MARKS = ("unique_id", "PM2_HOME", "PM2_USAGE", "PM2_JSON_PROCESSING", "_", "PWD", "OLDPWD")


class Unusable(Exception):
    """PM2 cannot be used as the plan says; ``hint`` is the mend."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Unclear(Exception):
    """There is no telling what PM2 runs."""


class Place(NamedTuple):
    """Whose PM2 it is, and where."""

    user: str
    uid: int
    gid: int
    directory: str
    home: str

    @property
    def socket(self) -> str:
        """Where the daemon listens."""
        return os.path.join(self.home, "rpc.sock")

    @property
    def saved(self) -> List[str]:
        """What ``pm2 save`` writes and ``pm2 resurrect`` reads: the list, and the one before."""
        return [os.path.join(self.home, name) for name in ("dump.pm2", "dump.pm2.bak")]

    def words(self) -> str:
        """For messages."""
        return "PM2 of %s (%s)" % (self.user, self.home)


def place_of(service: Service) -> Place:
    """Where the daemon of this service is. Raises :class:`Unusable`."""
    home, user = service.get("home") or "", service.get("user") or ""
    try:
        if user:
            entry = pwd.getpwnam(user)
        elif home:
            entry = pwd.getpwuid(os.stat(home).st_uid)
        else:
            entry = pwd.getpwuid(os.geteuid())
    except KeyError as error:
        message = "the host has no user %s" % (user or error)
        raise Unusable(message, "name the user that runs `pm2 list` as `user`") from error
    except OSError as error:
        message = "%s: %s" % (home, error.strerror)
        raise Unusable(message, "name the PM2_HOME that is there, or its `user`") from error
    home = home or os.path.join(entry.pw_dir, ".pm2")
    if entry.pw_uid != os.geteuid() and os.geteuid() != 0:
        raise Unusable(
            "PM2 of %s cannot be used by %s" % (entry.pw_name, pwd.getpwuid(os.geteuid()).pw_name),
            "set `become: true` for the host, or log in as %s" % entry.pw_name,
        )
    return Place(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, home)


def processes(place: Place, system: System, timeout: float = ANSWER) -> Optional[List[Process]]:
    """Everything PM2 has, in its own words; ``None`` where no daemon runs.

    Raises :class:`Unclear`.
    """
    try:
        values = pm2rpc.call(place.socket, "getMonitorData", [{}], timeout, system.monotonic)
    except pm2rpc.NotRunning:
        return None
    except (OSError, pm2rpc.NotUnderstood) as error:
        raise Unclear("%s does not answer: %s" % (place.words(), error)) from error
    found = values[0] if values else None
    if not isinstance(found, list):
        raise Unclear("%s does not say what it runs" % place.words())
    return [entry for entry in found if isinstance(entry, dict) and "pm2_env" in entry]


def named(found: Optional[Sequence[Process]], names: Sequence[str]) -> Dict[str, List[Process]]:
    """The processes of each name that there is, in the order of their ids."""
    chosen: Dict[str, List[Process]] = {}
    for entry in sorted(found or (), key=lambda entry: int(entry["pm_id"])):
        if entry["name"] in names:
            chosen.setdefault(str(entry["name"]), []).append(entry)
    return chosen


def status(entry: Process) -> str:
    """PM2's word for the state of a process."""
    return str(entry["pm2_env"].get("status", ""))


def program(service: Service, place: Place) -> str:
    """The path of the ``pm2`` command. Raises :class:`Unusable`."""
    wanted = service.get("program") or "pm2"
    if "/" in wanted:
        if os.access(wanted, os.X_OK) and os.path.isfile(wanted):
            return str(wanted)
        raise Unusable("%s is not there, or no program" % wanted, "name the path of pm2")
    for directory in _search(place):
        path = os.path.join(directory, wanted)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise Unusable(
        "there is no pm2 in %s" % ":".join(_search(place)),
        "install it (npm install --global pm2), or name its path as `program`",
    )


def _search(place: Place) -> List[str]:
    """Where programs are looked for: PATH, and beside the node that runs the daemon (nvm)."""
    found = [part for part in os.environ.get("PATH", "").split(":") if part.startswith("/")]
    found += _PATHS
    try:
        with open(os.path.join(place.home, "pm2.pid"), encoding="ascii") as file:
            found.append(os.path.dirname(os.readlink("/proc/%d/exe" % int(file.read()))))
    except (OSError, ValueError):
        pass
    return list(dict.fromkeys(found))


def run(
    service: Service,
    place: Place,
    argv: Sequence[str],
    system: System,
    *,
    timeout: float,
    cwd: Optional[str] = None,
    env: Optional[Dict[str, str]] = None,
    apart: bool = False,
) -> Completed:
    """Run a ``pm2`` command as the user whose daemon it is. Raises :class:`Unusable`.

    ``apart`` is for one that may start the daemon.
    """
    path = program(service, place)
    search = [os.path.dirname(path), *_search(place)]
    environment = {
        "HOME": place.directory,
        "USER": place.user,
        "LOGNAME": place.user,
        "PM2_HOME": place.home,
        "PATH": ":".join(dict.fromkeys(search)),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        **(env or {}),
    }
    return system.run(
        [path, *argv],
        env=environment,
        clean=True,
        user=place.user,
        cwd=cwd or "/",
        timeout=timeout,
        apart=apart,
    )


# -- what the driver asks --------------------------------------------------------------------------


def observe(service: Service, system: System) -> Dict[str, Any]:
    """The answer to a question of the driver, before anything is touched and after a restore.

    ``daemon``, ``running``, ``apps`` (by name: how many processes, how many of them stopped, their
    mode, script, directory and a digest of their configuration), ``saved`` (a digest of each file
    that ``pm2 save`` writes) and ``refused`` with message and hint where the plan cannot be met.
    """
    try:
        place = place_of(service)
        program(service, place)
        found = processes(place, system)
        answer = _answer(place, named(found, service["names"]), found is not None)
        missing = [name for name in service["names"] if name not in answer["apps"]]
        if missing and service["known"]:
            raise _unknown(place, missing, found)
        if service["known"]:
            _demand_related(answer["apps"], service["path"])
        return answer
    except Unusable as error:
        return {"refused": {"message": str(error), "hint": error.hint}}
    except Unclear as error:
        hint = "see whether `pm2 list` answers there"
        return {"refused": {"message": str(error), "hint": hint}}


def _answer(place: Place, apps: Dict[str, List[Process]], daemon: bool) -> Dict[str, Any]:
    states = [status(entry) for entries in apps.values() for entry in entries]
    return {
        "daemon": daemon,
        "running": any(state in _RUNNING for state in states),
        "apps": {name: summary(entries) for name, entries in apps.items()},
        "saved": [_digest_of_file(path) for path in place.saved],
    }


def summary(entries: Sequence[Process]) -> Dict[str, Any]:
    """What must be the same again when the processes of a name are brought back."""
    first = entries[0]["pm2_env"]
    configuration = [configuration_of(entry["pm2_env"]) for entry in entries]
    text = json.dumps(sorted(configuration, key=json.dumps), sort_keys=True)
    return {
        "processes": len(entries),
        "stopped": sum(1 for entry in entries if status(entry) == "stopped"),
        "mode": first.get("exec_mode"),
        "script": first.get("pm_exec_path"),
        "directory": first.get("pm_cwd"),
        "digest": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
    }


def configuration_of(env: Dict[str, Any]) -> Dict[str, Any]:
    """Of what PM2 keeps of a process, all that does not change by itself."""
    found = {
        name: env[name]
        for name in _CONFIGURATION
        if env.get(name) is not None and env[name] != _DEFAULTS.get(name)
    }
    own = env.get("env")
    if isinstance(own, dict):
        found["env"] = {name: str(own[name]) for name in sorted(own) if name not in _MARKS}
    return found


def _unknown(place: Place, missing: Sequence[str], found: Optional[Sequence[Process]]) -> Unusable:
    names = sorted({str(entry["name"]) for entry in found or ()})
    what = "no process %s" % ", ".join(missing)
    if found is None:
        message = "%s knows %s: its daemon does not run" % (place.words(), what)
    else:
        message = "%s knows %s; it has %s" % (place.words(), what, ", ".join(names) or "none")
    others = [words for words in _daemons() if place.home not in words]
    hint = "mend the name, or name an ecosystem file that starts it"
    if others:
        hint = "there is another one here, %s: name its `user`; or %s" % (", ".join(others), hint)
    return Unusable(message, hint)


def _demand_related(apps: Dict[str, Any], path: str) -> None:
    """A process that runs something else entirely would go on running that, and look healthy."""
    tree = os.path.realpath(path)
    for name, app in apps.items():
        script, directory = (os.path.realpath(str(app[key])) for key in ("script", "directory"))
        if not (within(script, tree) or within(directory, tree) or within(tree, directory)):
            raise Unusable(
                "%s runs %s in %s, and %s is no part of that"
                % (name, app["script"], app["directory"], path),
                "deploy to where it runs, or name an ecosystem file that starts it from here",
            )


def within(path: str, directory: str) -> bool:
    """Whether a path is the directory, or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _daemons() -> List[str]:
    """Every PM2 daemon of this host: it says in its title which home it has."""
    found = []
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                line = file.read(4096).partition(b"\0")[0].decode("utf-8", "replace")
            owner = pwd.getpwuid(os.stat("/proc/" + pid).st_uid).pw_name
        except (OSError, KeyError):
            continue
        if line.startswith("PM2 ") and "God Daemon (" in line:
            found.append("of %s (%s)" % (owner, line.partition("(")[2].rstrip(") ")))
    return sorted(found)


def _digest_of_file(path: str) -> Optional[str]:
    try:
        descriptor = open_plain(path)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def open_plain(path: str) -> int:
    """A descriptor to read a file in the user's directory, who may not lead us elsewhere.

    Raises :class:`FileNotFoundError` and :class:`Unusable`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        hint = "it has to be a plain file that can be read"
        raise Unusable("%s: %s" % (path, error.strerror), hint) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unusable("%s is no plain file" % path, "remove it, and run `pm2 save`")
    return descriptor
