"""A deadline for what is asked of a database, kept from outside.

A server that was frozen, or whose machine has lost its disk, accepts a question and never answers
it; its kernel still answers for it, so that no keepalive finds out. Whoever waits for it then is
woken by the end of the connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

__all__ = ["Watchdog"]

_GLANCE = 0.5


class Watchdog:
    """One for each connection's owner. ``seconds`` says how long an answer may take, now."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._changed = threading.Lock()
        self._since: float | None = None
        self._fileno = -1
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def over(self, fileno: int) -> Iterator[None]:
        """While something is asked over this socket, which the caller closes afterwards at most."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
            self._thread.start()
        with self._changed:
            self._since, self._fileno = time.monotonic(), fileno
        try:
            yield
        finally:
            with self._changed:
                self._since = None

    def end(self) -> None:
        """There is nothing to watch any more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(_GLANCE):
            with self._changed:
                if self._since is None or time.monotonic() - self._since < self._seconds():
                    continue
                self._since = None
                _cut(self._fileno)


def _cut(fileno: int) -> None:
    # The socket is the library's: this is a second name for it, and shuts what both mean.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fileno)) as same:
        same.shutdown(socket.SHUT_RDWR)
