"""What is to outlive a unit of ours gets a scope of its own.

A dead-man runs as a unit of systemd, and what it starts again would stay in the control group of
that unit: the unit could not go before it, and whoever stopped the unit would stop it too.
"""

from __future__ import annotations

import os
import sys
from typing import Any, List, Optional, Sequence

SYSTEMD_RUN = ("/usr/bin/systemd-run", "/bin/systemd-run")
_TIMEOUT = 20.0

#: systemd-run has an option for the user, which leaves him the groups of root.
_BECOME = (
    "import os,sys;a=sys.argv;os.setgroups([int(g)for g in a[3].split(',')]);"
    "os.setgid(int(a[2]));os.setuid(int(a[1]));os.execvp(a[4],a[4:])"
)

#: Whether this process needs scopes and gets them, once that is known.
_of_use: Optional[bool] = None


def own_cgroup() -> str:
    """What the kernel says of the control groups of this process; empty where it has none."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def wrapped(argv: Sequence[str], user: Optional[str], system: Any) -> Optional[List[str]]:
    """The command that runs ``argv`` as ``user`` in a scope of its own, started as root.

    ``None`` where that is not needed, or not to be had. The process keeps its pid.
    """
    global _of_use
    if _of_use is None:
        _of_use = _is_of_use(system)
    if not _of_use:
        return None
    name = os.path.basename(argv[0])
    start = [*_start(), "--description=%s, started again by deployguard" % name]
    if user is None:
        return [*start, "--", *argv]
    import pwd

    entry = pwd.getpwnam(user)
    groups = ",".join(map(str, os.getgrouplist(user, entry.pw_gid)))
    become = [sys.executable or "/usr/bin/python3", "-I", "-S", "-c", _BECOME]
    return [*start, "--", *become, str(entry.pw_uid), str(entry.pw_gid), groups, *argv]


def _is_of_use(system: Any) -> bool:
    if os.geteuid() != 0 or "/deployguard-" not in own_cgroup() or not _start():
        return False
    return bool(system.run([*_start(), "--", "true"], timeout=_TIMEOUT).ok)


def _start() -> List[str]:
    for program in SYSTEMD_RUN:
        if os.access(program, os.X_OK):
            return [program, "--scope", "--quiet", "--collect"]
    return []
