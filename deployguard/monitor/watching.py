"""The loop of a watch: look, group, tell, remember; for a window or for good.

What was told is remembered after it was told. A watch that is killed in between tells it twice, and
never the end of something that nobody heard of.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployguard.monitor.grouping import (
    Alert,
    GroupKey,
    Notice,
    Receiver,
    Rules,
    Signal,
    State,
    firing,
    step,
)
from deployguard.monitor.looking import Look
from deployguard.store.journal import private_file

__all__ = ["Ended", "Memory", "watch"]


@dataclass(frozen=True)
class Ended:
    """How a watch ended: how often it looked, what fires, and what was not healthy at the last
    look."""

    looks: int
    fires: tuple[Alert, ...]
    failing: tuple[Signal, ...]

    @property
    def healthy(self) -> bool:
        """Whether all that matters was healthy at the last look, and nothing that matters fires."""
        fires = any(alert.critical for alert in self.fires)
        return not fires and not any(one.critical for one in self.failing)


class Memory:
    """The state of a watch between runs, in a file of this user's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[State, list[tuple[GroupKey, str]]]:
        """What was remembered: nothing where there is no file, or none that can be read."""
        try:
            data: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            state = State.from_dict(data["state"])
            known = [((g[0], g[1], g[2]), str(incident)) for g, incident in data["incidents"]]
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return State(), []
        return state, known

    def write(self, state: State, incidents: Iterable[tuple[GroupKey, str]]) -> None:
        """Whole or not at all."""
        data = {"state": state.as_dict(), "incidents": [[list(g), i] for g, i in incidents]}
        beside = self._path.with_suffix(".new")
        beside.unlink(missing_ok=True)
        private_file(beside)
        with beside.open("w", encoding="utf-8") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)


def watch(
    look: Callable[[], Look],
    tell: Callable[[Notice], None],
    rules: Rules,
    receivers: Sequence[Receiver],
    *,
    state: State,
    interval: float,
    seconds: float | None,
    now: Callable[[], float],
    wait: Callable[[float], bool],
    save: Callable[[State], None],
) -> Ended:
    """Look every ``interval`` seconds, for ``seconds``, or until ``wait`` says that it is over.

    ``wait`` lets seconds pass and answers whether to stop. At the end whatever fires and was not
    told yet is told: nobody will look again.
    """
    began = now()
    looks = 0
    while True:
        at = now()
        seen = look()
        looks += 1
        signals = [*seen.signals, *_no_longer(state, seen)]
        last = seconds is not None and at + interval > began + seconds
        state, notices = step(state, signals, now(), rules, receivers, at_once=last)
        for notice in notices:
            tell(notice)
        save(state)
        if last or wait(max(at + interval - now(), 0.0)):
            failing = tuple(one for one in seen.signals if not one.healthy)
            return Ended(looks, firing(state), failing)


def _no_longer(state: State, seen: Look) -> Iterable[Signal]:
    """What fires on a host that has answered, and is in its plan no more, is over."""
    keys = {signal.key for signal in seen.signals}
    return [
        Signal(alert.group, alert.key, True, alert.kind, alert.critical)
        for alert in state.alerts.values()
        if alert.kind == "check" and alert.key[0] in seen.answered and alert.key not in keys
    ]
