"""The protocol of MySQL and MariaDB, version 10, as far as a check needs it.

Signing in: ``mysql_native_password``, ``caching_sha2_password`` and, on a local socket,
``unix_socket`` and ``auth_socket``, which ask the kernel who we are. The last step of
``caching_sha2_password`` sends the password itself, so it needs an encrypted connection or a local
socket. Asking: the text protocol.
"""

from __future__ import annotations

import hashlib
import struct
from typing import List, NamedTuple, Optional, Tuple

from deployguard.onhost.protocols.wire import MAX_MESSAGE, Denied, Garbled, Unsupported, Wire

#: Of an answer; a check asks for one.
MAX_ROWS = 20
#: A table has 4096 at most.
MAX_COLUMNS = 4096

_LONG_PASSWORD, _WITH_DATABASE, _PROTOCOL_41, _SSL = 1, 8, 0x200, 0x800
_TRANSACTIONS, _SECURE, _PLUGIN = 0x2000, 0x8000, 0x80000
_UTF8 = 33  # utf8_general_ci, which every version knows
_QUIT, _QUERY = b"\x01", b"\x03"
_OK, _MORE, _SWITCH, _ERROR = 0x00, 0x01, 0xFE, 0xFF
_NATIVE, _SHA2 = "mysql_native_password", "caching_sha2_password"
_BY_SOCKET = ("unix_socket", "auth_socket")
_FAST, _FULL = b"\x03", b"\x04"


class Greeting(NamedTuple):
    """What the server says first."""

    version: str
    capabilities: int
    nonce: bytes
    plugin: str


class Rows(NamedTuple):
    """The first rows of an answer as text, ``None`` for NULL, and how many there were."""

    rows: List[List[Optional[str]]]
    total: int

    def value(self) -> Optional[str]:
        """The first column of the first row."""
        return self.rows[0][0] if self.rows and self.rows[0] else None


class Session:
    """A conversation: packets have numbers that both sides count."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._number = 0

    def packet(self) -> bytes:
        """The payload of the next packet; an error packet is raised as :class:`Denied`."""
        head = self.wire.exactly(4)
        length = int.from_bytes(head[:3], "little")
        if head[3] != self._number:
            raise Garbled("it sends no packet of this protocol")
        self._number = (self._number + 1) & 0xFF
        data = self.wire.exactly(length)
        if data[:1] == b"\xff":
            raise _error(data)
        return data

    def send(self, payload: bytes) -> None:
        """Send one packet."""
        if len(payload) > MAX_MESSAGE:
            raise Unsupported("the query is longer than %d KiB" % (MAX_MESSAGE // 1024))
        head = len(payload).to_bytes(3, "little") + bytes([self._number])
        self._number = (self._number + 1) & 0xFF
        self.wire.send(head + payload)

    def command(self, payload: bytes) -> None:
        """Begin anew, with a command."""
        self._number = 0
        self.send(payload)


def greet(session: Session) -> Greeting:
    """Read what the server says first."""
    data = session.packet()
    if data[:1] != b"\x0a":
        raise Garbled("it greets with version %s of the protocol" % (data[0] if data else "none"))
    version, nul, rest = data[1:].partition(b"\0")
    if not nul or len(rest) < 31:
        raise Garbled("its greeting is not whole")
    nonce = rest[4:12]
    low, _, _, high, length = struct.unpack_from("<HBHHB", rest, 13)
    capabilities = low | high << 16
    more = rest[31 : 31 + max(13, length - 8)]
    plugin = rest[31 + len(more) :].partition(b"\0")[0]
    # The last byte of the second part is a NUL and no part of it.
    nonce = (nonce + more)[:20]
    if not capabilities & _PROTOCOL_41 or not capabilities & _SECURE or len(nonce) < 20:
        raise Unsupported("the server is older than MySQL 4.1")
    name = _shown(plugin) if capabilities & _PLUGIN else _NATIVE
    # MariaDB hides behind a version that the replicas of old MySQLs take.
    return Greeting(_shown(version).replace("5.5.5-", "", 1), capabilities, nonce, name)


def sign_in(
    session: Session,
    greeting: Greeting,
    user: str,
    database: str,
    password: Optional[str],
    tls: Tuple[str, Optional[str], str],
) -> None:
    """Encrypt as ``tls`` (mode, CA file, name) says, and prove who we are.

    Raises :class:`Denied`, :class:`Garbled` and :class:`Unsupported`.
    """
    flags = _LONG_PASSWORD | _PROTOCOL_41 | _TRANSACTIONS | _SECURE | _PLUGIN
    flags &= greeting.capabilities
    flags |= _PROTOCOL_41 | _SECURE
    if database:
        flags |= _WITH_DATABASE
    flags |= _encrypt(session, greeting, flags, *tls)
    plugin = greeting.plugin if greeting.plugin in (_NATIVE, _SHA2) else _NATIVE
    response = _scramble(plugin, password, greeting.nonce)
    body = _head(flags) + _text(user) + bytes([len(response)]) + response
    if database:
        body += _text(database)
    if flags & _PLUGIN:
        body += _text(plugin)
    session.send(body)
    _prove(session, plugin, password, greeting.nonce)


def ask(session: Session, sql: str) -> Rows:
    """Run one statement. Raises :class:`Denied` when the server says that it failed."""
    session.command(_QUERY + _bytes(sql))
    data = session.packet()
    if data[:1] == b"\0":
        return Rows([], 0)
    if data[:1] == b"\xfb":
        raise Unsupported("the query loads a file; a check asks for a value")
    columns, at = _length(data, 0)
    if not 0 < columns <= MAX_COLUMNS or at != len(data):
        raise Garbled("it announces no columns")
    for _ in range(columns):
        session.packet()
    if not _is_end(session.packet()):
        raise Garbled("its columns do not end")
    rows: List[List[Optional[str]]] = []
    total = 0
    while True:
        data = session.packet()
        if _is_end(data):
            return Rows(rows, total)
        total += 1
        if len(rows) < MAX_ROWS:
            rows.append(_row(data, columns))


def hang_up(session: Session) -> None:
    """Say goodbye, or the server counts a client that was lost."""
    try:
        session.command(_QUIT)
    except OSError:
        pass  # It went first.


def _encrypt(
    session: Session, greeting: Greeting, flags: int, mode: str, ca_file: Optional[str], name: str
) -> int:
    if mode == "disable" or session.wire.local:
        return 0
    if not greeting.capabilities & _SSL:
        if mode != "prefer":
            raise Denied("", "it offers no TLS, and the check asks for it")
        return 0
    session.send(_head(flags | _SSL))
    session.wire.secure(mode, ca_file, name)
    return _SSL


def _head(flags: int) -> bytes:
    return struct.pack("<IIB23x", flags, MAX_MESSAGE, _UTF8)


def _prove(session: Session, plugin: str, password: Optional[str], nonce: bytes) -> None:
    """Answer whatever the server asks until it is satisfied."""
    switched = False
    while True:
        data = session.packet()
        kind = data[0] if data else -1
        if kind == _OK:
            session.wire.trusted = True
            return
        if kind == _SWITCH and not switched:
            switched = True
            name, _, rest = data[1:].partition(b"\0")
            plugin, nonce = _shown(name), rest[:20]
            if plugin in _BY_SOCKET and session.wire.local:
                session.send(b"")
            else:
                session.send(_scramble(plugin, password, nonce))
        elif kind == _MORE and plugin == _SHA2 and data[1:] == _FAST:
            continue
        elif kind == _MORE and plugin == _SHA2 and data[1:] == _FULL:
            if not session.wire.private:
                raise Unsupported(
                    "the server wants the password itself, as it does after each restart, and the "
                    "connection is not encrypted: add ssl-mode=REQUIRED"
                )
            session.send(_bytes(password or "") + b"\0")
        else:
            raise Garbled("it sends 0x%02x instead of letting us in" % max(kind, 0))


def _scramble(plugin: str, password: Optional[str], nonce: bytes) -> bytes:
    """The proof that we know the password, by the server's plugin."""
    if plugin not in (_NATIVE, _SHA2):
        name = plugin or "the password of MySQL 4.0"
        raise Unsupported("the server asks for %s, which this check does not speak" % name)
    if not password:
        return b""
    if len(nonce) < 20:
        raise Garbled("its challenge is not whole")
    secret = _bytes(password)
    if plugin == _NATIVE:
        once = _sha1(secret)
        mask = _sha1(nonce + _sha1(once))
    else:
        once = hashlib.sha256(secret).digest()
        mask = hashlib.sha256(hashlib.sha256(once).digest() + nonce).digest()
    return bytes(a ^ b for a, b in zip(once, mask))


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data).digest()  # noqa: S324 - the server's choice


def _error(data: bytes) -> Denied:
    if len(data) < 3:
        raise Garbled("its error is not whole")
    (code,) = struct.unpack_from("<H", data, 1)
    text = data[3:]
    if text[:1] == b"#":
        text = text[6:]
    return Denied(str(code), _shown(text) or "it gives no reason")


def _is_end(data: bytes) -> bool:
    return len(data) < 9 and data[:1] == b"\xfe"


def _row(data: bytes, columns: int) -> List[Optional[str]]:
    values: List[Optional[str]] = []
    at = 0
    for _ in range(columns):
        if data[at : at + 1] == b"\xfb":
            values.append(None)
            at += 1
            continue
        length, at = _length(data, at)
        if at + length > len(data):
            raise Garbled("it sends a row that is not whole")
        values.append(_shown(data[at : at + length]))
        at += length
    return values


def _length(data: bytes, at: int) -> Tuple[int, int]:
    """A length-encoded number, and where what follows it begins."""
    first = data[at] if at < len(data) else 0xFF
    if first < 0xFB:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
    if not size or at + 1 + size > len(data):
        raise Garbled("it sends a number that is not whole")
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(text: str) -> bytes:
    data = _bytes(text)
    if b"\0" in data:
        raise Unsupported("a NUL cannot be sent to MySQL")
    return data + b"\0"


def _shown(data: bytes) -> str:
    return data.decode("utf-8", "replace")
