"""What the last scan of a tree saw of each entry, so that the next need not read it again."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from typing import Dict, Optional, Tuple

from deployguard.onhost.trees.manifest import ROOT, Entry, Manifest
from deployguard.onhost.trees.patterns import Patterns

Stamp = Tuple[int, int, int, int, int]

_SECOND = 1_000_000_000
# The kernel stamps files with the time of its last tick, at most 10 ms ago. A file system that
# stores whole seconds (or pairs, as FAT) is recognised by them.
_TICK = 20_000_000
_COARSE = 2 * _SECOND


class StatCache:
    """Which entries of a manifest still stand, told by their sizes, times and inodes.

    Whatever is done to a file or a directory moves its ctime, which nobody can set. So a file with
    its old stamp has its old content and attributes, and a directory with its old stamp its old
    names. Git's rule for racy timestamps holds: what was touched in the tick in which it was read
    could change again without its stat showing it, so such entries are never entered.
    """

    __slots__ = ("_globs", "_manifest", "_stamps")

    def __init__(self) -> None:
        self._manifest: Optional[Manifest] = None
        self._stamps: Dict[str, Stamp] = {}
        self._globs: Tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._stamps)

    def get(self, path: str, status: os.stat_result) -> Optional[Entry]:
        """The entry of ``path`` if it is still what it was."""
        stamp = self._stamps.get(path)
        if stamp is None or stamp != stamp_of(status) or self._manifest is None:
            return None
        return self._manifest.get(path)

    def unchanged(self, top: int, skip: Patterns) -> Optional[Manifest]:
        """The whole manifest, if every entry below the descriptor ``top`` is what it was.

        One ``stat`` an entry: no directory is listed and nothing is opened.
        """
        manifest, stamps = self._manifest, self._stamps
        if manifest is None or len(stamps) != len(manifest) or skip.globs != self._globs:
            return None
        try:
            for path, stamp in stamps.items():
                if stamp_of(os.stat(path, dir_fd=top, follow_symlinks=False)) != stamp:
                    return None
        except OSError:
            return None
        return manifest

    def renew_top(self, root: str) -> None:
        """Take note that the tree as a whole was renamed, which moves the ctime of its top."""
        started_ns = time.time_ns()
        old = self._stamps.get(ROOT)
        if self._manifest is None or old is None:
            return
        new = stamp_of(os.stat(root, follow_symlinks=False))
        names = {entry.path for entry in self._manifest if "/" not in entry.path} - {ROOT}
        skip = Patterns(self._globs)
        found = {name for name in os.listdir(root) if not skip.match(name)}
        # All but the ctime: size, mtime, inode and device.
        same = (*new[:2], *new[3:]) == (*old[:2], *old[3:])
        if same and found == names and _settled(new, started_ns):
            self._stamps[ROOT] = new

    def to_bytes(self) -> bytes:
        """A text for the disk; ``from_bytes`` reads it, given the manifest."""
        of = _identity(self._manifest) if self._manifest is not None else ""
        columns = list(zip(*self._stamps.values()))
        document = [2, of, self._globs, list(self._stamps), columns]
        return zlib.compress(json.dumps(document, separators=(",", ":")).encode("ascii"), 1)

    @classmethod
    def from_bytes(cls, data: bytes, manifest: Manifest) -> StatCache:
        """The cache that ``to_bytes`` wrote for this manifest; an empty one when it is damaged, or
        of another kind, or of another manifest."""
        cache = cls()
        try:
            version, of, globs, paths, columns = json.loads(zlib.decompress(data))
            if version == 2 and of == _identity(manifest):
                cache._stamps = dict(zip(paths, zip(*columns)))
                cache._globs = tuple(globs)
                cache._manifest = manifest
        except (zlib.error, ValueError, TypeError):
            return cls()
        return cache

    def renew(
        self, manifest: Manifest, seen: Dict[str, Stamp], skip: Patterns, started_ns: int
    ) -> None:
        """Hold what a scan that began at ``started_ns`` has seen."""
        self._manifest = manifest
        self._globs = skip.globs
        self._stamps = {path: stamp for path, stamp in seen.items() if _settled(stamp, started_ns)}


def _identity(manifest: Manifest) -> str:
    """Of the encoding as it is on the disk, which costs less than the canonical one."""
    return hashlib.sha256(manifest.to_bytes()).hexdigest()


def stamp_of(status: os.stat_result) -> Stamp:
    """What moves when an entry is changed: its size, times, inode and device."""
    return (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_dev,
    )


def _settled(stamp: Stamp, started_ns: int) -> bool:
    newest = max(stamp[1], stamp[2])
    margin = _COARSE if newest % _SECOND == 0 else _TICK
    return newest < started_ns - margin
