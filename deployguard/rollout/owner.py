"""Who runs this: for locks, and for what people do to incidents."""

from __future__ import annotations

import getpass
import os
import socket

__all__ = ["owner_name"]


def owner_name() -> str:
    """Who runs this, for locks: ``user@machine``, with the CI run where there is one."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    owner = f"{user}@{socket.gethostname()}"
    run = os.environ.get("GITHUB_RUN_ID")
    if run:
        owner += f" (GitHub run {run} of {os.environ.get('GITHUB_REPOSITORY', '')})"
    return owner
