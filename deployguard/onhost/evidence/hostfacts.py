"""The state of the machine at the time of the failure, read from ``/proc``.

No program is run for it: a machine that fails for want of memory or processes may not start one.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from typing import Any, Dict, List, Optional, Sequence

from deployguard.onhost.excerpts import shorten
from deployguard.onhost.share import Share

MAX_PROCESSES = 300
MAX_COMMAND = 400
_MEMORY = (
    "MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapTotal", "SwapFree", "Dirty",
    "Shmem", "SUnreclaim",
)  # fmt: skip
_TCP_STATES = {
    "01": "established", "02": "syn_sent", "03": "syn_recv", "04": "fin_wait1", "05": "fin_wait2",
    "06": "time_wait", "07": "close", "08": "close_wait", "09": "last_ack", "0A": "listen",
    "0B": "closing",
}  # fmt: skip


def gather(paths: Sequence[str], share: Share, now: float) -> Dict[str, Any]:
    """All facts; what cannot be read is left out, and what takes too long too."""
    facts: Dict[str, Any] = {
        "at": now,
        "host": _host(),
        "load": _numbers("/proc/loadavg", 3),
        "uptime_seconds": sum(_numbers("/proc/uptime", 1)),
        "memory_bytes": _memory(),
        "pressure": _pressure(),
        "disks": [_disk(path) for path in paths],
    }
    if not share.over():
        facts["sockets"] = _sockets(share)
    if not share.over():
        facts["processes"] = _processes(share)
    return facts


def _read(path: str, limit: int = 1024 * 1024) -> str:
    try:
        with open(path, "rb") as stream:
            return stream.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def _numbers(path: str, count: int) -> List[float]:
    return [float(word) for word in _read(path).split()[:count]]


def _host() -> Dict[str, Any]:
    system = os.uname()
    release = re.search(r'^PRETTY_NAME="?([^"\n]*)', _read("/etc/os-release"), re.MULTILINE)
    return {
        "name": system.nodename,
        "kernel": system.release,
        "machine": system.machine,
        "system": release.group(1) if release else system.sysname,
        "cpus": os.cpu_count(),
    }


def _memory() -> Dict[str, int]:
    found = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name in _MEMORY:
            found[name] = int(rest.split()[0]) * 1024
    return found


def _pressure() -> Dict[str, List[str]]:
    found = {}
    for name in ("cpu", "io", "memory"):
        lines = _read("/proc/pressure/" + name).splitlines()
        if lines:
            found[name] = lines
    return found


def _disk(path: str) -> Dict[str, Any]:
    try:
        info = os.statvfs(path)
    except OSError as error:
        return {"path": path, "error": error.strerror}
    return {
        "path": path,
        "bytes": info.f_blocks * info.f_frsize,
        "bytes_free": info.f_bavail * info.f_frsize,
        "inodes": info.f_files,
        "inodes_free": info.f_favail,
    }


def _sockets(share: Share) -> Dict[str, Any]:
    """Who listens where, and how many TCP connections are in which state."""
    states: Dict[str, int] = {}
    listening: List[Dict[str, Any]] = []
    for family, path in ((socket.AF_INET, "/proc/net/tcp"), (socket.AF_INET6, "/proc/net/tcp6")):
        for line in _read(path, 8 * 1024 * 1024).splitlines()[1:]:
            words = line.split()
            if len(words) < 10:
                continue
            state = _TCP_STATES.get(words[3], words[3])
            states[state] = states.get(state, 0) + 1
            if state == "listen":
                address, _, port = words[1].partition(":")
                listening.append(
                    {
                        "address": _address(family, address),
                        "port": int(port, 16),
                        "inode": int(words[9]),
                    }
                )
    owners = _socket_owners({entry["inode"] for entry in listening}, share)
    for entry in listening:
        entry.update(owners.get(entry.pop("inode"), {}))
    return {"listening": sorted(listening, key=lambda entry: entry["port"]), "tcp_states": states}


def _address(family: int, text: str) -> str:
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    return socket.inet_ntop(family, struct.pack("=%dI" % len(words), *words))


def _pids() -> List[int]:
    try:
        return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    except OSError:
        return []


def _socket_owners(inodes: "set[int]", share: Share) -> Dict[int, Dict[str, Any]]:
    """The process behind each socket, as far as we may see it."""
    links = {"socket:[%d]" % inode: inode for inode in inodes}
    owners: Dict[int, Dict[str, Any]] = {}
    for pid in _pids():
        if share.over() or len(owners) == len(inodes):
            break
        folder = "/proc/%d/fd" % pid
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            try:
                inode = links.get(os.readlink(folder + "/" + name))
            except OSError:
                continue
            if inode is not None:
                owners[inode] = {"pid": pid, "process": _read("/proc/%d/comm" % pid).strip()}
    return owners


def _processes(share: Share) -> Dict[str, Any]:
    """The processes with the most memory, and how many there are. No environments."""
    found = []
    for pid in _pids():
        if share.over():
            break
        process = _process(pid)
        if process is not None:
            found.append(process)
    found.sort(key=lambda process: -process["rss_bytes"])
    return {"count": len(found), "largest": found[:MAX_PROCESSES]}


def _process(pid: int) -> Optional[Dict[str, Any]]:
    text = _read("/proc/%d/stat" % pid)
    fields = text[text.rfind(")") + 1 :].split()
    if len(fields) < 22:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    command = _read("/proc/%d/cmdline" % pid, 16384).replace("\0", " ").strip()
    try:
        uid: Optional[int] = os.stat("/proc/%d" % pid).st_uid
    except OSError:
        uid = None
    return {
        "pid": pid,
        "parent": int(fields[1]),
        "state": fields[0],
        "uid": uid,
        "rss_bytes": int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        "cpu_seconds": (int(fields[11]) + int(fields[12])) / ticks,
        "started_seconds_after_boot": int(fields[19]) / ticks,
        "command": shorten(command or text[text.find("(") : text.rfind(")") + 1], MAX_COMMAND),
    }
