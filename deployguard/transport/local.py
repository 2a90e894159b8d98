"""The host is this machine: the same program and the same frames, without a network."""

from __future__ import annotations

import contextlib
import io
import os
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO, cast

from deployguard.errors import Unreachable
from deployguard.plan.model import Host
from deployguard.transport import payload
from deployguard.transport.base import Link, Transport
from deployguard.transport.launch import PYTHON_HINT, greet
from deployguard.transport.session import Session

__all__ = ["LocalTransport", "ProcessLink"]

_WORDS = 8 * 1024
_MOMENT = 1.0


class LocalTransport(Transport):
    """Runs the host program as a child that outlives us if it must."""

    def connect(
        self, host_name: str, host: Host, *, program: payload.Program | None = None
    ) -> Session:
        program = program or payload.host_program()
        bootstrap = program.bootstrap(host.state_directory)
        become = host.become and os.geteuid() != 0
        argv = payload.command(host.python, bootstrap, become=become)
        if become and shutil.which("sudo") is None:
            raise Unreachable(host_name, "there is no sudo", hint="install sudo, or run as root")
        try:
            link = ProcessLink(argv)
        except OSError as error:
            reason = f"{argv[0]} could not be run: {error}"
            raise Unreachable(host_name, reason, hint=PYTHON_HINT) from None
        return greet(host_name, host, link, program, bootstrap)


class ProcessLink(Link):
    """A child process as a link.

    Sockets instead of pipes, because a thread that is blocked in writing to a pipe cannot be
    called back. A session of its own, because Ctrl-C at the terminal is meant for us: the program
    must stay to restore the host.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._input, child_input = socket.socketpair()
        self._output, child_output = socket.socketpair()
        self._errors, child_errors = socket.socketpair()
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                argv,
                stdin=child_input.fileno(),
                stdout=child_output.fileno(),
                stderr=child_errors.fileno(),
                start_new_session=True,
                cwd="/",
            )
        except OSError:
            self._shut()
            raise
        finally:
            for end in (child_input, child_output, child_errors):
                end.close()
        self._errors.setblocking(False)
        self._words = bytearray()
        self._words_ended = False
        self._words_lock = threading.Lock()
        self._leaving = False
        self._closed = False
        self._patience: float | None = None
        self.reader = cast(BinaryIO, io.BufferedReader(_Output(self), 128 * 1024))

    def patience(self, seconds: float | None) -> None:
        self._patience = seconds

    def write(self, data: bytes, timeout: float | None) -> None:
        # Zero would mean "do not block", which is another thing than "no time is left".
        self._input.settimeout(None if timeout is None else max(timeout, 0.001))
        try:
            self._input.sendall(data)
        except ConnectionError:
            self._leaving = True
            raise

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            self._input.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for end in (self._input, self._output, self._errors):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        # It may have much to do yet; somebody must take its exit status all the same.
        threading.Thread(target=self._reap, name="deployguard-reap", daemon=True).start()

    def exit_status(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Its ends close a moment before it is gone.
            return self._process.wait(_MOMENT if self._leaving else 0)
        return None

    def last_words(self) -> str:
        # All of it when the process has ended, which closes the other end; else what there is.
        until = time.monotonic() + _MOMENT
        while not self._words_ended and self.exit_status() is not None:
            if not _wait([self._errors], until - time.monotonic()):
                break
            self._listen()
        return self._words.decode("utf-8", "replace").strip()

    def receive(self, size: int) -> bytes:
        """Bytes of standard output, keeping what comes on standard error meanwhile."""
        until = None if self._patience is None else time.monotonic() + self._patience
        while True:
            ends = [self._output] if self._words_ended else [self._output, self._errors]
            ready = _wait(ends, None if until is None else until - time.monotonic())
            if not ready:
                raise TimeoutError
            if self._errors in ready:
                self._listen()
            if self._output in ready:
                piece = self._output.recv(size)
                self._leaving = not piece
                return piece

    def _listen(self) -> None:
        with self._words_lock, contextlib.suppress(BlockingIOError):
            piece = self._errors.recv(_WORDS)
            self._words_ended = not piece
            self._words += piece
            del self._words[:-_WORDS]

    def _reap(self) -> None:
        self._process.wait()
        self._shut()

    def _shut(self) -> None:
        for end in (self._input, self._output, self._errors):
            end.close()


def _wait(ends: list[socket.socket], timeout: float | None) -> list[socket.socket]:
    """The ends that can be read; not by ``select``, which knows no descriptor above 1023."""
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    ready = {fd for fd, _ in poll.poll(None if timeout is None else max(0.0, timeout * 1000))}
    return [end for end in ends if end.fileno() in ready]


class _Output(io.RawIOBase):
    def __init__(self, link: ProcessLink) -> None:
        self._link = link

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        piece = self._link.receive(len(view))
        view[: len(piece)] = piece
        return len(piece)
