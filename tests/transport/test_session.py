"""A session over plain streams, and over the fake program as a child."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from deployguard.errors import ActionFailed, ConnectionLost, ProtocolError
from deployguard.onhost import frames
from deployguard.plan.model import Host
from deployguard.transport.local import LocalTransport
from deployguard.transport.payload import Program
from deployguard.transport.session import PIECE, Session


@pytest.fixture
def session(program: Program, tmp_path: Path) -> Iterator[Session]:
    """A session with the fake program."""
    host = Host.model_validate({"transport": "local", "state_directory": str(tmp_path / "state")})
    with LocalTransport().connect("web1", host, program=program) as opened:
        yield opened


def pipe() -> tuple[BinaryIO, BinaryIO]:
    """Read end and write end."""
    reader, writer = os.pipe()
    return os.fdopen(reader, "rb"), os.fdopen(writer, "wb")


def scripted(*said: bytes) -> Session:
    """A session whose other end has said this and then hung up."""
    reader, theirs = pipe()
    theirs.write(b"".join(said))
    theirs.close()
    heard, writer = pipe()

    def close() -> None:
        reader.close()
        heard.close()

    return Session.over("web1", reader, writer, close)


HELLO = frames.encode({"hello": {"pid": 1}})


def test_hello_and_a_call(session: Session) -> None:
    """The hello is there at once, and a call returns the result."""
    assert session.hello["pid"] > 1
    assert session.call("echo", {"name": "\udce9"}) == {"name": "\udce9"}


def test_an_error_reply_is_an_action_failed(session: Session) -> None:
    """Everything the host said about the failure is on the exception, and the session goes on."""
    with pytest.raises(ActionFailed) as caught:
        session.call("fail")
    error = caught.value
    assert (error.host, error.kind, error.detail, error.hint) == ("web1", "space", [1], "free some")
    assert str(error) == "web1: the disk is full"
    assert session.call("echo") == {}


def test_an_upload_arrives_whole(session: Session) -> None:
    """20 MB in chunks of odd sizes come over intact."""
    data = os.urandom(20_000_000)
    chunks = (data[start : start + 77_777] for start in range(0, len(data), 77_777))
    expected = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert session.call("upload", stream=chunks, timeout=30) == expected


def test_events_during_an_upload_do_not_deadlock(session: Session) -> None:
    """The program writes far more than any buffer holds while we still send."""
    seen: list[dict[str, Any]] = []
    data = [bytes(PIECE)] * 64
    session.call("upload", {"events": 100}, stream=data, on_event=seen.append, timeout=30)
    assert len(seen) == 6400
    assert seen[-1]["size"] == 64 * PIECE


def test_an_error_ends_the_upload(session: Session) -> None:
    """An error in the middle of an upload is raised without sending the rest."""
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield bytes(PIECE)

    with pytest.raises(ActionFailed, match="not the bytes"):
        session.call("refuse_upload", stream=endless(), timeout=30)
    assert sent < 1000
    assert session.call("echo") == {}


def test_a_source_that_breaks_ends_the_session(session: Session) -> None:
    """Half a stream must not be taken for a whole one."""

    def breaking() -> Iterator[bytes]:
        yield bytes(PIECE)
        raise OSError("the file changed")

    with pytest.raises(OSError, match="the file changed"):
        session.call("upload", stream=breaking())
    with pytest.raises(ConnectionLost, match="session was closed"):
        session.call("echo")


def test_a_reply_with_bytes(session: Session) -> None:
    """The result comes first, then the bytes; more of them than wait in memory."""
    result, pieces = session.call_stream("download", {"size": 40_000_000})
    assert result == {"size": 40_000_000}
    assert sum(map(len, pieces)) == 40_000_000
    assert session.call("echo") == {}


def test_bytes_given_up_early(session: Session) -> None:
    """Closing the iterator leaves the session fit for the next request."""
    _, pieces = session.call_stream("download", {"size": 30_000_000})
    assert next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    _, unread = session.call_stream("download", {"size": 30_000_000})
    unread.close()  # type: ignore[attr-defined]
    assert session.call("echo") == {}


def test_a_plain_reply_to_call_stream(session: Session) -> None:
    """A verb that has no bytes to give yields none."""
    result, pieces = session.call_stream("echo", {"a": 1})
    assert (result, list(pieces)) == ({"a": 1}, [])


def test_beats_go_out_during_a_request(session: Session) -> None:
    """The lease is renewed while a request keeps the program busy."""
    session.keep_alive(0.05)
    assert session.call("sleep", {"seconds": 0.5})["beats"] >= 5


def test_a_program_that_does_not_answer_a_beat_is_lost(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is there and nothing ends: it is frozen, or the sshd before it is."""
    monkeypatch.setattr("deployguard.transport.session.SILENCE", 0.3)
    session.keep_alive(0.05)
    started = time.monotonic()
    with pytest.raises(ConnectionLost, match="nothing was heard"):
        session.call("sleep", {"seconds": 20})
    assert time.monotonic() - started < 10


def test_an_answer_to_a_beat_is_nobodys_reply() -> None:
    """Not even in the middle of a byte stream."""
    alive = frames.encode({"beat": True})
    reply = frames.encode({"id": 1, "result": {"n": 1}, "stream": True})
    pieces = [
        frames.encode_piece(b"ab"),
        alive,
        frames.encode_piece(b"c"),
        frames.encode_piece(b""),
    ]
    with scripted(HELLO, alive, reply, alive, *pieces) as session:
        result, stream = session.call_stream("fetch")
        assert (result, b"".join(stream)) == ({"n": 1}, b"abc")


def test_requests_take_turns(session: Session) -> None:
    """Two threads may use one session; each gets its own answer."""
    answers: dict[int, list[dict[str, Any]]] = {}

    def ask(who: int) -> None:
        answers[who] = [session.call("echo", {"who": who, "n": n}) for n in range(50)]

    threads = [threading.Thread(target=ask, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {who: [{"who": who, "n": n} for n in range(50)] for who in range(4)}


def test_a_crash_shows_its_last_words(session: Session) -> None:
    """The end of the program's stderr, and its exit status, are in the error."""
    session.keep_alive(0.01)
    with pytest.raises(ConnectionLost) as caught:
        session.call("crash")
    message = str(caught.value)
    assert "lost during crash" in message
    assert "exit status 1" in message
    assert message.endswith("RuntimeError: a bug on the host")
    assert len(message) < 10_000
    with pytest.raises(ConnectionLost, match="a bug on the host"):
        session.call("echo")


def test_no_answer_in_time(session: Session) -> None:
    """A call that times out ends the session, for nobody knows what the host will do."""
    started = time.monotonic()
    with pytest.raises(ConnectionLost, match="no answer in time"):
        session.call("sleep", {"seconds": 20}, timeout=0.2)
    assert time.monotonic() - started < 2
    with pytest.raises(ConnectionLost):
        session.beat()


def test_a_program_that_stops_reading(session: Session) -> None:
    """An upload nobody takes times out instead of blocking for ever."""
    with pytest.raises(ConnectionLost, match="takes no more input"):
        session.call("deaf", stream=(bytes(PIECE) for _ in range(1000)), timeout=0.5)


def test_garbage_on_the_wire(session: Session) -> None:
    """What is not a frame is a protocol error, with the bytes in it."""
    with pytest.raises(ProtocolError, match="Segme"):
        session.call("garbage")


def test_an_interrupted_wait_leaves_the_session_usable(session: Session) -> None:
    """The answer to a request whose listener raised is dropped when it comes."""

    def listener(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.call("upload", {"events": 1}, stream=[b"x"], on_event=listener)
    assert session.call("echo", {"n": 2}) == {"n": 2}


def test_a_hello_is_demanded() -> None:
    """The first frame is the hello and nothing else."""
    with pytest.raises(ProtocolError, match="expected a hello"):
        scripted(frames.encode({"id": 1, "result": {}}))


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (b"", "the host program is gone"),
        (frames.encode({"id": 1, "event": {}})[:-3], "the host program is gone"),
        (frames.encode({"id": 1, "result": [1]}), "echo answered"),
        (frames.encode({"id": 1, "result": {}, "stream": True}), "bytes nobody asked for"),
    ],
)
def test_replies_that_are_none(said: bytes, match: str) -> None:
    """A reply that is cut, or not of the agreed form, is an error and never a result."""
    with pytest.raises((ConnectionLost, ProtocolError), match=match):
        scripted(HELLO, said).call("echo")


def test_replies_to_others_are_skipped() -> None:
    """Only the reply with our number is ours."""
    others = frames.encode({"id": 9, "result": {"no": 1}}), frames.encode_piece(b"stray")
    with scripted(HELLO, *others, frames.encode({"id": 1, "result": {"yes": 1}})) as session:
        assert session.call("echo") == {"yes": 1}


def test_close_twice_and_as_context() -> None:
    """Closing is idempotent, and a closed session says so."""
    with scripted(HELLO) as session:
        session.close()
    with pytest.raises(ConnectionLost, match="session was closed"):
        session.call("echo")
