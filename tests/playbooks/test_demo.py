"""``make demo``: what it shows is what happens, and nothing of it stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.playbooks.somebody import ROOT, Somebody, somebody

RUN = str(ROOT / "playbooks" / "demo" / "run")


@pytest.fixture
def user() -> Iterator[Somebody]:
    """Somebody who tries deployguard for the first time."""
    with somebody() as found:
        yield found


def left(folder: Path) -> list[str]:
    """The command lines of processes that the demo in ``folder`` started and did not stop."""
    mark = f"DEPLOYGUARD_DEMO={folder}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def steps(transcript: str) -> list[tuple[str, str]]:
    """Each command with the last line of its output: its exit code, or what was served."""
    blocks = re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]
    found = []
    for block in blocks:
        command, _, output = block.partition("\n")
        lines = [line for line in output.splitlines() if line and not line.startswith("# ")]
        found.append((command, lines[-1]))
    return found


def test_what_is_served_after_each_step(user: Somebody) -> None:
    """v1, v2, the broken v3 rolled back to v2, and a rollback to v1, with their exit codes."""
    process = user.start(RUN)
    transcript, _ = process.communicate(timeout=180)
    assert process.returncode == 0, transcript
    folder = user.home / "demo-out"
    shown = [
        (command, last)
        for command, last in steps(transcript)
        if command.startswith(("deployguard", "python3"))
    ]
    get = next(command for command, _ in shown if "get.py" in command)
    assert shown == [
        ("deployguard plan plan.yaml", "exit code 0"),
        ("deployguard apply plan.yaml", "exit code 0"),
        (get, '200 {"status": "healthy", "version": "v1"}'),
        ("deployguard apply plan.yaml --release v2", "exit code 0"),
        (get, '200 {"status": "healthy", "version": "v2"}'),
        ("deployguard apply plan.yaml --release v3", "exit code 3"),
        (get, '200 {"status": "healthy", "version": "v2"}'),
        ("deployguard incident show", "exit code 0"),
        ("deployguard postmortem check", "exit code 8"),
        ("deployguard history", "exit code 0"),
        ("deployguard status plan.yaml", "exit code 0"),
        ("deployguard rollback plan.yaml", "exit code 0"),
        (get, '200 {"status": "healthy", "version": "v1"}'),
    ]
    assert left(folder) == []
    (forensics,) = (folder / "forensics").iterdir()
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=forensics, check=True)
    assert (forensics / "backend" / "files" / "settings.json").read_text() == (
        folder / "releases" / "v3" / "settings.json"
    ).read_text()
    if user.prefix:
        assert folder.stat().st_uid != 0


def test_a_folder_of_somebody_else_is_left_alone(user: Somebody) -> None:
    """Only a folder that a demo made is emptied for the next."""
    other = user.home / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("two years of work")
    refused = user.start(RUN, str(other))
    transcript, _ = refused.communicate(timeout=60)
    assert refused.returncode == 1 and "is not a demo's" in transcript
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    assert (other / "thesis.txt").read_text() == "two years of work"


def test_interrupted_in_the_middle(user: Somebody) -> None:
    """After Ctrl-C while v3 is on trial the old version is back, and no process is left."""
    process = user.start(RUN)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "check started" in line and any("--release v3" in shown for shown in seen):
            os.killpg(process.pid, signal.SIGINT)
            break
    transcript = "".join(seen) + process.stdout.read()
    assert process.wait(timeout=120) == 130, transcript
    # A host that is not asked for the length of its lease restores itself.
    ended = ("localhost restored", "nothing is unfinished")
    assert "deployguard recover" in transcript and any(words in transcript for words in ended)
    folder = user.home / "demo-out"
    assert left(folder) == []
    assert (folder / "srv" / "shop" / "current" / "VERSION").read_text() == "v2\n"
