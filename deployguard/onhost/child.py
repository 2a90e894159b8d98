"""A program that runs, and the pipes to it: reading without being held up or flooded."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Optional

from deployguard.onhost.excerpts import Bounded

# How long to listen to a pipe that a daemon inherited after the program itself has ended.
_LINGER = 0.1
_POLL = 0.05
_SIGKILL = 9


def signal_group(pid: int, number: int) -> None:
    """Signal a process group; one that is gone, or not ours, is left alone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


class Child:
    """A running program and its pipes."""

    def __init__(
        self,
        process: Any,
        unsent: Optional[bytes],
        max_output: int,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        import selectors

        self._clock = clock
        self._sleep = sleep
        self._process = process
        self._selector = selectors.DefaultSelector()
        self._unsent = memoryview(unsent or b"")
        self._exit_seen: Optional[float] = None
        self.output = Bounded(max_output)
        self.errors = Bounded(max_output)
        for stream, sink in ((process.stdout, self.output), (process.stderr, self.errors)):
            if stream is None:
                continue  # it goes elsewhere
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ, sink)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, selectors.EVENT_WRITE, None)

    def pump(self, seconds: float) -> bool:
        """Move bytes until the program has ended and is drained (true), or time is up (false)."""
        until = self._clock() + seconds
        pause = 0.001
        while True:
            now = self._clock()
            if self._exit_seen is None and self._exited():
                self._exit_seen = now
            if self._exit_seen is not None and (
                not self._reading() or now >= self._exit_seen + _LINGER
            ):
                return True
            if now >= until:
                return False
            if self._selector.get_map():
                for key, _ in self._selector.select(min(until - now, _POLL)):
                    self._move(key)
            else:
                self._sleep(min(until - now, pause))
                pause = min(pause * 2, _POLL)

    def signal(self, number: int) -> None:
        """Signal the program and everything in its group."""
        # The leader is not reaped before close(), so its group id cannot belong to anyone else.
        signal_group(self._process.pid, number)

    def close(self) -> None:
        """Close the pipes and reap the program."""
        import subprocess

        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        # It may hang in an uninterruptible wait of the kernel; nobody can end that.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_POLL)

    def status(self) -> int:
        """The exit status; the negative signal number if one ended it."""
        code = self._process.returncode
        return -_SIGKILL if code is None else int(code)

    def _exited(self) -> bool:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self._process.pid, options) is not None
        except ChildProcessError:
            return True

    def _reading(self) -> bool:
        return any(key.data is not None for key in self._selector.get_map().values())

    def _move(self, key: Any) -> None:
        try:
            if key.data is None:
                self._unsent = self._unsent[os.write(key.fd, self._unsent[:65536]) :]
                ended = not self._unsent
            else:
                data = os.read(key.fd, 65536)
                key.data.add(data)
                ended = not data
        except BlockingIOError:
            return
        except OSError:
            ended = True  # the other end is closed
        if ended:
            self._selector.unregister(key.fileobj)
            key.fileobj.close()
