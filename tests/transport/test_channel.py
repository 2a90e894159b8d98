"""An SSH channel as a link, where paramiko's own words for a lost connection come through."""

from __future__ import annotations

import threading

import paramiko
import pytest

from deployguard.transport.channel import ChannelLink


class Broken:
    """A channel whose socket is gone; a real one says so only when it loses a race."""

    eof_received = closed = False
    exit_status = -1

    def __init__(self, error: Exception) -> None:
        self.status_event = threading.Event()
        self._error = error

    def settimeout(self, timeout: float | None) -> None:
        """Taken as it is."""

    def send(self, data: bytes) -> int:
        """Always fails."""
        raise self._error

    def recv(self, size: int) -> bytes:
        """The end."""
        return b""

    def recv_stderr_ready(self) -> bool:
        """Nothing to hear."""
        return False

    def recv_stderr(self, size: int) -> bytes:
        """Nothing to hear."""
        return b""

    def shutdown_write(self) -> None:
        """Nothing to shut."""

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(
    "error", [EOFError(), paramiko.SSHException("Key-exchange timed out"), OSError("closed")]
)
def test_a_socket_that_is_gone_is_an_os_error(error: Exception) -> None:
    """The session turns it into a lost connection, and a deploy counts the host as failed."""
    link = ChannelLink(Broken(error), lambda: None, (EOFError, paramiko.SSHException))
    with pytest.raises(OSError):
        link.write(b"x", 1.0)
