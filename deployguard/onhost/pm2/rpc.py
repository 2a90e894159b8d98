"""Asks the PM2 daemon over its own socket, as PM2's command line does.

``pm2 jlist`` would start a daemon where none runs, costs the start of a node for every look, and
prints notices in front of its JSON. The socket does none of that: a refused connection says that no
daemon runs.

A message is AMP: one byte (version 1 in the upper half, the number of arguments in the lower), then
each argument as a 4-byte length and its bytes, ``j:`` before JSON and ``s:`` before text. A call is
``{"type": "call", "method", "args"}`` and an id; the answer is ``{"args": […]}`` or ``{"error"}``
and the id.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Callable, List, Optional, Tuple

_VERSION = 1
_ID = b"s:deployguard:0"
#: A process list holds every environment once; this is a thousand large ones.
_MAX_BYTES = 64 * 1024 * 1024


class NotRunning(Exception):
    """No daemon listens at the socket."""


class NotUnderstood(Exception):
    """What came back is no answer."""


def call(
    path: str, method: str, args: List[Any], timeout: float, clock: Callable[[], float]
) -> List[Any]:
    """The values that ``method`` answers. ``path`` is the socket, ``timeout`` in seconds.

    Raises :class:`NotRunning`, :class:`NotUnderstood`, :class:`PermissionError`, and
    :class:`socket.timeout` (another :class:`OSError`) when there is no answer in time.
    """
    ends = clock() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NotRunning(path) from error
        request = {"type": "call", "method": method, "args": args}
        connection.sendall(encode([b"j:" + json.dumps(request).encode("ascii"), _ID]))
        received = bytearray()
        while True:
            found = decode(received)
            if found is not None:
                return _values(found)
            left = ends - clock()
            if left <= 0:
                raise socket.timeout("no answer within %g s" % timeout)
            connection.settimeout(left)
            piece = connection.recv(65536)
            if not piece:
                raise NotUnderstood("the connection ended in the middle of an answer")
            received += piece
            if len(received) > _MAX_BYTES:
                raise NotUnderstood("the answer does not end")


def encode(arguments: List[bytes]) -> bytes:
    """One message."""
    head = bytes([_VERSION << 4 | len(arguments)])
    return head + b"".join(struct.pack(">I", len(data)) + data for data in arguments)


def decode(data: bytearray) -> Optional[List[bytes]]:
    """The arguments of the first message, or ``None`` while it is not whole."""
    if not data:
        return None
    if data[0] >> 4 != _VERSION:
        raise NotUnderstood("it does not speak PM2's protocol")
    arguments: List[bytes] = []
    at = 1
    for _ in range(data[0] & 15):
        piece = _argument(data, at)
        if piece is None:
            return None
        argument, at = piece
        arguments.append(argument)
    return arguments


def _argument(data: bytearray, at: int) -> Optional[Tuple[bytes, int]]:
    if len(data) < at + 4:
        return None
    (length,) = struct.unpack_from(">I", data, at)
    ends = at + 4 + length
    return (bytes(data[at + 4 : ends]), ends) if len(data) >= ends else None


def _values(arguments: List[bytes]) -> List[Any]:
    if not arguments or not arguments[0].startswith(b"j:"):
        raise NotUnderstood("the answer is no JSON")
    try:
        answer = json.loads(arguments[0][2:])
    except ValueError as error:
        raise NotUnderstood("the answer is no JSON: %s" % error) from error
    if not isinstance(answer, dict) or "error" in answer:
        reason = answer.get("error") if isinstance(answer, dict) else answer
        raise NotUnderstood("PM2 answers: %s" % reason)
    values = answer.get("args")
    if not isinstance(values, list):
        raise NotUnderstood("the answer has no values")
    return values
