"""The socket that the pages are served on: loopback, and nothing else."""

from __future__ import annotations

import socket

__all__ = ["listen"]


def listen(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1. Raises ``OSError``."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", port))
        made.listen(64)
    except BaseException:
        made.close()
        raise
    return made
