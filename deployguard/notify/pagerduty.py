"""PagerDuty's Events API v2: one alert an incident, under one ``dedup_key``; deploys as changes.

The key makes every event of an alert safe to repeat: a second trigger becomes a line in the log of
the alert that is open. A change event has no key, so one whose answer was lost may show twice.
"""

from __future__ import annotations

from typing import Any

from deployguard.evidence.timeline import iso
from deployguard.notify.http import Caller, short
from deployguard.notify.message import OVER, Attempt, Message, Receipt
from deployguard.notify.settings import ChannelSettings

__all__ = ["PagerDuty"]

MOST_SUMMARY = 1024
MOST_KEY = 255
MOST_DETAIL = 8000

_SEVERITY = {1: "critical", 2: "error", 3: "warning", 4: "info"}
_MENDS = {
    400: "is the integration key one of Events API v2, of 32 characters?",
    403: "the integration key may not send events",
    404: "look at base_url",
}


class PagerDuty:
    """See the module."""

    def __init__(self, settings: ChannelSettings) -> None:
        self._settings = settings

    def send(self, attempt: Attempt) -> Receipt:
        message = attempt.message
        key = self._settings.demand("key")
        caller = Caller("PagerDuty", attempt, key)

        def post(path: str, event: dict[str, Any]) -> None:
            base = str(self._settings.options["base_url"]).rstrip("/")
            content = {"routing_key": key.reveal(), **event}
            caller.request("POST", f"{base}{path}", data=content, hints=_MENDS)

        if message.kind in ("deployed", "deploy_failed"):
            post("/v2/change/enqueue", {"payload": _payload(message, ())})
            return {}
        dedup = _dedup_key(message)
        post("/v2/enqueue", _event(message, dedup))
        if message.kind == "test":
            post("/v2/enqueue", {"event_action": "resolve", "dedup_key": dedup})
        return {"dedup_key": dedup}


def _dedup_key(message: Message) -> str:
    """Ids of incidents are those of one store; several may share an integration."""
    return short(f"{message.service}/{message.environment}/{message.subject}", MOST_KEY)


def _event(message: Message, dedup: str) -> dict[str, Any]:
    if message.kind == "acknowledged":
        return {"event_action": "acknowledge", "dedup_key": dedup}
    if message.kind in OVER:
        return {"event_action": "resolve", "dedup_key": dedup}
    return {
        "event_action": "trigger",
        "dedup_key": dedup,
        "client": "deployguard",
        "payload": {
            **_payload(message, ("component", "group")),
            "severity": _SEVERITY[message.level],
            "class": message.kind,
        },
    }


def _payload(message: Message, also: tuple[str, ...]) -> dict[str, Any]:
    where = {"component": message.service, "group": message.environment}
    source = "/".join(filter(None, (message.service, message.environment))) or "deployguard"
    details = {**message.facts, "incident": message.subject} if also else dict(message.facts)
    return {
        "summary": short(message.title, MOST_SUMMARY),
        "source": source,
        "timestamp": iso(message.at),
        "custom_details": {**details, "text": short(message.text, MOST_DETAIL)},
        **{name: where[name] for name in also if where[name]},
    }
