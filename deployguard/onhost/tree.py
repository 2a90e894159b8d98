"""Reading a live tree: every entry, every file hashed unless a stat cache vouches for it.

The tree may change while it is read, and its owner may be somebody who would like a program with
root's rights to open something else. So nothing but regular files is ever opened, no link is
followed, and what vanishes or moves meanwhile is read again or left out.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import stat
import time
import zlib
from typing import Dict, List, NamedTuple, Optional, Tuple

from deployguard.onhost.manifest import (
    ALL_FIELDS,
    DRIFT_FIELDS,
    NOBODY,
    ROOT,
    XATTRS,
    Change,
    Difference,
    Entry,
    Manifest,
    ManifestInvalid,
    compare,
)
from deployguard.onhost.patterns import Patterns

__all__ = [
    "ALL_FIELDS",
    "DRIFT_FIELDS",
    "NOBODY",
    "ROOT",
    "Change",
    "Difference",
    "Entry",
    "Manifest",
    "ManifestInvalid",
    "Patterns",
    "ScanFailed",
    "StatCache",
    "compare",
    "scan",
]

Xattrs = Tuple[Tuple[str, str], ...]
Stamp = Tuple[int, int, int, int, int]

_READ = 1024 * 1024
_ATTEMPTS = 5
_SECOND = 1_000_000_000
# The kernel stamps files with the time of its last tick, at most 10 ms ago. A file system that
# stores whole seconds (or pairs, as FAT) is recognised by them.
_TICK = 20_000_000
_COARSE = 2 * _SECOND

_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ESTALE)
_ANOTHER_KIND = (errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.ENXIO)


class ScanFailed(OSError):
    """Parts of the tree cannot be read, so nothing can be said about it. ``paths`` names them."""

    def __init__(self, root: str, paths: List[str], cause: OSError) -> None:
        shown = ", ".join(repr(path) for path in paths[:5])
        more = " and %d more" % (len(paths) - 5) if len(paths) > 5 else ""
        super().__init__(cause.errno, "cannot read %s%s: %s" % (shown, more, cause.strerror), root)
        self.paths = paths


class _Known(NamedTuple):
    stamp: Stamp
    digest: str
    xattrs: Xattrs


class StatCache:
    """Which content a file had when it last had this size, these times and this inode.

    Git's rule for racy timestamps holds: a file that was touched in the tick in which it was read
    could change again without its stat showing it, so such files are never entered.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: Dict[str, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, path: str, status: os.stat_result) -> Optional[_Known]:
        """What is known of ``path`` if it is still the file it was."""
        known = self._known.get(path)
        return known if known is not None and known.stamp == _stamp(status) else None

    def to_bytes(self) -> bytes:
        """A text for the disk; ``from_bytes`` reads it."""
        rows = [[path, *known] for path, known in self._known.items()]
        return zlib.compress(json.dumps([1, rows], separators=(",", ":")).encode("ascii"), 1)

    @classmethod
    def from_bytes(cls, data: bytes) -> StatCache:
        """The cache that ``to_bytes`` wrote; an empty one when it is damaged or of another kind."""
        cache = cls()
        try:
            version, rows = json.loads(zlib.decompress(data))
            if version == 1:
                cache._known = {
                    path: _Known(tuple(stamp), digest, tuple((n, v) for n, v in xattrs))
                    for path, stamp, digest, xattrs in rows
                }
        except (zlib.error, ValueError, TypeError):
            cache._known = {}
        return cache

    def _replace(self, seen: Dict[str, _Known], started_ns: int) -> None:
        self._known = {
            path: known for path, known in seen.items() if _settled(known.stamp, started_ns)
        }


def scan(
    root: str,
    skip: Optional[Patterns] = None,
    cache: Optional[StatCache] = None,
    rehash: bool = False,
) -> Manifest:
    """The manifest of the tree at ``root``, less what ``skip`` matches.

    Files that ``cache`` vouches for are not opened, unless ``rehash``; either way the cache holds
    this scan afterwards. Raises :class:`ScanFailed` for what cannot be read, and other
    :class:`OSError` when ``root`` is not a directory.
    """
    started_ns = time.time_ns()
    reader = _Reader(root, skip or Patterns(), None if rehash else cache)
    try:
        manifest = reader.read()
    finally:
        reader.close()
    if cache is not None:
        cache._replace(reader.seen, started_ns)
    return manifest


class _Reader:
    """One scan. Directories are opened by their path from the top: depth costs no descriptor."""

    def __init__(self, root: str, skip: Patterns, cache: Optional[StatCache]) -> None:
        self._root = root
        self._skip = skip
        self._cache = cache
        self._pending = [ROOT]
        self._entries: Dict[str, Entry] = {}
        self._unreadable: List[str] = []
        self._cause: Optional[OSError] = None
        self.seen: Dict[str, _Known] = {}
        self._top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._top)

    def read(self) -> Manifest:
        while self._pending:
            path = self._pending.pop()
            try:
                self._read_directory(path)
            except OSError as error:
                if path == ROOT or error.errno not in _GONE + _ANOTHER_KIND:
                    self._failed(path, error)
        if self._cause is not None:
            raise ScanFailed(self._root, self._unreadable, self._cause)
        return Manifest(self._entries.values())

    def _read_directory(self, path: str) -> None:
        descriptor = os.open(path, _DIRECTORY_FLAGS, dir_fd=self._top)
        try:
            status = os.fstat(descriptor)
            self._entries[path] = _entry(path, "d", status, xattrs=_read_xattrs(descriptor))
            prefix = "" if path == ROOT else path + "/"
            with os.scandir(descriptor) as found:
                for item in found:
                    below = prefix + item.name
                    if self._skip.match(below):
                        continue
                    try:
                        status = item.stat(follow_symlinks=False)
                    except OSError as error:
                        if error.errno not in _GONE:
                            raise
                        continue
                    self._read_entry(below, item.name, descriptor, status)
        finally:
            os.close(descriptor)

    def _read_entry(self, path: str, name: str, parent: int, status: os.stat_result) -> None:
        """Record one path, again from its stat when it changes meanwhile."""
        for attempt in range(_ATTEMPTS):
            try:
                if attempt:
                    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if self._record(path, name, parent, status, attempt == _ATTEMPTS - 1):
                    return
            except OSError as error:
                if error.errno in _GONE:
                    return
                if error.errno not in _ANOTHER_KIND:
                    self._failed(path, error)
                    return

    def _record(
        self, path: str, name: str, parent: int, status: os.stat_result, last: bool
    ) -> bool:
        """Record the path as ``status`` says; False when it is no longer that."""
        kind = _kind(status.st_mode)
        if kind == "f":
            known = self._cache.get(path, status) if self._cache is not None else None
            if known is None:
                known, settled = _read_file(name, parent, status)
                if not settled and not last:
                    return False
            self.seen[path] = known
            self._entries[path] = Entry(
                path,
                "f",
                status.st_mode & 0o7777,
                known.stamp[0],
                known.stamp[1],
                known.digest,
                status.st_uid,
                status.st_gid,
                known.xattrs,
            )
        elif kind == "l":
            target = os.readlink(name, dir_fd=parent)
            self._entries[path] = _entry(path, "l", status, digest=target)
        elif kind == "d":
            self._pending.append(path)
        else:
            self._entries[path] = _entry(path, kind, status)
        return True

    def _failed(self, path: str, error: OSError) -> None:
        self._unreadable.append(path)
        self._cause = self._cause or error


def _read_file(name: str, parent: int, status: os.stat_result) -> Tuple[_Known, bool]:
    """What is in the file, and whether it held still while it was read."""
    descriptor = os.open(name, _FILE_FLAGS, dir_fd=parent)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
        digest, length = hash_file(descriptor, before.st_size)
        xattrs = _read_xattrs(descriptor)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    stamp = _stamp(after)
    settled = stamp == _stamp(status) and length == after.st_size
    return _Known((length, *stamp[1:]), digest, xattrs), settled


def hash_file(descriptor: int, size: int) -> Tuple[str, int]:
    """The sha256 in hex of the rest of a file of about ``size`` bytes, and how many there were."""
    # One byte more than there should be, so that the usual file takes a single read.
    data = os.read(descriptor, min(size + 1, _READ))
    hashed = hashlib.sha256(data)
    length = len(data)
    while data and (length != size or length >= _READ):
        data = os.read(descriptor, _READ)
        hashed.update(data)
        length += len(data)
    return hashed.hexdigest(), length


def _read_xattrs(descriptor: int) -> Xattrs:
    if not hasattr(os, "listxattr"):
        return ()
    try:
        names = os.listxattr(descriptor)
    except OSError:
        return ()  # The file system has none.
    if not names:
        return ()
    pairs = []
    for name in sorted(names):
        if name.startswith(XATTRS):
            try:
                value = os.getxattr(descriptor, name)
            except OSError:
                continue  # Removed meanwhile, which moves the ctime.
            pairs.append((name, base64.b64encode(value).decode("ascii")))
    return tuple(pairs)


def _entry(
    path: str, kind: str, status: os.stat_result, digest: str = "", xattrs: Xattrs = ()
) -> Entry:
    mode = 0o777 if kind == "l" else status.st_mode & 0o7777
    return Entry(
        path, kind, mode, 0, status.st_mtime_ns, digest, status.st_uid, status.st_gid, xattrs
    )


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "c")


_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
}


def _stamp(status: os.stat_result) -> Stamp:
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
