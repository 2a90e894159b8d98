"""Mail to a real server with TLS and a password: threads, refusals, and servers that misbehave."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deployguard.delivery import Rejected, Undelivered
from deployguard.notify import email as module
from deployguard.notify.delivery import flush
from deployguard.notify.message import Attempt, Message
from deployguard.notify.registry import channel_of
from deployguard.store.journal import SqliteJournal
from tests.notify.conftest import Clock, book_of, keep, opening
from tests.notify.mailbox import USER, Mailbox
from tests.notify.places import Place
from tests.notify.test_slack import message, send
from tests.servers.certificates import Authority

mail = pytest.mark.parametrize("place", ["email"], indirect=True)


def to_ann(**changes: Any) -> Message:
    """A message to Ann."""
    return message(recipient="ann@example.com", **changes)


@mail
def test_a_thread(place: Place) -> None:
    """One subject, and each message refers to the first and to the one before it."""
    receipt = None
    for number, kind in enumerate(("opened", "acknowledged", "resolved"), 1):
        said = to_ann(key=f"INC/ops/{number}", kind=kind, title=f"API down: {kind}")
        receipt = send(place, said, receipt)
    first, second, third = (each for _, each in place.peer.taken)
    assert [each["Subject"] for each in (first, second, third)] == [
        *("API down: opened", "Re: API down: opened", "Re: API down: opened"),
    ]
    assert "In-Reply-To" not in first
    assert second["In-Reply-To"] == second["References"] == first["Message-ID"]
    assert third["In-Reply-To"] == second["Message-ID"]
    assert third["References"].split() == [first["Message-ID"], second["Message-ID"]]
    assert first["Message-ID"].endswith("@example.com>")
    assert third["Auto-Submitted"] == "auto-generated"
    assert third.get_content().split("\r\n") == ["API down: resolved", "", "nothing answers", ""]


@mail
def test_it_is_encrypted_and_signed_in(place: Place) -> None:
    """With STARTTLS, before the password is sent."""
    send(place, to_ann(text="Grüße"))
    ((address, taken),) = place.peer.taken
    assert (place.peer.sessions, place.peer.signed_in) == ([True], [USER])
    assert address == "ann@example.com"
    assert "Grüße" in taken.get_content()


@pytest.mark.parametrize("tls", ["implicit", "none"])
def test_the_other_ways_to_connect(tls: str, tmp_path: Path, monkeypatch: Any) -> None:
    """TLS from the first byte; or none, to a server on this machine."""
    box = Mailbox(tmp_path, tls=tls)
    monkeypatch.setenv("SMTP_PASSWORD", box.secret)
    options: dict[str, Any] = {
        "host": "localhost",
        "port": box.port,
        "tls": tls,
        "from": "deployguard@example.com",
        "to": ["ann@example.com"],
    }
    if tls == "implicit":
        options |= {"ca_file": str(box.ca_file), "user": USER, "password_env": "SMTP_PASSWORD"}
    place = Place("email", options, box, list, [], True, box.secret)
    try:
        send(place, to_ann())
        assert (len(box.taken), box.sessions) == (1, [tls == "implicit"])
    finally:
        box.close()


@mail
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("451 try again later", Undelivered),
        ("RCPT 450 greylisted", Undelivered),
        ("421 too busy", Undelivered),
        ("550 no such mailbox", Rejected),
        ("RCPT 550 no such mailbox", Rejected),
        ("554 looks like spam", Rejected),
    ],
)
def test_what_servers_say(place: Place, answer: str, kind: type[Exception]) -> None:
    """4xx passes, 5xx does not; what it says is kept."""
    place.peer.answers.append(answer)
    with pytest.raises(kind) as caught:
        send(place, to_ann())
    assert answer.removeprefix("RCPT ") in str(caught.value)
    assert place.peer.taken == []
    send(place, to_ann())
    assert len(place.peer.taken) == 1


@mail
def test_one_refused_costs_the_others_nothing(journal: SqliteJournal, place: Place) -> None:
    """Each recipient is a delivery of its own; all see the same message."""
    clock = Clock(time.time())
    place.options["to"] = ["ann@example.com", "bob@example.com"]
    place.peer.answers.append("RCPT 550 ann has left")
    keep(journal, place.settings())
    book_of(journal, clock).open(opening())
    assert [one.state for one in flush(journal, clock=clock)] == ["rejected", "delivered"]
    ((address, taken),) = place.peer.taken
    assert (address, taken["To"]) == ("bob@example.com", "ann@example.com, bob@example.com")


@mail
def test_a_password_that_is_wrong(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not tried again, or the account is locked; it is in no message."""
    monkeypatch.setenv("SMTP_PASSWORD", "guessed-wrongly")
    with pytest.raises(Rejected, match="535") as caught:
        send(place, to_ann())
    assert "guessed-wrongly" not in str(caught.value)
    assert place.peer.taken == []


@mail
def test_a_certificate_of_somebody_else(place: Place, tmp_path: Path) -> None:
    """Nothing is sent, the password least of all."""
    place.options["ca_file"] = str(Authority(tmp_path, "Another Authority").ca_file)
    with pytest.raises(Rejected, match="certificate is not trusted"):
        send(place, to_ann())
    assert (place.peer.taken, place.peer.signed_in) == ([], [])


def test_a_server_without_starttls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent in the open to a server that should encrypt."""
    box = Mailbox(tmp_path, tls="none")
    options = {
        "host": "localhost",
        "port": box.port,
        "tls": "starttls",
        "from": "deployguard@example.com",
        "to": ["ann@example.com"],
    }
    try:
        with pytest.raises(Rejected, match="STARTTLS"):
            send(Place("email", options, box, list, [], True, ""), to_ann())
        assert box.taken == []
    finally:
        box.close()


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server of a few lines; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            try:
                connection, _ = server.accept()
                with connection:
                    serve(connection)
            except OSError:
                pass

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]


@pytest.mark.parametrize("how", ["says nothing", "trickles", "hangs up"])
def test_a_server_that_is_no_good(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is over with the deadline, whatever the server does."""
    monkeypatch.setattr(module, "TIMEOUT", 30.0)
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        if how == "hangs up":
            connection.sendall(b"220 hello\r\n")
        while how == "trickles" and not over.wait(0.02):
            connection.sendall(b"2")
        if how == "says nothing":
            over.wait(30)

    with listening(serve) as port:
        options = {
            "host": "localhost",
            "port": port,
            "tls": "none",
            "from": "deployguard@example.com",
            "to": ["ann@example.com"],
        }
        place = Place("email", options, None, list, [], True, "")
        attempt = Attempt(to_ann(), None, False, 0.0, time.monotonic, time.monotonic() + 0.5)
        with pytest.raises(Undelivered):
            channel_of(place.settings()).send(attempt)
        over.set()
