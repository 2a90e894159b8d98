"""A request that cannot be met."""

from __future__ import annotations

from typing import Any


class RequestError(Exception):
    """The request cannot be met; ``kind`` is one of the kinds in ``docs/protocol.md``."""

    def __init__(self, kind: str, message: str, hint: str = "", detail: Any = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.hint = hint
        self.detail = detail
