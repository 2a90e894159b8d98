"""Each kind of check against the real thing: sockets, HTTP servers in threads, programs.

systemd is not there in a test; its answers are recorded text.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from deployguard.onhost.probes import http as probe_http
from deployguard.onhost.probes import registry
from deployguard.onhost.probes.base import CheckData
from deployguard.onhost.probes.process import judge_unit
from deployguard.onhost.probes.registry import sample
from deployguard.onhost.system import System
from tests.onhost.fake_system import FakeSystem, completed

system = System()


def check(kind: str, **parameters: Any) -> CheckData:
    """A check with the usual times."""
    data: Any = {
        "id": "a/" + kind,
        "component": "a",
        "kind": kind,
        "name": kind,
        "critical": True,
        "timeout": 5.0,
        "interval": 0.5,
        "deadline": 30.0,
        "min_healthy_time": 0.0,
        **parameters,
    }
    result: CheckData = data
    return result


# -- port and command ------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_an_open_port_is_healthy_and_a_closed_one_is_not(listener: socket.socket) -> None:
    """The same port, before and after it is closed."""
    port = listener.getsockname()[1]
    data = check("port", address="127.0.0.1", number=port)
    found = sample(data, system)
    assert found["state"] == "healthy" and found["check"] == "a/port"
    listener.close()
    found = sample(data, system)
    assert found["state"] == "unhealthy" and not found["final"]
    assert found["message"] == f"127.0.0.1 port {port} is closed"


def test_a_name_that_does_not_resolve_is_unknown() -> None:
    """It says something about our resolver, not about the service."""
    found = sample(check("tcp", address="no-such-host.invalid", number=5432), system)
    assert found["state"] == "unknown"
    assert "cannot resolve no-such-host.invalid" in found["message"]


@pytest.mark.parametrize(
    ("argv", "state"),
    [
        (["true"], "healthy"),
        (["false"], "unhealthy"),
        (["/no/such/check"], "unknown"),
    ],
)
def test_a_command_is_judged_by_its_status(argv: list[str], state: str) -> None:
    """One that cannot be run tells nothing."""
    assert sample(check("command", argv=argv), system)["state"] == state


def test_a_command_that_hangs_is_unhealthy_after_its_timeout() -> None:
    """A dependency that does not answer is no healthy one."""
    found = sample(check("command", argv=["sleep", "300"], timeout=0.2), system)
    assert found["state"] == "unhealthy" and found["seconds"] < 10.0
    assert "was killed" in found["message"]


def test_a_probe_that_breaks_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours must not look like a healthy, or a dead, service."""

    def broken(_: CheckData, __: System) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setitem(registry._PROBES, "port", broken)
    assert sample(check("port"), system)["state"] == "unknown"
    assert sample(check("no-such-kind"), system)["state"] == "unknown"


# -- HTTP ------------------------------------------------------------------------------------

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Site:
    """An HTTP server whose answer the test sets."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.paths.append(self.path)
                site.headers = dict(self.headers.items())
                site.answer(self)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.paths: list[str] = []
        self.headers: dict[str, str] = {}
        self.answer: Answer = reply(200, b"")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop answering."""
        self.server.shutdown()
        self.server.server_close()


def reply(status: int, body: bytes, **headers: str) -> Answer:
    """An answer with this status and body."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture
def site() -> Iterator[Site]:
    """A server on a free port."""
    site = Site()
    yield site
    site.close()


def http_check(site: Site, **parameters: Any) -> CheckData:
    """A check of the site's ``/health``."""
    url = f"http://127.0.0.1:{site.port}/health?deep=1"
    return check("http", **{"url": url, "status": [200], **parameters})


def test_http_status_and_query(site: Site) -> None:
    """The accepted status is healthy, any other is not and shows what was answered."""
    site.answer = reply(200, b"fine")
    assert sample(http_check(site), system)["state"] == "healthy"
    assert site.paths == ["/health?deep=1"]
    site.answer = reply(503, b'{"database": "connect ECONNREFUSED"}')
    found = sample(http_check(site), system)
    assert found["state"] == "unhealthy" and found["observed"]["status"] == 503
    assert "answered 503" in found["message"] and "ECONNREFUSED" in found["message"]
    assert sample(http_check(site, status=[200, 503]), system)["state"] == "healthy"


def test_http_body_must_contain_the_text(site: Site) -> None:
    """The words of the page, wherever they are in it."""
    site.answer = reply(200, b"<h1>Shop</h1> is up")
    assert sample(http_check(site, body="Shop"), system)["state"] == "healthy"
    found = sample(http_check(site, body="Shop v2"), system)
    assert found["state"] == "unhealthy" and "does not contain 'Shop v2'" in found["message"]


def test_http_json_fields_are_compared_and_recorded(site: Site) -> None:
    """Dotted names, lists, and the difference between 1 and true."""
    document = {"status": "ok", "db": {"pools": [{"open": 1}]}, "version": 42, "on": True}
    site.answer = reply(200, json.dumps(document).encode())
    good = {"status": "ok", "db.pools.0.open": 1, "version": "42"}
    found = sample(http_check(site, json=good, versioned=["version"]), system)
    assert found["state"] == "healthy"
    assert found["observed"]["fields"] == {"status": "ok", "db.pools.0.open": 1, "version": 42}
    found = sample(http_check(site, json={"on": 1, "absent": "x", "status": "bad"}), system)
    assert found["state"] == "unhealthy"
    assert found["observed"]["mismatches"] == {
        "on": {"expected": 1, "found": True},
        "absent": {"expected": "x"},
        "status": {"expected": "bad", "found": "ok"},
    }
    assert "no field absent" in found["message"]
    assert 'status is "ok", expected "bad"' in found["message"]


def test_http_versioned_fields_are_recorded_even_unjudged(site: Site) -> None:
    """The baseline keeps what the old version said of itself."""
    site.answer = reply(200, b'{"version": "v1"}')
    found = sample(http_check(site, json={}, versioned=["version"]), system)
    assert found["state"] == "healthy"
    assert found["observed"]["fields"] == {"version": "v1"}


def test_http_without_json_where_fields_are_expected(site: Site) -> None:
    """A maintenance page answers 200 too."""
    site.answer = reply(200, b"<html>")
    assert sample(http_check(site, json={"status": "ok"}), system)["state"] == "unhealthy"


def test_http_redirects_are_not_followed(site: Site) -> None:
    """The login page it leads to would answer 200."""
    site.answer = reply(302, b"", Location="/login")
    found = sample(http_check(site), system)
    assert found["state"] == "unhealthy" and site.paths == ["/health?deep=1"]


def test_http_headers_are_sent_and_line_breaks_refused(site: Site) -> None:
    """Ours, replaced by the plan's without regard to case; no smuggling."""
    headers = {"host": "shop.example", "X-Probe": "1"}
    assert sample(http_check(site, headers=headers), system)["state"] == "healthy"
    assert site.headers["host"] == "shop.example" and site.headers["X-Probe"] == "1"
    found = sample(http_check(site, headers={"X": "a\r\nY: b"}), system)
    assert found["state"] == "unknown" and len(site.paths) == 1


def test_http_drip_feeding_does_not_outlast_the_timeout(site: Site) -> None:
    """A byte now and then renews a socket's timeout, but not ours."""
    stop = threading.Event()

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not stop.wait(0.02):
            try:
                handler.wfile.write(b"x")
                handler.wfile.flush()
            except OSError:
                return

    site.answer = drip
    found = sample(http_check(site, timeout=0.3), system)
    stop.set()
    assert found["state"] == "unhealthy" and found["seconds"] < 5.0
    assert "did not answer within 0.3 s" in found["message"]


def test_http_a_body_that_breaks_off_is_unhealthy(site: Site) -> None:
    """A worker that dies in the middle of its answer is not well."""

    def broken(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"short")

    site.answer = broken
    found = sample(http_check(site), system)
    assert found["state"] == "unhealthy" and "no HTTP answer" in found["message"]


def test_http_an_endless_body_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the start of it is looked at."""
    monkeypatch.setattr(probe_http, "MAX_BODY", 1000)
    site.answer = reply(200, b"ok " + b"x" * 500_000)
    assert sample(http_check(site, body="ok"), system)["state"] == "healthy"


def test_http_something_else_behind_the_port_is_unhealthy(listener: socket.socket) -> None:
    """Not every open port speaks HTTP."""

    def greet() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            connection.recv(1024)

    thread = threading.Thread(target=greet, daemon=True)
    thread.start()
    data = check("http", url=f"http://127.0.0.1:{listener.getsockname()[1]}/", status=[200])
    found = sample(data, system)
    thread.join(10.0)
    assert found["state"] == "unhealthy" and "no HTTP answer" in found["message"]


def test_http_connection_refused_and_unresolved(listener: socket.socket) -> None:
    """The one is the service's fault, the other nobody can tell."""
    port = listener.getsockname()[1]
    listener.close()
    data = check("http", url=f"http://127.0.0.1:{port}/", status=[200])
    assert sample(data, system)["state"] == "unhealthy"
    data = check("http", url="http://no-such-host.invalid/", status=[200])
    assert sample(data, system)["state"] == "unknown"


def test_https_certificates_are_verified_unless_told_otherwise(tmp_path: Path) -> None:
    """A certificate that nobody vouches for."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = system.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2",
         "-subj", "/CN=localhost"],
        timeout=60.0,
    )  # fmt: skip
    if not made.ok:
        pytest.skip("no openssl to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(certificate), str(key))
    site = Site(context)
    try:
        url = f"https://127.0.0.1:{site.port}/"
        found = sample(check("http", url=url, status=[200]), system)
        assert found["state"] == "unhealthy" and "TLS" in found["message"]
        trusting = check("http", url=url, status=[200], verify_tls=False)
        assert sample(trusting, system)["state"] == "healthy"
    finally:
        site.close()


# -- process ---------------------------------------------------------------------------------


def unit(**properties: str) -> dict[str, str]:
    """The answer of ``systemctl show`` for a unit that is well."""
    return {
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "Type": "simple",
        "Result": "success",
        "NRestarts": "0",
        "MainPID": "4711",
        "ExecMainCode": "0",
        "ExecMainStatus": "0",
        "ExecMainStartTimestampMonotonic": "12345",
        "InvocationID": "aaaa",
        **properties,
    }


def test_an_active_unit_is_healthy_with_its_count() -> None:
    """And the identity of the running instance."""
    found = judge_unit("x.service", unit(NRestarts="3"))
    assert found.state == "healthy"
    assert found.observed["restarts"] == 3 and found.observed["instance"] == "aaaa"


@pytest.mark.parametrize(
    ("properties", "state", "final", "words"),
    [
        ({"ActiveState": "failed", "SubState": "failed", "Result": "exit-code",
          "ExecMainCode": "1", "ExecMainStatus": "203"}, "unhealthy", True, "exit status 203"),
        ({"ActiveState": "failed", "SubState": "failed", "Result": "oom-kill",
          "ExecMainCode": "2", "ExecMainStatus": "9"}, "unhealthy", True, "oom-kill, signal 9"),
        ({"ActiveState": "inactive", "SubState": "dead"}, "unhealthy", True, "is inactive"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, "unhealthy", True, "not-found"),
        ({"ActiveState": "activating", "SubState": "start"}, "unhealthy", False, "activating"),
        ({"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code"},
         "unhealthy", False, "will start it again"),
        ({"ActiveState": "deactivating", "SubState": "stop"}, "unhealthy", False, "deactivating"),
        ({"ActiveState": "reloading", "SubState": "reload"}, "healthy", False, "reloading"),
        ({"Type": "oneshot", "ActiveState": "inactive", "SubState": "dead"}, "healthy", False,
         "ended well"),
        ({"Type": "oneshot", "ActiveState": "inactive", "SubState": "dead",
          "ExecMainStartTimestampMonotonic": "0"}, "unhealthy", True, "is inactive"),
    ],
)  # fmt: skip
def test_the_states_of_a_unit(
    properties: dict[str, str], state: str, final: bool, words: str
) -> None:
    """What can still heal is not final; a pending restart can."""
    found = judge_unit("x.service", unit(**properties))
    assert (found.state, found.final) == (state, final)
    assert words in found.message


def test_a_restart_that_is_due_counts() -> None:
    """The process is dead already; the counter goes up when the next one starts."""
    found = judge_unit("x.service", unit(ActiveState="activating", SubState="auto-restart"))
    assert found.observed["restarts"] == 1 and found.observed["restart_due"]


def process_check(**manager: Any) -> CheckData:
    """A process check that asks this manager."""
    return check("process", manager=manager)


def test_systemctl_is_asked_of_the_right_manager() -> None:
    """System or user; one that does not answer leaves the state unknown."""
    fake = FakeSystem()
    text = "\n".join("{}={}".format(*item) for item in unit().items())
    fake.programs["show x.service"] = lambda _: completed(text)
    found = sample(process_check(driver="systemd", unit="x.service", scope="user"), fake)
    assert found["state"] == "healthy"
    assert fake.ran[0][:4] == ["systemctl", "--user", "show", "x.service"]
    fake.programs["show x.service"] = lambda _: completed("", 1)
    data = process_check(driver="systemd", unit="x.service", scope="system")
    assert sample(data, fake)["state"] == "unknown"
    fake.programs["show x.service"] = lambda _: completed(text, timed_out=True)
    assert sample(data, fake)["state"] == "unknown"
    assert sample(process_check(driver="none"), fake)["state"] == "unknown"


def test_a_pid_file_names_a_process_and_not_just_a_pid(tmp_path: Path) -> None:
    """The pid came round again: that is another process."""
    path = tmp_path / "pid"
    data = process_check(driver="process", pid_file=str(path))
    found = sample(data, system)
    assert found["state"] == "unhealthy" and found["final"] and "absent" in found["message"]
    start = system.process_start_time(os.getpid())
    path.write_text(json.dumps({"pid": os.getpid(), "start_time": start}))
    found = sample(data, system)
    assert found["state"] == "healthy"
    assert found["observed"]["instance"] == f"{os.getpid()}:{start}"
    path.write_text(json.dumps({"pid": os.getpid(), "start_time": 1}))
    found = sample(data, system)
    assert found["state"] == "unhealthy" and found["final"]
    # Recorded after it had died: that is not a living process without a start time.
    path.write_text(json.dumps({"pid": 2**22 + 1, "start_time": None}))
    assert sample(data, system)["state"] == "unhealthy"
    path.write_text("torn {")
    assert sample(data, system)["state"] == "unknown"


@pytest.mark.parametrize(
    ("argv", "state"),
    [(["true"], "healthy"), (["false"], "unhealthy"), (["/no/such"], "unknown")],
)
def test_a_status_command_says_whether_it_runs(argv: list[str], state: str) -> None:
    """Not running may change; it is not final."""
    found = sample(process_check(driver="command", argv=argv), system)
    assert found["state"] == state and not found["final"]


def test_a_status_command_that_hangs_leaves_it_unknown() -> None:
    """The manager does not answer."""
    data = process_check(driver="command", argv=["sleep", "300"])
    data["timeout"] = 0.2
    assert sample(data, system)["state"] == "unknown"
