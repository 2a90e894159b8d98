"""What a store of snapshots does, and how it fails.

A store holds objects under names and knows nothing of what is in them. It is not trusted: whatever
comes out of one is checked by those who read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol

from deployguard.errors import UsageError

__all__ = [
    "PIECE",
    "Damaged",
    "SnapshotError",
    "SnapshotMissing",
    "Store",
    "StoreAway",
    "WrongKey",
]

PIECE = 256 * 1024


class SnapshotError(UsageError):
    """A snapshot cannot be written or used. Raised before any host is touched."""


class StoreAway(SnapshotError):
    """The store cannot be reached, or does not let us in."""


class SnapshotMissing(SnapshotError):
    """The store does not have it."""


class Damaged(SnapshotError):
    """An object is not what was written: cut off, changed, or under another's name."""


class WrongKey(SnapshotError):
    """It was sealed with a key that is not at hand."""


class Store(Protocol):
    """Objects under names such as ``shop/production/sealed/blobs/ab/abcd…``."""

    #: As people write it: ``s3://backups/shop``.
    address: str

    def put(self, name: str, file: BinaryIO, size: int, sha256: bytes) -> None:
        """Write an object from the start of ``file``; an older one of the name is replaced.

        When this returns the object is durable, and it has been verified that the store has these
        bytes. Raises :class:`StoreAway` or :class:`Damaged`.
        """

    def get(self, name: str) -> Iterator[bytes]:
        """The bytes of an object. Raises :class:`SnapshotMissing` or :class:`StoreAway`."""

    def names(self, prefix: str) -> Iterator[str]:
        """The names below a prefix that ends in a slash, in any order."""

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
