"""The controller's end of the wire, for tests: verbs of a host program that runs elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterable, List, Optional, cast

from deployguard.onhost import frames, serve
from deployguard.onhost.system import System
from tests.onhost.bench import Bench, Deploy

_ROOT = str(Path(__file__).resolve().parents[2])
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from deployguard.onhost import serve; "
    "sys.exit(serve.main(0, 1, sys.argv[2]))"
)


class Refusal(Exception):
    """An error reply."""

    def __init__(self, error: Dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.kind = error["kind"]
        self.detail = error.get("detail")
        self.hint = error.get("hint", "")


class Wire:
    """Requests and replies. Verbs are methods, as those of a participant are."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self.reader, self.writer = reader, writer
        self.events: List[Dict[str, Any]] = []
        self._number = 0
        self.hello: Dict[str, Any] = self._message()["hello"]

    def __getattr__(self, verb: str) -> Callable[..., Dict[str, Any]]:
        return lambda *arguments: self.call(verb, *arguments)

    @property
    def state(self) -> str:
        """The state, as the host tells it."""
        found: str = self.call("describe")["state"]
        return found

    def call(
        self,
        verb: str,
        args: Optional[Dict[str, Any]] = None,
        pieces: Optional[Iterable[bytes]] = None,
    ) -> Dict[str, Any]:
        """The result of one request. Raises :class:`Refusal`."""
        self._number += 1
        self.send({"id": self._number, "verb": verb, "args": args or {}})
        if pieces is not None:
            for piece in pieces:
                self.writer.write(frames.encode_piece(piece))
            self.writer.write(frames.encode_piece(b""))
            self.writer.flush()
        while True:
            message = self._message()
            assert message["id"] == self._number
            if "event" in message:
                self.events.append(message["event"])
            elif "error" in message:
                raise Refusal(message["error"])
            else:
                result: Dict[str, Any] = message["result"]
                return dict(result, stream=self._stream()) if message.get("stream") else result

    def send(self, message: Dict[str, Any]) -> None:
        """One message, and no answer awaited."""
        self.writer.write(frames.encode(message))
        self.writer.flush()

    def beat(self) -> None:
        """Renew the lease."""
        self.send({"verb": "beat"})

    def _message(self) -> Dict[str, Any]:
        while True:
            frame = frames.read_frame(self.reader)
            assert frame is not None, "the program is gone"
            message = frames.decode(*frame)
            if message != {"beat": True}:
                return message

    def _stream(self) -> bytes:
        data = b""
        while True:
            frame = frames.read_frame(self.reader)
            assert frame is not None and frame[0] == b"b"
            if not frame[1]:
                return data
            data += frame[1]


class Program(Wire):
    """A host program in a process of its own."""

    def __init__(self, bench: Bench) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, _ROOT, bench.state.root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        super().__init__(cast(BinaryIO, self.process.stdout), cast(BinaryIO, self.process.stdin))

    def hang_up(self) -> int:
        """Close the connection and wait until the program has ended; its status."""
        self.writer.close()
        return self.ended()

    def ended(self) -> int:
        """Wait until the program has ended by itself; its status."""
        status = self.process.wait(timeout=60)
        self.reader.close()
        return status

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()
        self.writer.close()
        self.reader.close()


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether it came true; for what another process does in its own time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def deadman_lives(bench: Bench, identifier: str) -> bool:
    """Whether a detached dead-man waits for the end of the transaction."""
    wanted = [os.fsencode(bench.state.root), os.fsencode(identifier)]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[-3:-1] == wanted:
            return True
    return False


class Clock(System):
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class InProcess(Wire):
    """A host program in a thread, with a clock of its own."""

    def __init__(self, bench: Bench) -> None:
        self.clock = Clock()
        down, self._up = os.pipe()
        self._down, up = os.pipe()
        self.server = serve.Server(down, up, bench.state, self.clock)
        self._ends = (down, up)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        super().__init__(os.fdopen(self._down, "rb"), os.fdopen(self._up, "wb"))

    def _serve(self) -> None:
        self.server.serve()
        self.server.alone()

    def ended(self) -> None:
        """Wait until the program has ended by itself."""
        self.thread.join(60)
        assert not self.thread.is_alive()

    def close(self) -> None:
        """Hang up and take everything down."""
        self.writer.close()
        self.ended()
        self.reader.close()
        for descriptor in self._ends:
            os.close(descriptor)


class RealBench(Bench):
    """The service is a file that real commands copy, remove and test."""

    def argv(self, verb: str) -> List[str]:
        run = os.path.join(self.root, "run")
        return {
            "start": ["cp", os.path.join(self.live, "VERSION"), run],
            "stop": ["rm", "-f", run],
            "status": ["test", "-s", run],
        }[verb]

    def over(self, wire: Wire, version: str) -> Deploy:
        """A deploy whose verbs go over the wire."""
        deploy = self.deploy(version)
        mine: Any = wire
        deploy.participant = mine
        return deploy
