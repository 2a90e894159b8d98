"""The display: redrawn on a terminal, line by line elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from deployguard.cli.console import Console
from deployguard.cli.progress import showing
from deployguard.rollout.outcome import Event

SCRIPT = """
from deployguard.cli.console import Console
from deployguard.cli.progress import showing
from deployguard.rollout.outcome import Event

console = Console()
assert console.live
hosts = [f"web{i}" for i in range(60)]
with showing(console, "deploying shop v2", hosts) as show:
    for host in hosts:
        show(Event(0.0, "connect", "done", host))
        show(Event(0.0, "stage", "started", host))
    show(Event(0.0, "check", "failed", "web41", "answered 503"))
    show(Event(0.0, "restore", "done", "web41", "restored"))
"""


def test_live_display_fits_the_terminal() -> None:
    """Sixty hosts on 20 lines: the failed one is shown, the rest counted, nothing scrolls."""
    parent, child = pty.openpty()
    subprocess.run(["stty", "rows", "20", "cols", "100"], stdin=child, check=True)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "20"}
    environment.pop("GITHUB_ACTIONS", None)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=child, stderr=child, env=environment
    )
    os.close(child)
    written = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.close(parent)
    assert process.wait(timeout=10) == 0, written.decode()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    last = text[text.rindex("deploying shop v2") :]
    assert len(last.splitlines()) <= 20
    assert "web41" in last
    assert "restored" in last
    assert re.search(r"\+ \d+ more: \d+ stage", last)
    assert "59 stage, 1 restored" in last


def test_plain_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe each event is a line; steps within a phase are left out."""
    with showing(Console(), "deploying shop v2", ["web1"]) as show:
        show(Event(0.0, "switch", "started", "web1"))
        show(Event(0.0, "switch", "progress", "web1", "stop web.service"))
        show(Event(0.0, "check", "failed", "web1", "first\nsecond"))
        show(Event(0.0, "report", "note", "", "incident filed"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "deploying shop v2"
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines[1:]] == [
        "web1 switch started",
        "web1 check failed: first",
        "second",
        "report: incident filed",
    ]


def test_plain_lines_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    """What looks like a secret does not pass, whatever plan is or is not loaded."""
    with showing(Console(), "x", ["web1"]) as show:
        show(Event(0.0, "check", "failed", "web1", "password=correct-horse-battery"))
    assert "correct-horse" not in capsys.readouterr().err
