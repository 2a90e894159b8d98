"""The client's half of SCRAM-SHA-256 (RFC 5802, RFC 7677), as PostgreSQL asks for it.

Both sides prove that they know the password, and neither sends it. The server's proof is checked:
one that cannot give it is not the server whose password this is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Dict, Tuple

from deployguard.onhost.protocols.wire import Garbled, Unsupported

MECHANISM = "SCRAM-SHA-256"
#: More would keep the host busy for longer than a check may take; PostgreSQL's own is 4096.
MAX_ITERATIONS = 1_000_000
_GS2 = "n,,"  # no channel binding


class Scram:
    """One exchange: :meth:`first`, :meth:`final`, :meth:`verify`, in this order."""

    def __init__(self, password: str, nonce: str) -> None:
        self._password = saslprep(password)
        self._nonce = nonce
        self._bare = "n=,r=" + nonce  # the server takes the user's name from the startup
        self._signature = b""

    def first(self) -> bytes:
        """The client's first message."""
        return (_GS2 + self._bare).encode("ascii")

    def final(self, server_first: bytes) -> bytes:
        """The client's proof, as an answer to the server's first message."""
        fields = _fields(server_first)
        nonce, salt, iterations = _challenge(fields)
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise Garbled("its nonce is not made from ours")
        bound = base64.b64encode(_GS2.encode("ascii")).decode("ascii")
        without_proof = "c=%s,r=%s" % (bound, nonce)
        message = b",".join([self._bare.encode("ascii"), server_first, without_proof.encode()])
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        client_key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.sha256(client_key).digest(), message)
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        self._signature = _hmac(_hmac(salted, b"Server Key"), message)
        return (without_proof + ",p=" + base64.b64encode(proof).decode("ascii")).encode("ascii")

    def verify(self, server_final: bytes) -> None:
        """Check the server's proof. Raises :class:`Garbled` for one that is wrong."""
        fields = _fields(server_final)
        try:
            given = base64.b64decode(fields["v"], validate=True)
        except (KeyError, binascii.Error, ValueError):
            raise Garbled("it gives no proof that it knows the password") from None
        if not self._signature or not hmac.compare_digest(given, self._signature):
            raise Garbled("it does not know the password itself")


def _fields(message: bytes) -> Dict[str, str]:
    try:
        text = message.decode("utf-8")
    except UnicodeDecodeError:
        raise Garbled("its SCRAM message is no text") from None
    return {part[:1]: part[2:] for part in text.split(",") if part[1:2] == "="}


def _challenge(fields: Dict[str, str]) -> Tuple[str, bytes, int]:
    if "m" in fields:
        raise Unsupported("the server asks for a SCRAM extension that this check does not know")
    try:
        salt = base64.b64decode(fields["s"], validate=True)
        count = fields["i"]
        iterations = int(count) if count.isascii() and count.isdigit() and len(count) < 9 else 0
        nonce = fields["r"]
    except (KeyError, binascii.Error, ValueError):
        raise Garbled("its SCRAM challenge is not whole") from None
    if not salt or not 1 <= iterations <= MAX_ITERATIONS:
        raise Garbled("its SCRAM challenge cannot be met")
    return nonce, salt, iterations


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def saslprep(password: str) -> bytes:
    """The password in the form that is hashed (RFC 4013); as it is where that has none.

    PostgreSQL does the same: a password that is not allowed, or not text, is used unchanged.
    """
    if password.isascii():
        return password.encode("ascii")
    import stringprep
    import unicodedata

    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in password
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    forbidden = (
        stringprep.in_table_a1, stringprep.in_table_c12, stringprep.in_table_c21_c22,
        stringprep.in_table_c3, stringprep.in_table_c4, stringprep.in_table_c5,
        stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8,
        stringprep.in_table_c9,
    )  # fmt: skip
    good = prepared and not any(test(c) for c in prepared for test in forbidden)
    if good and any(stringprep.in_table_d1(c) for c in prepared):
        mixed = any(stringprep.in_table_d2(c) for c in prepared)
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        good = not mixed and ends
    return (prepared if good else password).encode("utf-8", "surrogatepass")
