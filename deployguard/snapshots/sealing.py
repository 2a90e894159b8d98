"""Objects as they lie in a store: compressed, and sealed where there is a key.

A sealed object is ``DGS1``, the id of its key (8 bytes), a random salt (32 bytes), and chunks of
AES-256-GCM. Key and salt give the key of this one object (HKDF, with its name), so that nonces can
be counters: 11 bytes that count, and one that says whether the chunk is the last. Chunks that are
left out, repeated, reordered or cut off do not open, and neither does an object under another name.
What is not sealed is ``DGP1`` and a zlib stream.
"""

from __future__ import annotations

import hmac
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from deployguard.snapshots.base import Damaged, WrongKey

__all__ = ["Key", "Keyring"]

_PLAIN = b"DGP1"
_SEALED = b"DGS1"
_ID = 8
_SALT = 32
_CHUNK = 64 * 1024
_TAG = 16
_MENDS = "restore another snapshot; `deployguard snapshots verify PLAN` says which are whole"


class Key:
    """One key of 32 bytes, as it is used: never itself, but keys that are derived from it."""

    def __init__(self, secret: bytes) -> None:
        self._objects = _derived(secret, b"", b"deployguard snapshots: objects")
        self._names = _derived(secret, b"", b"deployguard snapshots: names")
        #: Tells keys apart, and nothing about them.
        self.id = _derived(secret, b"", b"deployguard snapshots: id")[:_ID].hex()

    def __repr__(self) -> str:
        return f"<Key {self.id}>"

    def name_of(self, digest: str) -> str:
        """What a content is called: nobody without the key can tell whether it is a known one."""
        return hmac.digest(self._names, digest.encode("ascii"), "sha256").hex()

    def cipher(self, salt: bytes, name: str) -> Any:
        """What seals and opens the chunks of one object."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(_derived(self._objects, salt, name.encode("utf-8")))


class Keyring:
    """The key that seals, and those that open what was sealed before; none is no encryption."""

    def __init__(self, secrets: Iterable[bytes] = ()) -> None:
        keys = [Key(secret) for secret in secrets]
        self.current: Key | None = keys[0] if keys else None
        self._by_id = {key.id: key for key in keys}

    def name_of(self, digest: str, key: str) -> str:
        """What a content is called under the key with this id. Raises :class:`WrongKey`."""
        return self._named(key, digest).name_of(digest) if key else digest

    def seal(self, name: str, pieces: Iterable[bytes], out: BinaryIO) -> None:
        """Write the object ``name`` with this content."""
        if self.current is None:
            out.write(_PLAIN)
            out.writelines(_deflated(pieces))
            return
        salt = os.urandom(_SALT)
        out.write(_SEALED + bytes.fromhex(self.current.id) + salt)
        cipher = self.current.cipher(salt, name)
        aad = name.encode("utf-8")
        held, count = b"", 0
        for chunk in _sized(_deflated(pieces), _CHUNK):
            if count:
                out.write(cipher.encrypt(_nonce(count - 1, last=False), held, aad))
            held, count = chunk, count + 1
        out.write(cipher.encrypt(_nonce(max(count, 1) - 1, last=True), held, aad))

    def open(self, name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The content of the object ``name``, in pieces.

        What was given out before an error is authentic, but may not be all. Raises
        :class:`Damaged` or :class:`WrongKey`.
        """
        reader = _Reader(pieces)
        kind = reader.take(len(_PLAIN))
        if kind == _SEALED and len(header := reader.take(_ID + _SALT)) == _ID + _SALT:
            yield from self._unsealed(name, header, reader)
        elif kind == _PLAIN and self.current is None:
            yield from _inflated(name, reader.rest())
        elif kind == _PLAIN:
            # Whoever can write to the store could put it there.
            raise Damaged(f"{name} is not encrypted, though a key is given", hint=_MENDS)
        else:
            raise _damaged(name, "not an object of deployguard")

    def key_of(self, pieces: Iterable[bytes]) -> str:
        """The id of the key that an object is sealed with; empty for none."""
        header = _Reader(pieces).take(len(_SEALED) + _ID)
        return header[len(_SEALED) :].hex() if header.startswith(_SEALED) else ""

    def _unsealed(self, name: str, header: bytes, reader: _Reader) -> Iterator[bytes]:
        key = self._named(header[:_ID].hex(), name)
        cipher = key.cipher(header[_ID:], name)
        yield from _inflated(name, _opened(name, cipher, reader))

    def _named(self, identifier: str, name: str) -> Key:
        key = self._by_id.get(identifier)
        if key is None:
            mine = self.current
            here = f"the key given is {mine.id}" if mine is not None else "no key is given"
            raise WrongKey(
                f"the snapshot is encrypted with the key {identifier}, and {here}",
                hint="name the right key in `snapshots:` of the plan: key_file or key_env",
            )
        return key

    def id(self) -> str:
        """The id of the key that seals; empty where nothing is sealed."""
        return self.current.id if self.current is not None else ""


def _opened(name: str, cipher: Any, reader: _Reader) -> Iterator[bytes]:
    from cryptography.exceptions import InvalidTag

    aad = name.encode("utf-8")
    count, last = 0, False
    chunk = reader.take(_CHUNK + _TAG)
    while not last:
        following = reader.take(_CHUNK + _TAG)
        last = not following
        try:
            yield cipher.decrypt(_nonce(count, last=last), chunk, aad)
        except (InvalidTag, ValueError):
            raise _damaged(name, "cut off or changed") from None
        chunk, count = following, count + 1


def _deflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(3)
    for piece in pieces:
        if data := packer.compress(piece):
            yield data
    yield packer.flush()


def _inflated(name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decompressed, never more than a chunk at a time, whatever the ratio."""
    unpacker = zlib.decompressobj()
    try:
        for piece in pieces:
            data = unpacker.decompress(piece, _CHUNK)
            while data:
                yield data
                data = unpacker.decompress(unpacker.unconsumed_tail, _CHUNK)
            if unpacker.eof and unpacker.unused_data:
                raise _damaged(name, "followed by more")
    except zlib.error:
        raise _damaged(name, "changed") from None
    if not unpacker.eof:
        raise _damaged(name, "cut off")


def _sized(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    pending = bytearray()
    for piece in pieces:
        pending += piece
        while len(pending) >= size:
            yield bytes(pending[:size])
            del pending[:size]
    if pending:
        yield bytes(pending)


def _nonce(count: int, *, last: bool) -> bytes:
    return struct.pack(">3xQB", count, last)


def _derived(secret: bytes, salt: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, salt or None, info).derive(secret)


def _damaged(name: str, how: str) -> Damaged:
    return Damaged(f"{name} is damaged: {how}", hint=_MENDS)


class _Reader:
    """Pieces of any size as reads of a given one."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = b""

    def take(self, count: int) -> bytes:
        """So many bytes; fewer only at the end."""
        parts, have = [self._held], len(self._held)
        while have < count and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        self._held = data[count:]
        return data[:count]

    def rest(self) -> Iterator[bytes]:
        """All that follows."""
        yield self._held
        yield from self._pieces
