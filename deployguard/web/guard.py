"""Who is let in, and what every answer says to the browser.

* The name in ``Host`` is one of this machine's own: a page elsewhere whose name was made to point
  to 127.0.0.1 gets nothing (DNS rebinding).
* The other end belongs to this user, see :mod:`deployguard.web.peer`; or it has the token, or asks
  for the metrics alone.
* Nothing is changed unless a token was set and given, by a form of ours: the cookie is
  ``SameSite``, the form carries a key of the session, and the browser says that it came from here.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployguard.web.peer import is_ours

__all__ = ["COOKIE", "Door", "Guarded", "policy"]

COOKIE = "deployguard"

#: Numbers and the names of services, for a Prometheus that runs as somebody else.
_COUNTS = "/openmetrics"
_NAMES = ("localhost", "127.0.0.1", "::1")
_ALWAYS = {
    "x-content-type-options": "nosniff",
    # With `no-referrer` the browser would send our own forms with `Origin: null`.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


def policy(style: str, *, forms: bool = True) -> str:
    """What a page may do; ``style`` is the hash of its style sheet."""
    return (
        f"default-src 'none'; style-src {style}; script-src 'self'; connect-src 'self'; "
        f"form-action {chr(39)}{'self' if forms else 'none'}{chr(39)}; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


@dataclass
class Door:
    """The token, kept as a hash, and the sessions of those who gave it."""

    digest: bytes | None = None
    sessions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def with_token(cls, token: str | None) -> Door:
        """A door that a token opens; without one nothing can be changed."""
        return cls(None if token is None else _digest(token))

    @property
    def opens(self) -> bool:
        """Whether there is a token at all."""
        return self.digest is not None

    def enter(self, token: str) -> str | None:
        """A new session for the right token."""
        if self.digest is None or not hmac.compare_digest(self.digest, _digest(token)):
            return None
        session = secrets.token_urlsafe(32)
        self.sessions[session] = secrets.token_urlsafe(32)
        return session

    def key(self, request: Request) -> str:
        """What forms of this session carry; empty for somebody without one."""
        return self.sessions.get(request.cookies.get(COOKIE, ""), "")

    def may_change(self, request: Request, key: str) -> bool:
        """Whether a form was sent by our own page, to somebody who gave the token."""
        mine = self.key(request)
        return bool(mine) and hmac.compare_digest(mine.encode(), key.encode()) and is_own(request)


def is_own(request: Request) -> bool:
    """Whether the browser says that a form came from a page of ours."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return False
    return request.headers.get("sec-fetch-site", "same-origin") == "same-origin"


class Guarded:
    """The application behind the door."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
                headers.setdefault(
                    "content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox"
                )
            await send(message)

        refused = self._refused(Request(scope))
        if refused is not None:
            await PlainTextResponse(f"{refused}\n", status_code=403)(scope, receive, safe)
            return
        await self._app(scope, receive, safe)

    def _refused(self, request: Request) -> str | None:
        if not _is_local(request.headers.get("host", "")):
            return "this is for names of this machine: http://127.0.0.1 or http://localhost"
        if request.method not in ("GET", "HEAD", "POST"):
            return "there is nothing here to do that with"
        if request.url.path == _COUNTS or (self._door.opens and request.url.path == "/token"):
            return None
        peer = is_ours(request.scope.get("client"), request.scope.get("server"))
        if not peer and not self._door.key(request):
            return "this belongs to another user of this machine"
        return None


def _is_local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name in _NAMES


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
