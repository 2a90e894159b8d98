"""One HTTP request to a provider, and what its answer means. Nothing is repeated here."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from deployguard.delivery import Rejected, Undelivered
from deployguard.notify.message import Attempt
from deployguard.notify.settings import parts_of
from deployguard.secret import Secret

__all__ = ["Answer", "Caller", "short"]

#: Seconds for which each wait for the network may last.
TIMEOUT = 8.0
#: What a rate limit asks for that names no time, in seconds.
UNSAID_WAIT = 30.0
#: Nothing that a provider answers is longer, in bytes.
MOST_ANSWER = 8 << 20


@dataclass(frozen=True)
class Answer:
    """An answer, read to its end, without the secrets it was asked with."""

    status: int
    headers: Mapping[str, str]
    text: str = field(repr=False)

    @property
    def data(self) -> Any:
        """The body if it is JSON, else ``None``: a proxy's own page may come with status 200."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    @property
    def retry_after(self) -> float | None:
        """Seconds that the other side wants to be left alone for, where it says so."""
        asked = self.headers.get("retry-after")
        if asked is None:
            return None
        if re.fullmatch(r"\d{1,9}(\.\d+)?", asked.strip()):
            return max(float(asked), 1.0)
        try:
            now = parsedate_to_datetime(self.headers["date"])
            return max((parsedate_to_datetime(asked) - now).total_seconds(), 1.0)
        except (KeyError, TypeError, ValueError):
            return None


class Caller:
    """Requests of one attempt to one provider. ``secrets`` are struck out of whatever it says."""

    def __init__(self, provider: str, attempt: Attempt, *secrets: Secret | None) -> None:
        self._provider = provider
        self._attempt = attempt
        whole = [secret for secret in secrets if secret is not None and secret]
        parts = [part for secret in whole for part in parts_of(secret)]
        self._secrets = [secret.reveal() for secret in whole + parts]

    def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        data: Any = None,
        form: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        limited: tuple[int, ...] = (429,),
        hints: Mapping[int, str] | None = None,
    ) -> Answer:
        """One request; a success is returned, anything else raised as what to do about it.

        ``limited`` are the statuses of a rate limit, ``hints`` the mends for statuses of refusals.
        """
        timeout = min(TIMEOUT, self._attempt.left)
        host = _host(url)
        if not host:
            mend = "it begins with https:// and a name; look at where the plan says that it is"
            raise Rejected(f"{self._provider}: its URL is none", mend)
        problem = answer = None
        try:
            answer = self._exchange(
                method,
                url,
                timeout,
                content=content,
                json=data,
                data=form,
                params=query,
                headers=dict(headers or {}),
                auth=auth,
            )
        except Undelivered:
            raise
        except Exception as failure:  # noqa: BLE001 -- whatever the library raises holds the request
            problem = f"{host}: {type(failure).__name__}: {failure}"
        if answer is None:
            raise Undelivered(self._clean(f"{self._provider}: {problem}"))
        if 200 <= answer.status < 300:
            return answer
        said = self._clean(f"{self._provider} answered {answer.status}: {_reason(answer)}")
        if answer.status in limited:
            raise Undelivered(said, retry_after=answer.retry_after or UNSAID_WAIT)
        if answer.status in (408, 425) or answer.status >= 500:
            raise Undelivered(said, retry_after=answer.retry_after)
        if 300 <= answer.status < 400:
            raise Rejected(said, "it has moved: use its new address")
        raise Rejected(said, (hints or {}).get(answer.status, ""))

    def _exchange(self, method: str, url: str, timeout: float, **options: Any) -> Answer:
        import httpx2  # here, not above: importing it costs 80 ms that not every command owes

        options["headers"].setdefault("User-Agent", "deployguard")
        with (
            httpx2.Client(timeout=timeout, verify=_authorities()) as client,
            client.stream(method, url, **options) as response,
        ):
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                # The timeout is for each piece; a body that trickles would never meet it.
                if self._attempt.clock() > self._attempt.give_up or len(body) > MOST_ANSWER:
                    raise Undelivered(f"{self._provider}: the answer does not end")
            return Answer(
                response.status_code,
                {name.lower(): value for name, value in response.headers.items()},
                self._clean(body.decode("utf-8", "replace")),
            )

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "******")
        return text


def _host(url: str) -> str:
    """The name in a URL of the web; empty where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return ""
    return parts.hostname or "" if parts.scheme in ("http", "https") else ""


@cache
def _authorities() -> ssl.SSLContext:
    """Whom to believe; to read that anew for each request costs more than the request."""
    import httpx2

    return httpx2.create_ssl_context()


def _reason(answer: Answer) -> str:
    """What a provider says is wrong, in one short line."""
    data = answer.data
    words = answer.text
    if isinstance(data, dict):
        found = [data.get(name) for name in ("message", "error", "errors", "detail")]
        words = " ".join(str(word) for word in found if word) or words
    return short(" ".join(words.split()), 300) or "no reason given"


def short(text: str, most: int) -> str:
    """``text`` in ``most`` characters at the most."""
    return text if len(text) <= most else text[: most - 1] + "…"
