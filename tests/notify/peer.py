"""An HTTP server that stands for a provider: it checks every request, and fails on demand.

What a provider documents about its requests is a JSON Schema here; a request that breaks it is kept
in ``violations``, and a test should end by asserting that there are none.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import jsonschema

What = Literal["answer", "drop before", "drop after", "trickle", "hang"]


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.time)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        """The body as a form."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True))


@dataclass
class Answer:
    """What is answered: JSON, or text as it stands."""

    status: int
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> bytes:
        """What goes over the wire."""
        if isinstance(self.content, str):
            return self.content.encode()
        return b"" if self.content is None else json.dumps(self.content).encode()


@dataclass
class Fault:
    """What goes wrong with one request."""

    what: What
    answer: Answer | None = None
    method: str | None = None


class Peer:
    """See the module; a provider's class says what it does with a good request."""

    #: What requests carry that must be in nothing else.
    secret = ""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.faults: deque[Fault] = deque()
        self._lock = threading.Lock()
        self.released = threading.Event()
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def log_message(self, *args: object) -> None:
                pass

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                parts = urlsplit(self.path)
                peer._take(
                    self,
                    Request(
                        self.command,
                        parts.path,
                        dict(parse_qsl(parts.query)),
                        {name.lower(): value for name, value in self.headers.items()},
                        body,
                    ),
                )

            do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - the names that the library wants

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop, and let go of everybody who waits."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def fail(
        self,
        what: What | int,
        *,
        times: int = 1,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        content: Any = "server error",
    ) -> None:
        """What the next requests meet: an answer with a status, or a worse fate."""
        fault = (
            Fault("answer", Answer(what, content, headers or {}), method)
            if isinstance(what, int)
            else Fault(what, None, method)
        )
        self.faults.extend([fault] * times)

    def answer(self, request: Request) -> Answer:
        """What a good or a bad request is answered with."""
        raise NotImplementedError

    def check(self, value: Any, schema: dict[str, Any], what: str) -> bool:
        """Hold a request against what the provider documents."""
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(value))
        for error in errors:
            self.violations.append(f"{what}: {error.json_path}: {error.message}")
        return not errors

    def _take(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
            fault = next((f for f in self.faults if f.method in (None, request.method)), None)
            if fault is not None:
                self.faults.remove(fault)
            if fault is None or fault.what in ("drop after", "trickle"):
                answer = self.answer(request)
            else:
                answer = fault.answer or Answer(500)
        if fault is not None and fault.what == "hang":
            self.released.wait(20)
        if fault is not None and fault.what in ("drop before", "drop after", "hang"):
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
            return
        body = answer.bytes
        trickles = fault is not None and fault.what == "trickle"
        handler.send_response(200 if trickles else answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if trickles:
            self._trickle(handler)
            return
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _trickle(self, handler: BaseHTTPRequestHandler) -> None:
        """A body that never ends, byte by byte, until the other side has had enough."""
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            while not self.released.wait(0.02):
                handler.wfile.write(b" ")
                handler.wfile.flush()


@contextlib.contextmanager
def running(peer: Peer) -> Iterator[Peer]:
    """The peer, for as long as the block lasts."""
    try:
        yield peer
    finally:
        peer.close()
