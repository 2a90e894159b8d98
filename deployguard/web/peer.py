"""Whose program is at the other end of a connection over loopback.

A port on localhost is open to every user of the machine, while the journal and the evidence are for
one user alone. The kernel knows who owns the other end: ``/proc/net/tcp`` has the user id of each
socket.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from pathlib import Path

__all__ = ["is_ours", "owner_of"]

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def is_ours(client: tuple[str, int] | None, server: tuple[str, int] | None) -> bool:
    """Whether a connection comes from this user, or from root, who may read everything anyway."""
    if client is None or server is None:
        return False
    try:
        return owner_of(client, server) in (os.getuid(), 0)
    except ValueError:
        return False


def owner_of(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """The user id of the socket that connected from ``client`` to ``server``."""
    wanted = (_spelt(client), _spelt(server))
    for table in _TABLES:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if (fields[1], fields[2]) == wanted:
                return int(fields[7])
    return None


def _spelt(end: tuple[str, int]) -> str:
    """``0100007F:1F90``: the words of the address in the machine's order, then the port."""
    address = ipaddress.ip_address(end[0])
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = socket.inet_pton(family, str(address))
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
