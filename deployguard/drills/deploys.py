"""The deploy that a drill disturbs: ``deployguard apply`` in a process of its own, to be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deployguard import faults
from deployguard.plan.model import Plan

__all__ = ["Deployed", "deploy"]

_GLANCE = 0.1
_WORDS = 4000
#: A drill in a job is not the job's deploy: these outputs are not its own.
_NOT_OURS = ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", faults.VARIABLE)


@dataclass(frozen=True)
class Deployed:
    """How the deploy ended: exit status, JSON lines, what it said, the points it came to."""

    code: int
    seconds: float
    lines: list[dict[str, Any]]
    words: str
    points: list[str]

    @property
    def outcome(self) -> dict[str, Any]:
        """The last line of ``--json``, if it came so far."""
        last = self.lines[-1] if self.lines else {}
        return last if last.get("type") == "outcome" else {}

    @property
    def error(self) -> str:
        """Why it ended without an outcome."""
        last = self.lines[-1] if self.lines else {}
        return str(last.get("message", "")) if last.get("type") == "error" else ""


def deploy(
    plan: Plan,
    variables: Mapping[str, str],
    wanted: Mapping[str, Any],
    stop: threading.Event,
    limit: float,
) -> Deployed:
    """Deploy the plan with faults. ``stop`` interrupts it, and after ``limit`` it is killed."""
    argv = [sys.executable, "-m", "deployguard", "apply", plan.source, "--release", plan.version]
    for name, value in variables.items():
        argv += ["--var", f"{name}={value}"]
    with tempfile.TemporaryDirectory(prefix="deployguard-drill-") as folder:
        points = Path(folder) / "points"
        points.touch()
        environment = {name: text for name, text in os.environ.items() if name not in _NOT_OURS}
        environment[faults.VARIABLE] = json.dumps({**wanted, "list": str(points)})
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            began = time.monotonic()
            process = subprocess.Popen(
                [*argv, "--json", "--no-color"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                # Ctrl-C at the terminal is meant for the drill, which then tells the deploy.
                start_new_session=True,
            )
            try:
                code = _wait(process, stop, began + limit)
            finally:
                process.kill()
                process.wait()
            seconds = time.monotonic() - began
            lines = [line for line in map(_parsed, _all(out).splitlines()) if line]
            words = _all(err)[-_WORDS:]
        return Deployed(code, seconds, lines, words, points.read_text("utf-8").splitlines())


def _wait(process: subprocess.Popen[bytes], stop: threading.Event, until: float) -> int:
    told = False
    while time.monotonic() < until:
        if stop.is_set() and not told:
            told = True
            process.send_signal(signal.SIGINT)
        try:
            return process.wait(_GLANCE)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return process.wait()


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}  # killed in the middle of a line
    return found if isinstance(found, dict) else {}


def _all(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
