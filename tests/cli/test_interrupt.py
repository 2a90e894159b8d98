"""Signals: the first hands over, the second quits, both end with 7."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from deployguard.cli.interrupt import handing_over

SCRIPT = """
import sys, time
from deployguard.cli.interrupt import handing_over
with handing_over(lambda: print("last words", flush=True)) as stop:
    print("ready", flush=True)
    stop.wait()
    print("told", flush=True)
    if sys.argv[1] == "hang":
        time.sleep(60)
sys.exit(7)
"""


def start(mode: str) -> subprocess.Popen[str]:
    """A run that waits for a signal."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_hands_over(number: signal.Signals) -> None:
    """Whichever comes, the run is told, says so and ends by itself."""
    process = start("end")
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 7
    assert "told" in out
    assert f"{number.name}: handing over to the hosts" in err


def test_second_signal_quits() -> None:
    """A run that does not end is left at once, after its last words."""
    process = start("hang")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "told\n"
    # What comes in the same moment counts as one: a closing terminal sends several.
    process.send_signal(signal.SIGTERM)
    time.sleep(1.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 7
    assert "last words" in out


def test_handlers_are_put_back() -> None:
    """A program that uses this keeps its own handlers."""
    before = signal.getsignal(signal.SIGTERM)
    with handing_over():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_works_in_a_thread() -> None:
    """Only the main thread may set handlers; elsewhere there is just no signal."""
    seen: list[bool] = []

    def inside() -> None:
        with handing_over() as stop:
            seen.append(stop.is_set())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [False]
