"""Every kind of channel with its peer, asked alike: what arrived, of what, in which order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployguard.notify.settings import ChannelSettings
from tests.notify.mailbox import USER, Mailbox
from tests.notify.peer import Peer
from tests.notify.providers import (
    ApprisePeer,
    PagerDutyPeer,
    SlackPeer,
    StatuspagePeer,
    TwilioPeer,
    WebhookPeer,
)

#: What one incident is told of in the tests.
NIGHT = ("opened", "acknowledged", "mitigated", "resolved")


@dataclass
class Place:
    """A channel and what stands at its other end."""

    kind: str
    options: dict[str, Any]
    peer: Any
    #: What arrived, in words that each kind of peer has for it.
    arrived: Callable[[], list[str]]
    #: What has arrived when :data:`NIGHT` was told.
    night: list[str]
    #: Whether a message whose answer was lost is there once all the same.
    once: bool
    secret: str
    environ: dict[str, str] = field(default_factory=dict)

    def settings(self, name: str = "ops", **changes: Any) -> ChannelSettings:
        """The channel."""
        values: dict[str, Any] = {
            "name": name,
            "kind": self.kind,
            "options": self.options,
            "at_least": 4,
            "escalations": 0,
            "audience": "customers" if self.kind == "statuspage" else "team",
            "deploys": False,
            "deadline": 20.0,
            "expires": 86400.0,
        }
        return ChannelSettings(**{**values, **changes})

    @property
    def payloads(self) -> list[str]:
        """Everything that came, without what it was signed in with."""
        if isinstance(self.peer, Mailbox):
            return [str(mail) for _, mail in self.peer.taken]
        found = [request.body.decode() for request in self.peer.requests]
        return [text.replace(self.secret, "") for text in found]


def _word(text: str) -> str:
    """The kind that stands in a title of the team's template: none is the first message."""
    found = re.search(r": (acknowledged|mitigated|news|resolved|escalated|reopened|closed)\b", text)
    return found[1] if found else "opened"


@contextmanager
def slack(folder: Path) -> Iterator[Place]:
    peer = SlackPeer()
    yield Place(
        "slack",
        {"token_env": "SLACK_TOKEN", "channel": peer.channel, "base_url": f"{peer.url}/api"},
        peer,
        lambda: [_word(message["text"].splitlines()[0]) for message in peer.messages],
        list(NIGHT),
        True,
        peer.secret,
        {"SLACK_TOKEN": peer.secret},
    )
    peer.close()


@contextmanager
def slack_webhook(folder: Path) -> Iterator[Place]:
    peer = SlackPeer()
    yield Place(
        "slack",
        {"webhook_env": "SLACK_WEBHOOK", "base_url": f"{peer.url}/api"},
        peer,
        lambda: [_word(message["text"].splitlines()[0]) for message in peer.messages],
        list(NIGHT),
        False,
        peer.hook.rpartition("/")[2],
        {"SLACK_WEBHOOK": peer.url + peer.hook},
    )
    peer.close()


@contextmanager
def pagerduty(folder: Path) -> Iterator[Place]:
    peer = PagerDutyPeer()

    def log() -> list[str]:
        # A second trigger, or acknowledgement, of an alert changes nothing for anybody.
        return [
            f"{n}: {word}" for n, a in enumerate(peer.alerts) for word in dict.fromkeys(a["log"])
        ]

    yield Place(
        "pagerduty",
        {"key_env": "PAGERDUTY_KEY", "base_url": peer.url},
        peer,
        log,
        ["0: trigger", "0: acknowledge", "0: resolve"],
        True,
        peer.secret,
        {"PAGERDUTY_KEY": peer.secret},
    )
    peer.close()


@contextmanager
def sms(folder: Path) -> Iterator[Place]:
    peer = TwilioPeer()
    yield Place(
        "sms",
        {
            "account": peer.account,
            "token_env": "TWILIO_TOKEN",
            "from": "+15005550006",
            "to": ["+4915112345678"],
            "base_url": peer.url,
        },
        peer,
        lambda: [_word(message["body"].splitlines()[0]) for message in peer.messages],
        ["opened", "mitigated", "resolved"],
        True,
        peer.secret,
        {"TWILIO_TOKEN": peer.secret},
    )
    peer.close()


@contextmanager
def statuspage(folder: Path) -> Iterator[Place]:
    peer = StatuspagePeer()

    def published() -> list[str]:
        return [
            f"{number}: {update['status']}"
            for number, incident in enumerate(peer.incidents)
            for update in reversed(incident["incident_updates"])
        ]

    yield Place(
        "statuspage",
        {
            "page": peer.page,
            "token_env": "STATUSPAGE_TOKEN",
            "components": [peer.component],
            "subscribers": True,
            "base_url": peer.url,
        },
        peer,
        published,
        ["0: investigating", "0: identified", "0: monitoring", "0: resolved"],
        True,
        peer.secret,
        {"STATUSPAGE_TOKEN": peer.secret},
    )
    peer.close()


@contextmanager
def webhook(folder: Path) -> Iterator[Place]:
    peer = WebhookPeer()
    yield Place(
        "webhook",
        {"url": f"{peer.url}/hook", "secret_env": "WEBHOOK_SECRET"},
        peer,
        lambda: [m["type"].removeprefix("incident.") for m in peer.messages.values()],
        list(NIGHT),
        True,
        peer.secret,
        {"WEBHOOK_SECRET": peer.secret},
    )
    peer.close()


@contextmanager
def email(folder: Path) -> Iterator[Place]:
    box = Mailbox(folder)
    yield Place(
        "email",
        {
            "host": "localhost",
            "port": box.port,
            "tls": "starttls",
            "ca_file": str(box.ca_file),
            "user": USER,
            "password_env": "SMTP_PASSWORD",
            "from": "deployguard@example.com",
            "to": ["ann@example.com"],
        },
        box,
        lambda: [_word(mail.get_content().splitlines()[0]) for _, mail in box.mails],
        list(NIGHT),
        True,
        box.secret,
        {"SMTP_PASSWORD": box.secret},
    )
    box.close()


@contextmanager
def apprise(folder: Path) -> Iterator[Place]:
    peer = ApprisePeer()
    yield Place(
        "apprise",
        {"url_env": "APPRISE_URL"},
        peer,
        lambda: [_word(message["title"]) for message in peer.messages],
        list(NIGHT),
        False,
        peer.secret,
        {"APPRISE_URL": peer.where},
    )
    peer.close()


PLACES: dict[str, Any] = {
    "slack": slack,
    "slack webhook": slack_webhook,
    "pagerduty": pagerduty,
    "sms": sms,
    "statuspage": statuspage,
    "webhook": webhook,
    "email": email,
    "apprise": apprise,
}

__all__ = ["NIGHT", "PLACES", "Peer", "Place"]
