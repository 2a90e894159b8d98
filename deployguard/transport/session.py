"""A conversation with one host program: requests out, replies and events back.

A thread of its own reads the wire all the time, whatever the caller is doing. That is what keeps
a large upload from deadlocking: a program that reports progress while we send never finds its
output full, and an error reply in the middle of an upload is seen at once. Writes are locked a
frame at a time, so that a heartbeat goes out between the frames of a running request.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, BinaryIO

from deployguard.errors import ActionFailed, ConnectionLost, HostFailure, ProtocolError
from deployguard.onhost import frames
from deployguard.transport.base import Link
from deployguard.transport.inbox import Inbox, Message

__all__ = ["Session", "StreamLink"]

_ALIVE = {"beat": True}
EventListener = Callable[[Message], None]

#: With its frame header, a piece fills two SSH packets as OpenSSH takes them and paramiko cuts
#: them, and not two and a bit.
PIECE = 2 * (32 * 1024 - 64) - 5
#: Seconds in which a program that is heard from must answer, at least; a network may be slow.
SILENCE = 30.0
#: An interrupted run has seconds left, and many hosts to tell.
_FAREWELL = 0.5


class Session:
    """A host program that has said hello. One request at a time; other threads wait their turn.

    After :class:`ConnectionLost` or :class:`ProtocolError` the session is closed for good.
    """

    def __init__(self, host: str, link: Link, *, hello_timeout: float | None = 30.0) -> None:
        self.host = host
        self._link = link
        self._turn = threading.Lock()
        self._writing = threading.Lock()
        self._losing = threading.Lock()
        self._loss = ""
        self._inbox = Inbox()
        self._number = 0
        self._closed = False
        self._beating: threading.Event | None = None
        self._heard = time.monotonic()
        link.patience(None)
        threading.Thread(target=self._read, name=f"deployguard-{host}", daemon=True).start()
        first = self._next(_deadline(hello_timeout), "its start")
        if not isinstance(first, dict) or not isinstance(first.get("hello"), dict):
            raise self._broken_protocol(f"expected a hello, got {_brief(first)}")
        #: The facts the program began with.
        self.hello: dict[str, Any] = first["hello"]

    @classmethod
    def over(
        cls, host: str, reader: BinaryIO, writer: BinaryIO, close: Callable[[], None] | None = None
    ) -> Session:
        """A session over two binary streams, for a program that runs elsewhere, as in tests."""
        return cls(host, StreamLink(reader, writer, close))

    def call(
        self,
        verb: str,
        args: Message | None = None,
        *,
        stream: Iterable[bytes] | None = None,
        on_event: EventListener | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """The result of one request; ``stream`` are the bytes that follow it.

        ``on_event`` is called in this thread, with the event alone. When the program answers with
        an error in the middle of the stream, the rest of the stream is not sent.
        """
        with self._turn:
            reply = self._exchange(verb, args, stream, on_event, _deadline(timeout))
            if reply.get("stream"):
                raise self._broken_protocol(f"{verb} answered with bytes nobody asked for")
            return self._result(verb, reply)

    def call_stream(
        self,
        verb: str,
        args: Message | None = None,
        *,
        on_event: EventListener | None = None,
        timeout: float | None = None,
    ) -> tuple[dict[str, Any], Iterator[bytes]]:
        """The result of one request and the bytes that come with it.

        The iterator must be exhausted or closed before the next request can start; ``timeout``
        is for the reply and then for each piece.
        """
        self._turn.acquire()
        try:
            reply = self._exchange(verb, args, None, on_event, _deadline(timeout))
            result = self._result(verb, reply)
        except BaseException:
            self._turn.release()
            raise
        if not reply.get("stream"):
            self._turn.release()
            return result, iter(())
        pieces = self._pieces(verb, timeout)
        next(pieces)  # Starts it, so that closing it unread still gives the turn back.
        return result, pieces

    def beat(self) -> None:
        """Renew the lease. May be called from any thread, during a request as well.

        Waits while an upload holds the wire: a host too busy to take the upload is not lost.
        """
        self._send(frames.encode({"verb": "beat"}), None, "a heartbeat")

    def hand_over(self) -> None:
        """Tell the program that we are leaving: what has to be undone is undone at once.

        Like a heartbeat this goes out during a request; nobody waits for an answer. Never raises:
        who cannot be told finds out when the lease ends.
        """
        with contextlib.suppress(HostFailure):
            self._send(frames.encode({"verb": "hand_over"}), _deadline(_FAREWELL), "a farewell")

    def keep_alive(self, interval: float) -> None:
        """Beat now, and every ``interval`` seconds in the background until the session is closed.

        A program that has heard one beat knows that silence means something. So do we: it answers
        each, whatever it is doing, and one that is frozen, or behind an sshd that is, does not.
        """
        if self._beating is not None:
            self._beating.set()
        stop = self._beating = threading.Event()

        def run() -> None:
            with contextlib.suppress(HostFailure):  # Whoever is in a request is told of it.
                self._heard = time.monotonic()
                while not self._closed:
                    self.beat()
                    if stop.wait(interval):
                        break
                    silent = time.monotonic() - self._heard
                    if silent > max(SILENCE, 4 * interval):
                        raise self._lost("the heartbeat", f"nothing was heard for {silent:.0f} s")

        threading.Thread(target=run, name=f"deployguard-{self.host}-beat", daemon=True).start()

    @property
    def closed(self) -> bool:
        """Whether the conversation is over; a new session is needed to go on."""
        return self._closed or bool(self._loss)

    def close(self) -> None:
        """Let go of the host program. It is not killed: it ends, or does what it must."""
        if self._closed:
            return
        self._closed = True
        if self._beating is not None:
            self._beating.set()
        self._link.finish()
        self._link.close()
        self._inbox.end(None)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # One request ------------------------------------------------------------------------------

    def _exchange(
        self,
        verb: str,
        args: Message | None,
        stream: Iterable[bytes] | None,
        on_event: EventListener | None,
        deadline: float | None,
    ) -> Message:
        self._number += 1
        number = self._number
        request = frames.encode({"id": number, "verb": verb, "args": args or {}})
        self._send(request, deadline, verb)
        reply = None
        if stream is not None:
            try:
                reply = self._upload(verb, number, stream, on_event, deadline)
            except BaseException:
                # The program has part of a stream and waits for the rest, which will not come.
                self.close()
                raise
        while reply is None:
            reply = _take(self._next(deadline, verb), number, on_event)
        return reply

    def _upload(
        self,
        verb: str,
        number: int,
        stream: Iterable[bytes],
        on_event: EventListener | None,
        deadline: float | None,
    ) -> Message | None:
        reply = None
        for piece in _pieces_of(stream):
            self._send(frames.encode_piece(piece), deadline, verb)
            self._heard = time.monotonic()  # beats wait behind it, and somebody takes it
            while reply is None and (waiting := self._inbox.poll()) is not None:
                reply = _take(waiting, number, on_event)
            if reply is not None:
                break
        self._send(frames.encode_piece(b""), deadline, verb)
        return reply

    def _result(self, verb: str, reply: Message) -> dict[str, Any]:
        error, result = reply.get("error"), reply.get("result")
        if isinstance(error, dict):
            raise ActionFailed(
                self.host,
                str(error.get("message", "")),
                kind=str(error.get("kind", "failed")),
                detail=error.get("detail"),
                hint=str(error.get("hint", "")),
            )
        if not isinstance(result, dict):
            raise self._broken_protocol(f"{verb} answered {_brief(reply)}")
        return result

    def _pieces(self, verb: str, timeout: float | None) -> Generator[bytes, None, None]:
        ended = False
        try:
            yield b""
            while True:
                piece = self._next(_deadline(timeout), verb)
                if isinstance(piece, dict):
                    ended = True
                    raise self._broken_protocol(f"{_brief(piece)} among the bytes of {verb}")
                if not piece:
                    ended = True
                    return
                yield piece
        except HostFailure:
            ended = True
            raise
        finally:
            try:
                # A reader that gave up early leaves bytes on the wire that are no reply.
                while not ended:
                    ended = not self._next(_deadline(timeout), verb)
            finally:
                self._turn.release()

    # The wire ---------------------------------------------------------------------------------

    def _send(self, frame: bytes, deadline: float | None, verb: str) -> None:
        left = _left(deadline)
        if self._closed:
            raise self._lost(verb, "")
        if not self._writing.acquire(timeout=-1 if left is None else left):
            raise self._lost(verb, "no time was left to send it")
        try:
            for start in range(0, len(frame), frames.PIECE):
                # One large write is quadratic in paramiko, and no write is worth more than 64 KiB.
                self._link.write(frame[start : start + frames.PIECE], _left(deadline))
        except TimeoutError:
            raise self._lost(verb, "the host program takes no more input") from None
        except OSError as error:
            raise self._lost(verb, str(error) or type(error).__name__) from error
        finally:
            self._writing.release()

    def _next(self, deadline: float | None, verb: str) -> Message | bytes:
        try:
            item = self._inbox.take(_left(deadline))
        except TimeoutError:
            raise self._lost(verb, "no answer in time") from None
        if item is not None:
            return item
        if isinstance(self._inbox.failure, frames.FrameError):
            raise self._broken_protocol(str(self._inbox.failure))
        failure = self._inbox.failure
        raise self._lost(verb, str(failure) if failure else "the host program is gone")

    def _read(self) -> None:
        """Runs in the reader thread until the wire ends."""
        failure: Exception | None = None
        try:
            while (frame := frames.read_frame(self._link.reader)) is not None:
                kind, payload = frame
                self._heard = time.monotonic()
                message = payload if kind == b"b" else frames.decode(kind, payload)
                if message != _ALIVE:
                    self._inbox.put(message)
        except Exception as error:  # noqa: BLE001  (whatever it was, a caller must be told)
            failure = error
        self._inbox.end(failure)

    def _lost(self, verb: str, why: str) -> ConnectionLost:
        with self._losing:
            # The request and the heartbeat may both find out; the first has the story.
            if not self._loss:
                self._loss = "the session was closed" if self._closed else self._story(why)
            self.close()
        message = f"the connection was lost during {verb}: {self._loss}"
        return ConnectionLost(self.host, message, hint="run `deployguard recover PLAN`")

    def _story(self, why: str) -> str:
        words, status = self._link.last_words(), self._link.exit_status()
        ended = f" (exit status {status})" if status is not None else ""
        return why + ended + (f"; its last words:\n{words}" if words else "")

    def _broken_protocol(self, why: str) -> ProtocolError:
        words = self._link.last_words()
        self.close()
        return ProtocolError(self.host, why + (f"; stderr:\n{words}" if words else ""))


class StreamLink(Link):
    """Two plain streams as a link; reads and writes cannot time out on their own."""

    def __init__(
        self, reader: BinaryIO, writer: BinaryIO, close: Callable[[], None] | None
    ) -> None:
        self.reader = reader
        self._writer = writer
        self._close = close

    def patience(self, _seconds: float | None) -> None:
        return None

    def write(self, data: bytes, _timeout: float | None) -> None:
        self._writer.write(data)
        self._writer.flush()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._writer.close()

    def close(self) -> None:
        if self._close is not None:
            self._close()

    def exit_status(self) -> int | None:
        return None

    def last_words(self) -> str:
        return ""


def _take(item: Message | bytes, number: int, on_event: EventListener | None) -> Message | None:
    """The reply to request ``number`` if ``item`` is that; events are handed on.

    What belongs to an earlier request, whose caller gave up, is dropped.
    """
    if not isinstance(item, dict) or item.get("id") != number:
        return None
    if "event" in item:
        if on_event is not None:
            on_event(item["event"])
        return None
    return item


def _pieces_of(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of ``stream`` in pieces of full size: every frame costs, however small."""
    pending = bytearray()
    for chunk in stream:
        pending += chunk
        whole = len(pending) - len(pending) % PIECE
        for start in range(0, whole, PIECE):
            yield bytes(pending[start : start + PIECE])
        del pending[:whole]
    if pending:
        yield bytes(pending)


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _brief(item: object) -> str:
    text = repr(item)
    return text if len(text) <= 200 else text[:200] + "…"
