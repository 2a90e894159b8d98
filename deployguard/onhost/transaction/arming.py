"""The dead-man of one transaction: armed while the trees are built, gone at the end."""

from __future__ import annotations

from typing import Any, Callable, Optional

from deployguard.onhost.places import State
from deployguard.onhost.request import RequestError
from deployguard.onhost.system import Lanes, System

#: How much longer than its lease a host waits for its dead-man to be armed.
ARMING_SECONDS = 60.0


class Arming:
    """``make`` makes the dead-man of a folder; ``folder`` says which it is, by now."""

    def __init__(
        self,
        make: Callable[[State, str, System], Any],
        state: State,
        system: System,
        folder: Callable[[], str],
    ) -> None:
        self._make = make
        self._state = state
        self._system = system
        self._folder = folder
        self._lanes: Optional[Lanes] = None

    def at_once(self, lease: float) -> None:
        """Arm it, and wait for that."""
        self._deadman().arm(lease)

    def begin(self, lease: float) -> None:
        """Start what arms the dead-man; it takes as long as some of the copying."""
        if self._lanes is None:
            self._lanes = self._system.lanes()
            deadman = self._deadman()
            self._lanes.start("deadman", lambda: deadman.arm(lease))

    def done(self) -> str:
        """The kind of the dead-man. Nothing may be touched before this returns."""
        assert self._lanes is not None
        answer = self._lanes.wait(ARMING_SECONDS)
        self._lanes = None
        if answer is None or isinstance(answer[1], Exception):
            reason = "no answer" if answer is None else str(answer[1])
            raise RequestError("failed", "the dead-man could not be armed: %s" % reason)
        return str(answer[1])

    def disarm(self) -> None:
        """Let it go."""
        if self._lanes is not None:
            # What is still on its way would stay.
            self._lanes.wait(ARMING_SECONDS)
            self._lanes = None
        self._deadman().disarm()

    def _deadman(self) -> Any:
        return self._make(self._state, self._folder(), self._system)
