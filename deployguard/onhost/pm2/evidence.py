"""What PM2 knows of a deploy that failed: its table, and the logs since the snapshot."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Sequence

from deployguard.onhost.excerpts import Bounded
from deployguard.onhost.pm2 import daemon as pm2
from deployguard.onhost.system import System

Marks = Dict[str, Dict[str, int]]

#: Of each process, what tells why; the environment stays where it is.
_TOLD = (
    *("status", "restart_time", "unstable_restarts", "pm_uptime", "created_at", "exit_code"),
    *("exec_mode", "pm_exec_path", "pm_cwd", "node_version", "version"),
)
_LOGS = ("pm_out_log_path", "pm_err_log_path")


def table(manager: Dict[str, Any], system: System, timeout: float) -> bytes:
    """All processes of the daemon, ours and others, as JSON without their environments.

    Raises :class:`pm2.Unusable` and :class:`pm2.Unclear`.
    """
    found = pm2.processes(pm2.place_of(manager), system, timeout)
    rows = [
        {
            "name": entry["name"],
            "pm_id": entry["pm_id"],
            "pid": entry.get("pid"),
            **{name: entry["pm2_env"].get(name) for name in _TOLD},
        }
        for entry in found or ()
    ]
    answer = {"daemon": found is not None, "processes": rows}
    return json.dumps(answer, indent=1, sort_keys=True).encode("ascii")


def mark(manager: Dict[str, Any], system: System) -> Marks:
    """Where each log ends now, by path."""
    found = {}
    for path in _logs(manager, system, pm2.ANSWER):
        try:
            info = os.lstat(path)
        except OSError:
            continue
        found[path] = {"offset": info.st_size, "inode": info.st_ino}
    return found


def logs(
    manager: Dict[str, Any], marks: Marks, system: System, max_bytes: int, timeout: float
) -> bytes:
    """What was logged since the mark, file by file under its name.

    Those that PM2 writes now, and those that it wrote then.
    """
    paths = list(dict.fromkeys([*_logs(manager, system, timeout), *marks]))
    pieces = []
    for path in paths:
        text = _tail(path, marks.get(path, {}), max(max_bytes // len(paths), 1))
        if text:
            pieces.append(b"==> %s <==\n%s\n" % (os.fsencode(path), text.rstrip(b"\n")))
    return b"\n".join(pieces)


def service_logs(manager: Dict[str, Any], system: System, timeout: float) -> List[str]:
    """Where the processes write; what the daemon itself has to say is not among it."""
    return _logs(manager, system, timeout)[1:]


def _logs(manager: Dict[str, Any], system: System, timeout: float) -> List[str]:
    try:
        place = pm2.place_of(manager)
        found = pm2.named(pm2.processes(place, system, timeout), manager["names"])
    except (pm2.Unusable, pm2.Unclear):
        return []
    entries: Sequence[pm2.Process] = [entry for entries in found.values() for entry in entries]
    # The daemon's own first: which of them ended how, and when it was started again. What they said
    # themselves last of all, since the end of it is what a person sees first.
    paths: List[Any] = [os.path.join(place.home, "pm2.log")]
    paths += [entry["pm2_env"].get(name) for name in _LOGS for entry in entries]
    return [path for path in dict.fromkeys(paths) if isinstance(path, str)]


def _tail(path: str, at: Dict[str, int], max_bytes: int) -> bytes:
    try:
        descriptor = pm2.open_plain(path)
    except (pm2.Unusable, FileNotFoundError):
        return b""
    with os.fdopen(descriptor, "rb") as stream:
        info = os.fstat(descriptor)
        start = at.get("offset", 0)
        if start > info.st_size or at.get("inode", info.st_ino) != info.st_ino:
            start = 0  # it was rotated since
        # The end says more than the start, where both do not fit.
        stream.seek(max(start, info.st_size - 2 * max_bytes))
        kept = Bounded(max_bytes)
        kept.add(stream.read(2 * max_bytes))
        return kept.value()
