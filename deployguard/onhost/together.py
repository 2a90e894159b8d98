"""One look for all who ask at the same time.

Ten checks of one stack would ask the engine ten times for the same list. Who asks while a look is
under way waits for the next one, together with all the others who do: a look that began before one
asked is no answer, since the state may have changed in between.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, Optional, Tuple


class _Turn:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: Any = None
        self.error: Optional[BaseException] = None
        self.asked = 1


class Together:
    """Calls by key; at most one of a key runs, and one more is waited for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: Dict[str, Tuple[_Turn, Optional[_Turn]]] = {}

    def ask(self, key: str, call: Callable[[], Any]) -> Any:
        """The result of a ``call`` that was begun after this was asked, or what it raised."""
        before: Optional[_Turn] = None
        with self._lock:
            now, following = self._turns.get(key, (None, None))
            if following is not None:
                turn, leads = following, False
                turn.asked += 1
            else:
                turn, leads, before = _Turn(), True, now
                self._turns[key] = (turn, None) if now is None else (now, turn)
        if not leads:
            turn.done.wait()
        else:
            if before is not None:
                before.done.wait()
            self._run(key, turn, call)
        if turn.error is not None:
            raise turn.error
        return turn.result

    def _run(self, key: str, turn: _Turn, call: Callable[[], Any]) -> None:
        try:
            turn.result = call()
        except BaseException as error:  # noqa: BLE001 - it belongs to all who wait
            turn.error = error
        with self._lock:
            _, following = self._turns[key]
            if following is None:
                del self._turns[key]
            else:
                self._turns[key] = (following, None)
        turn.done.set()
