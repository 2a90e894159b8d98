"""The kinds of channels: each is imported when it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from deployguard.delivery import Rejected

if TYPE_CHECKING:
    from deployguard.notify.message import Channel
    from deployguard.notify.settings import ChannelSettings

__all__ = ["CHANNELS", "channel_of"]

CHANNELS = {
    "slack": "deployguard.notify.slack:Slack",
    "pagerduty": "deployguard.notify.pagerduty:PagerDuty",
    "email": "deployguard.notify.email:Email",
    "sms": "deployguard.notify.sms:Sms",
    "statuspage": "deployguard.notify.statuspage:Statuspage",
    "webhook": "deployguard.notify.webhook:Webhook",
    "apprise": "deployguard.notify.apprise:Apprise",
}


def channel_of(settings: ChannelSettings) -> Channel:
    """The channel that some settings describe."""
    where = CHANNELS.get(settings.kind)
    if where is None:
        raise Rejected(
            f"there is no kind of channel {settings.kind}",
            "another version of deployguard wrote it",
        )
    module, _, name = where.partition(":")
    channel: Channel = getattr(importlib.import_module(module), name)(settings)
    return channel
