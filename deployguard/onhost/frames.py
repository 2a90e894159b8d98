"""Frames on a byte stream: the one encoding both ends share.

A frame is a kind byte, a big-endian length and the payload; ``docs/protocol.md`` has the table.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any, BinaryIO, Dict, Optional, Tuple

MAX_PAYLOAD = 16 * 1024 * 1024
PIECE = 64 * 1024
COMPRESS_FROM = 4096

_HEADER = struct.Struct(">cI")

Message = Dict[str, Any]


class FrameError(Exception):
    """The bytes on the wire are not a frame; the connection cannot be used any further."""


def encode(message: Message) -> bytes:
    """One JSON message as a frame, compressed when that is worth it."""
    payload = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(payload) >= COMPRESS_FROM:
        return _frame(b"z", zlib.compress(payload, 1))
    return _frame(b"j", payload)


def encode_piece(piece: bytes) -> bytes:
    """One piece of a byte stream; the empty piece ends the stream."""
    return _frame(b"b", piece)


def _frame(kind: bytes, payload: bytes) -> bytes:
    if len(payload) > MAX_PAYLOAD:
        raise FrameError("a payload of %d bytes is over the limit" % len(payload))
    return _HEADER.pack(kind, len(payload)) + payload


def read_frame(stream: BinaryIO) -> Optional[Tuple[bytes, bytes]]:
    """The next (kind, payload), or ``None`` at the end of the stream.

    An end inside a frame is an end as well: whoever wrote it is gone.
    """
    header = _read_exactly(stream, _HEADER.size)
    if header is None:
        return None
    kind, length = _HEADER.unpack(header)
    if kind not in (b"j", b"z", b"b") or length > MAX_PAYLOAD:
        raise FrameError("not a frame: %r" % header)
    payload = _read_exactly(stream, length)
    return None if payload is None else (kind, payload)


def decode(kind: bytes, payload: bytes) -> Message:
    """The JSON message of a ``j`` or ``z`` frame.

    Raises :class:`FrameError` when it is neither, or not a JSON object.
    """
    try:
        if kind == b"z":
            unpacker = zlib.decompressobj()
            payload = unpacker.decompress(payload, 16 * MAX_PAYLOAD)
            if unpacker.unconsumed_tail:
                raise FrameError("a compressed message is over the limit")
        elif kind != b"j":
            raise FrameError("a piece of bytes where a message was expected")
        message = json.loads(payload)
    except (ValueError, zlib.error) as error:
        raise FrameError("not a message: %s" % error) from error
    if not isinstance(message, dict):
        raise FrameError("a message must be a JSON object")
    return message


def _read_exactly(stream: BinaryIO, count: int) -> Optional[bytes]:
    pieces = []
    while count > 0:
        piece = stream.read(count)
        if not piece:
            return None
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
