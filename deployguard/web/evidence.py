"""A file of a forensics folder, and no other file of this machine.

The folder's name is from the journal, which several machines may share, so it has to be a folder
of forensics of that very transaction before anything in it is read. A name leads to a regular file
in it, over folders only: a link, ``..`` or an absolute name leads nowhere.
"""

from __future__ import annotations

import json
from pathlib import Path

from deployguard.evidence.layout import METADATA
from deployguard.evidence.seal import SUMS

__all__ = ["confined"]

_MOST_BYTES = 64 << 20


def confined(folder: str | None, transaction: str, name: str) -> Path | None:
    """Where a file of a transaction's evidence is; ``None`` for whatever is none."""
    if not folder or not name or "\0" in name:
        return None
    try:
        base = Path(folder).resolve(strict=True)
        if not _is_of(base, transaction):
            return None
        wanted = base / name
        # What is the same after every link was followed had no link, and no `..`, on its way.
        if wanted.resolve(strict=True) != wanted or not wanted.is_relative_to(base):
            return None
        return wanted if wanted.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _is_of(base: Path, transaction: str) -> bool:
    metadata = base / METADATA
    if not (base / SUMS).is_file() or metadata.stat().st_size > _MOST_BYTES:
        return False
    data = json.loads(metadata.read_bytes())
    return isinstance(data, dict) and data.get("transaction") == transaction
