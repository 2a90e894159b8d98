"""A test message to one channel, past the outbox: whoever asks for it waits for the answer."""

from __future__ import annotations

import secrets
import time

from deployguard.delivery import Rejected, Undelivered
from deployguard.evidence.timeline import iso
from deployguard.notify.message import Attempt, Message
from deployguard.notify.registry import channel_of
from deployguard.notify.settings import ChannelSettings, Settings
from deployguard.notify.words import words_for
from deployguard.plan.message import SAMPLE
from deployguard.store.outbox import place

__all__ = ["try_out"]


def try_out(settings: Settings, channel: ChannelSettings) -> str:
    """Send a test message to everybody on a channel; what went wrong, or an empty text."""
    now = time.time()
    nothing = {name: type(value)() for name, value in SAMPLE.items()}
    facts = {
        **nothing,
        "kind": "test",
        "product": settings.product,
        "service": settings.service,
        "environment": settings.environment,
        "at": iso(now),
    }
    title, text = words_for(settings, channel.audience, facts)
    for recipient in channel.recipients:
        subject = f"test-{secrets.token_hex(6)}"
        message = Message(
            key=f"{subject}/{channel.name}",
            kind="test",
            subject=subject,
            title=title,
            text=text,
            at=now,
            level=4,
            state="test",
            service=settings.service,
            environment=settings.environment,
            recipient=recipient,
        )
        give_up = time.monotonic() + channel.deadline
        try:
            channel_of(channel).send(Attempt(message, None, False, now, time.monotonic, give_up))
        except Undelivered as failure:
            return failure.reason
        except Rejected as refusal:
            return str(refusal)
        except Exception as unforeseen:  # noqa: BLE001 -- its text may hold anything
            return place(unforeseen)
    return ""
