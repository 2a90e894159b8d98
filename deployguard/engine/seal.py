"""What controller and jobs write to each other, unreadable for whoever stores or carries it.

The key travels with the job, through the engine; what it opens lies in the journal's database. So
neither of the two alone can read a plan, an answer or a piece of evidence.
"""

from __future__ import annotations

import os
import zlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from deployguard.errors import InternalError

__all__ = ["Seal", "new_key"]

_NONCE = 12


def new_key() -> bytes:
    """The key of one transaction."""
    return AESGCM.generate_key(bit_length=256)


class Seal:
    """Seals and opens what belongs to one transaction."""

    def __init__(self, key: bytes, transaction: str) -> None:
        self._cipher = AESGCM(key)
        self._transaction = transaction

    def close(self, about: str, data: bytes) -> bytes:
        """``data``, compressed and sealed; it opens under the same words only."""
        nonce = os.urandom(_NONCE)
        packed = zlib.compress(data, 1)
        return nonce + self._cipher.encrypt(nonce, packed, self._bound(about))

    def open(self, about: str, sealed: bytes) -> bytes:
        """What :meth:`close` was given. Raises :class:`InternalError` for anything else."""
        try:
            packed = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], self._bound(about))
            return zlib.decompress(packed)
        except (InvalidTag, ValueError, zlib.error) as error:
            raise InternalError(f"what the journal has as {about} was not written there") from error

    def _bound(self, about: str) -> bytes:
        return f"{self._transaction}\n{about}".encode()
