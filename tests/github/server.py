"""The server proper: sockets, tokens and faults around a ``Repository``."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from tests.github.contract import Answer, Call, contract
from tests.github.repository import Repository, error

TOKEN = "ghp_correctHorseBatteryStaple0123456789"
ENTERPRISE = "/api/v3"
When = Literal["before", "after"]


@dataclass
class Fault:
    """What goes wrong with one request; ``when`` is relative to doing what it asks."""

    kind: Literal["answer", "drop", "stall", "drip"]
    when: When
    method: str | None = None
    answer: Answer | None = None


@dataclass
class GitHubServer:
    """A GitHub with one repository, on a port of its own.

    Faults queue up, and each hits the next request of its method, once. A request or response
    that GitHub's description forbids is kept in ``violations``; a test should end by asserting
    that there are none.
    """

    name: str = "acme/shop"
    token: str = TOKEN
    calls: list[Call] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.repository = Repository(self.name)
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._open: set[socket.socket] = set()
        self._http: _Listener | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The base URL in github.com's style."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def enterprise_url(self) -> str:
        """The base URL in GitHub Enterprise's style."""
        return f"{self.url}{ENTERPRISE}"

    def start(self) -> None:
        """Listen, on the same port as before when there was one."""
        self._released.clear()
        self._http = _Listener(self, self._port)
        self._port = int(self._http.server_address[1])
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be down: the port refuses connections, and open ones are cut."""
        self._released.set()
        if self._http is None:
            return
        self._http.shutdown()
        self._http.server_close()
        self._http = None
        with self._lock:
            for connection in list(self._open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def fail(self, status: int, when: When, *, times: int = 1, method: str | None = None) -> None:
        """Answer 500, 502 or 503 before or after performing the request."""
        if status == 502:  # comes from a proxy in front of GitHub, so it is not JSON
            answer = Answer(502, "<html><h1>502 Bad Gateway</h1></html>", {}, "text/html")
        else:
            answer = error(status, "Server Error")
        self._queue(Fault("answer", when, method, answer), times)

    def limit(
        self,
        status: Literal[403, 429],
        *,
        retry_after: int | None = None,
        reset_in: int | None = None,
        times: int = 1,
        method: str | None = None,
    ) -> None:
        """Refuse for the rate: secondary, or primary where ``reset_in`` (seconds) is given."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        message = "You have exceeded a secondary rate limit."
        if reset_in is not None:
            reset = int(self.repository.now().timestamp()) + reset_in
            headers |= {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)}
            message = "API rate limit exceeded for user ID 1."
        answer = error(status, message)
        answer.headers = headers
        self._queue(Fault("answer", "before", method, answer), times)

    def refuse(self, status: int, message: str, *, method: str | None = None) -> None:
        """Answer a plain client error, such as 403 for a token without the permission."""
        self._queue(Fault("answer", "before", method, error(status, message)), 1)

    def drop(self, when: When = "after", *, times: int = 1, method: str | None = None) -> None:
        """Cut the connection instead of answering."""
        self._queue(Fault("drop", when, method), times)

    def stall(self, *, method: str | None = None) -> None:
        """Perform the request, send half the answer, then nothing more until ``stop``."""
        self._queue(Fault("stall", "after", method), 1)

    def drip(self, *, method: str | None = None) -> None:
        """Perform the request, then send an answer that never ends, a byte at a time."""
        self._queue(Fault("drip", "after", method), 1)

    def _queue(self, fault: Fault, times: int) -> None:
        with self._lock:
            self.faults.extend([fault] * times)

    def handle(self, call: Call, *, prefix: str = "") -> tuple[Answer, Fault | None]:
        """The answer to ``call``, and the fault to apply while sending it."""
        with self._lock:
            self.calls.append(call)
            self.repository.base = f"{self.url}{prefix}"
            wrong = contract().wrong_with_request(call)
            fault = self._next_fault(call)
            refusal = self._refusal(call)
            if refusal is None and wrong:
                text = "; ".join(wrong)
                refusal = Answer(
                    422, {"message": text, "documentation_url": "https://docs.github.com/rest"}
                )
            if refusal is None and fault is not None and fault.when == "before":
                refusal = fault.answer or error(500, "the connection is about to be cut")
            answer = refusal or self.repository.answer(call)
            if refusal is None and fault is not None and fault.answer is not None:
                answer = fault.answer
            unlike = contract().wrong_with_response(call, answer) if not wrong else []
            self.violations += wrong + unlike
            if unlike:
                answer = error(500, "; ".join(unlike))
            answer.headers.setdefault("Date", format_datetime(self.repository.now(), usegmt=True))
            return answer, fault

    def _next_fault(self, call: Call) -> Fault | None:
        for fault in self.faults:
            if fault.method in (None, call.method):
                self.faults.remove(fault)
                return fault
        return None

    def _refusal(self, call: Call) -> Answer | None:
        given = call.headers.get("authorization")
        if given is None:
            return error(401, "Requires authentication")
        if given != f"Bearer {self.token}":
            return error(401, "Bad credentials")
        if "user-agent" not in call.headers:
            return error(403, "Request forbidden by administrative rules.")
        wanted = f"/repos/{self.name}".lower()
        if not f"{call.path.lower()}/".startswith(f"{wanted}/"):
            return error(404, "Not Found")
        return None

    def __enter__(self) -> GitHubServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@contextlib.contextmanager
def checked(name: str = "acme/shop") -> Iterator[GitHubServer]:
    """A running server that fails the test if it saw, or made, anything GitHub does not allow."""
    with GitHubServer(name) as github:
        yield github
    assert not github.violations, "\n".join(github.violations)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a stalled answer must not stall the end of the test

    def __init__(self, github: GitHubServer, port: int) -> None:
        self.github = github
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up mid-answer is part of the tests, not worth a traceback."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.server.github._open.add(self.connection)

    def finish(self) -> None:
        self.server.github._open.discard(self.connection)
        super().finish()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        prefix = ENTERPRISE if parts.path.startswith(f"{ENTERPRISE}/") else ""
        call = Call(
            method=self.command.lower(),
            path=parts.path.removeprefix(prefix),
            query=parse_qsl(parts.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        answer, fault = self.server.github.handle(call, prefix=prefix)
        kind = fault.kind if fault else "answer"
        if kind == "drop":
            self.close_connection = True
            return
        data = answer.data
        self.send_response_only(answer.status_code)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(1 << 40 if kind == "drip" else len(data)))
        self.end_headers()
        if kind == "stall":
            self.wfile.write(data[: len(data) // 2])
            self.server.github._released.wait()
            self.close_connection = True
            return
        while kind == "drip" and not self.server.github._released.is_set():
            self.wfile.write(b" ")  # blank space before JSON is JSON still
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815 -- http.server's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server's name
        """Silent: the tests read ``calls``."""
