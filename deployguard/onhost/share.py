"""One collector's share of bytes and seconds, and the one way its files are written."""

from __future__ import annotations

import os
from typing import Callable


class Share:
    """How much one collector may take. Loops ask :meth:`over` and end with what they have."""

    def __init__(self, max_bytes: int, ends: float, clock: Callable[[], float]) -> None:
        self.max_bytes = max_bytes
        self._ends = ends
        self._clock = clock

    def seconds(self) -> float:
        """What is left of the time."""
        return self._ends - self._clock()

    def over(self) -> bool:
        """Whether the time is up."""
        return self.seconds() <= 0


class UnsafeName(ValueError):
    """A name that would leave the folder."""


def write_file(directory: str, relative: str, data: bytes) -> int:
    """Write one file of the bundle, 0600 with folders 0700; returns its size.

    Never through a link and never out of ``directory``: :class:`UnsafeName`.
    """
    parts = relative.split("/")
    if not relative or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise UnsafeName("not a name in the bundle: %r" % relative)
    folder = directory
    for part in parts[:-1]:
        folder = os.path.join(folder, part)
        if os.path.islink(folder):
            raise UnsafeName("a link in the bundle: %r" % folder)
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(os.path.join(folder, parts[-1]), flags, 0o600), "wb") as stream:
        stream.write(data)
    return len(data)
