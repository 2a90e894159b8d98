"""A command at the other end of an SSH connection, as a :class:`Link`."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast

from deployguard.transport.base import Link

__all__ = ["Channel", "ChannelLink"]

#: What an OpenSSH server takes in one packet.
_SLICE = 32 * 1024 - 64
_BUFFER = 128 * 1024
_TICK = 0.5
_MOMENT = 1.0
_WORDS = 8 * 1024


class Channel(Protocol):
    """What of a paramiko channel is used here."""

    eof_received: bool
    closed: bool
    exit_status: int
    status_event: threading.Event

    def settimeout(self, timeout: float | None) -> None: ...
    def send(self, data: bytes) -> int: ...
    def recv(self, size: int) -> bytes: ...
    def recv_stderr_ready(self) -> bool: ...
    def recv_stderr(self, size: int) -> bytes: ...
    def shutdown_write(self) -> None: ...
    def close(self) -> None: ...


class ChannelLink(Link):
    """An SSH channel with a command as a link.

    ``broken`` are the errors by which a channel says that its socket is gone.
    """

    def __init__(
        self,
        channel: Channel,
        hang_up: Callable[[], None],
        broken: tuple[type[Exception], ...] = (EOFError,),
    ) -> None:
        self._channel = channel
        self._broken = broken
        self._hang_up = hang_up
        self._words = bytearray()
        self._until: float | None = None
        # One timeout serves both directions in paramiko, so it only ticks, and both look up then.
        channel.settimeout(_TICK)
        self.reader = cast(BinaryIO, io.BufferedReader(_Output(self), _BUFFER))

    def patience(self, seconds: float | None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds

    def write(self, data: bytes, timeout: float | None) -> None:
        until = None if timeout is None else time.monotonic() + timeout
        sent = 0
        while sent < len(data):
            try:
                count = self._channel.send(data[sent : sent + _SLICE])
            except TimeoutError:
                if until is not None and time.monotonic() > until:
                    raise
                continue
            except self._broken as error:
                raise BrokenPipeError(str(error) or "the connection is closed") from error
            if count == 0:
                raise BrokenPipeError("the connection is closed")
            sent += count

    def receive(self, size: int) -> bytes:
        """Bytes of standard output, keeping what comes on standard error meanwhile."""
        while True:
            self._listen()
            with contextlib.suppress(TimeoutError):
                return self._channel.recv(size)
            if self._until is not None and time.monotonic() > self._until:
                raise TimeoutError

    def finish(self) -> None:
        with contextlib.suppress(Exception):  # The connection may be gone, in many ways.
            self._channel.shutdown_write()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._channel.close()
        self._hang_up()

    def exit_status(self) -> int | None:
        ended = self._channel.eof_received or self._channel.closed
        if not self._channel.status_event.wait(_MOMENT if ended else 0):
            return None
        status = self._channel.exit_status
        return status if status >= 0 else None

    def last_words(self) -> str:
        self._listen()
        return self._words.decode("utf-8", "replace").strip()

    def _listen(self) -> None:
        while self._channel.recv_stderr_ready():
            self._words += self._channel.recv_stderr(_WORDS)
            del self._words[:-_WORDS]


class _Output(io.RawIOBase):
    def __init__(self, link: ChannelLink) -> None:
        self._link = link

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._link.receive(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
