"""Apprise: what it says no to, what it never comes back from, and life without it."""

from __future__ import annotations

import sys
import time

import pytest

from deployguard.delivery import Rejected, Undelivered
from deployguard.notify.message import Attempt
from deployguard.notify.registry import channel_of
from tests.notify.places import Place
from tests.notify.test_slack import message, send

pytestmark = pytest.mark.parametrize("place", ["apprise"], indirect=True)


@pytest.mark.parametrize(
    ("kind", "level", "type_"),
    [("opened", 1, "failure"), ("opened", 3, "warning"), ("resolved", 1, "success"),
     ("acknowledged", 1, "info")],
)  # fmt: skip
def test_the_kinds_of_apprise(place: Place, kind: str, level: int, type_: str) -> None:
    """By what happened, and how bad it is."""
    send(place, message(kind=kind, level=level))
    (posted,) = place.peer.messages
    assert (posted["title"], posted["message"]) == ("[critical] API down", "nothing answers")
    assert posted["type"] == type_


def test_a_service_that_fails(place: Place) -> None:
    """It is tried again."""
    place.peer.fail(500)
    with pytest.raises(Undelivered, match="could not deliver"):
        send(place, message())


def test_a_service_that_never_answers(place: Place) -> None:
    """It is over with the deadline."""
    place.peer.fail("hang")
    attempt = Attempt(message(), None, False, 0.0, time.monotonic, time.monotonic() + 0.5)
    with pytest.raises(Undelivered, match="did not come to an end in time"):
        channel_of(place.settings()).send(attempt)


def test_a_url_that_is_none(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a person, and is not shown, since it is a secret."""
    monkeypatch.setenv("APPRISE_URL", f"{place.peer.where} nosuch://correct-horse")
    with pytest.raises(Rejected, match="does not understand one of the URLs") as caught:
        send(place, message())
    assert "correct-horse" not in str(caught.value)
    assert place.peer.messages == []


def test_without_the_extra(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(Rejected, match=r"pip install 'deployguard\[apprise\]'"):
        send(place, message())
