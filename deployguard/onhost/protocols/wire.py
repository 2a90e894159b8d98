"""One conversation with a server: under one deadline, and never more than so many bytes.

The deadline holds for all of it. A socket timeout alone starts anew with every byte, and a server
that is half dead, or is not what the plan says, may send a byte now and then for ever. What speaks
a protocol (:mod:`deployguard.onhost.protocols.postgres` and its likes) gets a :class:`Wire` and
raises:

:class:`Garbled`
    The other end does not speak the protocol. That is not the service we look for.
:class:`Unsupported`
    It asks for what this program cannot do, or something on this host keeps us from asking. That
    tells nothing about the service.
:class:`Denied`
    The server itself said no, in its own words.
"""

from __future__ import annotations

import socket
from typing import Any, Callable, Optional

#: Of one answer, and of one conversation: a check asks for one row and not for a table.
MAX_MESSAGE = 256 * 1024
MAX_BYTES = 1024 * 1024
_PIECE = 16 * 1024

#: From no encryption to a certificate that is checked against the name.
TLS_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")


class Garbled(Exception):
    """The other end does not speak the protocol."""


class Unsupported(Exception):
    """There is no telling: it asks for what this program cannot do, or we lack something."""


class Denied(Exception):
    """The server said no. ``code`` is its own: a SQLSTATE, a number, the first word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def countdown(clock: Callable[[], float], seconds: float) -> Callable[[], float]:
    """Answers with the seconds that are left, and raises ``socket.timeout`` when none are."""
    ends = clock() + seconds

    def left() -> float:
        remaining = ends - clock()
        if remaining <= 0:
            raise socket.timeout
        return remaining

    return left


class Wire:
    """A connection that is read in exact pieces, while ``left`` (a :func:`countdown`) lets it;
    ``local`` says that it is a socket of this machine."""

    def __init__(self, connection: Any, left: Callable[[], float], local: bool = False) -> None:
        self._connection = connection
        self._left = left
        self._buffer = bytearray()
        self._taken = 0
        self.local = local
        self.encrypted = False
        #: The server has let us in: it is what it should be, and what is too large is our question.
        self.trusted = False

    @property
    def private(self) -> bool:
        """Whether a password may be sent as it is."""
        return self.local or self.encrypted

    def remaining(self) -> float:
        """Seconds left of the whole conversation."""
        return self._left()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._connection.settimeout(self._left())
        self._connection.sendall(data)

    def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes. :class:`Garbled` where they do not come."""
        if count > MAX_MESSAGE:
            raise self.too_much("it announces an answer of %d bytes" % count)
        while len(self._buffer) < count:
            self._receive()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def line(self, limit: int) -> bytes:
        """The bytes up to the next CR LF, which is taken and not in the answer."""
        looked = 0
        while True:
            end = self._buffer.find(b"\r\n", max(looked - 1, 0))
            if end >= 0:
                break
            looked = len(self._buffer)
            if looked > limit:
                raise Garbled("it sends a line without an end")
            self._receive()
        data = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return data

    def secure(self, mode: str, ca_file: Optional[str], name: str) -> None:
        """Go on encrypted. Raises ``ssl.SSLError``, and :class:`Unsupported` for a bad CA file."""
        if self._buffer:
            # Whatever stands there was not protected, and would be taken for what is.
            raise Garbled("it sends something before the encryption begins")
        self._connection.settimeout(self._left())
        self._connection = tls_context(mode, ca_file).wrap_socket(
            self._connection, server_hostname=name or None
        )
        self.encrypted = True

    def too_much(self, words: str) -> Exception:
        """What to raise for more than a check takes."""
        if self.trusted:
            return Unsupported("the answer is too large: a check asks for one value")
        return Garbled(words)

    def close(self) -> None:
        """Hang up."""
        try:
            self._connection.close()
        except OSError:
            pass  # It is gone already.

    def _receive(self) -> None:
        if self._taken >= MAX_BYTES:
            raise self.too_much("it answers with more than %d KiB" % (MAX_BYTES // 1024))
        self._connection.settimeout(self._left())
        piece = self._connection.recv(_PIECE)
        if not piece:
            raise Garbled("it hangs up")
        self._taken += len(piece)
        self._buffer += piece


def tls_context(mode: str, ca_file: Optional[str]) -> Any:
    """An ``ssl.SSLContext`` for one of :data:`TLS_MODES`.

    Below ``verify-ca`` the certificate is not looked at: it is encrypted, for whoever listens.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    if mode not in ("verify-ca", "verify-full"):
        context.verify_mode = ssl.CERT_NONE
    elif ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or error
            message = "cannot read the CA certificates in %s: %s" % (ca_file, reason)
            raise Unsupported(message) from None
    else:
        context.load_default_certs()
        if not _has_certificates():
            raise Unsupported(
                "this host has no CA certificates to check one with: install ca-certificates there"
            )
    return context


def _has_certificates() -> bool:
    import os
    import ssl

    paths = ssl.get_default_verify_paths()
    if paths.cafile and os.path.getsize(paths.cafile) > 0:
        return True
    return bool(paths.capath and os.listdir(paths.capath))


def dial(address: str, port: int, path: Optional[str], left: Callable[[], float]) -> Wire:
    """Connect over TCP, or to the socket at ``path``. Raises ``OSError``."""
    if not path:
        return Wire(socket.create_connection((address, port), timeout=left()), left)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(left())
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return Wire(connection, left, local=True)
