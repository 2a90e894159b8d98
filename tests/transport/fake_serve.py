"""Stands in for ``deployguard/onhost/serve.py``: verbs that try the wire. Runs on the host."""

# Python 3.8 runs this.
# ruff: noqa: UP006, UP035, UP037, UP045

import hashlib
import os
import queue
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, Optional, Tuple

from deployguard.onhost import frames


class Program:
    """One connection."""

    def __init__(self, frames_in: int, frames_out: int, state: str) -> None:
        self.input = os.fdopen(frames_in, "rb")
        self.output = os.fdopen(frames_out, "wb", 0)
        self.state = state
        self.waiting: "queue.Queue[Optional[Tuple[bytes, bytes]]]" = queue.Queue(maxsize=8)
        self.beats = 0
        self.number = 0

    def read(self) -> None:
        while True:
            frame = frames.read_frame(self.input)
            if frame is not None and frame[0] == b"j" and b'"beat"' in frame[1]:
                self.beats += 1
                continue
            self.waiting.put(frame)
            if frame is None:
                return

    def send(self, **message: Any) -> None:
        self.output.write(frames.encode(message))

    def serve(self) -> int:
        threading.Thread(target=self.read, daemon=True).start()
        self.send(
            hello={
                "pid": os.getpid(),
                "state": self.state,
                "python": sys.version_info[:2],
                "cached": globals()["__spec__"].cached,
                "home": os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
            }
        )
        while True:
            frame = self.waiting.get()
            if frame is None:
                return 0
            request = frames.decode(*frame)
            self.number = request["id"]
            result = getattr(self, "do_" + request["verb"])(**request["args"])
            if result is not None:
                self.send(id=self.number, result=result)

    def pieces(self) -> Iterator[bytes]:
        while True:
            frame = self.waiting.get()
            assert frame is not None
            kind, payload = frame
            assert kind == b"b", payload
            if not payload:
                return
            yield payload

    def event(self, **event: Any) -> None:
        self.send(id=self.number, event=event)

    def do_echo(self, **args: Any) -> Dict[str, Any]:
        return args

    def do_print(self, text: str) -> Dict[str, Any]:
        print(text, flush=True)
        subprocess.run(["echo", text], check=True)
        return {}

    def do_fail(self) -> None:
        error = {"kind": "space", "message": "the disk is full", "hint": "free some", "detail": [1]}
        self.send(id=self.number, error=error)

    def do_upload(self, events: int = 0) -> Dict[str, Any]:
        digest, size = hashlib.sha256(), 0
        for piece in self.pieces():
            digest.update(piece)
            size += len(piece)
            for _ in range(events):
                self.event(size=size, padding="x" * 1000)
        return {"sha256": digest.hexdigest(), "size": size}

    def do_refuse_upload(self) -> None:
        for number, _ in enumerate(self.pieces()):
            if number == 0:
                error = {"kind": "mismatch", "message": "these are not the bytes"}
                self.send(id=self.number, error=error)

    def do_download(self, size: int) -> None:
        self.send(id=self.number, result={"size": size}, stream=True)
        while size:
            piece = os.urandom(min(size, frames.PIECE))
            self.output.write(frames.encode_piece(piece))
            size -= len(piece)
        self.output.write(frames.encode_piece(b""))

    def do_sleep(self, seconds: float) -> Dict[str, Any]:
        time.sleep(seconds)
        return {"beats": self.beats}

    def do_crash(self) -> None:
        sys.stderr.write("noise\n" * 10000)
        raise RuntimeError("a bug on the host")

    def do_deaf(self) -> None:
        time.sleep(60)

    def do_garbage(self) -> None:
        self.output.write(b"Segmentation fault\n")

    def do_stay(self) -> None:
        """Outlive the connection: wait for its end, then leave a sign."""
        while self.waiting.get() is not None:
            pass
        time.sleep(1.5)
        sys.stderr.write("nobody reads this\n" * 100)
        print("nor this", flush=True)
        with open(os.path.join(self.state, "sign"), "w") as sign:
            sign.write("here")


def main(frames_in: int, frames_out: int, state_directory: str) -> int:
    return Program(frames_in, frames_out, state_directory).serve()
