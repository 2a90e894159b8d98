"""The two ways in which a report can fail to arrive, whatever the channel.

A channel raises one of these and nothing else, so that the outbox knows what to do without knowing
the channel: keep the report and try again, or stop and tell a person. Neither ever holds a secret.
"""

from __future__ import annotations

__all__ = ["Rejected", "Undelivered"]


class Undelivered(Exception):
    """It did not arrive, or nobody knows whether it did; another try may succeed.

    ``retry_after`` is how many seconds the other side asked us to wait, where it said.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class Rejected(Exception):
    """The other side refused it, and will again until a person acts on ``hint``."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason, hint)
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.reason} ({self.hint})" if self.hint else self.reason
