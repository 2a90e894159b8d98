"""The new tree, built complete beside the live one.

Contents come from trees that are already on the host and from the store of received blobs, and
every byte is hashed on its way: neither a live tree, which may change under our hands, nor a
store that lived through a power cut, is believed. Nothing is ever hard-linked, so no later write
to one tree can reach another.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from deployguard.onhost import durable
from deployguard.onhost.trees.blobs import LARGE, Blob, BlobsInvalid, receive, stored
from deployguard.onhost.trees.manifest import (
    ALL_FIELDS,
    NOBODY,
    ROOT,
    Difference,
    Entry,
    Manifest,
    compare,
)
from deployguard.onhost.trees.patterns import Patterns
from deployguard.onhost.trees.scan import StatCache, hash_file, scan

__all__ = [
    "BlobsInvalid",
    "build",
    "missing",
    "receive",
    "verify",
]

Owner = Tuple[int, int]

_FICLONE = 0x40049409
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def missing(
    manifest: Manifest, sources: Sequence[Manifest], store_dir: Optional[str] = None
) -> Dict[str, int]:
    """What to ask the controller for, digest to size; ``receive`` takes it as ``wanted``."""
    found = stored(store_dir)
    have = {digest for source in sources for digest in source.blobs()}
    return {
        digest: size
        for digest, size in manifest.blobs().items()
        if digest not in have and (digest not in found or found[digest].size != size)
    }


def build(
    manifest: Manifest,
    target: str,
    sources: Sequence[Tuple[str, Manifest]] = (),
    store_dir: Optional[str] = None,
    owner: Optional[Owner] = None,
    keep_owner: bool = False,
    consume_store: bool = False,
) -> Dict[str, int]:
    """Make ``target`` the tree of ``manifest``; returns what is still missing, digest to size.

    When nothing is missing the tree is complete, and ``durable.sync_tree`` is all that is left.
    Otherwise ask for those blobs, ``receive`` them and call again: a source may have changed
    since it was scanned. ``sources`` are trees on this host, with what was found in them;
    ``owner`` is the (uid, gid) of everything, ``keep_owner`` takes the manifest's. With
    ``consume_store`` large blobs are moved out of the store, so that they need no room twice; not
    for a store that several trees are built from. What a dead attempt left at ``target`` is
    removed. Raises :class:`OSError`, such as ENOSPC, and leaves the unfinished tree to the caller.
    """
    for entry in manifest:
        if entry.kind not in "fdl":
            raise ValueError("only files, directories and links can be built: %r" % (entry,))
    with contextlib.ExitStack() as stack:
        contents = _Contents(manifest, sources, store_dir, stack)
        contents.consume = consume_store
        if contents.missing:
            return contents.missing
        durable.remove_tree(target)
        # Ours alone until the top gets its mode, last of all: nobody can reach in meanwhile.
        os.mkdir(target, 0o700)
        top = os.open(target, _DIRECTORY_FLAGS)
        stack.callback(os.close, top)
        _build_into(top, manifest, contents, _Attributes(owner, keep_owner))
        return contents.missing


def verify(
    root: str,
    manifest: Manifest,
    fields: Sequence[str] = ALL_FIELDS,
    ignore: Optional[Patterns] = None,
    cache: Optional[StatCache] = None,
) -> Difference:
    """How the tree at ``root`` differs from ``manifest``, with every file read and hashed.

    ``cache`` is not believed, and holds what was found afterwards.
    """
    found = scan(root, skip=ignore, cache=cache, rehash=True)
    return compare(manifest, found, ignore=ignore, fields=fields)


def _build_into(top: int, manifest: Manifest, contents: _Contents, attributes: _Attributes) -> None:
    directories: List[Entry] = []
    moved: List[Tuple[Entry, Blob]] = []
    for entry in manifest:
        if entry.kind == "d":
            directories.append(entry)
            if entry.path != ROOT:
                os.mkdir(entry.path, entry.mode & 0o777 | 0o700, dir_fd=top)
        elif entry.kind == "l":
            os.symlink(entry.digest, entry.path, dir_fd=top)
            attributes.give_link(top, entry)
        else:
            blob = contents.last_use(entry)
            if blob is not None:
                moved.append((entry, blob))
            else:
                _build_file(top, entry, contents, attributes)
    for entry, blob in moved:
        if not contents.missing:
            _move_blob(top, entry, blob, contents, attributes)
    if contents.missing:
        return
    for entry in reversed(directories):
        attributes.give_directory(top, entry)


def _build_file(top: int, entry: Entry, contents: _Contents, attributes: _Attributes) -> None:
    descriptor = os.open(entry.path, _CREATE_FLAGS, entry.mode & 0o777, dir_fd=top)
    try:
        if contents.copy(entry, descriptor):
            attributes.give_file(descriptor, entry)
    finally:
        os.close(descriptor)


def _move_blob(
    top: int, entry: Entry, blob: Blob, contents: _Contents, attributes: _Attributes
) -> None:
    """A large blob becomes the file itself; hashed in its place, before it is counted."""
    try:
        durable.move(blob.path, entry.path, top)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _build_file(top, entry, contents, attributes)
        return
    descriptor = os.open(entry.path, _READ_FLAGS, dir_fd=top)
    try:
        if hash_file(descriptor, entry.size) == (entry.digest, entry.size):
            attributes.give_file(descriptor, entry)
        else:
            contents.missing[entry.digest] = entry.size
    finally:
        os.close(descriptor)


class _Contents:
    """Where each content of a manifest can be had on this host, best place first."""

    def __init__(
        self,
        manifest: Manifest,
        sources: Sequence[Tuple[str, Manifest]],
        store_dir: Optional[str],
        stack: contextlib.ExitStack,
    ) -> None:
        self.consume = False
        self._stack = stack
        self._wanted = manifest.blobs()
        self._trees: Dict[str, List[Tuple[int, str]]] = {}
        self._clones: Dict[int, bool] = {}
        self._packs: Dict[str, int] = {}
        self._store = {
            digest: blob
            for digest, blob in stored(store_dir).items()
            if self._wanted.get(digest) == blob.size
        }
        for root, source in sources:
            self._add_tree(root, source)
        self._uses: Dict[str, int] = {}
        for entry in manifest:
            if entry.digest in self._store:
                self._uses[entry.digest] = self._uses.get(entry.digest, 0) + 1
        self.missing: Dict[str, int] = {
            digest: size
            for digest, size in self._wanted.items()
            if digest not in self._trees and digest not in self._store
        }

    def _add_tree(self, root: str, source: Manifest) -> None:
        try:
            top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return  # Gone since it was scanned: its contents are asked for instead.
        self._stack.callback(os.close, top)
        for entry in source:
            if entry.kind == "f" and self._wanted.get(entry.digest) == entry.size:
                self._trees.setdefault(entry.digest, []).append((top, entry.path))

    def last_use(self, entry: Entry) -> Optional[Blob]:
        """The blob to move for this entry: alone in its file, and needed by no later path."""
        blob = self._store.get(entry.digest)
        if blob is None or not (self.consume and blob.alone) or entry.digest in self._trees:
            return None
        self._uses[entry.digest] -= 1
        return blob if self._uses[entry.digest] == 0 else None

    def copy(self, entry: Entry, target: int) -> bool:
        """Write the content of ``entry`` to the descriptor ``target``; noted when there is none."""
        for top, path in self._trees.get(entry.digest, ()):
            try:
                source = os.open(path, _READ_FLAGS, dir_fd=top)
            except OSError:
                continue  # Removed, replaced or made unreadable since the scan.
            try:
                if self._copy_tree_file(top, source, target, entry):
                    return True
            except OSError as error:
                if error.errno not in (errno.EIO, errno.EISDIR, errno.EAGAIN, errno.ESTALE):
                    raise
            finally:
                os.close(source)
            _rewind(target)
        blob = self._store.get(entry.digest)
        if blob is not None:
            source = self._open_blob(blob)
            if blob.alone and self._clone(-1, source, target, entry):
                return True
            if _copy_range(source, blob.offset, target, entry):
                return True
            _rewind(target)
        self.missing[entry.digest] = entry.size
        return False

    def _copy_tree_file(self, top: int, source: int, target: int, entry: Entry) -> bool:
        if entry.size < LARGE:
            # One read for the usual small file. The extra byte notices one that has grown.
            data = os.read(source, entry.size + 1)
            if hashlib.sha256(data).hexdigest() != entry.digest:
                return False
            durable.write_all(target, data)
            return True
        if not stat.S_ISREG(os.fstat(source).st_mode):
            return False
        return self._clone(top, source, target, entry) or _copy_range(source, 0, target, entry)

    def _clone(self, top: int, source: int, target: int, entry: Entry) -> bool:
        """Share the blocks of the source, where the file system can; asked once for each tree."""
        if not self._clones.get(top, True):
            return False
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError:
            self._clones[top] = False
            return False
        # What is hashed is the copy, which nobody else can change.
        if hash_file(target, entry.size) == (entry.digest, entry.size):
            return True
        _rewind(target)
        return False

    def _open_blob(self, blob: Blob) -> int:
        if blob.path not in self._packs:
            self._packs[blob.path] = os.open(blob.path, _READ_FLAGS)
            self._stack.callback(os.close, self._packs[blob.path])
        return self._packs[blob.path]


class _Attributes:
    """Owner, mode, extended attributes and times, in the order in which they stick.

    Most entries are made with the right owner and mode, and to look costs less than to set: every
    change is one more entry in the journal of the file system.
    """

    def __init__(self, owner: Optional[Owner], keep_owner: bool) -> None:
        self._owner = owner
        self._keep_owner = keep_owner

    def give_file(self, descriptor: int, entry: Entry) -> None:
        # A change of owner clears setuid and capabilities, and a write moves the time.
        self._give_owner_and_mode(descriptor, entry, os.fstat(descriptor))
        if entry.xattrs:
            _set_xattrs(descriptor, entry)
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))

    def give_link(self, top: int, entry: Entry) -> None:
        owner = self._owner_of(entry)
        if owner is not None:
            os.chown(entry.path, *owner, dir_fd=top, follow_symlinks=False)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(entry.path, ns=times, dir_fd=top, follow_symlinks=False)

    def give_directory(self, top: int, entry: Entry) -> None:
        status = os.stat(entry.path, dir_fd=top, follow_symlinks=False)
        if not entry.xattrs and self._is_right(entry, status):
            times = (entry.mtime_ns, entry.mtime_ns)
            os.utime(entry.path, ns=times, dir_fd=top, follow_symlinks=False)
            return
        descriptor = os.open(entry.path, _DIRECTORY_FLAGS, dir_fd=top)
        try:
            self.give_file(descriptor, entry)
        finally:
            os.close(descriptor)

    def _give_owner_and_mode(self, descriptor: int, entry: Entry, status: os.stat_result) -> None:
        if self._is_right(entry, status):
            return
        owner = self._owner_of(entry)
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, entry.mode)

    def _is_right(self, entry: Entry, status: os.stat_result) -> bool:
        owner = self._owner_of(entry)
        owned = owner is None or owner == (status.st_uid, status.st_gid)
        return owned and status.st_mode & 0o7777 == entry.mode

    def _owner_of(self, entry: Entry) -> Optional[Owner]:
        if self._keep_owner and entry.uid != NOBODY and entry.gid != NOBODY:
            return entry.uid, entry.gid
        return self._owner


def _set_xattrs(descriptor: int, entry: Entry) -> None:
    for name, value in entry.xattrs:
        try:
            os.setxattr(descriptor, name, base64.b64decode(value))
        except OSError as error:
            # No right to, or no room for them on this file system: ``verify`` tells, if asked.
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EACCES):
                raise


def _copy_range(source: int, offset: int, target: int, entry: Entry) -> bool:
    """Copy ``entry.size`` bytes from ``offset`` on; whether they have the hash of ``entry``."""
    hashed = hashlib.sha256()
    for data in _read_range(source, offset, entry.size):
        hashed.update(data)
        durable.write_all(target, data)
    return hashed.hexdigest() == entry.digest


def _read_range(source: int, offset: int, size: int) -> Iterator[bytes]:
    end = offset + size
    while offset < end:
        data = os.pread(source, min(LARGE, end - offset), offset)
        if not data:
            return
        offset += len(data)
        yield data


def _rewind(target: int) -> None:
    os.lseek(target, 0, os.SEEK_SET)
    os.ftruncate(target, 0)
