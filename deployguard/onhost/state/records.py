"""Journal records: one JSON object a line, each line with a checksum of its own.

A line is ``CRC32 JSON``, the checksum in eight hex digits over the bytes of the JSON. A crash may
leave the last write torn, in any of its parts; :func:`parse` drops a torn tail and refuses damage
anywhere before it, because a record in the middle that cannot be read may be the one that matters.
A record that was written together with earlier ones names the first of them: ``first``.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Dict, List, Tuple

Record = Dict[str, Any]


class JournalDamaged(Exception):
    """A record before the last one does not match its checksum."""


def encode(record: Record) -> bytes:
    """The record as one line."""
    body = json.dumps(record, separators=(",", ":"), sort_keys=True).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parse(data: bytes) -> Tuple[List[Record], int]:
    """All whole records, and how many bytes of ``data`` they fill.

    What stands after the last whole record is a torn tail and is to be cut off before anything is
    appended. Raises :class:`JournalDamaged` if a damaged line is followed by a whole one of a later
    write.
    """
    records: List[Record] = []
    good = 0
    start = 0
    damaged_at = -1
    while start < len(data):
        end = data.find(b"\n", start)
        if end < 0:
            break
        record = _decode(data[start:end])
        if record is None:
            if damaged_at < 0:
                damaged_at = len(records)
        elif damaged_at >= 0:
            if record.get("first", damaged_at + 1) <= damaged_at:
                # Of one write with what is damaged, which a power cut left half done.
                start = end + 1
                continue
            raise JournalDamaged("record %d does not match its checksum" % (damaged_at + 1))
        else:
            records.append(record)
            good = end + 1
        start = end + 1
    return records, good


def _decode(line: bytes) -> Any:
    if len(line) < 11 or line[8:9] != b" ":
        return None
    body = line[9:]
    try:
        if line[:8] != b"%08x" % zlib.crc32(body):
            return None
        record = json.loads(body)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
