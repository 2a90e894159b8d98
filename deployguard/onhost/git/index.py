"""What the index of a checkout says, apart from what it remembers of the files.

Any ``git status``, of a person or of a shell prompt, may write the index anew: the same entries,
with fresh times. Such a one is not another state of the repository, and a restore that happens to
be watched has not failed. The format is in gitformat-index(5).
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import List, Optional, Tuple

_HEADER = struct.Struct(">4sII")
#: Of an entry: times, device, inode, mode, owner, size.
_MODE = struct.Struct(">I")
_MODE_AT, _STAT = 24, 40
_FLAGS = struct.Struct(">H")
_EXTENDED = 0x4000
#: What is known of it, and changes the meaning of the entries: those of another file.
_SPLIT = b"link"

Entry = Tuple[bytes, int, bytes, int]


def meaning(tree: str) -> str:
    """A digest of what the index at ``tree`` says; empty where it cannot be read."""
    try:
        descriptor = os.open(
            os.path.join(tree, ".git", "index"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        )
        with os.fdopen(descriptor, "rb") as file:
            data = file.read()
    except OSError:
        return ""
    found = entries(data)
    return "" if found is None else hashlib.sha256(repr(found).encode("ascii")).hexdigest()


def entries(data: bytes) -> Optional[List[Entry]]:
    """Path, mode, object and flags of each entry; ``None`` for a format that is not known."""
    for length in (20, 32):
        try:
            return _entries(data, length)
        except (struct.error, ValueError):
            continue
    return None


def _entries(data: bytes, length: int) -> List[Entry]:
    magic, version, count = _HEADER.unpack_from(data)
    if magic != b"DIRC" or version not in (2, 3, 4):
        raise ValueError("not an index of a known version")
    at = _HEADER.size
    found: List[Entry] = []
    path = b""
    for _ in range(count):
        start = at
        (mode,) = _MODE.unpack_from(data, start + _MODE_AT)
        name = data[start + _STAT : start + _STAT + length]
        (flags,) = _FLAGS.unpack_from(data, start + _STAT + length)
        at = start + _STAT + length + _FLAGS.size
        more = 0
        if flags & _EXTENDED:
            (more,) = _FLAGS.unpack_from(data, at)
            at += _FLAGS.size
        if version == 4:
            strip, at = _number(data, at)
            end = data.index(b"\0", at)
            path = path[: len(path) - strip] + data[at:end]
            at = end + 1
        else:
            end = data.index(b"\0", at)
            path = data[at:end]
            at = start + (end - start + 8) // 8 * 8
        if not path or (found and (path, flags & 0x3000) <= (found[-1][0], found[-1][3] & 0x3000)):
            raise ValueError("not in order: the object names have another length")
        found.append((path, mode, name, (flags & 0xF000) | more << 16))
    if data[at : at + 4] == _SPLIT or len(data) < at + length:
        raise ValueError("not the whole index")
    return found


def _number(data: bytes, at: int) -> Tuple[int, int]:
    """A number of variable length, as in an offset delta of a pack, and what follows it."""
    value = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        value = ((value + 1) << 7) | (data[at] & 0x7F)
    return value, at + 1
