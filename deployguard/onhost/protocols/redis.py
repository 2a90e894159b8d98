"""RESP, the protocol of Redis (and Valkey, KeyDB, Dragonfly), as far as a check needs it."""

from __future__ import annotations

from typing import List, Optional, Sequence, Union

from deployguard.onhost.protocols.wire import MAX_MESSAGE, Denied, Garbled, Unsupported, Wire

#: Of an answer, all its lists together.
MAX_ITEMS = 1000
MAX_DEPTH = 8
_MAX_LINE = 16 * 1024

Answer = Union[None, int, str, List["Answer"]]


def ask(wire: Wire, words: Sequence[str]) -> Answer:
    """Run one command. Raises :class:`Denied` when the server says no."""
    pieces = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word.encode("utf-8", "surrogatepass")
        pieces.append(b"$%d\r\n%s\r\n" % (len(data), data))
    wire.send(b"".join(pieces))
    return _Reading(wire).answer(0)


class _Reading:
    """One answer while it is read; what it holds is counted over all its lists."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._items = 0

    def answer(self, depth: int) -> Answer:
        self._items += 1
        if self._items > MAX_ITEMS or depth > MAX_DEPTH:
            raise Unsupported("the command gives more than a check can compare")
        line = self._wire.line(_MAX_LINE)
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return _shown(rest)
        if kind == b"-":
            return self._refused(_shown(rest), depth)
        if kind == b":":
            return _number(rest)
        if kind == b"$":
            return self._bulk(_number(rest))
        if kind == b"*":
            count = _number(rest)
            if count > MAX_ITEMS:
                raise Unsupported("the command gives more than a check can compare")
            return None if count < 0 else [self.answer(depth + 1) for _ in range(count)]
        raise Garbled("it answers %r" % _shown(line[:40]))

    def _refused(self, text: str, depth: int) -> Optional[str]:
        if depth:
            return text  # one item of a list; the others are fine
        code, _, message = text.partition(" ")
        # The first word is a code only where it is written as one.
        known = code.isupper() and code.isalpha()
        raise Denied(code if known else "", message if known and message else text)

    def _bulk(self, length: int) -> Optional[str]:
        if length < 0:
            return None
        if length > MAX_MESSAGE:
            raise self._wire.too_much("it announces an answer of %d bytes" % length)
        data = self._wire.exactly(length + 2)
        if data[-2:] != b"\r\n":
            raise Garbled("its answer does not end where it says")
        return _shown(data[:-2])


def _number(text: bytes) -> int:
    digits = text[1:] if text[:1] in (b"-", b"+") else text
    if not digits.isdigit() or len(digits) > 20:
        raise Garbled("it sends %r for a number" % _shown(text[:40]))
    return int(text)


def _shown(data: bytes) -> str:
    return data.decode("utf-8", "replace")
