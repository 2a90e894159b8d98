"""Stands in for ``deployguard/onhost/serve.py``: verbs that try the wire. Runs on the host."""

import hashlib
import os
import queue
import subprocess
import sys
import threading
import time

from deployguard.onhost import frames


class Program:
    """One connection."""

    def __init__(self, frames_in, frames_out, state):
        self.input = os.fdopen(frames_in, "rb")
        self.output = os.fdopen(frames_out, "wb", 0)
        self.state = state
        self.waiting = queue.Queue(maxsize=8)
        self.beats = 0

    def read(self):
        while True:
            frame = frames.read_frame(self.input)
            if frame is not None and frame[0] == b"j" and b'"beat"' in frame[1]:
                self.beats += 1
                continue
            self.waiting.put(frame)
            if frame is None:
                return

    def send(self, **message):
        self.output.write(frames.encode(message))

    def serve(self):
        threading.Thread(target=self.read, daemon=True).start()
        self.send(
            hello={
                "pid": os.getpid(),
                "state": self.state,
                "python": sys.version_info[:2],
                "cached": __cached__,
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

    def pieces(self):
        while True:
            kind, payload = self.waiting.get()
            assert kind == b"b", payload
            if not payload:
                return
            yield payload

    def event(self, **event):
        self.send(id=self.number, event=event)

    def do_echo(self, **args):
        return args

    def do_print(self, text):
        print(text, flush=True)
        subprocess.run(["echo", text], check=True)
        return {}

    def do_fail(self):
        error = {"kind": "space", "message": "the disk is full", "hint": "free some", "detail": [1]}
        self.send(id=self.number, error=error)

    def do_upload(self, events=0):
        digest, size = hashlib.sha256(), 0
        for piece in self.pieces():
            digest.update(piece)
            size += len(piece)
            for _ in range(events):
                self.event(size=size, padding="x" * 1000)
        return {"sha256": digest.hexdigest(), "size": size}

    def do_refuse_upload(self):
        for number, _ in enumerate(self.pieces()):
            if number == 0:
                error = {"kind": "mismatch", "message": "these are not the bytes"}
                self.send(id=self.number, error=error)

    def do_download(self, size):
        self.send(id=self.number, result={"size": size}, stream=True)
        while size:
            piece = os.urandom(min(size, frames.PIECE))
            self.output.write(frames.encode_piece(piece))
            size -= len(piece)
        self.output.write(frames.encode_piece(b""))

    def do_sleep(self, seconds):
        time.sleep(seconds)
        return {"beats": self.beats}

    def do_crash(self):
        sys.stderr.write("noise\n" * 10000)
        raise RuntimeError("a bug on the host")

    def do_deaf(self):
        time.sleep(60)

    def do_garbage(self):
        self.output.write(b"Segmentation fault\n")

    def do_stay(self):
        """Outlive the connection: wait for its end, then leave a sign."""
        while self.waiting.get() is not None:
            pass
        with open(os.path.join(self.state, "sign"), "w") as sign:
            sign.write("here")


def main(frames_in, frames_out, state_directory):
    return Program(frames_in, frames_out, state_directory).serve()
