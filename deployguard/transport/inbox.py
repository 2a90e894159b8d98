"""What the reader thread of a session took off the wire and its caller has not looked at yet."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

__all__ = ["Inbox", "Item", "Message"]

Message = dict[str, Any]
#: A message, or a piece of a byte stream.
Item = Message | bytes

#: Pieces that wait for the caller before the reading stops: 16 MiB.
_WAITING_PIECES = 256


class Inbox:
    """What the reader thread took off the wire and the caller has not looked at yet.

    Messages never make the reader wait, for they must get past a caller that is busy sending.
    Pieces of bytes do: their caller only reads.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self._items: deque[Item] = deque()
        self._ended = False
        self._changed = threading.Condition()

    def put(self, item: Item) -> None:
        with self._changed:
            if isinstance(item, bytes):
                self._changed.wait_for(lambda: self._ended or len(self._items) < _WAITING_PIECES)
            self._items.append(item)
            self._changed.notify_all()

    def end(self, failure: Exception | None) -> None:
        with self._changed:
            if not self._ended:
                self.failure, self._ended = failure, True
            self._changed.notify_all()

    def poll(self) -> Item | None:
        """The next item if there is one, at once."""
        with self._changed:
            return self._pop() if self._items else None

    def take(self, timeout: float | None) -> Item | None:
        """The next item; ``None`` when the wire has ended. Raises ``TimeoutError``."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._ended, timeout):
                raise TimeoutError
            return self._pop() if self._items else None

    def _pop(self) -> Item:
        self._changed.notify_all()
        return self._items.popleft()
