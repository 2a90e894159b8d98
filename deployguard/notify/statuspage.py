"""An incident on a page of Atlassian Statuspage: investigating, identified, monitoring, resolved.

The incident on the page carries the key of the last message as metadata. When it is not known
whether an earlier try arrived, the page is asked, so each step is published once. What is over and
opened again becomes a new incident there.
"""

from __future__ import annotations

from typing import Any

from deployguard.delivery import Undelivered
from deployguard.notify.http import Caller, short
from deployguard.notify.message import Attempt, Message, Receipt
from deployguard.notify.settings import ChannelSettings

__all__ = ["Statuspage"]

MOST_NAME = 255
MOST_BODY = 25_000

STATUS = {
    "open": "investigating",
    "acknowledged": "identified",
    "mitigated": "monitoring",
    "resolved": "resolved",
    "closed": "resolved",
    "cancelled": "resolved",
}
_IMPACT = {1: "critical", 2: "major", 3: "minor", 4: "minor"}
_COMPONENT = {1: "major_outage", 2: "partial_outage", 3: "degraded_performance"}
_MENDS = {
    401: "the API key is wrong",
    403: "the API key may not write to this page",
    404: "look at page, and at components",
    422: "look at components",
}
#: Statuspage has a status of its own for a rate limit.
_LIMITED = (420, 429)


class Statuspage:
    """See the module."""

    def __init__(self, settings: ChannelSettings) -> None:
        self._settings = settings
        self._options = settings.options

    def send(self, attempt: Attempt) -> Receipt:
        message = attempt.message
        page = _Page(self._settings, attempt)
        if message.kind == "test":
            page.call("GET", "/incidents/unresolved")
            return {}
        known = attempt.receipt or {}
        identifier = known.get("id") if not known.get("over") else None
        found = page.written(message.key, identifier) if attempt.again else None
        if found is None and identifier is None:
            found = page.call("POST", "/incidents", {"incident": self._new(message)})
        elif found is None:
            path = f"/incidents/{identifier}"
            found = page.call("PATCH", path, {"incident": self._step(message)})
        if not isinstance(found.get("id"), str):
            raise Undelivered("Statuspage answered without the id of the incident")
        return {"id": found["id"], "over": STATUS.get(message.state) == "resolved"}

    def _new(self, message: Message) -> dict[str, Any]:
        return {
            **self._step(message),
            "name": short(message.title, MOST_NAME),
            "impact_override": _IMPACT[message.level],
        }

    def _step(self, message: Message) -> dict[str, Any]:
        step: dict[str, Any] = {
            "status": STATUS.get(message.state, "resolved"),
            "body": short(message.text or message.title, MOST_BODY),
            "deliver_notifications": bool(self._options["subscribers"]),
            "metadata": {"deployguard": {"key": message.key}},
        }
        components = self._options["components"]
        if components:
            step["component_ids"] = list(components)
            step["components"] = dict.fromkeys(components, _component(message))
        return step


def _component(message: Message) -> str:
    if message.state in ("open", "acknowledged"):
        return _COMPONENT.get(message.level, "degraded_performance")
    return "operational"


class _Page:
    """One page, with one key."""

    def __init__(self, settings: ChannelSettings, attempt: Attempt) -> None:
        token = settings.demand("token")
        base = str(settings.options["base_url"]).rstrip("/")
        self._url = f"{base}/v1/pages/{settings.options['page']}"
        self._caller = Caller("Statuspage", attempt, token)
        self._headers = {"Authorization": f"OAuth {token.reveal()}"}

    def call(self, method: str, path: str, content: Any = None) -> dict[str, Any]:
        """One request; the object that it answers with, or an empty one."""
        answer = self._caller.request(
            method,
            self._url + path,
            data=content,
            headers=self._headers,
            limited=_LIMITED,
            hints=_MENDS,
        )
        data = answer.data
        if isinstance(data, list):
            return {"incidents": data}
        if not isinstance(data, dict):
            raise Undelivered("Statuspage answered with something else than JSON")
        return data

    def written(self, key: str, identifier: str | None) -> dict[str, Any] | None:
        """The incident whose last step is the message of this key, if it is there."""
        if identifier is not None:
            found = [self.call("GET", f"/incidents/{identifier}")]
        else:
            found = self.call("GET", "/incidents?limit=100").get("incidents") or []
        for incident in found:
            ours = (incident.get("metadata") or {}).get("deployguard") or {}
            if ours.get("key") == key:
                return dict(incident)
        return None
