"""Reading a live tree: every entry, every file hashed unless a stat cache vouches for it.

The tree may change while it is read, and its owner may be somebody who would like a program with
root's rights to open something else. So nothing but regular files is ever opened, no link is
followed, and what vanishes or moves meanwhile is read again or left out.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import stat
import time
from typing import Dict, List, NamedTuple, Optional, Tuple

from deployguard.onhost.trees import statcache
from deployguard.onhost.trees.manifest import (
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
from deployguard.onhost.trees.patterns import Patterns
from deployguard.onhost.trees.statcache import Stamp, StatCache

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
    "vouch",
]

Xattrs = Tuple[Tuple[str, str], ...]

_READ = 1024 * 1024
_ATTEMPTS = 5
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


def vouch(root: str, manifest: Manifest, skip: Patterns) -> StatCache:
    """A cache for a tree that was just built, so that the next scan need not read all of it.

    Only entries that stand as the manifest has them are in it.
    """
    started_ns = time.time_ns()
    cache = StatCache()
    seen: Dict[str, Stamp] = {}
    top = os.open(root, _DIRECTORY_FLAGS)
    try:
        # With a default ACL on the top, what is below may have attributes that it was not given.
        inherits = bool(_read_xattrs(top))
        for entry in manifest if not inherits else ():
            status = os.stat(entry.path, dir_fd=top, follow_symlinks=False)
            if _stands(entry, status) and not skip.match(entry.path):
                seen[entry.path] = statcache.stamp_of(status)
    finally:
        os.close(top)
    cache.renew(manifest, seen, skip, started_ns)
    return cache


def _stands(entry: Entry, status: os.stat_result) -> bool:
    """Whether an entry without extended attributes is what its manifest says; not its content."""
    return (
        entry.kind == _kind(status.st_mode)
        and (entry.kind == "l" or entry.mode == status.st_mode & 0o7777)
        and (entry.kind != "f" or entry.size == status.st_size)
        and entry.mtime_ns == status.st_mtime_ns
        and (entry.uid, entry.gid) == (status.st_uid, status.st_gid)
        and not entry.xattrs
    )


def scan(
    root: str,
    skip: Optional[Patterns] = None,
    cache: Optional[StatCache] = None,
    rehash: bool = False,
) -> Manifest:
    """The manifest of the tree at ``root``, less what ``skip`` matches.

    What ``cache`` vouches for is not opened, unless ``rehash``; either way the cache holds this
    scan afterwards. Raises :class:`ScanFailed` for what cannot be read, and other
    :class:`OSError` when ``root`` is not a directory.
    """
    started_ns = time.time_ns()
    skip = skip or Patterns()
    reader = _Reader(root, skip, None if rehash else cache)
    try:
        manifest = reader.unchanged()
        if manifest is not None:
            return manifest
        manifest = reader.read()
    finally:
        reader.close()
    if cache is not None:
        cache.renew(manifest, reader.seen, skip, started_ns)
    return manifest


class _Reader:
    """One scan. Directories are opened by their path from the top: depth costs no descriptor."""

    def __init__(self, root: str, skip: Patterns, cache: Optional[StatCache]) -> None:
        self._root = root
        self._skip = skip
        self._cache = cache
        self._pending: List[Tuple[str, Optional[Tuple[int, int]]]] = [(ROOT, None)]
        self._entries: Dict[str, Entry] = {}
        self._unreadable: List[str] = []
        self._cause: Optional[OSError] = None
        self.seen: Dict[str, Stamp] = {}
        self._top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._top)

    def unchanged(self) -> Optional[Manifest]:
        """The manifest in the cache, if all of it still stands."""
        return self._cache.unchanged(self._top, self._skip) if self._cache is not None else None

    def read(self) -> Manifest:
        while self._pending:
            path, identity = self._pending.pop()
            try:
                self._read_directory(path, identity)
            except OSError as error:
                if path == ROOT or error.errno not in _GONE + _ANOTHER_KIND:
                    self._failed(path, error)
        if self._cause is not None:
            raise ScanFailed(self._root, self._unreadable, self._cause)
        return Manifest(self._entries.values())

    def _read_directory(self, path: str, identity: Optional[Tuple[int, int]]) -> None:
        descriptor = self._open_directory(path, identity)
        try:
            # Before it is listed: a name that comes later moves the ctime.
            status = os.fstat(descriptor)
            self.seen[path] = statcache.stamp_of(status)
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

    def _open_directory(self, path: str, identity: Optional[Tuple[int, int]]) -> int:
        """The directory that its parent listed, or what has its name by now."""
        descriptor = os.open(path, _DIRECTORY_FLAGS, dir_fd=self._top)
        status = os.fstat(descriptor)
        if identity in (None, (status.st_dev, status.st_ino)):
            return descriptor
        os.close(descriptor)
        # A link may have come into the way that leads to it, and lead out of the tree. So from the
        # top, one name after the other, and through no link.
        descriptor = os.dup(self._top)
        for name in path.split("/"):
            try:
                below = os.open(name, _DIRECTORY_FLAGS, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor

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
            entry = self._cache.get(path, status) if self._cache is not None else None
            if entry is not None and entry.kind == "f":
                self.seen[path] = statcache.stamp_of(status)
                self._entries[path] = entry
                return True
            known, settled = _read_file(name, parent, status)
            if not settled and not last:
                return False
            self.seen[path] = known.stamp
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
            self.seen[path] = statcache.stamp_of(status)
            self._entries[path] = _entry(path, "l", status, digest=target)
        elif kind == "d":
            self._pending.append((path, (status.st_dev, status.st_ino)))
        else:
            self.seen[path] = statcache.stamp_of(status)
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
    stamp = statcache.stamp_of(after)
    settled = stamp == statcache.stamp_of(status) and length == after.st_size
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
