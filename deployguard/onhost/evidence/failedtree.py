"""The failed tree as evidence: its listing, how it differs, and the files that differ.

Nothing is hashed to find the changes, a large tree must not delay the restore: what has the size
and time of a manifest has the digest that it gives. A build gives every file a new time, so what
was deployed is known by its own manifest, and has changed only if its digest is not the old one.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from deployguard.onhost.share import Share, write_file
from deployguard.onhost.trees.manifest import Entry, Manifest
from deployguard.onhost.trees.patterns import Patterns

LISTING = "MANIFEST.jsonl"
CHANGES = "CHANGES.json"
FILES = "files"

_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
}


def keep(
    root: str,
    directory: str,
    to: str,
    share: Share,
    *,
    manifest: Optional[str] = None,
    staged: Optional[str] = None,
    ignore: Sequence[str] = (),
) -> Tuple[int, bool]:
    """Write the listing, the changes and the changed files below ``directory/to``.

    ``manifest`` is the file with what was live before, ``staged`` that with what was deployed.
    Returns the bytes written and whether something had to be left out. Without a manifest there is
    nothing to differ from, and only the listing is written.
    """
    before = None if manifest is None else _load(manifest)
    deployed = None if staged is None else _load(staged)
    root = os.path.realpath(root)
    lines: List[bytes] = []
    room = share.max_bytes
    changes: Dict[str, List[str]] = {"added": [], "changed": [], "removed": []}
    wanted: List[Tuple[int, str]] = []
    seen = set()
    truncated = False
    for path, info in _walk(root, Patterns(list(ignore))):
        if share.over():
            truncated = True
            break
        seen.add(path)
        entry = None if before is None else before.get(path)
        ours = None if deployed is None else deployed.get(path)
        row, change = _describe(root, path, info, (entry, ours), before is not None)
        line = json.dumps(row, sort_keys=True).encode("ascii") + b"\n"
        # Half of the share at most: the changed files say more than the end of a long listing.
        if room - len(line) < share.max_bytes // 2:
            truncated = True
        else:
            room -= len(line)
            lines.append(line)
        if change:
            changes[change].append(path)
            if stat.S_ISREG(info.st_mode):
                wanted.append((info.st_size, path))
    if before is not None and not truncated:
        skip = Patterns(list(ignore))
        changes["removed"] = [
            entry.path
            for entry in before
            if entry.path not in seen and entry.path != "." and not skip.match(entry.path)
        ]
    written = write_file(directory, to + "/" + LISTING, b"".join(lines))
    if before is None:
        return written, truncated
    copied, left_out = _copy(root, directory, to, sorted(wanted), room, share)
    report: Dict[str, Any] = dict(changes, left_out=left_out)
    text = json.dumps(report, indent=1, sort_keys=True).encode("ascii")
    written += copied + write_file(directory, to + "/" + CHANGES, text)
    return written, truncated or bool(left_out)


def _load(path: str) -> Optional[Manifest]:
    try:
        with open(path, "rb") as stream:
            return Manifest.from_bytes(stream.read())
    except (OSError, ValueError):
        return None


def _walk(root: str, skip: Patterns) -> Iterator[Tuple[str, os.stat_result]]:
    """Every path below ``root`` but what is skipped, links not followed, in order."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(os.path.join(root, prefix)) as entries:
                found = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError:
            continue
        for entry in reversed(found):
            path = prefix + entry.name
            if skip.match(path):
                continue
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            yield path, info
        pending += [
            prefix + entry.name + "/"
            for entry in found
            if entry.is_dir(follow_symlinks=False) and not skip.match(prefix + entry.name)
        ]


def _describe(
    root: str,
    path: str,
    info: os.stat_result,
    known: Tuple[Optional[Entry], Optional[Entry]],
    compared: bool,
) -> Tuple[Dict[str, Any], str]:
    """A line of the listing, and how the path differs: ``added``, ``changed`` or not.

    ``known`` are the entries of the old manifest and of the deployed one.
    """
    entry = known[0]
    kind = _KINDS.get(stat.S_IFMT(info.st_mode), "?")
    row: Dict[str, Any] = {
        "path": path,
        "kind": kind,
        "mode": "%04o" % stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
        "mtime": info.st_mtime_ns / 1e9,
    }
    same = entry is not None and entry.kind == kind
    if kind == "l":
        try:
            row["target"] = os.readlink(os.path.join(root, path))
        except OSError:
            row["target"] = None
        same = same and entry is not None and entry.digest == row["target"]
    elif kind == "f":
        row["size"] = info.st_size
        digests = [e.digest for e in known if e is not None and _is(e, info)]
        if digests:
            row["sha256"] = digests[0]
        same = same and entry is not None and entry.digest in digests
    change = ""
    if compared and entry is None:
        change = "added"
    elif compared and not same:
        change = "changed"
    if change:
        row["change"] = change
    return row, change


def _is(entry: Entry, info: os.stat_result) -> bool:
    """Whether the file is still the one that the manifest tells of."""
    return entry.kind == "f" and entry.size == info.st_size and entry.mtime_ns == info.st_mtime_ns


def _copy(
    root: str,
    directory: str,
    to: str,
    wanted: Sequence[Tuple[int, str]],
    room: int,
    share: Share,
) -> Tuple[int, List[str]]:
    """Copy files, the small ones first, while there is room and time."""
    written = 0
    left_out = []
    for size, path in wanted:
        if size > room or share.over():
            left_out.append(path)
            continue
        try:
            descriptor = os.open(
                os.path.join(root, path),
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            )
            with os.fdopen(descriptor, "rb") as stream:
                data = stream.read(size)
            written += write_file(directory, f"{to}/{FILES}/{path}", data)
        except (OSError, ValueError):
            left_out.append(path)
            continue
        room -= len(data)
    return written, left_out
