"""The protocols of databases against whatever may come over a wire.

What real servers say is tested with real servers, in ``tests/health``. Here the other end says
anything: no answer may lead to an exception that is not one of ours, or to memory without bounds.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import socket
import struct
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.probes.base import CheckData, finding
from deployguard.onhost.probes.conversation import converse
from deployguard.onhost.protocols import mysql as wire_mysql
from deployguard.onhost.protocols import postgres as wire_postgres
from deployguard.onhost.protocols import redis as wire_redis
from deployguard.onhost.protocols.scram import Scram, saslprep
from deployguard.onhost.protocols.wire import (
    MAX_BYTES,
    Denied,
    Garbled,
    Unsupported,
    Wire,
    countdown,
)
from deployguard.onhost.system import System

OURS = (Denied, Garbled, Unsupported)
NONCE = "fyko+d2lbbFgONRv9qkxdawL"


class Other:
    """The other end: says what it is told, a few bytes at a time, and notes what it hears."""

    def __init__(self, said: Iterator[bytes]) -> None:
        self._said = said
        self.heard = bytearray()

    def settimeout(self, _: float) -> None:
        """Nothing here waits."""

    def sendall(self, data: bytes) -> None:
        """Hear it."""
        self.heard += data

    def recv(self, count: int) -> bytes:
        """The next piece, never more than is asked for."""
        piece = next(self._said, b"")
        assert len(piece) <= count
        return piece

    def close(self) -> None:
        """Nothing to close."""


def pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    """The bytes in pieces."""
    return (data[at : at + size] for at in range(0, len(data), size))


def wire(said: bytes, local: bool = True) -> Wire:
    """A wire whose other end says this."""
    return Wire(Other(pieces(said)), lambda: 1.0, local)


# --- each protocol as one conversation ------------------------------------------------------------


def talk_postgres(line: Wire) -> Any:
    """Sign in and ask."""
    wire_postgres.encrypt(line, "prefer", None, "db")
    wire_postgres.sign_in(line, "shop", "shop", "password", NONCE)
    return wire_postgres.ask(line, "SELECT 1")


def talk_mysql(line: Wire) -> Any:
    """Sign in and ask."""
    session = wire_mysql.Session(line)
    greeting = wire_mysql.greet(session)
    wire_mysql.sign_in(session, greeting, "shop", "shop", "password", ("disable", None, ""))
    return wire_mysql.ask(session, "SELECT 1")


def talk_redis(line: Wire) -> Any:
    """Sign in and ask."""
    wire_redis.ask(line, ["AUTH", "password"])
    return wire_redis.ask(line, ["GET", "x"])


TALKS = [talk_postgres, talk_mysql, talk_redis]

# Frames as each protocol has them, with anything in them, so that the depths are reached as well.
SMALL = st.binary(max_size=60)


@st.composite
def postgres_frames(draw: Any) -> bytes:
    """Messages with a kind that it knows, and a length that is mostly right."""
    said = b""
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(b"RSKZEDTCINGHWAv"))
        body = draw(SMALL)
        if kind == ord("R"):
            body = struct.pack("!i", draw(st.integers(0, 13))) + body
        wrong = draw(st.sampled_from([0, 0, 0, 0, 1, -1, 2**31 - 100, -(2**31) + 100]))
        length = max(-(2**31), min(2**31 - 1, len(body) + 4 + wrong))
        said += bytes([kind]) + struct.pack("!i", length) + body
    return said


@st.composite
def mysql_frames(draw: Any) -> bytes:
    """A greeting, mostly whole, and packets that are counted right."""
    greeting = (
        b"\x0a8.0.36\0" + b"\x01\0\0\0" + b"12345678" + b"\0"
        + struct.pack("<HBHHB", 0xFFFF, 33, 2, 0xFFF7 & ~0x0800, 21) + b"\0" * 10
        + b"123456789012\0" + draw(st.sampled_from(
            [b"caching_sha2_password\0", b"mysql_native_password\0", b"ed25519\0", b""]))
    )  # fmt: skip
    greeting = greeting[: draw(st.sampled_from([len(greeting), len(greeting), 20, 50]))]
    said = _packet(0, greeting)
    number = 2
    for _ in range(draw(st.integers(0, 8))):
        first = draw(
            st.sampled_from([b"\0", b"\x01", b"\x03", b"\x04", b"\xfb", b"\xfe", b"\xff", b""])
        )
        body = first + draw(SMALL)
        said += _packet(number, body)
        number = draw(st.sampled_from([(number + 1) & 0xFF, 1, (number + 2) & 0xFF]))
    return said


def _packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


KINDS = st.sampled_from([b"+", b"-", b":", b"$", b"*"])
USUAL = [b"+OK", b"$-1", b"*-1", b"*3", b"$5", b":12", b"-ERR no", b"*1", b"$0", b"hello"]
REDIS_LINE = st.one_of(
    st.sampled_from(USUAL),
    st.builds(lambda kind, text: kind + text, KINDS, SMALL),
    st.builds(lambda kind, n: b"%s%d" % (kind, n), KINDS, st.integers(-(10**25), 10**25)),
)
redis_frames = st.lists(REDIS_LINE, max_size=30).map(
    lambda lines: b"".join(x + b"\r\n" for x in lines)
)
ANYTHING = st.one_of(st.binary(max_size=2000), postgres_frames(), mysql_frames(), redis_frames)


@pytest.mark.parametrize("talk", TALKS)
@given(said=ANYTHING)
def test_any_bytes_are_an_answer_or_an_error_of_ours(
    talk: Callable[[Wire], Any], said: bytes
) -> None:
    """Never another exception: it would be taken for a mistake of the program."""
    try:
        talk(wire(said))
    except OURS:
        pass


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("trusted", [False, True])
@given(block=st.one_of(st.binary(min_size=1, max_size=200), postgres_frames(), redis_frames))
def test_an_answer_without_an_end_is_given_up(
    talk: Callable[[Wire], Any], trusted: bool, block: bytes
) -> None:
    """After a megabyte, whatever it is made of."""
    heard = 0

    def endless() -> Iterator[bytes]:
        nonlocal heard
        piece = (block or b"x") * (16 * 1024 // max(len(block), 1))
        while True:
            heard += len(piece)
            yield piece

    line = Wire(Other(endless()), lambda: 1.0, True)
    line.trusted = trusted
    try:
        talk(line)
    except OURS:
        pass
    assert heard <= MAX_BYTES + 32 * 1024


# --- PostgreSQL -----------------------------------------------------------------------------------


def message(kind: bytes, body: bytes) -> bytes:
    """One message of PostgreSQL."""
    return kind + struct.pack("!i", len(body) + 4) + body


READY = message(b"Z", b"I")
LET_IN = (
    message(b"R", struct.pack("!i", 0)) + message(b"S", b"server_version\0" + b"15.1\0") + READY
)


def asks(method: int, more: bytes = b"") -> bytes:
    """The server asks for a way to sign in."""
    return message(b"R", struct.pack("!i", method) + more)


def row(*values: Optional[bytes]) -> bytes:
    """One row."""
    body = struct.pack("!h", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    return message(b"D", body)


def test_postgres_rows_and_errors() -> None:
    """NULL, text, several rows; and an error in the middle, after which the server is ready."""
    answer = row(None, b"x", "ö".encode()) + row(b"2", b"", b"3") + message(b"C", b"SELECT 2\0")
    line = wire(LET_IN + answer + READY + message(b"E", b"C42P01\0Mno table\0\0") + READY)
    assert wire_postgres.sign_in(line, "u", "d", None, NONCE) == {"server_version": "15.1"}
    found = wire_postgres.ask(line, "SELECT")
    assert (found.total, found.rows) == (2, [[None, "x", "ö"], ["2", "", "3"]])
    assert found.value() is None
    with pytest.raises(Denied) as error:
        wire_postgres.ask(line, "SELECT")
    assert (error.value.code, error.value.message) == ("42P01", "no table")


def test_postgres_gives_the_password_to_nobody_in_clear() -> None:
    """Only over an encrypted connection or a local socket."""
    with pytest.raises(Unsupported, match="add sslmode=require"):
        wire_postgres.sign_in(wire(asks(3), local=False), "u", "d", "secret", NONCE)
    line = wire(asks(3) + LET_IN)
    wire_postgres.sign_in(line, "u", "d", "secret", NONCE)
    assert b"secret" in line._connection.heard


def test_postgres_must_prove_itself() -> None:
    """A server that stops asking half-way does not know the password."""
    scram = asks(10, b"SCRAM-SHA-256\0\0")
    with pytest.raises(Garbled, match="without its own proof"):
        wire_postgres.sign_in(wire(scram + LET_IN), "u", "d", "secret", NONCE)
    for other in (b"SCRAM-SHA-1\0\0", b"\0"):
        line = wire(asks(10, other))
        with pytest.raises(Unsupported, match="offers no SCRAM-SHA-256"):
            wire_postgres.sign_in(line, "u", "d", "secret", NONCE)


def test_postgres_asks_for_what_we_do_not_speak() -> None:
    """Named, as the administrator knows it."""
    for method, name in ((7, "GSSAPI"), (9, "SSPI"), (2, "Kerberos"), (99, "method 99")):
        with pytest.raises(Unsupported, match=name):
            wire_postgres.sign_in(wire(asks(method)), "u", "d", "secret", NONCE)


def test_tls_that_is_asked_for_and_not_offered() -> None:
    """With ``require`` nothing is said to a server that cannot."""
    line = wire(b"N", local=False)
    with pytest.raises(Denied, match="offers no TLS"):
        wire_postgres.encrypt(line, "require", None, "db")
    assert bytes(line._connection.heard) == struct.pack("!ii", 8, 80877103)
    wire_postgres.encrypt(wire(b"N", local=False), "prefer", None, "db")
    with pytest.raises(Garbled, match="before the encryption begins"):
        wire_postgres.encrypt(wire(b"SR\0\0\0", local=False), "require", None, "db")


def test_scram_of_the_rfc() -> None:
    """The exchange of RFC 7677, section 3, but for the user's name, which PostgreSQL ignores."""
    scram = Scram("pencil", "rOprNGfwEbeRWgbNEkqO")
    assert scram.first() == b"n,,n=,r=rOprNGfwEbeRWgbNEkqO"
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    server_first = f"r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
    scram._bare = "n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert scram.final(server_first) == (
        f"c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode()
    )
    scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    for wrong in (b"v=AAAA", b"e=other-error", b"", b"v=", b"\xff", b"v=6rriTRBi23WpRR/wtup+"):
        with pytest.raises(Garbled):
            scram.verify(wrong)


@given(password=st.text(), challenge=st.binary(max_size=200), proof=st.binary(max_size=80))
def test_scram_with_any_challenge(password: str, challenge: bytes, proof: bytes) -> None:
    """An error of ours, or a proof."""
    for server_first in (challenge, b"r=" + NONCE.encode() + b"x,s=AAAA,i=1," + challenge):
        scram = Scram(password, NONCE)
        try:
            scram.final(server_first)
            scram.verify(proof)
        except OURS:
            pass


def test_scram_refuses_what_would_take_for_ever() -> None:
    """Iterations without bounds, and a nonce that is not ours."""
    for text in ("r=%sx,s=AAAA,i=99999999", "r=%sx,s=AAAA,i=0", "r=%sx,s=,i=1", "r=%s,s=AAAA,i=1"):
        with pytest.raises(Garbled):
            Scram("x", NONCE).final((text % NONCE).encode())
    with pytest.raises(Garbled, match="not made from ours"):
        Scram("x", NONCE).final(b"r=other,s=AAAA,i=1")
    with pytest.raises(Unsupported):
        Scram("x", NONCE).final(b"m=x,r=other,s=AAAA,i=1")


@pytest.mark.parametrize(
    ("given_as", "hashed_as"),
    [
        ("pencil", b"pencil"),
        ("I\u00adX", b"IX"),  # a soft hyphen is mapped to nothing (RFC 4013, section 3)
        ("\u00aa", b"a"),
        ("\u2168", b"IX"),
        ("\u00a0ö", " ö".encode()),
        ("ö\u0007", "ö\u0007".encode()),  # forbidden: used as it is, as PostgreSQL does
        ("\u0627\u0031", "\u0627\u0031".encode()),
        ("\ud800", b"\xed\xa0\x80"),
    ],
)
def test_passwords_that_are_not_ascii(given_as: str, hashed_as: bytes) -> None:
    """The examples of RFC 4013."""
    assert saslprep(given_as) == hashed_as


# --- MySQL: what MariaDB does not ask for ---------------------------------------------------------


class FakeMySQL:
    """A server that asks for ``caching_sha2_password``, as MySQL 8 does."""

    def __init__(self, password: str, *, knows_us: bool) -> None:
        self.password = password.encode()
        self.knows_us = knows_us
        self.clear: List[bytes] = []

    def serve(self, line: socket.socket) -> None:
        """One client, until it hangs up."""
        with contextlib.suppress(OSError):
            self._serve(line)

    def _serve(self, line: socket.socket) -> None:
        nonce = b"ABCDEFGHIJKLMNOPQRST"
        capabilities = 0x00080000 | 0x8000 | 0x2000 | 0x0200 | 0x8 | 0x1
        hello = (
            b"\x0a8.0.36\0" + b"\x01\0\0\0" + nonce[:8] + b"\0"
            + struct.pack("<HBHHB", capabilities & 0xFFFF, 33, 2, capabilities >> 16, 21)
            + b"\0" * 10 + nonce[8:] + b"\0" + b"caching_sha2_password\0"
        )  # fmt: skip
        line.sendall(_packet(0, hello))
        answer = self._read(line)
        proof = answer[32:].split(b"\0", 1)[1]
        proof = proof[1 : 1 + proof[0]]
        if proof != self._expected(nonce):
            line.sendall(_packet(2, b"\xff\x15\x04#28000Access denied for user 'shop'"))
            return
        if self.knows_us:
            line.sendall(_packet(2, b"\x01\x03") + _packet(3, b"\0\0\0\x02\0\0\0"))
            return
        line.sendall(_packet(2, b"\x01\x04"))
        self.clear.append(self._read(line))
        line.sendall(_packet(4, b"\0\0\0\x02\0\0\0"))

    def _expected(self, nonce: bytes) -> bytes:
        """XOR(SHA256(password), SHA256(SHA256(SHA256(password)), nonce)), by its documentation."""
        once = hashlib.sha256(self.password).digest()
        twice = hashlib.sha256(once).digest()
        return bytes(a ^ b for a, b in zip(once, hashlib.sha256(twice + nonce).digest()))

    @staticmethod
    def _read(line: socket.socket) -> bytes:
        head = line.recv(4)
        return line.recv(int.from_bytes(head[:3], "little"))


def sign_in_to(server: FakeMySQL, password: Optional[str], local: bool) -> None:
    """Sign in over a socket pair."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=server.serve, args=(theirs,), daemon=True)
    thread.start()
    with ours:
        session = wire_mysql.Session(Wire(ours, countdown(System().monotonic, 10.0), local))
        greeting = wire_mysql.greet(session)
        assert greeting.version == "8.0.36" and greeting.plugin == "caching_sha2_password"
        wire_mysql.sign_in(session, greeting, "shop", "", password, ("disable", None, ""))
    thread.join(10.0)
    theirs.close()


def test_caching_sha2_password_that_the_server_remembers() -> None:
    """The password is proven and not sent."""
    server = FakeMySQL("geheim", knows_us=True)
    sign_in_to(server, "geheim", local=False)
    assert server.clear == []


def test_caching_sha2_password_that_the_server_has_forgotten() -> None:
    """It wants the password itself: at a local socket it gets it, over an open wire it does not."""
    server = FakeMySQL("geheim", knows_us=False)
    sign_in_to(server, "geheim", local=True)
    assert server.clear == [b"geheim\0"]
    server = FakeMySQL("geheim", knows_us=False)
    with pytest.raises(Unsupported, match="add ssl-mode=REQUIRED"):
        sign_in_to(server, "geheim", local=False)
    assert server.clear in ([], [b""])


@pytest.mark.parametrize("password", ["wrong", None])
def test_caching_sha2_password_that_is_wrong(password: Optional[str]) -> None:
    """The server says so."""
    with pytest.raises(Denied) as error:
        sign_in_to(FakeMySQL("geheim", knows_us=True), password, local=True)
    assert error.value.code == "1045"


def test_mysql_asks_for_what_we_do_not_speak() -> None:
    """By the name of the plugin."""
    hello = (
        b"\x0a8.0.36\0" + b"\x01\0\0\0" + b"12345678" + b"\0"
        + struct.pack("<HBHHB", 0x8000 | 0x0200, 33, 2, 8, 21) + b"\0" * 10
        + b"123456789012\0" + b"ed25519\0"
    )  # fmt: skip
    for plugin, words in (
        (b"ed25519\0" + b"x" * 20, "ed25519"),
        (b"", "MySQL 4.0"),
        (b"unix_socket\0", "unix_socket"),
    ):
        said = _packet(0, hello) + _packet(2, b"\xfe" + plugin)
        with pytest.raises(Unsupported, match=words):
            talk_mysql(wire(said, local=False))


def test_mysql_that_refuses_before_it_greets() -> None:
    """As it does when it has no connection left: without a state, as nothing was agreed on yet."""
    line = wire(_packet(0, b"\xff\x10\x04Too many connections"))
    with pytest.raises(Denied) as error:
        wire_mysql.greet(wire_mysql.Session(line))
    assert (error.value.code, error.value.message) == ("1040", "Too many connections")


# --- Redis ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"+PONG\r\n", "PONG"),
        (b":-12\r\n", -12),
        (b"$5\r\na\r\nbc\r\n", "a\r\nbc"),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*3\r\n:1\r\n*1\r\n+x\r\n-ERR y\r\n", [1, ["x"], "ERR y"]),
        (b"$2\r\n\xff\xfe\r\n", "\ufffd\ufffd"),
    ],
)
def test_redis_answers(said: bytes, answer: Any) -> None:
    """Each kind there is."""
    line = wire(said)
    assert wire_redis.ask(line, ["GET", "ö"]) == answer
    assert bytes(line._connection.heard) == b"*2\r\n$3\r\nGET\r\n$2\r\n\xc3\xb6\r\n"


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (b"-NOAUTH Authentication required.\r\n", "NOAUTH", "Authentication required."),
        (b"-ERR max number of clients reached\r\n", "ERR", "max number of clients reached"),
        (b"-something went wrong\r\n", "", "something went wrong"),
    ],
)
def test_redis_refuses(said: bytes, code: str, words: str) -> None:
    """Its first word is a code, if it is written as one."""
    with pytest.raises(Denied) as error:
        wire_redis.ask(wire(said), ["PING"])
    assert (error.value.code, error.value.message) == (code, words)


@pytest.mark.parametrize("said", [b"*1\r\n" * 20, b"*1001\r\n", b"*900\r\n" + b"*900\r\n" * 9])
def test_redis_lists_have_bounds(said: bytes) -> None:
    """In depth, in length, and over all of them."""
    with pytest.raises(Unsupported, match="more than a check can compare"):
        wire_redis.ask(wire(said + b":1\r\n" * 2000), ["KEYS", "*"])


# --- the conversation -----------------------------------------------------------------------------


def check(**more: Any) -> CheckData:
    """A check of something at a port where nobody listens."""
    data: Dict[str, Any] = {"address": "127.0.0.1", "number": 1, "timeout": 1.0, **more}
    return data  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Garbled("x"), "unhealthy"),
        (Denied("7", "no"), "unhealthy"),
        (Unsupported("x"), "unknown"),
        (socket.timeout(), "unhealthy"),
        (ConnectionResetError(104, "reset"), "unhealthy"),
        (PermissionError(13, "not allowed"), "unknown"),
        (OSError(24, "too many open files"), "unknown"),
    ],
)
def test_what_goes_wrong_is_a_state(error: Exception, state: str) -> None:
    """And names the server, whatever it was."""

    def talk(_: Wire, __: Optional[str]) -> Any:
        raise error

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = converse(check(number=port), System(), "Redis", talk, lambda _: None)
    assert found.state == state and "127.0.0.1:%d" % port in found.message


def test_the_password_is_given_to_the_talk_only() -> None:
    """From what came with the check; a talk that breaks says nothing of it."""
    given_to: List[Optional[str]] = []

    def talk(_: Wire, password: Optional[str]) -> Any:
        given_to.append(password)
        return finding("healthy", "fine")

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        data = check(number=port, secret={"password": "geheim"}, password_file="/no/such/file")
        assert converse(data, System(), "Redis", talk, lambda _: None).state == "healthy"
    assert given_to == ["geheim"]


def test_the_proof_of_md5_is_that_of_the_documentation() -> None:
    """``md5`` and the hash of the hash of password and user, and the salt."""
    salt = b"\x01\x02\x03\x04"
    line = wire(asks(5, salt) + LET_IN)
    wire_postgres.sign_in(line, "shop", "d", "secret", NONCE)
    inner = hashlib.md5(b"secretshop").hexdigest().encode()
    assert b"md5" + hashlib.md5(inner + salt).hexdigest().encode() in line._connection.heard


def test_scram_signs_what_was_said() -> None:
    """A whole exchange, with a server that is written from the RFC."""
    salt, rounds, nonce = b"salt", 4096, NONCE + "server"
    salted = hashlib.pbkdf2_hmac("sha256", "pässword".encode(), salt, rounds)
    server_first = "r=%s,s=%s,i=%d" % (nonce, base64.b64encode(salt).decode(), rounds)
    scram = Scram("pässword", NONCE)
    final = scram.final(server_first.encode()).decode()
    signed = ",".join([scram.first().decode()[3:], server_first, final.rsplit(",p=", 1)[0]])
    key = hmac.new(salted, b"Server Key", "sha256").digest()
    signature = hmac.new(key, signed.encode(), "sha256").digest()
    scram.verify(b"v=" + base64.b64encode(signature))
