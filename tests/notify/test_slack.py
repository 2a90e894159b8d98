"""What Slack documents: threads, errors with status 200, limits, and what a webhook lacks."""

from __future__ import annotations

import time
from typing import Any

import pytest

from deployguard.delivery import Rejected, Undelivered
from deployguard.notify.message import Attempt, Message, Receipt
from deployguard.notify.registry import channel_of
from tests.notify.places import Place


def message(**changes: Any) -> Message:
    """The shop is down."""
    values: dict[str, Any] = {
        "key": "INC-20261121-001/ops/1",
        "kind": "opened",
        "subject": "INC-20261121-001",
        "title": "[critical] API down",
        "text": "nothing answers",
        "at": 1795262400.0,
        "level": 1,
        "state": "open",
        "service": "shop",
        "environment": "production",
    }
    return Message(**{**values, **changes})


def send(
    place: Place, said: Message, receipt: Receipt | None = None, *, again: bool = False
) -> Receipt:
    """One try."""
    give_up = time.monotonic() + 20
    attempt = Attempt(said, receipt, again, time.time(), time.monotonic, give_up)
    return channel_of(place.settings()).send(attempt)


slack = pytest.mark.parametrize("place", ["slack"], indirect=True)


@slack
def test_a_thread(place: Place) -> None:
    """What follows is in the thread of the first; what people wait for is said to all as well."""
    first = send(place, message())
    second = send(place, message(key="k/2", kind="acknowledged"), first)
    send(place, message(key="k/3", kind="resolved"), second)
    root, *replies = place.peer.messages
    assert "thread_ts" not in root
    assert [(m["thread_ts"], m["reply_broadcast"]) for m in replies] == [
        (root["ts"], False),
        (root["ts"], True),
    ]


@slack
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_lost_answer(place: Place, in_thread: bool) -> None:
    """The message is looked for, and its time stamp is used as if it had been answered."""
    root = send(place, message()) if in_thread else None
    said = message(key="k/2")
    place.peer.fail("drop after", method="POST")
    with pytest.raises(Undelivered):
        send(place, said, root)
    found = send(place, said, root, again=True)
    assert len(place.peer.messages) == (2 if in_thread else 1)
    assert found["ts"] == place.peer.messages[-1]["ts"]
    assert found["thread"] == place.peer.messages[0]["ts"]


@slack
def test_a_busy_channel(place: Place) -> None:
    """What others wrote meanwhile is read past, page by page."""
    place.peer.page_size = 2
    send(place, message())
    for number in range(5):
        send(place, message(key=f"k/{number}"))
    send(place, message(), again=True)
    assert len(place.peer.messages) == 6


@slack
def test_a_token_that_may_not_read(place: Place) -> None:
    """It says so in the documents: the message is posted again rather than not at all."""
    place.peer.may_read = False
    send(place, message())
    send(place, message(), again=True)
    assert len(place.peer.messages) == 2


@slack
@pytest.mark.parametrize(
    ("error", "kind", "mend"),
    [
        ("ratelimited", Undelivered, ""),
        ("service_unavailable", Undelivered, ""),
        ("not_in_channel", Rejected, "invite the bot into the channel"),
        ("channel_not_found", Rejected, "the bot must see it"),
        ("invalid_auth", Rejected, "the token is wrong or was revoked"),
        ("an_error_of_tomorrow", Rejected, "an_error_of_tomorrow"),
    ],
)
def test_errors_with_status_200(place: Place, error: str, kind: type[Exception], mend: str) -> None:
    """Those that pass are tried again, the others wait for a person."""
    place.peer.errors.append(error)
    with pytest.raises(kind) as caught:
        send(place, message())
    assert error in str(caught.value)
    assert mend in str(caught.value)
    assert place.peer.messages == []


@pytest.mark.parametrize("place", ["slack", "slack webhook"], indirect=True)
def test_what_is_said_is_text(place: Place) -> None:
    """Nobody is mentioned by a log line, and more than Slack takes is cut."""
    send(place, message(title="x" * 400, text="<!channel> & <https://evil|here> " + "y" * 9000))
    (posted,) = place.peer.messages
    assert "<" not in posted["text"]
    header, section = posted["blocks"]
    assert len(header["text"]["text"]) == 150
    assert section["text"]["text"].startswith("<!channel> & <https")
    assert section["text"]["type"] == "plain_text"


@pytest.mark.parametrize("place", ["slack webhook"], indirect=True)
@pytest.mark.parametrize(
    ("status", "content", "mend"),
    [
        (404, "no_service", "make a new one"),
        (410, "channel_is_archived", "is archived; make"),
    ],
)
def test_a_webhook_that_is_gone(place: Place, status: int, content: str, mend: str) -> None:
    """As Slack says it, with the mend, and without the URL, which is a secret."""
    place.peer.fail(status, content=content)
    with pytest.raises(Rejected) as caught:
        send(place, message())
    assert f"answered {status}: {content}" in str(caught.value)
    assert mend in str(caught.value)
    assert place.secret not in str(caught.value)


@pytest.mark.parametrize("place", ["slack webhook"], indirect=True)
@pytest.mark.parametrize("url", ["hooks.slack.com/services/T1", "https:/x", "https://[x", ""])
def test_a_webhook_that_is_no_url(place: Place, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again and again that cannot be: somebody has to copy it once more."""
    monkeypatch.setenv("SLACK_WEBHOOK", url)
    with pytest.raises((Rejected, Undelivered)) as caught:
        send(place, message())
    said = "$SLACK_WEBHOOK is not set here" if not url else "Slack's webhook: its URL is none (it"
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("place", ["slack webhook"], indirect=True)
def test_nobody_is_at_the_other_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which machine that is, is said; the way to it is not."""
    monkeypatch.setenv("SLACK_WEBHOOK", "http://127.0.0.1:1/services/a-secret-of-some-length")
    with pytest.raises(Undelivered) as caught:
        send(place, message())
    assert str(caught.value).startswith("Slack's webhook: 127.0.0.1: ConnectError: ")
    assert "a-secret" not in str(caught.value)
