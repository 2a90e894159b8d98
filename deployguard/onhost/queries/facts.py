"""What the host is, in the first frame: enough for drivers, doctor and the incident."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any, Dict

from deployguard.onhost.places import State
from deployguard.onhost.system import System
from deployguard.onhost.trees import space


def facts(state: State, system: System) -> Dict[str, Any]:
    """Plain facts, none of them secret; sizes in bytes, times in UTC seconds."""
    free = space.free(state.root)
    return {
        "protocol": 1,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "hostname": platform.node(),
        "kernel": platform.release(),
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "state": state.root,
        "boot_id": system.boot_id(),
        "systemd": os.path.isdir("/run/systemd/system"),
        "free_bytes": free.bytes,
        "free_inodes": free.inodes,
        "now": system.now(),
        "pid": os.getpid(),
    }
