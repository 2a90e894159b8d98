"""Signals during a deploy: the first hands over to the hosts, a second gives up at once.

GitHub Actions cancels with SIGINT, 7.5 s later SIGTERM, 2.5 s later SIGKILL. A restore does not
fit into that, so an interrupted run does not try one: the hosts hold the whole undo and restore
themselves, and the exit code says so.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from deployguard.errors import ExitCode

__all__ = ["handing_over"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: A closing terminal sends several at once; those count as one.
_SAME_MOMENT = 1.0


@contextmanager
def handing_over(
    last_words: Callable[[], None] = lambda: None, plan: str = "PLAN"
) -> Iterator[threading.Event]:
    """An event that the first signal sets. ``last_words`` runs before a second one ends it all.

    ``plan`` is how a command line names the plan.
    """
    stop = threading.Event()
    first_at = 0.0

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal first_at
        if not stop.is_set():
            first_at = time.monotonic()
            stop.set()
            _say(f"{signal.Signals(number).name}: handing over to the hosts; once more to quit now")
        elif time.monotonic() - first_at > _SAME_MOMENT:
            _say(f"quit; the hosts restore themselves. Run `deployguard recover {plan}`")
            last_words()
            # Threads may be waiting for a network that is gone: nothing is joined.
            os._exit(int(ExitCode.INTERRUPTED))

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    # Not through a stream: the signal may have come in the middle of writing to it.
    os.write(2, f"\ndeployguard: {text}\n".encode())
