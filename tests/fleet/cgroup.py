"""The control group a host runs in: what finds all its processes again, whoever started them.

A test run that was killed leaves containers behind and no record of their process ids. The kernel
keeps that record here, under the fleet's name. Each host also needs a group of its own because
its systemd takes over whatever group it finds itself in.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

TOP = "deployguard-fleet"


def _hierarchies() -> list[Path]:
    """The mounted trees systemd keeps processes in: the unified one, and its v1 stand-in."""
    found = []
    for line in _mounts():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(point))
    return found


def unified() -> bool:
    """Whether a container can be given the one hierarchy that current systemd versions want."""
    return any(line.split()[2] == "cgroup2" for line in _mounts())


def _mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


class Cgroup:
    """One group, by name, in every hierarchy that matters."""

    def __init__(self, *name: str) -> None:
        self.directories = [top.joinpath(TOP, *name) for top in _hierarchies()]

    def create(self) -> None:
        """Make the group, ready for the first process to join it."""
        for directory in self.directories:
            directory.mkdir(parents=True, exist_ok=True)

    def pids(self) -> set[int]:
        """Every process in the group or below it."""
        found: set[int] = set()
        for directory in self.directories:
            for path, _, _ in os.walk(directory):
                with suppress(OSError):  # a group may end between the listing and the reading
                    found.update(map(int, Path(path, "cgroup.procs").read_text().split()))
        return found - {0}  # v1 shows processes of a foreign pid namespace as 0

    def kill(self, deadline: float = 20.0) -> None:
        """SIGKILL until nothing is left, then remove the group."""
        end = time.monotonic() + deadline
        while pids := {pid for pid in self.pids() if not _is_zombie(pid)}:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                raise TimeoutError(f"processes {sorted(pids)} survive SIGKILL")
            time.sleep(0.005)
        self.remove()

    def remove(self, deadline: float = 2.0) -> None:
        """Remove the empty group; what is still held then stays for the next sweep."""
        end = time.monotonic() + deadline
        for directory in self.directories:
            while directory.exists() and time.monotonic() < end:
                for path, _, _ in os.walk(directory, topdown=False):
                    with suppress(OSError):  # busy until the last dead process is reaped
                        os.rmdir(path)
                if directory.exists():
                    time.sleep(0.01)


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}
