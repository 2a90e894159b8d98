"""A release that is a directory: hashed when opened, read again when it travels."""

from __future__ import annotations

import os
from collections.abc import Iterator

from deployguard.artifact.base import PIECE, ArtifactInvalid, Limits, Release
from deployguard.artifact.confine import escaping_links
from deployguard.onhost.trees.manifest import Manifest
from deployguard.onhost.trees.scan import ScanFailed, scan

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class DirectoryRelease(Release):
    """Contents are read from the directory when they are asked for, and hashed once more then."""

    def __init__(self, source: str, *, owner_from_artifact: bool, limits: Limits) -> None:
        try:
            manifest = scan(source)
        except ScanFailed as error:
            raise ArtifactInvalid(source, [str(error.strerror)]) from error
        except OSError as error:
            raise ArtifactInvalid(source, [f"cannot be read: {error.strerror}"]) from error
        problems = _problems(manifest, limits)
        if problems:
            raise ArtifactInvalid(source, problems)
        super().__init__(source, manifest if owner_from_artifact else manifest.owned_by(None))
        self._paths = {entry.digest: entry.path for entry in manifest if entry.kind == "f"}
        self._top = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _pieces(self, digest: str) -> Iterator[bytes]:
        descriptor = os.open(self._paths[digest], _FLAGS, dir_fd=self._top)
        try:
            while piece := os.read(descriptor, PIECE):
                yield piece
        finally:
            os.close(descriptor)

    def _release(self) -> None:
        if self._top >= 0:
            os.close(self._top)
            self._top = -1


def _problems(manifest: Manifest, limits: Limits) -> list[str]:
    if manifest.total_bytes() > limits.total_bytes or manifest.count() > limits.entries:
        return [
            f"{manifest.count()} entries and {manifest.total_bytes()} bytes are over the limit of "
            f"{limits.entries} and {limits.total_bytes}"
        ]
    special = [
        f"{entry.path!r}: only files, directories and links can be deployed"
        for entry in manifest
        if entry.kind not in "fdl"
    ]
    return special + escaping_links(manifest)
