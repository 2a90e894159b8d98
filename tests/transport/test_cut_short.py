"""A network that is cut before the bootstrap has come over: no end of the input ever comes."""

from __future__ import annotations

import signal
import subprocess
import sys

from deployguard.transport import payload


def test_it_gives_up() -> None:
    """By itself, whoever holds the other end open."""
    line = payload._START % 5000
    assert "alarm(60)" in line
    argv = [sys.executable, "-I", "-S", "-c", line.replace("alarm(60)", "alarm(1)")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"import os\n")
        process.stdin.flush()
        assert process.wait(60) == -signal.SIGALRM
