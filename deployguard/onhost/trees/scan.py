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
        if stamp is None or stamp != _stamp(status) or self._manifest is None:
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
                if _stamp(os.stat(path, dir_fd=top, follow_symlinks=False)) != stamp:
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
        new = _stamp(os.stat(root, follow_symlinks=False))
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

    def _replace(
        self, manifest: Manifest, seen: Dict[str, Stamp], skip: Patterns, started_ns: int
    ) -> None:
        self._manifest = manifest
        self._globs = skip.globs
        self._stamps = {path: stamp for path, stamp in seen.items() if _settled(stamp, started_ns)}


def _identity(manifest: Manifest) -> str:
    """Of the encoding as it is on the disk, which costs less than the canonical one."""
    return hashlib.sha256(manifest.to_bytes()).hexdigest()


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
                seen[entry.path] = _stamp(status)
    finally:
        os.close(top)
    cache._replace(manifest, seen, skip, started_ns)
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
        cache._replace(manifest, reader.seen, skip, started_ns)
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
            self.seen[path] = _stamp(status)
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
                self.seen[path] = _stamp(status)
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
            self.seen[path] = _stamp(status)
            self._entries[path] = _entry(path, "l", status, digest=target)
        elif kind == "d":
            self._pending.append((path, (status.st_dev, status.st_ino)))
        else:
            self.seen[path] = _stamp(status)
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
