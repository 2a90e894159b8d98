"""File contents on the wire and on the host: a stream of blobs, and the store it goes into.

A blob stream is one zlib stream of records, each the sha256 of a content (32 bytes), its length
(8 bytes, big-endian) and the content itself. The store keeps such records uncompressed, many to a
file (a pack): a first deploy of thousands of small files then costs one sequential write here.
Large contents get a file of their own, which is later moved into the tree rather than copied.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from deployguard.onhost import durable
from deployguard.onhost.trees.manifest import is_digest

PIECE = 64 * 1024
LARGE = 1024 * 1024

_RECORD = struct.Struct(">32sQ")
_PACK = ".pack"
_BLOB = ".blob"


class BlobsInvalid(ValueError):
    """The stream is damaged, or carries what was not asked for. What came before it is kept."""


class Blob(NamedTuple):
    """Where a content lies on this host: from ``offset`` on in the file ``path``."""

    path: str
    offset: int
    size: int

    @property
    def alone(self) -> bool:
        """Whether the file holds this content and nothing else."""
        return self.path.endswith(_BLOB)


def encode(blobs: Iterable[Tuple[str, int, Iterable[bytes]]], level: int = 3) -> Iterator[bytes]:
    """The stream of (digest, size, pieces of the content), in pieces of at most ``PIECE`` bytes.

    Raises :class:`BlobsInvalid` when a content is not what its digest and size say: it changed
    since it was hashed, and must not travel under the old name.
    """
    compressor = zlib.compressobj(level)
    pending = bytearray()
    for digest, size, pieces in blobs:
        pending += compressor.compress(_RECORD.pack(bytes.fromhex(digest), size))
        for piece in verified(digest, size, pieces):
            pending += compressor.compress(piece)
            while len(pending) >= PIECE:
                yield bytes(pending[:PIECE])
                del pending[:PIECE]
    pending += compressor.flush()
    for start in range(0, len(pending), PIECE):
        yield bytes(pending[start : start + PIECE])


def verified(digest: str, size: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same pieces; raises :class:`BlobsInvalid` at the end when they are another content."""
    hashed = hashlib.sha256()
    length = 0
    for piece in pieces:
        hashed.update(piece)
        length += len(piece)
        if length > size:
            break
        yield piece
    if length != size or hashed.hexdigest() != digest:
        raise BlobsInvalid("the content %s is no longer what it was" % digest)


def receive(pieces: Iterable[bytes], store: str, wanted: Mapping[str, int]) -> List[str]:
    """Read a blob stream into the directory ``store``; the digests that arrived, in order.

    ``wanted`` maps what was asked for to its size; anything else, or the same twice, is refused
    with :class:`BlobsInvalid`. Complete contents that came before a break stay in the store, so
    that whoever asks again asks for less.
    """
    writer = _Writer(store)
    try:
        _read_records(pieces, wanted, writer)
    finally:
        writer.close()
    return writer.received


def stored(store: Optional[str]) -> Dict[str, Blob]:
    """What the store holds, by digest. Not a promise: whoever reads a content hashes it."""
    found: Dict[str, Blob] = {}
    if store is None or not os.path.isdir(store):
        return found
    for name in sorted(os.listdir(store)):
        path = os.path.join(store, name)
        if name.endswith(_PACK):
            found.update(_pack_index(path))
        elif name.endswith(_BLOB) and is_digest(name[: -len(_BLOB)]):
            found[name[: -len(_BLOB)]] = Blob(path, 0, os.path.getsize(path))
    return found


def _read_records(pieces: Iterable[bytes], wanted: Mapping[str, int], writer: _Writer) -> None:
    unpacked = _Unpacked(pieces)
    while True:
        header = unpacked.take(_RECORD.size)
        if not header:
            return
        if len(header) < _RECORD.size:
            raise BlobsInvalid("a blob stream ends inside a record")
        raw, size = _RECORD.unpack(header)
        digest = raw.hex()
        if digest not in wanted or digest in writer.seen:
            raise BlobsInvalid("a content that was not asked for: %s" % digest)
        if size != wanted[digest]:
            raise BlobsInvalid("%s: %d bytes instead of %d" % (digest, size, wanted[digest]))
        hashed = hashlib.sha256()
        writer.start(digest, header, size)
        left = size
        while left:
            data = unpacked.take(min(left, LARGE))
            if not data:
                raise BlobsInvalid("a blob stream ends inside a record")
            hashed.update(data)
            writer.add(data)
            left -= len(data)
        if hashed.hexdigest() != digest:
            raise BlobsInvalid("the content does not have its hash: %s" % digest)
        writer.finish()


class _Unpacked:
    """The decompressed side of the stream, never more of it in memory than a few pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._unpacker = zlib.decompressobj()
        self._ready = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        """Up to ``count`` bytes, fewer only at the end."""
        if len(self._ready) - self._at >= count:
            self._at += count
            return self._ready[self._at - count : self._at]
        parts = [self._ready[self._at :]]
        have = len(parts[0])
        self._ready, self._at = b"", 0
        while have < count:
            data = self._more()
            if not data:
                break
            used = data[: count - have]
            parts.append(used)
            have += len(used)
            self._ready, self._at = data, len(used)
        return b"".join(parts)

    def _more(self) -> bytes:
        try:
            while not self._unpacker.eof:
                piece = self._unpacker.unconsumed_tail or next(self._pieces, None)
                if piece is None:
                    raise BlobsInvalid("a blob stream is cut off")
                data = self._unpacker.decompress(piece, LARGE)
                if data:
                    return data
        except zlib.error as error:
            raise BlobsInvalid("not a blob stream: %s" % error) from error
        if self._unpacker.unused_data or any(self._pieces):
            raise BlobsInvalid("a blob stream is followed by more")
        return b""


class _Writer:
    """Where received contents go. A content counts only once ``finish`` was called for it."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._pack = -1
        self._end = 0
        self._single = -1
        self._digest = ""
        self.received: List[str] = []
        self.seen: Dict[str, bool] = {}
        numbers = [
            int(name[: -len(_PACK)])
            for name in os.listdir(store)
            if name.endswith(_PACK) and name[: -len(_PACK)].isdigit()
        ]
        self._pack_path = os.path.join(store, "%08d%s" % (max(numbers, default=0) + 1, _PACK))

    def start(self, digest: str, header: bytes, size: int) -> None:
        self._digest = digest
        self.seen[digest] = True
        if size >= LARGE:
            self._single = _create(self._single_path())
            return
        if self._pack < 0:
            self._pack = _create(self._pack_path)
        self._end = os.lseek(self._pack, 0, os.SEEK_CUR)
        durable.write_all(self._pack, header)

    def add(self, data: bytes) -> None:
        durable.write_all(self._pack if self._single < 0 else self._single, data)

    def finish(self) -> None:
        if self._single >= 0:
            os.close(self._single)
            self._single = -1
            path = self._single_path()
            durable.move(path, path[: -len(".part")])
        self.received.append(self._digest)
        self._digest = ""

    def close(self) -> None:
        """Drop what is not finished: a torn content must not be offered later."""
        if self._single >= 0:
            os.close(self._single)
            os.unlink(self._single_path())
        elif self._digest and self._pack >= 0:
            os.ftruncate(self._pack, self._end)
        if self._pack >= 0:
            os.close(self._pack)

    def _single_path(self) -> str:
        return os.path.join(self._store, self._digest + _BLOB + ".part")


def _create(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _pack_index(path: str) -> Iterator[Tuple[str, Blob]]:
    """Walk a pack by its headers; a tail that a power cut left torn ends the walk."""
    with open(path, "rb") as pack:
        end = os.fstat(pack.fileno()).st_size
        at = 0
        while at + _RECORD.size <= end:
            raw, size = _RECORD.unpack(os.pread(pack.fileno(), _RECORD.size, at))
            at += _RECORD.size
            if size > end - at:
                return
            yield raw.hex(), Blob(path, at, size)
            at += size
