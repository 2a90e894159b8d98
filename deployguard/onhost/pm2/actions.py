"""What is done to PM2's processes in a deploy, and how they are brought back.

Before the first of it the processes of a component, and the files that ``pm2 save`` writes, are
kept in the transaction's folder, in the form in which PM2 itself saves them. A restore stops
whatever runs under their names, puts the saved files back, and has PM2 resurrect what is kept. So
the old version comes back with the environment it had, whatever an ecosystem file says now, and
whether the daemon lived through it or not.

Actions, all with ``service`` (see :mod:`deployguard.onhost.pm2.daemon`) and ``timeout`` in seconds:

``stop``, ``delete``
    Those of the names that PM2 has; fine when it has none, or no daemon runs.
``reset``
    Set their counts of restarts to nothing, so that what is counted from here on is news.
``run``
    ``argv`` behind ``pm2``, ``cwd``, ``env``.
``restore``
    As above. ``stopped`` says of each name how many of its processes were stopped when the driver
    asked. It needs what :func:`keep` kept.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from typing import Any, Callable, Dict, List, Optional, Sequence

from deployguard.onhost import durable
from deployguard.onhost.places import KEPT_STATE, read_json, write_json
from deployguard.onhost.pm2 import daemon as pm2
from deployguard.onhost.pm2.daemon import Place, Service
from deployguard.onhost.system import System

Action = Dict[str, Any]

#: Where a boot starts PM2, its own unit does so as well: the two must not race.
_UNIT = "pm2-%s.service"
_RUNTIME = "/run/systemd/system"


class Failed(Exception):
    """PM2 did not do what was asked."""


def keep(action: Action, folder: str, system: System) -> Dict[str, Any]:
    """Keep what :func:`perform` needs to restore, durably; the name of the file is for the journal.

    The file holds environments, which may be secrets: 0600, and gone when the transaction is.
    """
    service = action["service"]
    try:
        place = pm2.place_of(service)
        found = pm2.processes(place, system)
    except (pm2.Unusable, pm2.Unclear) as error:
        raise Failed(str(error)) from error
    apps = pm2.named(found, service["names"])
    for name, entries in apps.items():
        if not action["stopped"].get(name):
            _ran(entries)
    try:
        files = [_kept_file(path) for path in place.saved]
    except pm2.Unusable as error:
        raise Failed(str(error)) from error
    kept = {
        "daemon": found is not None,
        "processes": [_as_saved(entry) for entries in apps.values() for entry in entries],
        "ids": {name: [entry["pm_id"] for entry in entries] for name, entries in apps.items()},
        "apps": {name: pm2.summary(entries) for name, entries in apps.items()},
        "files": files,
    }
    name = KEPT_STATE + "%s.json" % action["component"]
    write_json(os.path.join(folder, name), kept)
    return {"file": name}


def _ran(entries: Sequence[pm2.Process]) -> None:
    """They ran when the driver asked: what has stopped since is to run again after a restore."""
    for entry in entries:
        if pm2.status(entry) == "stopped":
            entry["pm2_env"]["status"] = "online"


def _as_saved(entry: Dict[str, Any]) -> Dict[str, Any]:
    """A process as ``pm2 save`` writes it."""
    env = dict(entry["pm2_env"])
    for name in ("instances", "pm_id", "prev_restart_delay"):
        env.pop(name, None)
    return env


def perform(
    action: Action,
    folder: str,
    facts: Optional[Dict[str, Any]],
    system: System,
    stop: Optional[Callable[[], bool]] = None,
) -> None:
    """Do one action; ``stop`` is for those that only wait. Raises :class:`Failed`."""
    try:
        work = _Work(action, system)
        _await_boot(work)
        _VERBS[action["verb"]](work, folder, facts)
    except (pm2.Unusable, pm2.Unclear) as error:
        raise Failed(str(error)) from error


class _Work:
    """One action's view of PM2."""

    def __init__(self, action: Action, system: System) -> None:
        self.action = action
        self.service: Service = action["service"]
        self.names: List[str] = list(self.service["names"])
        self.system = system
        self.place: Place = pm2.place_of(self.service)

    def processes(self) -> Optional[List[pm2.Process]]:
        """Everything PM2 has; ``None`` without a daemon."""
        return pm2.processes(self.place, self.system)

    def present(self) -> Dict[str, List[pm2.Process]]:
        """The processes of our names."""
        return pm2.named(self.processes(), self.names)

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Optional[str] = None,
        env: Optional[Dict[str, str]] = None,
    ) -> None:
        """A ``pm2`` command that has to end well."""
        timeout = float(self.action.get("timeout", 90.0))
        done = pm2.run(
            self.service, self.place, argv, self.system, timeout=timeout, cwd=cwd, env=env
        )
        if not done.ok:
            raise Failed(done.describe())

    def each(self, verb: str) -> None:
        """A command for all of our names that PM2 has."""
        names = list(self.present())
        if names:
            self.run([verb, *names])


def _stop(work: _Work, _: str, __: Any) -> None:
    work.each("stop")


def _delete(work: _Work, _: str, __: Any) -> None:
    work.each("delete")


def _reset(work: _Work, _: str, __: Any) -> None:
    for name in work.present():
        _forget_restarts(work, name)


def _forget_restarts(work: _Work, name: str) -> None:
    entries = work.present().get(name, [])
    if any(entry["pm2_env"].get("restart_time") for entry in entries):
        work.run(["reset", name])


def _run(work: _Work, _: str, __: Any) -> None:
    if work.processes() is None:
        _start_daemon(work)
    work.run(work.action["argv"], cwd=work.action.get("cwd"), env=work.action.get("env"))


def _restore(work: _Work, folder: str, facts: Optional[Dict[str, Any]]) -> None:
    kept = read_json(os.path.join(folder, facts["file"])) if facts else None
    if kept is None:
        return  # the power failed before anything was kept, so nothing was done either
    # First of all: a daemon that comes up now reads them.
    for file in kept["files"]:
        _put_back(file)
    if kept["processes"] and work.processes() is None:
        _start_daemon(work)
    now = work.present()
    for name in work.names:
        if name not in now:
            continue
        ids = [entry["pm_id"] for entry in now[name]]
        same = kept["apps"].get(name) == {**pm2.summary(now[name]), **_stopped(kept, name)}
        if same and ids == kept["ids"][name] and kept["apps"][name]["stopped"] in (0, len(ids)):
            _set_going(work, name, stopped=bool(kept["apps"][name]["stopped"]))
        else:
            work.run(["delete", name])
    _resurrect(work, kept)
    _demand(work, kept)
    if not kept["daemon"] and not work.processes():
        # It was started for the new version, and has nothing to do any more.
        work.run(["kill"])


def _stopped(kept: Dict[str, Any], name: str) -> Dict[str, Any]:
    """How many are stopped is no difference: that is about to be mended."""
    return {"stopped": kept["apps"].get(name, {}).get("stopped")}


def _set_going(work: _Work, name: str, *, stopped: bool) -> None:
    """The very processes are still there: only the tree below them has changed, and back."""
    if stopped:
        work.run(["stop", name])
        return
    work.run(["restart", name])
    _forget_restarts(work, name)


def _resurrect(work: _Work, kept: Dict[str, Any]) -> None:
    there = work.present()
    gone = [env for env in kept["processes"] if env.get("name") not in there]
    if not gone:
        return
    # PM2 reads it as the user, who may not look into our folder.
    path = os.path.join(work.place.home, ".dump.pm2.deployguard")
    try:
        _write(path, json.dumps(gone).encode("ascii"), 0o600, work.place.uid, work.place.gid)
        backup = path + ".bak"  # is not there: PM2 must not fall back to the real one
        env = {"PM2_DUMP_FILE_PATH": path, "PM2_DUMP_BACKUP_FILE_PATH": backup}
        work.run(["resurrect"], env=env)
    finally:
        _unlink(path)


def _demand(work: _Work, kept: Dict[str, Any]) -> None:
    """PM2 says "done" whatever became of it."""
    found = work.present()
    for name in work.names:
        wanted = kept["apps"].get(name, {}).get("processes", 0)
        there = len(found.get(name, ()))
        if wanted != there:
            raise Failed("PM2 has %d of %d processes of %s back" % (there, wanted, name))


def _start_daemon(work: _Work) -> None:
    """By its own unit where there is one; else as PM2's command starts it, but no part of ours.

    At a boot the unit may be about to start one: two would fight for one socket.
    """
    if _of_unit(work, "LoadState", "UnitFileState") == ["loaded", "enabled"]:
        work.system.run(["systemctl", "start", _unit(work)], timeout=90.0)
    if work.processes() is None:
        pm2.run(work.service, work.place, ["ping"], work.system, timeout=90.0, apart=True)


def _await_boot(work: _Work) -> None:
    """Let PM2's unit come to its end, where a boot is about to start it or has begun to.

    It resurrects what was saved, and what is done meanwhile it would do again or undo: a process
    that was deleted comes back, and where one is missing the unit fails and takes the daemon along.
    To start what is being started is to wait for it.
    """
    if (_of_unit(work, "Job") or ["0"]) != ["0"]:
        work.system.run(["systemctl", "start", _unit(work)], timeout=90.0)


def _unit(work: _Work) -> str:
    return _UNIT % work.place.user


def _of_unit(work: _Work, *names: str) -> List[str]:
    """Properties of PM2's unit; empty where there can be none."""
    if os.geteuid() != 0 or not os.path.isdir(_RUNTIME):
        return []
    ask = ["systemctl", "show", "--property=" + ",".join(names), "--value", _unit(work)]
    return work.system.run(ask, timeout=30.0).text.split()


# -- the saved state -------------------------------------------------------------------------------


def _kept_file(path: str) -> Dict[str, Any]:
    try:
        descriptor = pm2.open_plain(path)
    except FileNotFoundError:
        return {"path": path, "exists": False}
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        content = base64.b64encode(file.read()).decode("ascii")
    return {
        "path": path,
        "exists": True,
        "content": content,
        "mode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
        "mtime_ns": info.st_mtime_ns,
    }


def _put_back(file: Dict[str, Any]) -> None:
    path = file["path"]
    if _kept_file(path) == file:
        return
    if not file["exists"]:
        _unlink(path)
        return
    beside = path + ".deployguard"
    data, mode = base64.b64decode(file["content"]), file["mode"]
    _write(beside, data, mode, file["uid"], file["gid"], file["mtime_ns"])
    durable.rename(beside, path)


def _write(
    path: str, data: bytes, mode: int, uid: int, gid: int, mtime_ns: Optional[int] = None
) -> None:
    """A new file in a directory of the user, who may have put anything there under its name."""
    _unlink(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        if os.geteuid() == 0:
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
        durable.append(descriptor, data)
        if mtime_ns is not None:
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(descriptor)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


_VERBS: Dict[str, Callable[[_Work, str, Optional[Dict[str, Any]]], None]] = {
    "stop": _stop,
    "delete": _delete,
    "reset": _reset,
    "run": _run,
    "restore": _restore,
}
