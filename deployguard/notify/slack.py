"""Slack: a thread for each incident with a bot's token, or an incoming webhook without threads.

With a token every message carries metadata with its key. When it is not known whether an earlier
try arrived, the channel, or the thread, is read for it first (scopes ``channels:history`` and
``groups:history``, and ``metadata.message:read``). A token that may not read is used all the same,
and may then post one message twice. A webhook can be asked nothing, so the same holds for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deployguard.delivery import Rejected, Undelivered
from deployguard.notify.http import Caller, short
from deployguard.notify.message import Attempt, Message, Receipt
from deployguard.notify.settings import ChannelSettings
from deployguard.secret import Secret

__all__ = ["Slack"]

#: What Slack takes in the text of one block, in characters.
MOST_BLOCK = 3000
#: What it takes in ``text`` before it is cut.
MOST_TEXT = 4000

#: How far back a message is looked for, in pages of a hundred.
MOST_PAGES = 10

EVENT = "deployguard_notification"

#: The error names of the Web API after which another try may do.
_PASSING = (
    "ratelimited",
    "rate_limited",
    "message_limit_exceeded",
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "team_added_to_org",
)
_MENDS = {
    "channel_not_found": "channel: takes the id of a channel, and the bot must see it",
    "not_in_channel": "invite the bot into the channel",
    "is_archived": "the channel is archived; name another one",
    "invalid_auth": "the token is wrong or was revoked",
    "not_authed": "the token is empty",
    "token_revoked": "the token was revoked",
    "token_expired": "the token has expired",
    "account_inactive": "the bot was removed from the workspace",
    "missing_scope": "the bot needs the scope chat:write",
}
_WEBHOOK_MENDS = {
    403: "the webhook may not post there any more; make a new one",
    404: "the webhook or its channel is gone; make a new one",
    410: "the channel is archived; make a webhook for another one",
}


class Slack:
    """See the module."""

    def __init__(self, settings: ChannelSettings) -> None:
        self._options = settings.options
        self._settings = settings

    def send(self, attempt: Attempt) -> Receipt:
        token = self._settings.secret("token")
        if token is None:
            return self._to_webhook(attempt, self._settings.demand("webhook"))
        receipt = attempt.receipt or {}
        thread = receipt.get("thread")
        api = _Api(str(self._options["base_url"]).rstrip("/"), attempt, token)
        ts = self._look_up(api, attempt, thread) if attempt.again else None
        if ts is None:
            ts = api.post(self._content(attempt.message, thread))
        return {"thread": thread or ts, "ts": ts, "channel": self._options["channel"]}

    def _content(self, message: Message, thread: str | None) -> dict[str, Any]:
        content: dict[str, Any] = {
            "channel": self._options["channel"],
            **_text(message),
            "unfurl_links": False,
            "unfurl_media": False,
            "metadata": {"event_type": EVENT, "event_payload": {"key": message.key}},
        }
        if thread is not None:
            content["thread_ts"] = thread
            # A thread is easily missed: what people have to act on, or wait for, is said to all.
            content["reply_broadcast"] = message.kind in ("escalated", "reopened", "resolved")
        return content

    def _look_up(self, api: _Api, attempt: Attempt, thread: str | None) -> str | None:
        """The time stamp of the message, if an earlier try has posted it."""
        query = {
            "channel": str(self._options["channel"]),
            "include_all_metadata": "true",
            "limit": "100",
            # Clocks differ a little.
            "oldest": f"{attempt.since - 300:.6f}",
        }
        method = "conversations.history"
        if thread is not None:
            query["ts"] = thread
            method = "conversations.replies"
        for found in api.messages(method, query):
            metadata = found.get("metadata") or {}
            payload = metadata.get("event_payload") or {}
            if metadata.get("event_type") == EVENT and payload.get("key") == attempt.message.key:
                return str(found["ts"])
        return None

    def _to_webhook(self, attempt: Attempt, url: Secret) -> Receipt:
        content = _text(attempt.message)
        Caller("Slack's webhook", attempt, url).request(
            "POST", url.reveal(), data=content, hints=_WEBHOOK_MENDS
        )
        return {"webhook": True}


class _Api:
    """Slack's Web API with one token: it says ``"ok": false`` with status 200."""

    def __init__(self, base_url: str, attempt: Attempt, token: Secret) -> None:
        self._base_url = base_url
        self._caller = Caller("Slack", attempt, token)
        self._headers = {"Authorization": f"Bearer {token.reveal()}"}

    def post(self, content: Mapping[str, Any]) -> str:
        """``chat.postMessage``; the time stamp that names the message."""
        answer = self._call("POST", "chat.postMessage", data=content)
        ts = answer.get("ts")
        if not isinstance(ts, str):
            raise Undelivered("Slack answered without the time stamp of the message")
        return ts

    def messages(self, method: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Messages of a channel or a thread; none where the token may not read them."""
        asked = dict(query)
        for _ in range(MOST_PAGES):
            try:
                page = self._call("GET", method, query=asked)
            except Rejected:
                return
            yield from (one for one in page.get("messages") or () if isinstance(one, dict))
            cursor = (page.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return
            asked["cursor"] = str(cursor)

    def _call(self, verb: str, method: str, **options: Any) -> dict[str, Any]:
        answer = self._caller.request(
            verb, f"{self._base_url}/{method}", headers=self._headers, **options
        )
        data = answer.data
        if not isinstance(data, dict):
            raise Undelivered("Slack answered with something else than JSON")
        if data.get("ok") is True:
            return data
        error = str(data.get("error") or "no reason given")
        said = f"Slack refused {method}: {short(error, 100)}"
        if error in _PASSING:
            raise Undelivered(said, retry_after=answer.retry_after)
        raise Rejected(said, _MENDS.get(error, ""))


def _text(message: Message) -> dict[str, Any]:
    """The fields of a message. What came from hosts is text for Slack, and no mark-up: in plain
    ``text`` the three characters are escaped that could mention people or make links."""
    title, body = message.title, message.text
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": short(title, 150)}}
    ]
    if body:
        block = {"type": "plain_text", "text": short(body, MOST_BLOCK)}
        blocks.append({"type": "section", "text": block})
    text = short(_escaped(f"{title}\n{body}".strip()), MOST_TEXT)
    return {"text": text, "blocks": blocks}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
