"""Bytes that survive a power cut: the only module that renames, exchanges and syncs.

Nothing here follows a symbolic link at the path it is given. What ``rename``, ``exchange`` and
``swap`` report as done is on the disk; the contents of a tree are the caller's to sync, once,
with ``sync_tree`` before the tree is renamed into place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import secrets
import stat
from typing import IO, Any, Iterable, Iterator, List, Optional, Tuple

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_TEMPORARY = ".deployguard-"
# For a libc without the wrapper (musl, glibc before 2.28).
_RENAMEAT2 = {
    "x86_64": 316,
    "aarch64": 276,
    "riscv64": 276,
    "loongarch64": 276,
    "ppc64le": 357,
    "s390x": 347,
    "armv7l": 382,
    "armv6l": 382,
    "i686": 353,
    "i386": 353,
}


class ExchangeUnsupported(OSError):
    """The kernel or the file system cannot exchange two paths in one step.

    ``errno`` says which: ENOSYS (kernel or libc), EINVAL (file system), EXDEV (two file systems).
    """


def write_file(path: str, data: bytes, mode: int = 0o600) -> None:
    """Put ``data`` at ``path`` so that a reader, or a power cut, sees all of it or the old file."""
    with writing(path, mode) as stream:
        write_all(stream.fileno(), data)


@contextlib.contextmanager
def writing(path: str, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """As :func:`write_file`, for what is too large to hold: ``with writing(path) as stream``."""
    directory = os.path.dirname(path) or "."
    temporary = _beside(directory)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        _unlink_if_there(temporary)
        raise
    fsync_dir(directory)


def sweep(directory: str) -> None:
    """Remove the half-written files of processes that died in :func:`writing`.

    The caller knows that nobody writes there now.
    """
    for name in os.listdir(directory):
        if name.startswith(_TEMPORARY):
            remove_tree(os.path.join(directory, name))


def append(descriptor: int, data: bytes) -> None:
    """Add ``data`` at the end of the file and sync it.

    A disk that fills half way must not leave half a record with later ones behind it, so what was
    written of a failed append is cut off again.
    """
    end = os.lseek(descriptor, 0, os.SEEK_END)
    try:
        write_all(descriptor, data)
        os.fdatasync(descriptor)
    except OSError:
        try:
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
        except OSError:
            pass  # The first error is the one to report.
        raise


def fsync_dir(path: str) -> None:
    """Make the names in the directory ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: str) -> None:
    """Write out everything pending on the file system of ``path``: one call for a whole tree.

    Raises :class:`OSError` when the kernel reports that some of it was lost.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        library = _libc()
        if library is None or not hasattr(library, "syncfs"):
            os.sync()
        elif library.syncfs(descriptor) != 0:
            number = _last_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)


def sync_trees(paths: Iterable[str]) -> None:
    """As :func:`sync_tree` for several, each file system once."""
    for path in {os.stat(path).st_dev: path for path in paths}.values():
        sync_tree(path)


def put(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file without syncing it, into a place that ``sync_tree`` makes durable as a whole.

    A power cut before that may leave it torn: nobody may rely on it earlier.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


def write_new(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file and sync it under its own name, for a directory that nobody sweeps for us.

    A power cut may leave it torn: for what is only relied on when this has returned, and is removed
    by its name.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        write_all(descriptor, data)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fsync_dir(os.path.dirname(path))


def rename(source: str, destination: str) -> None:
    """Rename, replacing a file or an empty directory, and make it durable."""
    os.rename(source, destination)
    _sync_parents(source, destination)


def rename_new(source: str, destination: str) -> None:
    """Rename to a name that must not be taken; durable. Raises :class:`FileExistsError`."""
    try:
        _renameat2(source, destination, _RENAME_NOREPLACE)
    except ExchangeUnsupported:
        # Not atomic, and good enough: the callers hold the lock on the path.
        if os.path.lexists(destination):
            raise FileExistsError(
                errno.EEXIST, os.strerror(errno.EEXIST), source, None, destination
            ) from None
        os.rename(source, destination)
    _sync_parents(source, destination)


def move(source: str, destination: str, directory: Optional[int] = None) -> None:
    """Rename without syncing, into a tree that ``sync_tree`` makes durable as a whole.

    ``destination`` is relative to the descriptor ``directory``, if there is one.
    """
    os.rename(source, destination, dst_dir_fd=directory)


def exchange(first: str, second: str) -> None:
    """Swap two existing paths, of any kind, in one atomic and durable step.

    Raises :class:`ExchangeUnsupported`, with nothing changed, where that cannot be done.
    """
    _renameat2(first, second, _RENAME_EXCHANGE)
    _sync_parents(first, second)


def exchange_supported(directory: str) -> bool:
    """Try it with two entries of our own; the answer depends on the file system and its mounts."""
    probe = _beside(directory)
    os.mkdir(probe, 0o700)
    first, second = os.path.join(probe, "directory"), os.path.join(probe, "link")
    try:
        os.mkdir(first, 0o700)
        os.symlink("directory", second)
        _renameat2(first, second, _RENAME_EXCHANGE)
        return True
    except ExchangeUnsupported:
        return False
    finally:
        remove_tree(probe)


def swap(live: str, beside: str) -> None:
    """Trade places: what is ``beside`` becomes live and what was live lies beside, or is absent.

    The same call undoes itself. Raises :class:`FileNotFoundError` when neither is there.
    """
    if not os.path.lexists(live):
        rename_new(beside, live)
    elif not os.path.lexists(beside):
        rename_new(live, beside)
    else:
        exchange(live, beside)


def make_directory(path: str, mode: int = 0o755) -> None:
    """Make ``path`` and what is missing above it, durably; an existing directory is left alone.

    ``mode`` is exact for the last one, whatever the umask; those above it get 0755.
    """
    path = os.path.normpath(path)
    absent: List[str] = []
    above = path
    while not os.path.isdir(above):
        absent.append(above)
        above = os.path.dirname(above) or "."
    for directory in reversed(absent):
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            continue
        os.chmod(directory, mode if directory == path else 0o755)
        fsync_dir(os.path.dirname(directory) or ".")


def reserve(path: str, size: int) -> None:
    """Hold ``size`` bytes of disk in a file, for a rescue that finds the disk full.

    Raises :class:`OSError` (ENOSPC) and leaves nothing when there is no room.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            if size > 0:
                os.posix_fallocate(descriptor, 0, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        _unlink_if_there(path)
        raise
    fsync_dir(os.path.dirname(path) or ".")


def release(path: str) -> None:
    """Give the reserve back; fine when there is none."""
    if _unlink_if_there(path):
        fsync_dir(os.path.dirname(path) or ".")


def remove_tree(path: str) -> None:
    """Remove whatever is at ``path``; fine when nothing is.

    Works from directory descriptors and never follows a link, so a tree whose owner plays tricks
    meanwhile cannot lead it outside. Read-only directories are opened up, and depth is no limit.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return
        descriptor = _open_directory(path, None)
    except FileNotFoundError:
        return
    # The way back up is by "..", checked, so that a deep tree does not run out of descriptors.
    trail: List[Tuple[str, Tuple[int, int], List[str]]] = []
    try:
        directories = _remove_files(descriptor)
        while True:
            if directories:
                name = directories.pop()
                identity = _identity(descriptor)
                below = _open_directory(name, descriptor)
                os.close(descriptor)
                descriptor = below
                trail.append((name, identity, directories))
                directories = _remove_files(descriptor)
            elif trail:
                name, identity, directories = trail.pop()
                above = _open_directory("..", descriptor)
                os.close(descriptor)
                descriptor = above
                if _identity(descriptor) != identity:
                    raise OSError(errno.EBUSY, "the tree was moved while it was removed", path)
                os.rmdir(name, dir_fd=descriptor)
            else:
                break
    finally:
        os.close(descriptor)
    os.rmdir(path)


def _remove_files(descriptor: int) -> List[str]:
    """Unlink what is not a directory; the names of the directories that are left."""
    directories: List[str] = []
    with os.scandir(descriptor) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    opened = False
    for name, is_directory in found:
        if is_directory:
            directories.append(name)
            continue
        try:
            os.unlink(name, dir_fd=descriptor)
        except FileNotFoundError:
            continue
        except PermissionError:
            if opened:
                raise
            opened = True
            os.fchmod(descriptor, 0o700)
            os.unlink(name, dir_fd=descriptor)
    if directories and not opened:
        _open_up(descriptor)
    return directories


def _open_directory(name: str, parent: Optional[int]) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except PermissionError:
        # A mode without r for its owner; chmod of a directory just seen not to be a link.
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, flags, dir_fd=parent)


def _open_up(descriptor: int) -> None:
    """A directory must be writable for its subdirectories to be removed."""
    mode = os.fstat(descriptor).st_mode
    if mode & 0o700 != 0o700:
        os.fchmod(descriptor, 0o700)


def _identity(descriptor: int) -> Tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _sync_parents(first: str, second: str) -> None:
    parents = {os.path.dirname(first) or ".", os.path.dirname(second) or "."}
    for parent in sorted(parents):
        fsync_dir(parent)


def _renameat2(first: str, second: str, flags: int) -> None:
    library = _libc()
    if library is None:
        raise ExchangeUnsupported(errno.ENOSYS, "no ctypes in this Python", first, None, second)
    old, new = os.fsencode(first), os.fsencode(second)
    if b"\0" in old or b"\0" in new:
        raise ValueError("embedded null byte")
    if hasattr(library, "renameat2"):
        result = library.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, flags)
    elif platform.machine() in _RENAMEAT2:
        number = _RENAMEAT2[platform.machine()]
        result = library.syscall(number, _AT_FDCWD, old, _AT_FDCWD, new, flags)
    else:
        raise ExchangeUnsupported(errno.ENOSYS, "no renameat2 here", first, None, second)
    if result == 0:
        return
    code = _last_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EXDEV):
        raise ExchangeUnsupported(code, os.strerror(code), first, None, second)
    raise OSError(code, os.strerror(code), first, None, second)


def _libc() -> Any:
    """The C library, or None in a Python built without ctypes. Imported late: 8 ms."""
    try:
        import ctypes
    except ImportError:
        return None
    return ctypes.CDLL(None, use_errno=True)


def _last_errno() -> int:
    import ctypes

    return ctypes.get_errno()


def _beside(directory: str) -> str:
    """A free name in ``directory``, short whatever the name it stands in for."""
    return os.path.join(directory, _TEMPORARY + secrets.token_hex(8))


def _unlink_if_there(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte: ``os.write`` may take fewer. Nothing is synced."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
