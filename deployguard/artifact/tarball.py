"""A release that is a tar: unpacked once into a spool, never into a directory."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import tempfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from deployguard.artifact.base import PIECE, ArtifactInvalid, Limits, Release
from deployguard.artifact.members import read_members

_GZIP = b"\x1f\x8b"
_XZ = b"\xfd7zXZ\x00"
_ZSTD = b"\x28\xb5\x2f\xfd"


class TarRelease(Release):
    """The tar lies uncompressed in an unnamed temporary file; contents are read from there."""

    def __init__(
        self,
        source: str,
        *,
        sha256: str | None,
        strip_components: int,
        owner_from_artifact: bool,
        limits: Limits,
    ) -> None:
        self._spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - until close()
        try:
            _unpack(source, self._spool, sha256, limits)
            manifest, self._places = read_members(
                source,
                self._spool,
                strip_components=strip_components,
                owner_from_artifact=owner_from_artifact,
                limits=limits,
            )
            self._spool.flush()
        except BaseException:
            self._spool.close()
            raise
        super().__init__(source, manifest)

    def _pieces(self, digest: str) -> Iterator[bytes]:
        at, size = self._places[digest]
        end = at + size
        while at < end:
            piece = os.pread(self._spool.fileno(), min(PIECE, end - at), at)
            if not piece:
                return
            at += len(piece)
            yield piece

    def _release(self) -> None:
        self._spool.close()


class _Hashed(io.RawIOBase):
    """A file that hashes what is read of it, so that the whole is hashed in the one pass."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def finish(self) -> str:
        """The digest, with what the decompressor had no use for."""
        while data := self._file.read(PIECE):
            self._hash.update(data)
        return self._hash.hexdigest()


def _unpack(source: str, spool: IO[bytes], sha256: str | None, limits: Limits) -> None:
    """Decompress ``source`` into ``spool``, bounded, and check the hash of the file."""
    try:
        with open(source, "rb", buffering=0) as file:
            start = file.read(8)
            file.seek(0)
            hashed = _Hashed(file)
            broken = ""
            try:
                broken = _copy(_decompressed(start, hashed), spool, limits.total_bytes)
            except (EOFError, OSError, zlib.error, lzma.LZMAError, _zstd_error(start)) as error:
                broken = f"truncated or damaged: {error}"
            digest = hashed.finish()
    except OSError as error:
        raise ArtifactInvalid(source, [f"cannot be read: {error.strerror}"]) from error
    if sha256 is not None and digest != sha256.lower():
        # First, since it explains whatever else is wrong with the file.
        raise ArtifactInvalid(
            source,
            [f"its sha256 is {digest}, not {sha256.lower()}"],
            hint=f"build or fetch it again, or write {digest} if this is the file you mean",
            option="sha256",
        )
    if broken:
        raise ArtifactInvalid(source, [broken])


def _copy(reader: IO[bytes], spool: IO[bytes], limit: int) -> str:
    total = 0
    while data := reader.read(PIECE):
        total += len(data)
        if total > limit:
            return f"it unpacks to more than {limit} bytes"
        try:
            spool.write(data)
        except OSError as error:
            return f"no room to unpack it in {tempfile.gettempdir()}: {error.strerror}"
    return ""


def _decompressed(start: bytes, file: _Hashed) -> IO[bytes]:
    buffered = io.BufferedReader(file, PIECE)
    if start.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=buffered, mode="rb"))
    if start.startswith(_XZ):
        return lzma.LZMAFile(buffered)
    if start.startswith(_ZSTD):
        import zstandard

        # A reader, not an object fed with pieces: its output is bounded whatever the ratio.
        reader = zstandard.ZstdDecompressor().stream_reader(buffered, read_across_frames=True)
        return cast("IO[bytes]", reader)
    return buffered


def _zstd_error(start: bytes) -> type[Exception]:
    if not start.startswith(_ZSTD):
        return EOFError
    import zstandard

    return zstandard.ZstdError
