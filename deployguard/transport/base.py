"""What a transport gives: a way to a host (:class:`Transport`) and the raw wire (:class:`Link`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from deployguard.plan.model import Host
    from deployguard.transport.payload import Program
    from deployguard.transport.session import Session

__all__ = ["Link", "Transport"]


class Transport(Protocol):
    """Starts the host program on one kind of host. Implementations hold no state a host."""

    def connect(self, host_name: str, host: Host, *, program: Program | None = None) -> Session:
        """A session with the host program, which has said hello.

        MUST raise :class:`~deployguard.errors.Unreachable`, and nothing else, when the way to the
        host or the start of the program fails, within ``host.connect_deadline`` for the way.
        ``program`` is the installed host program unless a test brings its own.
        """
        ...


class Link(Protocol):
    """The bytes to and from one running command. One thread reads while another writes."""

    #: The command's standard output. ``read`` blocks for ``patience``, and gives ``b""`` at the
    #: end; what arrives on standard error meanwhile is kept for :meth:`last_words`.
    reader: BinaryIO

    def patience(self, seconds: float | None) -> None:
        """How long a read waits before it raises ``TimeoutError``; ``None`` is for ever."""
        ...

    def write(self, data: bytes, timeout: float | None) -> None:
        """All of ``data`` to the command's standard input.

        MUST raise ``TimeoutError`` when the command does not take it in time, and ``OSError``
        when it is gone.
        """
        ...

    def finish(self) -> None:
        """End of the command's standard input. It may go on running. Never raises."""
        ...

    def close(self) -> None:
        """Give up both directions; a thread blocked in one of them comes back. Never raises."""
        ...

    def exit_status(self) -> int | None:
        """The exit status if the command ended, after waiting a moment for it."""
        ...

    def last_words(self) -> str:
        """The end of what the command wrote on standard error, at most a few KiB."""
        ...
