"""Asks the person at the terminal to approve a deploy."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployguard.cli.console import Console
    from deployguard.guards.base import Ask, Consent

__all__ = ["asking"]

#: How often it is looked whether somebody interrupts instead of answering, in seconds.
_GLANCE = 0.2


def asking(console: Console, stop: threading.Event) -> Ask | None:
    """A question to whoever sits there; ``None`` where nobody does.

    In a GitHub Actions job, and where another program reads the answer, there is nobody.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or console.workflow is not None:
        return None

    def ask(consent: Consent) -> bool:
        with console.paused():
            for line in consent.lines:
                console.say(line)
            console.say(
                f"type {consent.answer} to go on; anything else ends it, and nothing is touched",
                bold=True,
            )
            typed = _line(time.monotonic() + consent.deadline, stop)
        return typed is not None and typed.strip() == consent.answer

    return ask


def _line(until: float, stop: threading.Event) -> str | None:
    """The next line that is typed; ``None`` when nobody does in time, or somebody interrupts."""
    while not stop.is_set() and time.monotonic() < until:
        ready, _, _ = select.select([sys.stdin.fileno()], [], [], _GLANCE)
        if ready:
            # Not through the stream, which could hold a second line back from the next question.
            return os.read(sys.stdin.fileno(), 1024).decode("utf-8", "replace")
    return None
