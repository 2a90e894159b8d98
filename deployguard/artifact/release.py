"""What is deployed: a directory or a tar, opened once, hashed, and checked before any host hears.

``open_artifact`` gives a ``Release``: the manifest, and the contents by their hash.
"""

from __future__ import annotations

import os

from deployguard.artifact.base import ArtifactInvalid, Limits, Release
from deployguard.artifact.directory import DirectoryRelease
from deployguard.artifact.tarball import TarRelease
from deployguard.errors import UsageError

__all__ = ["ArtifactInvalid", "Limits", "Release", "open_artifact"]


def open_artifact(
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    strip_components: int = 0,
    owner_from_artifact: bool = False,
    limits: Limits | None = None,
) -> Release:
    """Open the directory or tar (plain, gz, xz, zst; told by its first bytes) at ``path``.

    ``sha256`` is what the tar file must hash to; it is checked before a byte of it is used.
    Without ``owner_from_artifact`` the manifest names no owners. Raises
    :class:`ArtifactInvalid`, which lists every member that is refused.
    """
    source = os.fspath(path)
    limits = limits or Limits()
    if not os.path.isdir(source):
        return TarRelease(
            source,
            sha256=sha256,
            strip_components=strip_components,
            owner_from_artifact=owner_from_artifact,
            limits=limits,
        )
    if sha256 is not None or strip_components:
        raise UsageError(
            f"artifact {source}: sha256 and strip_components are for archives",
            hint="this artifact is a directory; leave them out, or pack it",
        )
    return DirectoryRelease(source, owner_from_artifact=owner_from_artifact, limits=limits)
