"""A server that a test starts from its program: in a folder of its own, on a port of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest


def program(name: str, package: str) -> str:
    """Where a program is; skips the test where there is none, but never in CI."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        reason = f"{name} is missing: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextlib.contextmanager
def folder(name: str) -> Iterator[Path]:
    """A folder with a path short enough for a socket, gone at the end."""
    base = Path(tempfile.mkdtemp(prefix=f"deployguard-{name}-", dir="/var/tmp"))
    base.chmod(0o755)
    try:
        yield base
    finally:
        shutil.rmtree(base)


def free_port() -> int:
    """A port that was free just now; a server that finds it taken does not start."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return int(chosen.getsockname()[1])


class Running:
    """A program that runs. Its output is read until it says ``ready``, and drained after that."""

    def __init__(self, argv: Sequence[str], ready: str, cwd: Path) -> None:
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if ready in line:
                break
        else:
            pytest.fail(f"{argv[0]} did not start:\n{''.join(said[-30:])}")
        self._drain = threading.Thread(target=self.process.stdout.read, daemon=True)
        self._drain.start()

    def stop(self) -> None:
        """End it, and wait for that."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._drain.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def running(argv: Sequence[str], ready: str, cwd: Path) -> Iterator[Running]:
    """Run a program as long as the block lasts."""
    started = Running(argv, ready, cwd)
    try:
        yield started
    finally:
        started.stop()
