"""What the providers document about the requests that are made of them, and what they do with them.

Slack: chat.postMessage, conversations.history and conversations.replies of the Web API, incoming
webhooks. PagerDuty: "Send an alert event" and "Send a change event" of the Events API v2. Twilio:
Message resource of the 2010-04-01 API. Statuspage: incidents of the v1 API. The Standard Webhooks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import time
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

from tests.notify.peer import Answer, Peer, Request

TEXT = {"type": "string", "minLength": 1}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


# --- Slack ----------------------------------------------------------------------------------------

_PLAIN = _object(["type", "text"], type={"const": "plain_text"}, text=TEXT)
_BLOCKS = {
    "type": "array",
    "maxItems": 50,
    "items": {
        "oneOf": [
            _object(
                ["type", "text"],
                type={"const": "header"},
                text={**_PLAIN, "properties": {"type": {}, "text": {**TEXT, "maxLength": 150}}},
            ),
            _object(
                ["type", "text"],
                type={"const": "section"},
                text={**_PLAIN, "properties": {"type": {}, "text": {**TEXT, "maxLength": 3000}}},
            ),
        ]
    },
}
_POST = _object(
    ["channel", "text"],
    channel={"type": "string", "pattern": "^C[A-Z0-9]+$"},
    text={**TEXT, "maxLength": 4000},
    blocks=_BLOCKS,
    thread_ts={"type": "string", "pattern": r"^\d{10}\.\d{6}$"},
    reply_broadcast={"type": "boolean"},
    unfurl_links={"type": "boolean"},
    unfurl_media={"type": "boolean"},
    metadata=_object(["event_type", "event_payload"], event_type=TEXT, event_payload={}),
)
_HISTORY = _object(
    ["channel"],
    channel=TEXT,
    ts=TEXT,
    include_all_metadata={"enum": ["true", "false"]},
    limit={"type": "string", "pattern": r"^\d{1,3}$"},
    oldest={"type": "string", "pattern": r"^\d+\.\d{6}$"},
    cursor=TEXT,
)


class SlackPeer(Peer):
    """A workspace with one channel, C024BE91L, and a webhook into it."""

    secret = "xoxb-2718281828-correcthorsebatterystaple"
    channel = "C024BE91L"
    hook = "/services/T00000000/B00000000/correcthorsebatterystapleXX"

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[dict[str, Any]] = []
        #: What is said to the next posts, with status 200 as Slack does.
        self.errors: list[str] = []
        self.may_read = True
        self.page_size = 100
        self._numbers = itertools.count(1)

    def answer(self, request: Request) -> Answer:
        if request.path == self.hook:
            content = request.json
            schema = _object(["text"], text={**TEXT, "maxLength": 4000}, blocks=_BLOCKS)
            if not self.check(content, schema, "webhook"):
                return Answer(400, "invalid_payload")
            self.messages.append(content)
            return Answer(200, "ok")
        if request.headers.get("authorization") != f"Bearer {self.secret}":
            return Answer(200, {"ok": False, "error": "invalid_auth"})
        method = request.path.rpartition("/")[2]
        if method == "chat.postMessage":
            return self._post(request)
        assert method in ("conversations.history", "conversations.replies")
        self.check(request.query, _HISTORY, method)
        if not self.may_read:
            return Answer(
                200, {"ok": False, "error": "missing_scope", "needed": "channels:history"}
            )
        thread = request.query.get("ts")
        found = [m for m in self.messages if m.get("thread_ts") == thread or m["ts"] == thread]
        start = int(request.query.get("cursor") or 0)
        page = found[::-1] if thread is None else found  # a channel newest first, a thread oldest
        more = str(start + self.page_size) if start + self.page_size < len(page) else ""
        return Answer(
            200,
            {
                "ok": True,
                "messages": page[start : start + self.page_size],
                "has_more": bool(more),
                "response_metadata": {"next_cursor": more},
            },
        )

    def _post(self, request: Request) -> Answer:
        if self.errors:
            return Answer(200, {"ok": False, "error": self.errors.pop(0)})
        content = request.json
        if not self.check(content, _POST, "chat.postMessage"):
            return Answer(200, {"ok": False, "error": "invalid_arguments"})
        if content["channel"] != self.channel:
            return Answer(200, {"ok": False, "error": "channel_not_found"})
        thread = content.get("thread_ts")
        if thread is not None and thread not in [m["ts"] for m in self.messages]:
            return Answer(200, {"ok": False, "error": "thread_not_found"})
        ts = f"{int(time.time())}.{next(self._numbers):06d}"
        self.messages.append({**content, "ts": ts})
        return Answer(200, {"ok": True, "channel": self.channel, "ts": ts, "message": {}})


# --- PagerDuty ------------------------------------------------------------------------------------

_KEY = {"type": "string", "minLength": 32, "maxLength": 32}
_DEDUP = {"type": "string", "minLength": 1, "maxLength": 255}
_STAMP = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"}
_SUMMARY = {"type": "string", "minLength": 1, "maxLength": 1024}
_LINKS = {"type": "array", "items": _object(["href"], href=TEXT, text=TEXT)}
_TRIGGER = _object(
    ["routing_key", "event_action", "payload"],
    routing_key=_KEY,
    event_action={"const": "trigger"},
    dedup_key=_DEDUP,
    payload=_object(
        ["summary", "source", "severity"],
        summary=_SUMMARY,
        source=TEXT,
        severity={"enum": ["critical", "error", "warning", "info"]},
        timestamp=_STAMP,
        component=TEXT,
        group=TEXT,
        custom_details={"type": "object"},
        **{"class": TEXT},
    ),
    images={"type": "array"},
    links=_LINKS,
    client=TEXT,
    client_url=TEXT,
)
_FOLLOW = _object(
    ["routing_key", "event_action", "dedup_key"],
    routing_key=_KEY,
    event_action={"enum": ["acknowledge", "resolve"]},
    dedup_key=_DEDUP,
)
_CHANGE = _object(
    ["routing_key", "payload"],
    routing_key=_KEY,
    payload=_object(
        ["summary"],
        summary=_SUMMARY,
        source=TEXT,
        timestamp=_STAMP,
        custom_details={"type": "object"},
    ),
    links=_LINKS,
)


class PagerDutyPeer(Peer):
    """A service with its alerts: what became of each, by its key."""

    secret = "R0123456789abcdefcorrecthorsebat"

    def __init__(self) -> None:
        super().__init__()
        #: Alerts as they were made; ``log`` has what was done to each.
        self.alerts: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []

    def answer(self, request: Request) -> Answer:
        event = request.json
        action = event.get("event_action")
        change = request.path == "/v2/change/enqueue"
        assert change or request.path == "/v2/enqueue"
        schema = _CHANGE if change else _TRIGGER if action == "trigger" else _FOLLOW
        if len(request.body) > 512 * 1024:
            self.violations.append("an event of more than 512 KB")
        if not self.check(event, schema, request.path) or event["routing_key"] != self.secret:
            return Answer(400, {"status": "invalid event", "message": "Event object is invalid"})
        accepted = Answer(202, {"status": "success", "message": "Event processed"})
        if change:
            self.changes.append(event["payload"])
            return accepted
        key = event["dedup_key"]
        alert = next((a for a in self.alerts if a["key"] == key and a["state"] != "resolved"), None)
        if action == "trigger":
            if alert is None:
                alert = {"key": key, "state": "triggered", "log": [], **event["payload"]}
                self.alerts.append(alert)
            alert["log"].append("trigger")
        elif alert is not None:  # else it is dropped
            alert["state"] = {"acknowledge": "acknowledged", "resolve": "resolved"}[action]
            alert["log"].append(action)
        return accepted


# --- Twilio ---------------------------------------------------------------------------------------

_SMS = {
    **_object(
        ["To", "Body"],
        To={"type": "string", "pattern": r"^\+[1-9]\d{6,14}$"},
        Body={"type": "string", "minLength": 1, "maxLength": 1600},
        From=TEXT,
        MessagingServiceSid={"type": "string", "pattern": "^MG[0-9a-fA-F]{32}$"},
    ),
    "oneOf": [{"required": ["From"]}, {"required": ["MessagingServiceSid"]}],
}
_SMS_LIST = _object([], To=TEXT, From=TEXT, PageSize={"pattern": r"^\d{1,4}$"})


class TwilioPeer(Peer):
    """An account and what was sent from it."""

    secret = "0123456789abcdefcorrecthorsebatt"
    account = "AC" + "0" * 32

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[dict[str, Any]] = []
        self.may_read = True

    def answer(self, request: Request) -> Answer:
        assert request.path == f"/2010-04-01/Accounts/{self.account}/Messages.json"
        credentials = base64.b64encode(f"{self.account}:{self.secret}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {credentials}":
            return self.error(401, 20003, "Authenticate")
        if request.method == "GET":
            self.check(request.query, _SMS_LIST, "list messages")
            if not self.may_read:
                return self.error(403, 20403, "Forbidden")
            to = request.query.get("To")
            found = [m for m in reversed(self.messages) if to in (None, m["to"])]
            return Answer(200, {"messages": found, "page_size": 50, "next_page_uri": None})
        content_type = request.headers.get("content-type")
        if content_type != "application/x-www-form-urlencoded":
            self.violations.append(f"a form of the type {content_type}")
        form = request.form
        if not self.check(form, _SMS, "create message"):
            return self.error(400, 21211, "Invalid 'To' Phone Number")
        message = {
            "sid": "SM" + hashlib.md5(str(len(self.messages)).encode()).hexdigest(),
            "to": form["To"],
            "body": form["Body"],
            "status": "queued",
            "date_created": formatdate(time.time()),
        }
        self.messages.append(message)
        return Answer(201, message)

    @staticmethod
    def error(status: int, code: int, message: str) -> Answer:
        """An error as Twilio words it."""
        more = f"https://www.twilio.com/docs/errors/{code}"
        return Answer(
            status, {"code": code, "message": message, "more_info": more, "status": status}
        )


# --- Statuspage -----------------------------------------------------------------------------------

_STATES = {"enum": ["investigating", "identified", "monitoring", "resolved"]}
_COMPONENT = {
    "enum": [
        "operational",
        "under_maintenance",
        "degraded_performance",
        "partial_outage",
        "major_outage",
    ]
}
_INCIDENT: dict[str, Any] = {
    "name": {**TEXT, "maxLength": 255},
    "status": _STATES,
    "impact_override": {"enum": ["none", "minor", "major", "critical"]},
    "metadata": {"type": "object", "additionalProperties": {"type": "object"}},
    "deliver_notifications": {"type": "boolean"},
    "body": {**TEXT, "maxLength": 25_000},
    "component_ids": {"type": "array", "items": TEXT},
    "components": {"type": "object", "additionalProperties": _COMPONENT},
}
_CREATE = _object(["incident"], incident=_object(["name"], **_INCIDENT))
_UPDATE = _object(["incident"], incident=_object([], **_INCIDENT))


class StatuspagePeer(Peer):
    """A page with one component, and its incidents with what was published."""

    secret = "2a7b9d4aac30956d537ac76850f4d78de30994703680056c"
    page = "qfn30z5r6s5h"
    component = "ftgks51sfs2d"

    def __init__(self) -> None:
        super().__init__()
        self.incidents: list[dict[str, Any]] = []
        self.components = {self.component: "operational"}

    def answer(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"OAuth {self.secret}":
            return Answer(401, {"error": "Could not authenticate"})
        base = f"/v1/pages/{self.page}/incidents"
        if not request.path.startswith(base):
            return Answer(404, {"error": "Page not found"})
        rest = request.path[len(base) :].strip("/")
        if request.method == "GET" and rest == "unresolved":
            return Answer(200, [i for i in self.incidents if i["status"] != "resolved"])
        if request.method == "GET" and not rest:
            self.check(request.query, _object([], limit={"pattern": r"^(\d{1,2}|100)$"}), "list")
            return Answer(200, list(reversed(self.incidents)))
        found = next((i for i in self.incidents if i["id"] == rest), None)
        if request.method != "POST" and found is None:
            return Answer(404, {"error": "Incident not found"})
        if request.method == "GET":
            return Answer(200, found)
        schema = _CREATE if request.method == "POST" else _UPDATE
        if not self.check(request.json, schema, f"{request.method} incident"):
            return Answer(422, {"error": ["Validation failed"]})
        step = request.json["incident"]
        if any(name not in self.components for name in step.get("components", {})):
            return Answer(422, {"error": ["Component not found"]})
        self.components.update(step.get("components", {}))
        if found is None:
            found = {"id": f"inc{len(self.incidents)}xyz", "incident_updates": []}
            self.incidents.append(found)
        found.update({name: value for name, value in step.items() if name != "body"})
        update = {"status": step["status"], "body": step["body"]}
        found["incident_updates"] = [update, *found["incident_updates"]]
        return Answer(201 if request.method == "POST" else 200, found)


# --- the Standard Webhooks ------------------------------------------------------------------------


class WebhookPeer(Peer):
    """A receiver that verifies the signature, and knows a message it has had by its id."""

    secret = "whsec_" + base64.b64encode(b"correct horse battery staple!").decode()

    def __init__(self) -> None:
        super().__init__()
        self.messages: dict[str, dict[str, Any]] = {}

    def answer(self, request: Request) -> Answer:
        headers = request.headers
        identifier, stamp = headers["webhook-id"], headers["webhook-timestamp"]
        signed = f"{identifier}.{stamp}.".encode() + request.body
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        if f"v1,{wanted}" not in headers["webhook-signature"].split(" "):
            return Answer(401, {"error": "bad signature"})
        if abs(time.time() - int(stamp)) > 300:
            return Answer(401, {"error": "too old"})
        self.check(
            json.loads(request.body),
            _object(["type", "timestamp", "data"], type=TEXT, timestamp=_STAMP, data={}),
            "webhook",
        )
        self.messages.setdefault(identifier, request.json)
        return Answer(204)


class ApprisePeer(Peer):
    """What Apprise's own ``json://`` posts to."""

    secret = "correcthorsebatterystaple"

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[dict[str, Any]] = []

    @property
    def where(self) -> str:
        """The URL in Apprise's words."""
        return f"json://ann:{self.secret}@{urlsplit(self.url).netloc}/"

    def answer(self, request: Request) -> Answer:
        self.messages.append(request.json)
        return Answer(200, "ok")
