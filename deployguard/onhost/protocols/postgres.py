"""PostgreSQL's protocol, version 3, as far as a check needs it: sign in, ask, hang up.

Signing in: without a password, in clear (encrypted connections and local sockets only), MD5, and
SCRAM-SHA-256. Asking: the simple query protocol.
"""

from __future__ import annotations

import struct
from typing import Dict, List, NamedTuple, Optional, Tuple

from deployguard.onhost.protocols.scram import MECHANISM, Scram
from deployguard.onhost.protocols.wire import Denied, Garbled, Unsupported, Wire

#: Of an answer; a check asks for one.
MAX_ROWS = 20

_PROTOCOL = 196608
_SSL_REQUEST = 80877103
_OK, _CLEAR, _MD5, _SASL, _SASL_MORE, _SASL_END = 0, 3, 5, 10, 11, 12
_OTHER = {2: "Kerberos", 6: "SCM credentials", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"}


class Rows(NamedTuple):
    """The first rows of an answer as text, ``None`` for NULL, and how many there were."""

    rows: List[List[Optional[str]]]
    total: int

    def value(self) -> Optional[str]:
        """The first column of the first row."""
        return self.rows[0][0] if self.rows and self.rows[0] else None


def encrypt(wire: Wire, mode: str, ca_file: Optional[str], name: str) -> None:
    """Ask for TLS as the mode of the plan says; on a local socket nobody does."""
    if mode == "disable" or wire.local:
        return
    wire.send(struct.pack("!ii", 8, _SSL_REQUEST))
    answer = wire.exactly(1)
    if answer == b"S":
        wire.secure(mode, ca_file, name)
    elif answer == b"E":
        raise Garbled("it refuses to say whether it offers TLS")
    elif answer != b"N":
        raise Garbled("it answers %r to the question for TLS" % answer)
    elif mode != "prefer":
        raise Denied("", "it offers no TLS, and the check asks for it")


def sign_in(
    wire: Wire, user: str, database: str, password: Optional[str], nonce: str
) -> Dict[str, str]:
    """Start the session; answers with the server's parameters, such as ``server_version``.

    Raises :class:`Denied`, :class:`Garbled` and :class:`Unsupported`.
    """
    fields = ["user", user, "database", database, "application_name", "deployguard"]
    fields += ["client_encoding", "UTF8"]
    body = b"".join(_text(field) for field in fields) + b"\0"
    wire.send(struct.pack("!ii", len(body) + 8, _PROTOCOL) + body)
    _prove(wire, user, password, nonce)
    parameters: Dict[str, str] = {}
    while True:
        kind, data = _message(wire)
        if kind == b"Z":
            wire.trusted = True
            return parameters
        if kind == b"S":
            name, _, value = data.partition(b"\0")
            if len(parameters) < 100:
                parameters[_shown(name)] = _shown(value.rstrip(b"\0"))
        elif kind not in b"KNv":
            raise Garbled("it sends %r before it is ready" % kind)


def ask(wire: Wire, sql: str) -> Rows:
    """Run one statement. Raises :class:`Denied` when the server says that it failed."""
    _send(wire, b"Q", _text(sql))
    rows: List[List[Optional[str]]] = []
    total = 0
    failed: Optional[Denied] = None
    while True:
        try:
            kind, data = _message(wire)
        except Denied as error:
            failed = error  # the server goes on to say that it is ready
            continue
        if kind == b"Z":
            break
        if kind == b"D":
            total += 1
            if len(rows) < MAX_ROWS:
                rows.append(_row(data))
        elif kind in b"GHW":
            raise Unsupported("the query copies data; a check asks for a value")
        elif kind not in b"TCINSA":
            raise Garbled("it sends %r as an answer" % kind)
    if failed is not None:
        raise failed
    return Rows(rows, total)


def hang_up(wire: Wire) -> None:
    """Say goodbye, so that its log has no word of a client that vanished."""
    try:
        _send(wire, b"X", b"")
    except OSError:
        pass  # It went first.


def _prove(wire: Wire, user: str, password: Optional[str], nonce: str) -> None:
    """Answer whatever the server asks until it is satisfied."""
    scram: Optional[Scram] = None
    proven = True
    while True:
        kind, data = _message(wire)
        if kind in (b"N", b"v"):
            continue
        if kind != b"R" or len(data) < 4:
            raise Garbled("it sends %r instead of asking who we are" % kind)
        (method,) = struct.unpack("!i", data[:4])
        body = data[4:]
        if method == _OK:
            if not proven:
                raise Garbled("it lets us in without its own proof")
            return
        if method == _SASL_MORE and scram is not None:
            _send(wire, b"p", scram.final(body))
        elif method == _SASL_END and scram is not None:
            scram.verify(body)
            proven = True
        elif method == _SASL and scram is None:
            scram, proven = _begin_scram(body, _wanted(password), nonce), False
            first = scram.first()
            start = _text(MECHANISM) + struct.pack("!i", len(first)) + first
            _send(wire, b"p", start)
        elif method in (_CLEAR, _MD5) and scram is None:
            _send(wire, b"p", _text(_simple(wire, method, user, _wanted(password), body)))
        else:
            name = _OTHER.get(method, "method %d" % method)
            raise Unsupported("the server asks for %s, which this check does not speak" % name)


def _wanted(password: Optional[str]) -> str:
    if password is None:
        raise Denied("28P01", "the server asks for a password, and the check has none")
    return password


def _begin_scram(mechanisms: bytes, password: str, nonce: str) -> Scram:
    if MECHANISM.encode("ascii") not in mechanisms.split(b"\0"):
        raise Unsupported("the server offers no %s" % MECHANISM)
    return Scram(password, nonce)


def _simple(wire: Wire, method: int, user: str, password: str, salt: bytes) -> str:
    if method == _CLEAR:
        if not wire.private:
            raise Unsupported(
                "the server asks for the password in clear, and the connection is not encrypted: "
                "add sslmode=require"
            )
        return password
    import hashlib

    try:
        inner = hashlib.md5(_bytes(password) + _bytes(user)).hexdigest()  # noqa: S324 - theirs
        return "md5" + hashlib.md5(inner.encode("ascii") + salt[:4]).hexdigest()  # noqa: S324
    except ValueError:
        raise Unsupported("the server asks for MD5, which this host does not allow") from None


def _message(wire: Wire) -> Tuple[bytes, bytes]:
    """The next message. An error is raised as :class:`Denied`."""
    head = wire.exactly(5)
    kind = head[:1]
    (length,) = struct.unpack("!i", head[1:])
    if length < 4:
        raise Garbled("it sends a message of %d bytes" % length)
    data = wire.exactly(length - 4)
    if kind == b"E":
        raise _error(data)
    return kind, data


def _error(data: bytes) -> Denied:
    fields = {part[:1]: _shown(part[1:]) for part in data.split(b"\0") if part}
    return Denied(fields.get(b"C", ""), fields.get(b"M", "it gives no reason"))


def _row(data: bytes) -> List[Optional[str]]:
    values: List[Optional[str]] = []
    try:
        (columns,) = struct.unpack_from("!h", data)
        at = 2
        for _ in range(columns):
            (length,) = struct.unpack_from("!i", data, at)
            at += 4
            if length < -1 or at + length > len(data):
                raise Garbled("it sends a row that is not whole")
            values.append(None if length < 0 else _shown(data[at : at + length]))
            at += max(length, 0)
    except struct.error:
        raise Garbled("it sends a row that is not whole") from None
    return values


def _send(wire: Wire, kind: bytes, body: bytes) -> None:
    wire.send(kind + struct.pack("!i", len(body) + 4) + body)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(text: str) -> bytes:
    data = _bytes(text)
    if b"\0" in data:
        raise Unsupported("a NUL cannot be sent to PostgreSQL")
    return data + b"\0"


def _shown(data: bytes) -> str:
    return data.decode("utf-8", "replace")
