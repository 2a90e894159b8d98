"""Shortening without tearing a secret in two.

Half a password is not recognised by the redactor, which looks for whole ones. So a stream is cut
between lines and a text between words, wherever there is such a place.
"""

from __future__ import annotations

import re

_BREAK = re.compile(r"[\s,;&\"'<>{}()\[\]]")
_GAP = "\n[... %d bytes left out ...]\n"


class Bounded:
    """The first and the last half of a stream that may be endless."""

    def __init__(self, limit: int) -> None:
        self._half = max(limit // 2, 1)
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        self.total += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    @property
    def truncated(self) -> bool:
        """Whether something of the stream is not kept."""
        return self.total > 2 * self._half

    def value(self) -> bytes:
        """What was kept, with a line in the gap that says how much was not."""
        if not self.truncated:
            return bytes(self._head + self._tail)
        head, tail = bytes(self._head), bytes(self._tail[-self._half :])
        head = head[: head.rfind(b"\n") + 1] or head
        tail = tail[tail.find(b"\n") + 1 :] or tail
        left_out = self.total - len(head) - len(tail)
        return head.rstrip(b"\n") + (_GAP % left_out).encode("ascii") + tail


def bounded(data: bytes, limit: int) -> bytes:
    """The first and the last half of ``data`` if it is longer than ``limit``."""
    keeper = Bounded(limit)
    keeper.add(data)
    return keeper.value()


def shorten(text: str, limit: int) -> str:
    """The start of a text, cut between words; without such a place, not even the start."""
    if len(text) <= limit:
        return text
    breaks = [match.start() for match in _BREAK.finditer(text, 0, limit)]
    return (text[: breaks[-1]] if breaks else "") + " ..."


def last_line(text: str, limit: int) -> str:
    """The last line that says something, shortened."""
    lines = text.strip().splitlines()
    return shorten(lines[-1].strip(), limit) if lines else ""
