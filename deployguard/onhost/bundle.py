"""The evidence folder of a transaction: filled by the collectors, fetched as one gzip-compressed tar
stream."""

from __future__ import annotations

import os
import zlib
from typing import Any, Dict, Iterator, Tuple

from deployguard.onhost import evidence
from deployguard.onhost.participant import Participant
from deployguard.onhost.system import System

_GZIP = 31  # the window, and a gzip header around it


def collect(participant: Participant, system: System, args: Dict[str, Any]) -> Dict[str, Any]:
    """Run the collectors of one stage into the folder."""
    armed = participant.journal_record("armed")
    if armed is None:
        return {"collected": []}
    results = evidence.collect(
        armed["collectors"],
        os.path.join(participant.folder, "evidence"),
        system,
        marks=armed["marks"],
        stage=args["stage"],
        max_bytes=int(args["max_bytes"]),
        max_seconds=float(args["max_seconds"]),
    )
    return {"collected": results}


def fetch(participant: Participant) -> Tuple[Dict[str, Any], Iterator[bytes]]:
    """The folder as a gzip-compressed tar, in pieces."""
    return {}, _tar(os.path.join(participant.folder, "evidence"))


def _tar(folder: str) -> Iterator[bytes]:
    import tarfile

    sink: Any = _Pieces()  # tarfile asks for less than its annotations say
    with tarfile.open(mode="w|", fileobj=sink) as tar:
        for base, directories, names in os.walk(folder):
            directories.sort()
            for name in sorted(names):
                path = os.path.join(base, name)
                tar.add(path, os.path.relpath(path, folder), recursive=False)
                yield from sink.take()
    yield from sink.take(last=True)


class _Pieces:
    """A write-only file that hands on what was written, gzip-compressed, in small pieces."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += self._packer.compress(data)
        return len(data)

    def take(self, last: bool = False) -> Iterator[bytes]:
        """What is ready; with ``last`` everything."""
        if last:
            self._data += self._packer.flush()
        for start in range(0, len(self._data), 65536):
            yield bytes(self._data[start : start + 65536])
        self._data.clear()
