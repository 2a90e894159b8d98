"""Takes secrets out of everything that leaves the host for a file, a log or an issue.

First the secrets that are known, in every form they take (:mod:`deployguard.evidence.forms`), then
what looks like one (:mod:`deployguard.evidence.rules`). Each is replaced by a token such as
``[redacted:password:3f2a91]``: the digits are an HMAC of the secret under a key that is thrown
away, so that equal secrets can be seen to be equal and none can be guessed.

A stream is redacted in windows. A window is cut only where no match lies across the cut and where
every match before the cut is settled, so the pieces in which bytes arrive change nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from deployguard.evidence.forms import MIN_SECRET, forms
from deployguard.evidence.rules import is_harmless, is_sensitive_name
from deployguard.evidence.scan import CONTEXT, Scanner, Span, is_binary, runs, safe_cut
from deployguard.secret import Secret

__all__ = ["Redactor", "Stream"]

_UTF8 = ("utf-8", "surrogatepass")
_WINDOW = 256 * 1024
#: One chain of overlapping secrets longer than this becomes one token.
_MAX_CHAIN = 1024 * 1024


class Redactor:
    """Redacts texts, JSON data and streams. May be used from several threads.

    ``secrets`` are the known values; a :class:`~deployguard.secret.Secret` names its token after
    its origin. ``key`` makes the tokens comparable between redactors; without it they are not.
    """

    def __init__(
        self, secrets: Iterable[str | bytes | Secret] = (), *, key: bytes | None = None
    ) -> None:
        self._key = os.urandom(16) if key is None else key
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._too_short = 0
        self._forms: dict[bytes, tuple[str, bytes]] = {}
        for secret in secrets:
            self._learn(secret)
        self._scanner = Scanner(self._forms)

    def _learn(self, secret: str | bytes | Secret) -> None:
        label = "secret"
        if isinstance(secret, Secret):
            label = re.sub(r"[^a-z0-9]+", "-", secret.origin.lower()).strip("-")[:80] or label
            secret = secret.reveal()
        value = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
        if len(value) < MIN_SECRET:
            self._too_short += bool(value)
        for form in forms(value):
            self._forms.setdefault(form, (label, value))

    def text(self, text: str) -> str:
        """A text without secrets."""
        data = text.encode("utf-8", "surrogatepass")
        return self._whole(data, patterns=True).decode("utf-8", "surrogatepass")

    def content(self, data: bytes) -> bytes:
        """The content of a file without secrets; in a binary one only known secrets are found."""
        return self._whole(data, patterns=not is_binary(data))

    def data(self, value: Any, name: str = "") -> Any:
        """JSON data without secrets: every text in it, and whatever has a name like ``token``."""
        if isinstance(value, str):
            if name and is_sensitive_name(name) and not is_harmless(value.encode(*_UTF8)):
                return self.token("key", value.encode(*_UTF8)) if value else value
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.text(key) if isinstance(key, str) else key: self.data(
                    item, key if isinstance(key, str) else ""
                )
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.data(item, name) for item in value]
        return value

    def stream(self, *, text: bool | None = None) -> Stream:
        """For bytes that come in pieces. ``text`` says what it is; ``None`` finds out."""
        return Stream(self._scanner, self._replace, text)

    def token(self, label: str, secret: bytes) -> str:
        """What stands for a secret; counted in the report."""
        with self._lock:
            self._counts[label] += 1
        known = self._forms.get(secret)
        digest = hmac.new(self._key, known[1] if known else secret, hashlib.sha256).hexdigest()
        return f"[redacted:{label}:{digest[:6]}]"

    def report(self) -> dict[str, Any]:
        """How many were replaced, by label; and how many known values were too short to look
        for."""
        with self._lock:
            return {"replaced": dict(sorted(self._counts.items())), "too_short": self._too_short}

    def _whole(self, data: bytes, patterns: bool) -> bytes:
        return self._replace(data, 0, len(data), self._scanner.spans(data, 0, patterns=patterns))

    def _replace(self, data: bytes, start: int, end: int, spans: Iterable[Span]) -> bytes:
        """``data[start:end]`` with every run of overlapping spans replaced by one token."""
        pieces = []
        at = start
        for run in runs(spans):
            if run[0].start >= end:
                break
            best = min(run, key=lambda span: span.rank)
            pieces.append(data[at : run[0].start])
            pieces.append(self.token(best.label, best.secret).encode())
            at = max(span.end for span in run)
        pieces.append(data[at:end])
        return b"".join(pieces)


class Stream:
    """Redacts bytes that come in pieces: ``feed`` each, then ``finish``."""

    def __init__(
        self,
        scanner: Scanner,
        replace: Callable[[bytes, int, int, Iterable[Span]], bytes],
        text: bool | None,
    ) -> None:
        self._scanner = scanner
        self._replace = replace
        self._text = text
        self._buffer = b""
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._done = 0

    def feed(self, piece: bytes) -> bytes:
        """Take a piece; return what is settled by now, which may be nothing."""
        self._pieces.append(piece)
        self._waiting += len(piece)
        if self._waiting < _WINDOW:
            return b""
        self._gather()
        if len(self._buffer) - self._done < _WINDOW + self._scanner.overlap:
            return b""
        return self._drain(len(self._buffer) - self._scanner.overlap)

    def finish(self) -> bytes:
        """The rest."""
        self._gather()
        return self._drain(len(self._buffer))

    def _gather(self) -> None:
        self._buffer += b"".join(self._pieces)
        self._pieces, self._waiting = [], 0

    def _drain(self, settled: int) -> bytes:
        data = self._buffer
        if self._text is None:
            self._text = not is_binary(data)
        spans = self._scanner.spans(data, self._done, patterns=self._text)
        cut = settled if settled == len(data) else safe_cut(spans, settled)
        if cut <= self._done < len(data):
            if len(data) - self._done < _MAX_CHAIN:
                return b""
            # Nothing but overlapping secrets: more is taken away than there is, not less.
            cut = len(data)
            spans = [Span(self._done, cut, self._done, cut, "secret", b"", 0)]
        out = self._replace(data, self._done, cut, spans)
        kept = max(cut - CONTEXT, 0)
        self._buffer = data[kept:]
        self._done = cut - kept
        return out
