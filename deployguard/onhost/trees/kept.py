"""What of a tree is the host's own: found by the plan's patterns, and carried to the next tree."""

from __future__ import annotations

import os
import stat
from typing import Dict, List, Optional, Sequence

from deployguard.onhost import durable
from deployguard.onhost.trees.patterns import Patterns


def matches(tree: str, patterns: Sequence[str]) -> List[str]:
    """Relative paths in ``tree`` that the patterns name, outermost only, in order.

    A pattern without wildcards is looked up; one with wildcards is matched while walking.
    """
    if not os.path.isdir(tree):
        return []
    found: List[str] = []
    wild: List[str] = []
    for pattern in patterns:
        name = pattern.rstrip("/")
        if any(character in name for character in "*?["):
            wild.append(name)
        elif os.path.lexists(os.path.join(tree, name)):
            found.append(name)
    if wild:
        _walk_matches(tree, "", Patterns(wild), found)
    chosen: List[str] = []
    for path in sorted(set(found)):
        if not chosen or not path.startswith(chosen[-1] + "/"):
            chosen.append(path)
    return chosen


def _walk_matches(tree: str, prefix: str, patterns: Patterns, found: List[str]) -> None:
    with os.scandir(os.path.join(tree, prefix) if prefix else tree) as entries:
        for entry in entries:
            path = prefix + entry.name
            if patterns.match(path):
                found.append(path)
            elif entry.is_dir(follow_symlinks=False) and path != ".git":
                # Nothing of the host's own is in a repository, whatever a branch is called.
                _walk_matches(tree, path + "/", patterns, found)


def carry(
    source: str,
    target: str,
    patterns: Sequence[str],
    times: Dict[str, List[int]],
    originals: Optional[Dict[str, Optional[int]]] = None,
) -> List[str]:
    """Move what belongs to the host from one tree to the other, by rename.

    May be repeated after a crash at any point: what has arrived already is left alone. ``times``
    are modes and mtimes of directories of the target from before anything was moved out of it; they
    are put back, because a moved entry changes the mtime of its directory. ``originals`` are the
    inodes of what stood in the target before: where one still does it was never moved away, and
    what the source has in its place is only the default that came with the release.
    """
    moved = []
    for path in matches(source, patterns):
        destination = os.path.join(target, path)
        _parents(source, target, path)
        if os.path.lexists(destination):
            if originals and originals.get(path) == inode_of(destination):
                continue
            # The release brought an entry of the same name after it was staged: it makes way.
            durable.remove_tree(destination)
        durable.rename(os.path.join(source, path), destination)
        moved.append(path)
    for path in sorted(times, key=len, reverse=True):
        mode, mtime_ns = times[path]
        directory = os.path.join(target, path) if path != "." else target
        if os.path.isdir(directory) and not os.path.islink(directory):
            os.chmod(directory, mode)
            os.utime(directory, ns=(mtime_ns, mtime_ns))
    return moved


def _parents(source: str, target: str, path: str) -> None:
    """Make the directories above ``path`` in the target as they are in the source."""
    parts = path.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        relative = "/".join(parts[:depth])
        directory = os.path.join(target, relative)
        if os.path.lexists(directory):
            continue
        info = os.lstat(os.path.join(source, relative))
        os.mkdir(directory, 0o700)
        if os.geteuid() == 0:
            os.chown(directory, info.st_uid, info.st_gid)
        os.chmod(directory, stat.S_IMODE(info.st_mode))


def directory_times(tree: str, patterns: Sequence[str]) -> Dict[str, List[int]]:
    """Mode and mtime of every directory that a carry out of ``tree`` changes."""
    times: Dict[str, List[int]] = {}
    for path in matches(tree, patterns):
        parts = path.split("/")[:-1]
        for depth in range(len(parts) + 1):
            relative = "/".join(parts[:depth]) or "."
            info = os.lstat(os.path.join(tree, relative))
            times[relative] = [stat.S_IMODE(info.st_mode), info.st_mtime_ns]
    return times


def inode_of(path: str) -> Optional[int]:
    """The inode, which a rename keeps; ``None`` where nothing stands.

    Not the device: a disk may have another number after a reboot, and what is compared stands on
    one file system, or it could not have been renamed.
    """
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None
