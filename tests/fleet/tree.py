"""A directory as a value that a test can compare before and after.

Nothing is left out that a restore must bring back: the bytes, the type, mode, owner, time and
extended attributes of every entry. What a file system decides for itself (inode numbers, sizes
of directories) is left out, or no two trees would ever be equal.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path, PurePosixPath
from typing import NamedTuple

LINKS_FOLLOWED = 40  # the kernel's own limit

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class Entry(NamedTuple):
    """One file, directory or link; `content` is a file's sha256 or a link's target."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    content: str
    xattrs: tuple[tuple[str, bytes], ...] = ()


def tree(root: Path) -> dict[bytes, Entry]:
    """Every entry at and below `root`, by its path relative to `root`; empty if there is none."""
    found: dict[bytes, Entry] = {}
    top = os.fsencode(root)
    if not os.path.lexists(top):
        return found
    pending = [b"."]
    while pending:
        name = pending.pop()
        path = top if name == b"." else os.path.join(top, name)
        entry = _entry(path)
        found[name] = entry
        if entry.kind == "directory":
            pending += [
                child if name == b"." else os.path.join(name, child) for child in os.listdir(path)
            ]
    return found


def within(root: Path, path: str | os.PathLike[str], *, follow: bool = True) -> Path:
    """Where an absolute path inside `root` is found from outside.

    An absolute link inside a host means the host's own root, which the kernel does not know when
    the walk starts out here; so links are followed by hand. With `follow=False` a link in the last
    place is left as it is.
    """
    pending = list(reversed(PurePosixPath("/", path).parts[1:]))
    reached: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            reached = reached[:-1]
            continue
        here = root.joinpath(*reached, part)
        if here.is_symlink() and (pending or follow):
            links += 1
            if links > LINKS_FOLLOWED:
                raise OSError(f"too many links in {path}")
            target = PurePosixPath(os.readlink(here))
            if target.is_absolute():
                reached = []
            pending += reversed([step for step in target.parts if step != "/"])
            continue
        reached.append(part)
    return root.joinpath(*reached)


def _entry(path: bytes) -> Entry:
    status = os.lstat(path)
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    content = ""
    if kind == "file":
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        content = digest.hexdigest()
    elif kind == "link":
        content = os.fsdecode(os.readlink(path))
    return Entry(
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        0 if kind == "directory" else status.st_size,
        content,
        _xattrs(path),
    )


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
