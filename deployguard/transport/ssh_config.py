"""The text of the user's ssh_config, with ``Include`` followed, which paramiko's parser ignores."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

__all__ = ["PORT", "USER", "config_files", "read_config"]

_INCLUDE = re.compile(r"^\s*include(?:\s*=\s*|\s+)(?P<patterns>.+)$", re.IGNORECASE)
_SECTION = re.compile(r"^\s*(host|match)\b", re.IGNORECASE)
_PROXY = re.compile(r"^\s*proxycommand\b", re.IGNORECASE)
#: Stand for ``%p`` and ``%r`` of a ProxyCommand: only who connects knows what the plan says.
PORT, USER = "{deployguard-port}", "{deployguard-user}"
#: As in OpenSSH.
_DEPTH = 16


def config_files(given: str | None) -> list[Path]:
    """The given file alone, as with ``ssh -F``, or the user's and the system's."""
    if given is not None:
        return [Path(given).expanduser()]
    return [Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config")]


def read_config(path: Path, depth: int = 0) -> str:
    """The text of ``path`` with the files it includes in place."""
    lines: list[str] = []
    section = "Host *"
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        found = _INCLUDE.match(line)
        if found is None:
            if _SECTION.match(line):
                section = line
            if _PROXY.match(line):
                line = line.replace("%p", PORT).replace("%r", USER)
            lines.append(line)
        elif depth < _DEPTH:
            for included in _included(path, found["patterns"]):
                # An included file begins in the section it is included from, and what follows
                # the Include is in that section again.
                lines += [read_config(included, depth + 1), section]
    return "\n".join(lines) + "\n"


def _included(path: Path, patterns: str) -> list[Path]:
    base = Path("/etc/ssh") if path.is_relative_to("/etc/ssh") else Path("~/.ssh").expanduser()
    found: list[Path] = []
    for pattern in patterns.replace('"', "").split():
        whole = os.path.join(base, os.path.expanduser(pattern))
        found += [Path(name) for name in sorted(glob.glob(whole)) if os.access(name, os.R_OK)]
    return found
