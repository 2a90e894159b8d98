"""A directory as a store: a disk of its own, or a share that is mounted."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from typing import BinaryIO

from deployguard.onhost import durable
from deployguard.snapshots.base import PIECE, Damaged, SnapshotMissing, StoreAway

__all__ = ["DirectoryStore"]

_HIDDEN = "."


class DirectoryStore:
    """Directories 0700, files 0600, each written beside its name, synced and renamed."""

    def __init__(self, directory: str) -> None:
        self.address = directory

    def put(self, name: str, file: BinaryIO, size: int, sha256: bytes) -> None:
        path = self._path(name)
        try:
            self._make(os.path.dirname(path))
            with durable.writing(path, 0o600) as stream:
                file.seek(0)
                shutil.copyfileobj(file, stream, PIECE)
        except OSError as error:
            raise self._away(error) from error
        hashed = hashlib.sha256()
        for piece in self.get(name):
            hashed.update(piece)
        if hashed.digest() != sha256:
            raise Damaged(
                f"{self.address}: {name} is not what was written there",
                hint="look at the disk of the store",
            )

    def get(self, name: str) -> Iterator[bytes]:
        try:
            with open(self._path(name), "rb", buffering=0) as file:
                while piece := file.read(PIECE):
                    yield piece
        except FileNotFoundError:
            self._demand_root()
            raise SnapshotMissing(f"{self.address} has no {name}") from None
        except OSError as error:
            raise self._away(error) from error

    def names(self, prefix: str) -> Iterator[str]:
        self._demand_root()
        pending = [prefix.rstrip("/")]
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(self._path(folder)) as found:
                    entries = [(entry.name, entry.is_dir()) for entry in found]
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._away(error) from error
            for name, is_directory in entries:
                if is_directory:
                    pending.append(f"{folder}/{name}")
                elif not name.startswith(_HIDDEN):  # those that are being written
                    yield f"{folder}/{name}"

    def delete(self, name: str) -> None:
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._away(error) from error

    def _path(self, name: str) -> str:
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise ValueError(f"not a name of ours: {name!r}")
        return os.path.join(self.address, name)

    def _make(self, directory: str) -> None:
        """Make the directories below the store; never the store, which may be a missing mount."""
        self._demand_root()
        missing = []
        while not os.path.isdir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for path in reversed(missing):
            try:
                durable.make_directory(path, 0o700)
            except FileExistsError:
                pass  # another thread was faster

    def _demand_root(self) -> None:
        if not os.path.isdir(self.address):
            raise StoreAway(
                f"there is no directory {self.address} for snapshots",
                hint=f"mount it, or make it: mkdir -m 700 {self.address}",
            )

    def _away(self, error: OSError) -> StoreAway:
        return StoreAway(
            f"the snapshots in {self.address} cannot be reached: {error.strerror or error}",
            hint="look at the disk and at the rights of its directory",
        )
