"""What is sent, what comes back, and what a channel must do.

A message is about a *subject*: an incident, or the end of a deploy. One channel's messages about
one subject are a *lane*; they go in order, and what the last one brought back, its *receipt*, is
given to the next: the thread to answer in, the incident to update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from deployguard.delivery import Rejected, Undelivered

__all__ = ["GOOD_NEWS", "OVER", "Attempt", "Channel", "Message", "Receipt"]

Receipt = dict[str, Any]

#: What only those hear who heard of the trouble.
GOOD_NEWS = ("acknowledged", "mitigated", "resolved", "closed", "cancelled", "update")

#: After these there is nothing left to be done about it.
OVER = ("resolved", "closed", "cancelled")


@dataclass(frozen=True)
class Message:
    """Text that is rendered and redacted, and what it is about.

    ``key`` is the same for the same message whatever is retried; ``kind`` is one of
    :data:`deployguard.plan.message.KINDS`. ``at`` is when it happened, UTC seconds. ``recipient``
    is set for channels that send one message to each. ``facts`` are texts about the subject.
    """

    key: str
    kind: str
    subject: str
    title: str
    text: str
    at: float
    level: int
    state: str
    service: str
    environment: str
    recipient: str = ""
    facts: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the outbox."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """The message as the outbox kept it."""
        try:
            return cls(**{name: data[name] for name in cls.__dataclass_fields__})
        except KeyError as missing:
            hint = "another version of deployguard wrote it"
            raise Rejected(f"the kept message has no {missing}", hint) from None


@dataclass(frozen=True)
class Attempt:
    """One try to deliver a message.

    ``receipt`` is what the lane's last message brought back, ``None`` where there was none.
    ``again`` says that an earlier try may have been carried out without our hearing of it; the
    channel then asks the other side first, where that can be asked. ``since`` is when the message
    was put into the outbox, UTC seconds. ``give_up`` is a time on ``clock``, which only goes
    forward.
    """

    message: Message
    receipt: Receipt | None
    again: bool
    since: float
    clock: Callable[[], float]
    give_up: float

    @property
    def left(self) -> float:
        """Seconds until the deadline. Raises :class:`Undelivered` when it has passed."""
        left = self.give_up - self.clock()
        if left <= 0:
            raise Undelivered("the deadline of the channel has passed")
        return left


class Channel(Protocol):
    """How messages get to one place. Made anew for each try, from its settings; keeps nothing.

    It MUST be over within the deadline of the attempt and one timeout more, whatever the other side
    does. It MUST raise :class:`~deployguard.delivery.Undelivered` or
    :class:`~deployguard.delivery.Rejected` for what goes wrong, with no secret in either. It MUST
    NOT repeat a request by itself: the outbox counts the tries.
    """

    def send(self, attempt: Attempt) -> Receipt:
        """See to it that the message is there; what the next one of its lane needs to know."""
        ...
