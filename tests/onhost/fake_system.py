"""A machine for tests: its clock moves when something waits, its programs are functions."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Sequence

from deployguard.onhost.system import Completed, System

Program = Callable[["FakeSystem"], Completed]


def completed(stdout: str = "", status: int = 0, timed_out: bool = False) -> Completed:
    """What a program left behind."""
    return Completed(("fake",), status, stdout.encode(), b"", timed_out, 0.0)


class FakeLanes:
    """Calls run at once, in the thread of the test; waiting moves the clock."""

    def __init__(self, system: FakeSystem) -> None:
        self._system = system
        self._ended: deque[tuple[str, Any]] = deque()

    def start(self, key: str, call: Callable[[], Any]) -> None:
        """Run the call, unless the test lets it hang."""
        if key in self._system.hanging:
            return
        try:
            self._ended.append((key, call()))
        except Exception as error:  # noqa: BLE001 - as the real one
            self._ended.append((key, error))

    def wait(self, seconds: float) -> tuple[str, Any] | None:
        """What ended, at once; else time passes."""
        if self._ended:
            return self._ended.popleft()
        self._system.sleep(seconds)
        return None


class FakeSystem(System):
    """``time`` is the monotonic clock; UTC runs beside it from a day in 2023."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.hanging: list[str] = []
        self.programs: dict[str, Program] = {}
        self.ran: list[list[str]] = []
        self.processes: dict[int, int] = {}

    def now(self) -> float:
        return 1702291800.0 + self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.0)

    def lanes(self) -> Any:
        return FakeLanes(self)

    def process_start_time(self, pid: int) -> int | None:
        return self.processes.get(pid)

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        """Look for the program by its first word, then by what else is in the line."""
        self.ran.append(list(argv))
        for name, program in self.programs.items():
            if name in " ".join(argv):
                return program(self)
        return completed("no such program", 127)
