"""A tree of a snapshot as a release: its contents come out of the store when a host asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from deployguard.artifact.base import Release
from deployguard.onhost.trees import blobs
from deployguard.onhost.trees.manifest import Manifest
from deployguard.snapshots.base import Damaged
from deployguard.snapshots.vault import Vault

__all__ = ["SnapshotRelease"]

#: Contents up to this size are fetched ahead: a store answers slowly, and many at a time.
_SMALL = 1024 * 1024
_AHEAD = 32
_THREADS = 8


class SnapshotRelease(Release):
    """One tree, for all hosts that get it."""

    def __init__(self, vault: Vault, key: str, source: str, manifest: Manifest) -> None:
        super().__init__(source, manifest)
        self._vault = vault
        self._key = key
        self._paths = {entry.digest: entry.path for entry in manifest if entry.kind == "f"}

    def _pieces(self, digest: str) -> Iterator[bytes]:
        try:
            yield from self._vault.content(digest, self._sizes[digest], self._key)
        except Damaged as error:
            words = f"{self.source} cannot be restored: {self._paths[digest]}: {error.message}"
            raise Damaged(words, hint=error.hint) from error

    def _encode(self, wanted: frozenset[str]) -> Iterator[bytes]:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="restore") as threads:
            try:
                yield from blobs.encode(self._ahead(wanted, threads))
            except blobs.BlobsInvalid as error:
                raise Damaged(f"{self.source}: {error}") from None
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _ahead(
        self, wanted: frozenset[str], threads: ThreadPoolExecutor
    ) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        waiting: deque[tuple[str, int, Future[bytes] | None]] = deque()
        for digest, size in self._sizes.items():
            if digest not in wanted:
                continue
            small = threads.submit(self.read, digest) if size <= _SMALL else None
            waiting.append((digest, size, small))
            if len(waiting) >= _AHEAD:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def _next(
        self, waiting: deque[tuple[str, int, Future[bytes] | None]]
    ) -> tuple[str, int, Iterator[bytes]]:
        digest, size, small = waiting.popleft()
        return digest, size, iter([small.result()]) if small is not None else self._pieces(digest)

    def _release(self) -> None:
        """There is nothing to give up."""
