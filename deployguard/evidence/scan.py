"""Finds secrets in bytes: where they are, and where the bytes may be cut without tearing one."""

from __future__ import annotations

import bisect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from deployguard.evidence.rules import MAX_WIDTH, RULES

__all__ = ["CONTEXT", "Scanner", "Span", "is_binary", "runs", "safe_cut"]

#: What an expression may look back at.
CONTEXT = 64
#: A file with a NUL in its first bytes is binary: patterns mean nothing in it.
BINARY_PROBE = 8 * 1024
_TOKEN = re.compile(rb"\[redacted:[a-z0-9-]{1,80}:[0-9a-f]{6}\]")


@dataclass(frozen=True)
class Span:
    """Bytes ``start`` to ``end`` hold ``secret``; the match reached from ``left`` to ``right``.

    ``rank`` decides which of several overlapping ones names the token. A match that turned out
    harmless has no ``label``: it hides nothing, but must not be cut either, or what stands in it
    would be read differently by the next window.
    """

    start: int
    end: int
    left: int
    right: int
    label: str
    secret: bytes
    rank: int


class Scanner:
    """Looks for known secrets, given as form to (label, secret), and for what looks like one."""

    def __init__(self, known: Mapping[bytes, tuple[str, bytes]]) -> None:
        self._known = known
        #: A match that begins this far from the end of a window lies in it completely.
        self.overlap = max(MAX_WIDTH, max(map(len, known), default=0)) + CONTEXT

    def spans(self, data: bytes, start: int, *, patterns: bool) -> list[Span]:
        """Every match from ``start`` on, ordered by where it starts."""
        found: list[Span] = []
        for form in self._known:
            found += self._occurrences(form, data, start)
        if patterns:
            found += _matches(data, start)
        return sorted(found, key=lambda span: (span.start, span.end))

    def _occurrences(self, form: bytes, data: bytes, start: int) -> Iterator[Span]:
        """Where the form occurs; occurrences that overlap are one span."""
        label, secret = self._known[form]
        at = data.find(form, start)
        while at >= 0:
            first, end = at, at + len(form)
            at = data.find(form, at + 1)
            while 0 <= at < end:
                end = at + len(form)
                at = data.find(form, at + 1)
            # Known ones name the token before any rule does, the longest first.
            yield Span(first, end, first, end, label, secret, -len(secret))


def _matches(data: bytes, start: int) -> Iterator[Span]:
    lowered = data.lower()
    tokens = [match.span() for match in _TOKEN.finditer(data, start)]
    for first, last in tokens:
        yield Span(first, last, first, last, "", b"", 0)
    for rank, rule in enumerate(RULES):
        if not any(lowered.find(keyword, start) >= 0 for keyword in rule.keywords):
            continue
        for match in rule.expression.finditer(lowered if rule.lowered else data, start):
            at, end = match.span(match.lastindex or 0)
            secret = data[at:end]
            harmless = rule.skip(secret) or _within(tokens, match.start()) or _within(tokens, at)
            label = "" if harmless else rule.name
            yield Span(at, end, match.start(), match.end(), label, secret, rank)


def _within(tokens: list[tuple[int, int]], at: int) -> bool:
    """Whether ``at`` lies in what an earlier redaction has put there."""
    index = bisect.bisect_right(tokens, (at, sys.maxsize)) - 1
    return index >= 0 and at < tokens[index][1]


def runs(spans: Iterable[Span]) -> Iterator[list[Span]]:
    """The spans that hide something, in runs that overlap; they come ordered by start."""
    run: list[Span] = []
    reach = 0
    for span in spans:
        if not span.label:
            continue
        if run and span.start >= reach:
            yield run
            run = []
        reach = max(reach, span.end) if run else span.end
        run.append(span)
    if run:
        yield run


def safe_cut(spans: Iterable[Span], settled: int) -> int:
    """The last place up to ``settled`` that no match reaches across."""
    cut = settled
    moved = True
    while moved:
        moved = False
        for span in spans:
            if span.left < cut < span.right:
                cut = span.left
                moved = True
    return cut


def is_binary(data: bytes) -> bool:
    """Whether the content that starts like this is no text."""
    return b"\0" in data[:BINARY_PROBE]
