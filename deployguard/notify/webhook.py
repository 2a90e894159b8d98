"""A signed POST to a program of the user's, by the Standard Webhooks.

The body is JSON: ``type`` (as in ``incident.opened``), ``timestamp`` and ``data``.
Three headers come with it: ``webhook-id``, the same for the same message whatever is retried, by
which the receiver knows one it has had; ``webhook-timestamp``; and ``webhook-signature``, ``v1,``
and the HMAC-SHA256 of ``id.timestamp.body`` in base64. A secret that begins with ``whsec_`` is
base64 after that, any other is taken as it stands.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time

from deployguard.delivery import Rejected
from deployguard.evidence.timeline import iso
from deployguard.notify.http import Caller
from deployguard.notify.message import Attempt, Receipt
from deployguard.notify.settings import ChannelSettings

__all__ = ["Webhook", "signature"]


class Webhook:
    """See the module."""

    def __init__(self, settings: ChannelSettings) -> None:
        self._settings = settings

    def send(self, attempt: Attempt) -> Receipt:
        message = attempt.message
        secret = self._settings.demand("secret")
        hidden = self._settings.secret("url")
        url = hidden.reveal() if hidden is not None else str(self._settings.options["url"])
        about = "deploy" if message.kind in ("deployed", "deploy_failed") else "incident"
        body = json.dumps(
            {
                "type": f"{about}.{message.kind}",
                "timestamp": iso(message.at),
                "data": {
                    about: message.subject,
                    "title": message.title,
                    "text": message.text,
                    "severity": message.level,
                    "state": message.state,
                    "service": message.service,
                    "environment": message.environment,
                    "facts": message.facts,
                },
            },
            ensure_ascii=False,
        ).encode("utf-8", "replace")
        stamp = str(int(time.time()))
        identifier = "msg_" + hashlib.sha256(message.key.encode()).hexdigest()[:32]
        Caller("the webhook", attempt, secret, hidden).request(
            "POST",
            url,
            content=body,
            headers={
                "Content-Type": "application/json",
                "webhook-id": identifier,
                "webhook-timestamp": stamp,
                "webhook-signature": signature(secret.reveal(), identifier, stamp, body),
            },
            hints={404: "look at url", 401: "the receiver has another secret", 410: "it is gone"},
        )
        return {"webhook_id": identifier}


def signature(secret: str, identifier: str, stamp: str, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret[len("whsec_") :], validate=True)
        except (binascii.Error, ValueError):
            raise Rejected("the secret after whsec_ is no base64", "copy it again") from None
    signed = f"{identifier}.{stamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
