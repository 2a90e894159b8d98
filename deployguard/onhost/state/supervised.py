"""A program without a process manager: known by its pid file, which names the very process."""

from __future__ import annotations

import json
import os
import signal as signals
from typing import Any, Dict, Optional

from deployguard.onhost.system import System


class StillAlive(Exception):
    """The program does not die, even of SIGKILL."""


def running(pid_file: str, system: System) -> Optional[int]:
    """The pid of the supervised program, if the very process of the pid file is alive."""
    try:
        with open(pid_file, "rb") as file:
            identity = json.loads(file.read())
        pid = int(identity["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    start_time = system.process_start_time(pid)
    # A program that ended before its start time could be read has none on record either.
    if start_time is None or start_time != identity.get("start_time"):
        return None
    return pid


def terminate(action: Dict[str, Any], system: System) -> None:
    """Stop the supervised program: the plan's signal, then SIGKILL when its time is over."""
    pid_file = action["pid_file"]
    pid = running(pid_file, system)
    if pid is not None:
        number = int(getattr(signals, "SIG" + action.get("signal", "TERM")))
        deadline = system.monotonic() + float(action.get("timeout", 10.0))
        _signal_group(pid, number)
        while running(pid_file, system) is not None:
            if system.monotonic() > deadline:
                _signal_group(pid, signals.SIGKILL)
                deadline = system.monotonic() + 5.0
                while running(pid_file, system) is not None:
                    if system.monotonic() > deadline:
                        raise StillAlive("process %d does not die, even of SIGKILL" % pid)
                    system.sleep(0.01)
                break
            system.sleep(0.01)
    try:
        os.unlink(pid_file)
    except FileNotFoundError:
        pass


def _signal_group(pid: int, number: int) -> None:
    """Signal the program and its children; it leads a process group of its own."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
