"""Checks of certificates against servers that show them."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deployguard.onhost.probes.base import Sample
from tests.health.looking import look
from tests.servers.certificates import DAY, Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One that nobody but the test trusts."""
    return Authority(tmp_path, "Shop CA")


@contextmanager
def showing(pair: Pair) -> Iterator[int]:
    """A TLS server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with line:
                    try:
                        context.wrap_socket(line, server_side=True).close()
                    except OSError:
                        pass  # the client did not like it

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def ask(authority: Authority, pair: Pair, **options: Any) -> Sample:
    """One look at a server with this certificate; the host trusts the authority."""
    options.setdefault("ca_file", str(authority.ca_file))
    with showing(pair) as port:
        return look("tls", address="127.0.0.1", port=port, **options)


def test_a_good_certificate(authority: Authority) -> None:
    """By address and by another name, with the day on which it ends."""
    pair = authority.issue("good", ("127.0.0.1", "shop.example.com"), ends=61 * DAY)
    for options in ({}, {"server_name": "shop.example.com"}, {"valid_for": "60d"}):
        found = ask(authority, pair, **options)
        assert found["state"] == "healthy", found["message"]
        assert "is valid for 60 days more, until 20" in found["message"]
        assert found["observed"]["names"] == ["127.0.0.1", "shop.example.com"]
        assert found["observed"]["issuer"] == "Shop CA"


@pytest.mark.parametrize(
    ("name", "names", "starts", "ends", "options", "words"),
    [
        ("soon", ("127.0.0.1",), -1, 10, {"valid_for": "14d"},
         "is valid for 9 days more, until 20"),
        ("expired", ("127.0.0.1",), -30, -3, {}, "expired 3 days ago, on 20"),
        ("early", ("127.0.0.1",), 3, 30, {}, "is not valid before 20"),
        ("other", ("a.example", "b.example"), -1, 30, {"server_name": "shop.example"},
         "is for a.example, b.example and not for shop.example"),
        ("address", ("localhost",), -1, 30, {}, "is for localhost and not for 127.0.0.1"),
    ],
)  # fmt: skip
def test_a_bad_certificate(
    authority: Authority,
    name: str,
    names: tuple[str, ...],
    starts: int,
    ends: int,
    options: dict[str, str],
    words: str,
) -> None:
    """What is wrong with it, and not that something is."""
    pair = authority.issue(name, names, starts=starts * DAY, ends=ends * DAY)
    found = ask(authority, pair, **options)
    assert found["state"] == "unhealthy" and words in found["message"], found["message"]
    assert found["observed"]["names"] == list(names)


def test_an_authority_that_the_host_does_not_trust(authority: Authority, tmp_path: Path) -> None:
    """The finding names it, and both usual reasons."""
    other = Authority(tmp_path, "Another CA")
    found = ask(other, authority.issue("stranger"))
    assert found["state"] == "unhealthy"
    assert "is issued by Shop CA, whom this host does not trust" in found["message"]


def test_an_authority_that_has_expired(tmp_path: Path) -> None:
    """The certificate itself is good for years."""
    old = Authority(tmp_path, "Old CA", days=-1)
    found = ask(old, old.issue("fine"))
    assert found["state"] == "unhealthy"
    assert "but one above it in the chain has expired" in found["message"]


def test_no_certificates_to_check_with(authority: Authority, tmp_path: Path) -> None:
    """A mistake of the plan, or of the host; the certificate may be good."""
    pair = authority.issue("good")
    found = ask(authority, pair, ca_file=str(tmp_path / "none.pem"))
    assert found["state"] == "unknown" and "cannot read the CA certificates" in found["message"]
    (tmp_path / "junk.pem").write_text("junk")
    found = ask(authority, pair, ca_file=str(tmp_path / "junk.pem"))
    assert found["state"] == "unknown"


def test_a_name_that_does_not_resolve(authority: Authority) -> None:
    """Nobody was asked."""
    found = look("tls", address="no-such-host.invalid", ca_file=str(authority.ca_file))
    assert found["state"] == "unknown" and "no-such-host.invalid" in found["message"]


def test_a_closed_port(authority: Authority) -> None:
    """Nothing to look at is not well."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = look("tls", address="127.0.0.1", port=port, ca_file=str(authority.ca_file))
    assert (found["state"], found["message"]) == ("unhealthy", f"127.0.0.1:{port} is closed")


def test_another_protocol(authority: Authority) -> None:
    """It says so, rather than that a certificate is bad."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            line, _ = server.accept()
            with line:
                line.sendall(b"220 mail.example.com ESMTP\r\n")
                line.recv(4096)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        found = look("tls", address="127.0.0.1", port=port, ca_file=str(authority.ca_file))
        thread.join(10)
    assert found["state"] == "unhealthy" and ": no TLS: " in found["message"]


def test_the_days_are_those_of_the_calendar(authority: Authority) -> None:
    """A date after 2049 is written in another way."""
    pair = authority.issue("long", ends=dt.timedelta(days=20_000))
    found = ask(authority, pair)
    assert found["state"] == "healthy" and "until 208" in found["message"]
