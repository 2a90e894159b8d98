"""Text messages through Twilio's Messages API, one request a number.

Twilio has no key against doubles. When it is not known whether an earlier try arrived, its list of
messages to that number is read first, and the same words since then count as this message. A key
that may not read is used all the same, and may then send one message twice.
"""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from deployguard.delivery import Rejected, Undelivered
from deployguard.notify.http import Caller, short
from deployguard.notify.message import Attempt, Receipt
from deployguard.notify.settings import ChannelSettings

__all__ = ["Sms"]

#: Of the 1,600 characters that Twilio takes; each 153 are billed as a message.
MOST_BODY = 320

_MENDS = {
    400: "the number of the error says more, at https://www.twilio.com/docs/api/errors",
    401: "the account, the API key or the token is wrong",
    403: "the account may not send there",
    404: "look at account",
}


class Sms:
    """See the module."""

    def __init__(self, settings: ChannelSettings) -> None:
        self._settings = settings

    def send(self, attempt: Attempt) -> Receipt:
        options, message = self._settings.options, attempt.message
        token = self._settings.demand("token")
        user = options.get("api_key") or options["account"]
        base = str(options["base_url"]).rstrip("/")
        url = f"{base}/2010-04-01/Accounts/{options['account']}/Messages.json"
        call = _Messages(Caller("Twilio", attempt, token), url, (str(user), token.reveal()))
        body = short(" ".join(f"{message.title}\n{message.text}".split(" ")).strip(), MOST_BODY)
        sid = call.sent(message.recipient, body, attempt.since) if attempt.again else None
        if sid is None:
            form = {"To": message.recipient, "Body": body}
            if "from" in options:
                form["From"] = str(options["from"])
            else:
                form["MessagingServiceSid"] = str(options["messaging_service"])
            sid = call.send(form)
        return {"sid": sid}


class _Messages:
    """The messages of one account."""

    def __init__(self, caller: Caller, url: str, auth: tuple[str, str]) -> None:
        self._caller = caller
        self._url = url
        self._auth = auth

    def send(self, form: dict[str, str]) -> str:
        answer = self._caller.request("POST", self._url, form=form, auth=self._auth, hints=_MENDS)
        data = answer.data
        if not isinstance(data, dict) or not isinstance(data.get("sid"), str):
            raise Undelivered("Twilio answered with something else than a message")
        return str(data["sid"])

    def sent(self, recipient: str, body: str, since: float) -> str | None:
        """The message with these words to a number, if there is one that did not fail."""
        query = {"To": recipient, "PageSize": "50"}
        try:
            answer = self._caller.request("GET", self._url, query=query, auth=self._auth)
        except Rejected:
            return None
        data = answer.data if isinstance(answer.data, dict) else {}
        for found in data.get("messages") or ():
            if (
                # A trial account puts words of its own in front.
                str(found.get("body") or "").endswith(body)
                and found.get("status") not in ("failed", "undelivered", "canceled")
                and _moment(found) >= since - 300
            ):
                return str(found["sid"])
        return None


def _moment(found: dict[str, Any]) -> float:
    try:
        moment: datetime = parsedate_to_datetime(str(found["date_created"]))
        return moment.timestamp()
    except (KeyError, TypeError, ValueError):
        return 0.0
