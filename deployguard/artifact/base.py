"""A release: one manifest, its contents by hash, and one compressed stream for many hosts."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from deployguard.artifact.stream import SharedStream
from deployguard.errors import UsageError
from deployguard.onhost.trees import blobs
from deployguard.onhost.trees.manifest import Manifest

PIECE = 256 * 1024
_SHOWN = 20


class ArtifactInvalid(UsageError):
    """The artifact cannot be deployed as it is. ``problems`` has a line for each reason.

    ``option`` is the key of the plan's ``artifact`` block that they are about.
    """

    def __init__(
        self, source: str, problems: Sequence[str], *, hint: str = "", option: str = "path"
    ) -> None:
        self.source = source
        self.option = option
        self.problems = list(problems)
        shown = self.problems[:_SHOWN]
        if len(self.problems) > _SHOWN:
            shown.append(f"and {len(self.problems) - _SHOWN} more")
        start = f"artifact {source}:"
        text = f"{start} {shown[0]}" if len(shown) == 1 else "\n  ".join([start, *shown])
        super().__init__(text, hint=hint)


@dataclass(frozen=True)
class Limits:
    """Bounds on what an artifact may unpack to, so that a small bomb stays a small problem."""

    total_bytes: int = 64 * 1024**3
    entries: int = 2_000_000


class Release(ABC):
    """An opened artifact, for any number of threads; ``close`` it when all hosts are done."""

    def __init__(self, source: str, manifest: Manifest) -> None:
        self.source = source
        self.manifest = manifest
        self._sizes = manifest.blobs()
        self._streams: dict[frozenset[str], SharedStream] = {}
        self._lock = threading.Lock()
        self._closed = False

    @abstractmethod
    def _pieces(self, digest: str) -> Iterator[bytes]:
        """The content as it is read now; not verified."""

    @abstractmethod
    def _release(self) -> None:
        """Give up files and spools."""

    def read(self, digest: str) -> bytes:
        """One whole content, verified. For small ones: it is held in memory."""
        return b"".join(self._verified(digest))

    def blob_stream(self, digests: Iterable[str]) -> Iterator[bytes]:
        """The contents as a blob stream, in pieces of at most 64 KiB.

        Equal sets of digests share one stream, compressed once into a temporary file; a reader
        may be ahead of or behind the others, and never waits for them.
        """
        wanted = frozenset(digests)
        unknown = wanted.difference(self._sizes)
        if unknown:
            raise ValueError(f"not in {self.source}: {min(unknown)}")
        with self._lock:
            if self._closed:
                raise ValueError(f"{self.source} is closed")
            if wanted not in self._streams:
                self._streams[wanted] = SharedStream(lambda: self._encode(wanted))
            return self._streams[wanted].pieces()

    def close(self) -> None:
        """Drop the spools. Streams that are still being read end in an error."""
        with self._lock:
            self._closed = True
            streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.close()
        self._release()

    def __enter__(self) -> Release:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _encode(self, wanted: frozenset[str]) -> Iterator[bytes]:
        contents = (
            (digest, size, self._pieces(digest))
            for digest, size in self._sizes.items()
            if digest in wanted
        )
        try:
            yield from blobs.encode(contents)
        except (blobs.BlobsInvalid, OSError) as error:
            raise self._changed(str(error)) from error

    def _verified(self, digest: str) -> Iterator[bytes]:
        try:
            yield from blobs.verified(digest, self._sizes[digest], self._pieces(digest))
        except (blobs.BlobsInvalid, OSError) as error:
            raise self._changed(str(error)) from error

    def _changed(self, why: str) -> ArtifactInvalid:
        return ArtifactInvalid(
            self.source,
            [f"it changed after it was opened: {why}"],
            hint="deploy from a path that nothing writes to, or from an archive",
        )
