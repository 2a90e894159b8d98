"""The host program's loop: requests in, replies and events out, and what to do when they stop.

A thread reads the frames, so that a heartbeat renews the lease while a long request runs. The end
of the input means that the controller is gone, and so does the end of the lease: of a network that
was cut a connection learns nothing for hours. What then happens depends on the state alone: where
nothing was touched the staged tree is dropped; where the undo is armed the program waits for the
lease to end, unless someone takes over, and restores; where the host has voted it waits for the
decision, which needs no process.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import queue
import select
import signal
import sys
import threading
import traceback
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from deployguard.onhost import frames, unattended
from deployguard.onhost.places import BadName, NotManageable, State
from deployguard.onhost.queries.facts import facts
from deployguard.onhost.request import RequestError
from deployguard.onhost.state import machine
from deployguard.onhost.state.records import JournalDamaged
from deployguard.onhost.system import System
from deployguard.onhost.transaction import settlement
from deployguard.onhost.transaction.operations import OperationFailed
from deployguard.onhost.transaction.participant import Participant

_BEAT = (b"j", b'{"verb":"beat"}')
_HAND_OVER = (b"j", b'{"verb":"hand_over"}')
_ALIVE = frames.encode({"beat": True})
_IDLE = 0.5
_RENEWAL = 0.5
#: Seconds until a controller that never beat, and for whom nothing was begun, is taken for gone.
_UNHEARD = 60.0
#: What a pipe or socket that says it has room takes without holding us up (PIPE_BUF).
_ROOM = 4096

#: Where a transaction ends by itself when its controller is silent for longer than the lease.
_ON_LEASE = (machine.UNTOUCHED - {machine.IDLE}) | machine.LEASED

#: Where the program waits for its controller, however long that is silent: it has voted.
_WAITING = frozenset({machine.PREPARED})

Frame = Tuple[bytes, bytes]


class Gone(Exception):
    """The controller is gone: the input ended, or nobody reads the output."""


class Server:
    """One connection's worth of requests."""

    def __init__(self, stdin_fd: int, stdout_fd: int, state: State, system: System) -> None:
        self._input = os.fdopen(stdin_fd, "rb", buffering=256 * 1024, closefd=False)
        self._output = stdout_fd
        self._writing = threading.Lock()
        self._renewing = threading.Lock()
        self._frames: "queue.Queue[Optional[Frame]]" = queue.Queue(maxsize=64)
        self._system = system
        self._state = state
        self._request: Any = None
        self._alone = False
        self._beaten = False
        self.last_beat = self._renewed = system.monotonic()
        self.participant = self._participant()

    def serve(self) -> None:
        """Answer requests until the controller is gone."""
        threading.Thread(target=self._read, name="frames", daemon=True).start()
        try:
            self._send({"hello": facts(self._state, self._system)})
            while True:
                frame = self._next()
                if frame is None:
                    return
                if frame[0] == b"b":
                    continue  # the rest of a stream whose request failed half-way
                self._answer(frames.decode(*frame))
        except (Gone, frames.FrameError):
            return

    def _next(self) -> Optional[Frame]:
        """The next frame; ``None`` at the end, and when the transaction is no longer ours."""
        while True:
            try:
                return self._frames.get(timeout=_IDLE)
            except queue.Empty:
                if self._let_go():
                    return None

    def _let_go(self) -> bool:
        """Whether another process has taken over, or the lease ended while it counts."""
        return self.participant.fenced() or self._lease_over()

    def _lease_over(self) -> bool:
        mine = self.participant
        if mine.state in _WAITING:
            return False
        # Nothing is left to do in any other state, and no end of the input is to be expected of a
        # network that was cut. It may have been before the first beat came.
        expected = mine.state in _ON_LEASE or self._beaten
        patience = mine.lease if expected else max(mine.lease, _UNHEARD)
        return self._system.monotonic() >= self.last_beat + patience

    def _read(self) -> None:
        try:
            while True:
                frame = frames.read_frame(self._input)
                if frame is None:
                    break
                self._heard()
                if frame == _BEAT:
                    self._beaten = True
                    self._show_life()
                    continue
                if frame == _HAND_OVER:
                    self.participant.hand_over()
                    continue
                self._frames.put(frame)
        except (OSError, frames.FrameError):
            pass
        self._frames.put(None)

    def _heard(self) -> None:
        """A sign of life. The lease file is for others, and need not be exact to the second."""
        self.last_beat = self._system.monotonic()
        if self.last_beat - self._renewed > _RENEWAL:
            self._renewed = self.last_beat
            # What was on its way when the controller died is no sign that it lives.
            with self._renewing, contextlib.suppress(OSError):  # it has its block on the disk
                if not self._alone:
                    self.participant.renew()

    def _answer(self, request: Dict[str, Any]) -> None:
        self._request = request.get("id")
        reply: Dict[str, Any] = {"id": self._request}
        stream: Optional[Iterator[bytes]] = None
        try:
            result = self._dispatch(str(request.get("verb")), request.get("args") or {})
            if isinstance(result, tuple):
                result, stream = result
                reply["stream"] = True
            reply["result"] = result
        except Gone:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the controller is told
            reply["error"] = self._describe(error)
        self._send(reply)
        if stream is not None:
            for piece in stream:
                if piece:
                    self._write(frames.encode_piece(piece))
            self._write(frames.encode_piece(b""))

    def _dispatch(self, verb: str, args: Dict[str, Any]) -> Any:
        from deployguard.onhost.queries import assessment, audit, offhost, report

        mine = self._fresh() if verb in ("begin", "adopt") else self.participant
        verbs: Dict[str, Callable[[], Any]] = {
            "begin": lambda: mine.begin(args),
            "adopt": lambda: mine.adopt(args),
            "describe": mine.describe,
            "manifest": lambda: mine.manifest(args, self._pieces()),
            "revision": lambda: mine.revision(args),
            "bundle": lambda: mine.bundle(args, self._pieces()),
            "look": lambda: mine.look(args),
            "blobs": lambda: mine.blobs(args, self._pieces()),
            "stage": lambda: mine.stage(args),
            "arm": lambda: mine.arm(args),
            "switch": lambda: mine.switch(self._let_go),
            "check": lambda: mine.check(args, self._let_go),
            "prepare": mine.prepare,
            "commit": mine.commit,
            "restore": lambda: mine.restore(args),
            "abort": mine.abort,
            "hold": mine.hold,
            "run": lambda: mine.run(args),
            "finish": mine.finish,
            "evidence": lambda: mine.gather(args),
            "fetch": mine.fetch,
            "status": lambda: report.status(self._state, self._system),
            "stored_manifest": lambda: report.stored_manifest(self._state, args),
            "live": lambda: offhost.live(self._state, self._system, args),
            "contents": lambda: offhost.contents(args),
            "identities": lambda: offhost.identities(args),
            "verify": lambda: audit.verify(self._state, self._system, args),
            "assess": lambda: assessment.assess(args, self._system),
        }
        if verb not in verbs:
            raise RequestError("usage", "unknown verb %r" % verb)
        return verbs[verb]()

    def _participant(self) -> Participant:
        made = Participant(self._state, self._system, self._emit)
        made.cut = self._hang_up
        return made

    def _fresh(self) -> Participant:
        """One that has no transaction: another may have been ended over this connection."""
        if self.participant.state in machine.TERMINAL:
            self.participant.close()
            self.participant = self._participant()
        return self.participant

    def _pieces(self) -> Iterator[bytes]:
        """The byte stream behind a request."""
        while True:
            frame = self._next()
            if frame is None:
                raise Gone
            if frame[0] != b"b":
                raise frames.FrameError("a message inside a byte stream")
            if not frame[1]:
                return
            yield frame[1]

    @staticmethod
    def _describe(error: Exception) -> Dict[str, Any]:
        if isinstance(error, RequestError):
            found = {"kind": error.kind, "message": str(error), "hint": error.hint}
            return dict(found, detail=error.detail)
        if isinstance(error, NotManageable):
            return {"kind": "refused", "message": str(error), "hint": error.hint}
        if isinstance(error, OperationFailed):
            found = {"kind": "failed", "message": str(error)}
            if isinstance(error.__cause__, PermissionError):
                found = dict(_denied(error.__cause__), kind="failed")
                found["message"] = "%s: %s" % (error.title, found["message"])
            return dict(found, detail={"operation": error.operation, "title": error.title})
        if isinstance(error, machine.IllegalEvent):
            return {"kind": "state", "message": str(error), "detail": error.state}
        if isinstance(error, BadName):
            return {"kind": "usage", "message": str(error)}
        if isinstance(error, JournalDamaged):
            return {"kind": "internal", "message": "the journal is damaged: %s" % error}
        if isinstance(error, OSError) and error.errno in _SPACE:
            return {"kind": "space", "message": str(error), "hint": "make room on the host"}
        if isinstance(error, PermissionError):
            return dict(_denied(error), kind="failed")
        if isinstance(error, OSError):
            return {"kind": "failed", "message": str(error)}
        traceback.print_exc(file=sys.stderr)
        return {"kind": "internal", "message": "%s: %s" % (type(error).__name__, error)}

    def _emit(self, event: Dict[str, Any]) -> None:
        if self._alone:
            return
        try:
            self._send({"event": event, "id": self._request})
        except Gone:
            pass  # what runs must go on; the loop finds out at its next read

    def _send(self, message: Dict[str, Any]) -> None:
        self._write(frames.encode(message))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        room = select.poll()
        room.register(self._output, select.POLLOUT)
        with self._writing:
            while view:
                # Behind a cut network nobody empties the pipe, and a restore must not wait for it.
                if not room.poll(_IDLE * 1000):
                    if self._let_go():
                        raise Gone
                    continue
                try:
                    view = view[os.write(self._output, view[:_ROOM]) :]
                except OSError as error:
                    raise Gone from error

    def _show_life(self) -> None:
        """Answer a beat, unless something is on its way out anyway or nobody reads.

        Never waits: this is the thread that hears the beats.
        """
        if self._alone or not self._writing.acquire(blocking=False):
            return
        try:
            room = select.poll()
            room.register(self._output, select.POLLOUT)
            if room.poll(0):
                os.write(self._output, _ALIVE)
        except OSError:
            pass  # the loop finds out
        finally:
            self._writing.release()

    def _hang_up(self) -> None:
        """Lose the connection, as a drill asks for."""
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (self._input.fileno(), self._output):
            os.dup2(nothing, descriptor)
        os.close(nothing)

    def alone(self) -> None:
        """The controller is gone: end what may be ended without it."""
        with self._renewing:
            self._alone = True
        if not self.participant.fenced() and self.participant.state != machine.IDLE:
            unattended.finish(self.participant, self._system)
        self.participant.close()


def _denied(error: PermissionError) -> Dict[str, Any]:
    """Who may not do it, and where, and the mend: a bare errno says neither."""
    import pwd

    number = os.geteuid()
    try:
        user = "%s (uid %d)" % (pwd.getpwuid(number).pw_name, number)
    except KeyError:
        user = "uid %d" % number
    names = [name for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    place = " to ".join(os.fsdecode(name) for name in names)
    hint = "set `become: true` for the host in the plan, or give %s the right to that path" % user
    if number == 0:
        hint = "root may not either: is it immutable (lsattr), or forbidden by SELinux or AppArmor?"
    words = "permission denied for %s" % user
    return {"message": "%s: %s" % (words, place) if place else words, "hint": hint}


def _space_errors() -> Tuple[int, ...]:
    import errno

    return (errno.ENOSPC, errno.EDQUOT)


_SPACE = _space_errors()


def main(stdin_fd: int, stdout_fd: int, state_directory: str) -> int:
    """Run until the controller is gone and nothing is left to do. Returns the exit status."""
    # The terminal that the connection belonged to goes away before we do.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o022)
    # Manifests are many small objects and no cycles: looking for some takes a tenth of the time.
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)  # nor is there a point in collecting all of it at the end
    state = State(state_directory)
    state.ensure()
    system = System()
    settlement.sweep(state, system)
    server = Server(stdin_fd, stdout_fd, state, system)
    server.serve()
    server.alone()
    return 0
