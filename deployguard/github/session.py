"""Speaks to GitHub's REST interface: one request at a time, and what its answer means.

Nothing is repeated here, because only the caller can tell whether repeating is safe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from deployguard.delivery import Rejected, Undelivered

if TYPE_CHECKING:
    from httpx2 import Client, Request

__all__ = ["HINTS", "Missing", "Reply", "Session", "session"]

MOST_ANSWER = 64 << 20  # a page of 100 full issues is 6.5 MB, or 26 MB outside of ASCII
UNSAID_WAIT = 60.0  # what GitHub asks for when a rate limit names no time

HINTS = {
    401: "the token is wrong or has expired; a GITHUB_TOKEN ends with its job",
    404: "check the name; a private repository the token cannot see is answered like this too",
}


@dataclass(frozen=True)
class Reply:
    """An answer, read to its end. ``next_query`` asks for the page after this one."""

    status: int
    headers: Mapping[str, str]
    text: str = field(repr=False)
    next_query: dict[str, Any] | None

    def json(self, shape: type) -> Any:
        """The body, which must be of ``shape``: a proxy's own page can come with status 200."""
        value = _loaded(self.text)
        if not isinstance(value, shape):
            raise Undelivered(f"GitHub answered {self.status} with something else than JSON")
        return value

    def members(self, within: str = "") -> list[Any]:
        """The list that the body is, or that stands in it under ``within``."""
        found = self.json(dict).get(within) if within else self.json(list)
        if not isinstance(found, list):
            raise Undelivered(f"GitHub answered {self.status} without {within}")
        return found


class Missing(Rejected):
    """404 or 410: what was asked for is not there, or not for this token to see."""


@contextmanager
def session(
    base_url: str,
    token: Callable[[], str],
    *,
    clock: Callable[[], float],
    timeout: float,
    deadline: float,
    hints: Mapping[int, str] = HINTS,
) -> Iterator[Session]:
    """A connection to what is below ``base_url``, good until ``deadline`` seconds from now.

    ``hints`` are the mends for statuses that GitHub refuses with.
    """
    if not _usable(token()):
        raise Rejected("the GitHub token is empty or no token at all", HINTS[401])
    import httpx2  # here, not above: importing it costs 80 ms that not every deploy owes

    def authorise(request: Request) -> Request:
        request.headers["Authorization"] = f"Bearer {token().strip()}"
        return request

    headers = {
        "Accept": "application/vnd.github+json",
        "User-Agent": "deployguard",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    with httpx2.Client(
        base_url=base_url, auth=authorise, headers=headers, timeout=timeout
    ) as client:
        yield Session(client, token, clock, clock() + deadline, hints)


class Session:
    """Requests over one connection, none of them after ``give_up`` on the clock."""

    def __init__(
        self,
        client: Client,
        token: Callable[[], str],
        clock: Callable[[], float],
        give_up: float,
        hints: Mapping[int, str],
    ) -> None:
        self._client = client
        self._hints = hints
        self._token = token
        self._clock = clock
        self.give_up = give_up

    def pages(
        self, path: str, query: Mapping[str, Any], *, most: int | None = None, within: str = ""
    ) -> Iterator[dict[str, Any]]:
        """The members of a list, pull requests left out, which GitHub lists among the issues.

        ``within`` is the field that holds the list, where the answer is an object around it. Of
        the link to the next page only the query is used: the link's host is for the server to
        choose, and the token must not follow it.
        """
        asked: dict[str, Any] | None = {**query, "per_page": 100}
        while asked is not None and most != 0:
            reply = self.request("GET", path, query=asked)
            for member in reply.members(within):
                if isinstance(member, dict) and "pull_request" not in member:
                    yield member
            asked = reply.next_query
            most = None if most is None else most - 1

    def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        content: dict[str, Any] | None = None,
    ) -> Reply:
        """One request, not repeated; anything but a success is raised as what to do about it."""
        if self._clock() > self.give_up:
            raise Undelivered(f"{method} {path}: the deadline for GitHub has passed")
        problem = reply = None
        try:
            reply = self._exchange(method, path, query, content)
        except Undelivered:
            raise
        except Exception as failure:  # noqa: BLE001 -- for the reason below
            # Whatever the library raises goes no further: the frames and the request it hangs on
            # to hold the token. Raised outside of this block, so that it is no context either.
            problem = self._without_token(f"{type(failure).__name__}: {failure}")
        if reply is None:
            raise Undelivered(f"{method} {path}: {problem}")
        if 200 <= reply.status < 300:
            return reply
        said = f"{method} {path}: {reply.status}: {_message(reply)}"
        if _is_rate_limit(reply):
            raise Undelivered(said, retry_after=_wait_of(reply))
        if reply.status >= 500 or reply.status == 408:
            raise Undelivered(said, retry_after=_asked_wait(reply))
        if 300 <= reply.status < 400:
            raise Rejected(said, "the repository has moved: use its new owner/name")
        refusal = Missing if reply.status in (404, 410) else Rejected
        raise refusal(said, self._hints.get(reply.status, ""))

    def _exchange(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None,
        content: dict[str, Any] | None,
    ) -> Reply:
        with self._client.stream(method, path, params=query, json=content) as response:
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                # The timeout is for each piece; a body that trickles would never meet it.
                if self._clock() > self.give_up or len(body) > MOST_ANSWER:
                    raise Undelivered(f"{method} {path}: the answer does not end")
            following = response.links.get("next", {}).get("url")
            return Reply(
                response.status_code,
                {name.lower(): value for name, value in response.headers.items()},
                self._without_token(body.decode("utf-8", "replace")),
                dict(response.url.join(following).params) if following else None,
            )

    def _without_token(self, text: str) -> str:
        """``text`` with the token struck out: a proxy may echo what it was sent."""
        return text.replace(self._token().strip(), "******")


def _usable(token: str) -> bool:
    """Whether ``token`` can stand in a header; if not, the HTTP library would quote it."""
    return re.fullmatch(r"[!-~]+", token.strip()) is not None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _message(reply: Reply) -> str:
    """What GitHub says is wrong, with the fields it names, in one short line."""
    said = _loaded(reply.text)
    if not isinstance(said, dict):
        return "no reason given"
    errors = json.dumps(said["errors"]) if said.get("errors") else ""
    return " ".join(f"{said.get('message')} {errors}".split())[:500]


def _is_rate_limit(reply: Reply) -> bool:
    """A 403 may be one as well; nothing but its headers and its words tells."""
    return reply.status == 429 or (
        reply.status == 403
        and (
            "retry-after" in reply.headers
            or reply.headers.get("x-ratelimit-remaining") == "0"
            or "rate limit" in _message(reply).lower()
        )
    )


def _wait_of(reply: Reply) -> float:
    """How long GitHub wants to be left alone, at least a second.

    The reset is a time on GitHub's clock, so it is held against the answer's own date.
    """
    asked = _asked_wait(reply)
    if asked is not None:
        return asked
    reset = _seconds(reply.headers.get("x-ratelimit-reset"))
    if reset is not None and reply.headers.get("x-ratelimit-remaining") == "0":
        try:
            return max(1.0, reset - parsedate_to_datetime(reply.headers["date"]).timestamp())
        except (KeyError, ValueError):
            pass
    return UNSAID_WAIT


def _asked_wait(reply: Reply) -> float | None:
    asked = _seconds(reply.headers.get("retry-after"))
    return None if asked is None else max(1.0, asked)


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and re.fullmatch(r"\d{1,12}", header) else None
