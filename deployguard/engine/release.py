"""What the jobs of a transaction need of the controller: the plan, and what is deployed.

It is packed once and unpacked once in each worker process. A release travels as its manifest and
its contents by hash, whatever it was made from, so that a worker needs no artifact.
"""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from deployguard.artifact.base import Release
from deployguard.engine.seal import Seal
from deployguard.errors import Interrupted
from deployguard.onhost.trees import blobs
from deployguard.onhost.trees.manifest import Manifest
from deployguard.plan.model import Plan
from deployguard.rollout.targets import Source, local_files
from deployguard.store.mailbox import Mailbox

__all__ = ["Baggage", "pack", "unpack"]

#: Bytes of a release in one row of the database, at most.
PIECE = 1024 * 1024

_PLAN = "plan"


@dataclass(frozen=True)
class Baggage:
    """What all jobs of a transaction share.

    ``environ`` has the secrets that the checks name. ``sources`` are by component; ``folder`` holds
    contents of releases, and is the caller's to remove with :meth:`drop`.
    """

    plan: Plan
    owner: str
    version: str
    drift: str | None
    overrides: Mapping[str, str]
    rollback: bool
    environ: Mapping[str, str] = field(repr=False)
    sources: Mapping[str, Source] = field(repr=False)
    folder: str = ""

    def drop(self) -> None:
        """Close the releases and remove what was unpacked."""
        for source in self.sources.values():
            if source.blobs is not None:
                source.blobs.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def pack(
    baggage: Baggage, mailbox: Mailbox, seal: Seal, transaction: str, stop: threading.Event
) -> None:
    """Put it where the workers find it.

    Raises :class:`~deployguard.errors.UsageError` where an artifact has changed meanwhile, and
    :class:`~deployguard.errors.Interrupted` when ``stop`` is set.
    """
    bare = {
        name: replace(
            source,
            manifest=None,
            blobs=None,
            # A rollback takes the files that the hosts have kept.
            carried={}
            if source.history
            else local_files(baggage.plan, baggage.plan.components[name]),
        )
        for name, source in baggage.sources.items()
    }
    for name, source in baggage.sources.items():
        if source.manifest is not None and source.blobs is not None:
            stream = source.blobs.blob_stream(source.manifest.blobs())
            _put(mailbox, seal, transaction, _release(name), _while_nobody_stops(stream, stop))
    data = pickle.dumps(replace(baggage, sources=bare))
    _put(mailbox, seal, transaction, _PLAN, [data])


def unpack(mailbox: Mailbox, seal: Seal, transaction: str) -> Baggage:
    """The other end. Raises :class:`~deployguard.errors.InternalError` for what is not ours."""
    data = b"".join(_take(mailbox, seal, transaction, _PLAN))
    # Only who has the key can have written it.
    baggage: Baggage = pickle.loads(data)  # noqa: S301
    folder = tempfile.mkdtemp(prefix="deployguard-release-")
    try:
        sources = {}
        for name, source in baggage.sources.items():
            if not source.encoded:
                sources[name] = source
                continue
            manifest = Manifest.from_bytes(source.encoded)
            store = os.path.join(folder, str(len(sources)))
            os.mkdir(store, 0o700)
            stream = _take(mailbox, seal, transaction, _release(name))
            blobs.receive(stream, store, manifest.blobs())
            release = _Unpacked(f"{name} {source.version}", manifest, store)
            sources[name] = replace(source, manifest=manifest, blobs=release)
        return replace(baggage, sources=sources, folder=folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class _Unpacked(Release):
    """A release whose contents lie in a store of this machine."""

    def __init__(self, source: str, manifest: Manifest, store: str) -> None:
        super().__init__(source, manifest)
        self._stored = blobs.stored(store)

    def _pieces(self, digest: str) -> Iterator[bytes]:
        blob = self._stored[digest]
        with open(blob.path, "rb") as file:
            file.seek(blob.offset)
            left = blob.size
            while left and (piece := file.read(min(left, blobs.LARGE))):
                left -= len(piece)
                yield piece

    def _release(self) -> None:
        """The folder goes as a whole."""


def _release(component: str) -> str:
    return f"release/{component}"


def _while_nobody_stops(stream: Iterable[bytes], stop: threading.Event) -> Iterator[bytes]:
    for piece in stream:
        if stop.is_set():
            raise Interrupted("interrupted")
        yield piece


def _put(
    mailbox: Mailbox, seal: Seal, transaction: str, name: str, stream: Iterable[bytes]
) -> None:
    pieces = (seal.close(f"{name}/{n}", piece) for n, piece in enumerate(_cut(stream)))
    mailbox.put(transaction, name, pieces)


def _take(mailbox: Mailbox, seal: Seal, transaction: str, name: str) -> Iterator[bytes]:
    for number, sealed in enumerate(mailbox.take(transaction, name)):
        yield seal.open(f"{name}/{number}", sealed)


def _cut(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of full size."""
    pending = bytearray()
    for chunk in stream:
        pending += chunk
        while len(pending) >= PIECE:
            yield bytes(pending[:PIECE])
            del pending[:PIECE]
    if pending:
        yield bytes(pending)
