"""What is live here, for a snapshot that is kept elsewhere; and who the owners of one are here.

Needs no transaction and changes nothing. What cannot be read as it was found is left out of the
answer: whoever asks looks at what came, and asks anew.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from deployguard.onhost.places import WHOLE, NotManageable, State
from deployguard.onhost.queries.services import observe
from deployguard.onhost.system import System
from deployguard.onhost.trees import blobs
from deployguard.onhost.trees.inspection import (
    file_entry,
    live_record,
    load_manifest,
    skip_patterns,
    stat_cache,
)
from deployguard.onhost.trees.manifest import Manifest
from deployguard.onhost.trees.scan import StatCache, scan

_PIECE = 64 * 1024
#: Kinds that can be built again from what is kept of them.
_KEPT = "fdl"

Wanted = Tuple[str, int, str]


def live(
    state: State, system: System, args: Dict[str, Any]
) -> Tuple[Dict[str, Any], Iterator[bytes]]:
    """The live tree of one path as a manifest, the managed files, and what ``observe`` asks of the
    service; no contents."""
    root = _root(args["path"], args["layout"])
    record = live_record(state, args["path"])
    managed = record is not None and record.get("tree") == root
    files = [_file(path) for path in args["files"]]
    skip = skip_patterns({name: args[name] for name in ("layout", "ignore", "keep")})
    if root is None:
        return {"exists": False}, iter(())
    cache = StatCache()
    if record is not None and managed:
        cache = stat_cache(state, args["path"], load_manifest(record["manifest"]))
    found = scan(root, skip=skip, cache=cache)
    manifest = Manifest(entry for entry in found if entry.kind in _KEPT)
    data = manifest.to_bytes()
    result = {
        "exists": True,
        "version": record["version"] if record is not None and managed else None,
        "tree": root,
        "files": files,
        "observed": observe(system, args["observe"]),
        "users": _names(_numbers(manifest, files, "uid"), _user),
        "groups": _names(_numbers(manifest, files, "gid"), _group),
        "left_out": [entry.path for entry in found if entry.kind not in _KEPT],
    }
    return result, (data[at : at + _PIECE] for at in range(0, len(data), _PIECE))


def contents(args: Dict[str, Any]) -> Tuple[Dict[str, Any], Iterator[bytes]]:
    """The contents ``wanted`` as a blob stream: digest, size, and the path, below ``tree`` or
    absolute. One that is no longer what it was is not in it."""
    wanted = [(str(d), int(size), os.path.join(args["tree"], p)) for d, size, p in args["wanted"]]
    return {}, _encoded(wanted)


def identities(args: Dict[str, Any]) -> Dict[str, Any]:
    """The numbers of users and groups on this host; ``None`` for one that is not known."""
    return {
        "users": {name: _number(name, _uid) for name in args["users"]},
        "groups": {name: _number(name, _gid) for name in args["groups"]},
    }


def _root(path: str, layout: str) -> Optional[str]:
    if layout in WHOLE:
        return path if os.path.isdir(path) and not os.path.islink(path) else None
    live_link = os.path.join(path, "current")
    root = os.path.realpath(live_link)
    return root if os.path.islink(live_link) and os.path.isdir(root) else None


def _file(name: str) -> Dict[str, Any]:
    """A managed file as it is; ``at`` is where it is, where the plan's name for it has a ``~``."""
    path = os.path.expanduser(name)
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise NotManageable("%s is not a plain file" % path, "a managed file is a plain file")
    entry = dict(file_entry(path), path=name)
    return dict(entry, at=path, size=os.path.getsize(path)) if entry["exists"] else entry


def _numbers(manifest: Manifest, files: Sequence[Dict[str, Any]], field: str) -> List[int]:
    numbers = {getattr(entry, field) for entry in manifest}
    return sorted(numbers | {file[field] for file in files if file["exists"]})


def _names(numbers: Iterable[int], name_of: Callable[[int], str]) -> Dict[str, str]:
    found = {}
    for number in numbers:
        try:
            found[str(number)] = name_of(number)
        except KeyError:
            pass  # nobody is called so; it stays a number
    return found


def _user(number: int) -> str:
    return pwd.getpwuid(number).pw_name


def _group(number: int) -> str:
    return grp.getgrgid(number).gr_name


def _number(name: str, number_of: Callable[[str], int]) -> Optional[int]:
    try:
        return number_of(name)
    except KeyError:
        return None


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _encoded(wanted: Sequence[Wanted]) -> Iterator[bytes]:
    try:
        yield from blobs.encode(_opened(wanted))
    except (blobs.BlobsInvalid, OSError):
        return  # a large file changed while it was sent: the stream ends in the middle of it


def _opened(wanted: Sequence[Wanted]) -> Iterator[Tuple[str, int, Iterable[bytes]]]:
    for digest, size, path in wanted:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            pieces = _as_it_was(descriptor, digest, size)
            if pieces is not None:
                yield digest, size, pieces
        finally:
            os.close(descriptor)


def _as_it_was(descriptor: int, digest: str, size: int) -> Optional[Iterable[bytes]]:
    """The content, if it still has its hash."""
    try:
        if size < blobs.LARGE:
            data = os.read(descriptor, size + 1)
            return [data] if hashlib.sha256(data).hexdigest() == digest else None
        if _hashed(descriptor) != digest:
            return None
        os.lseek(descriptor, 0, os.SEEK_SET)
        return _pieces(descriptor)
    except OSError:
        return None


def _pieces(descriptor: int) -> Iterator[bytes]:
    while True:
        piece = os.read(descriptor, blobs.LARGE)
        if not piece:
            return
        yield piece


def _hashed(descriptor: int) -> str:
    hashed = hashlib.sha256()
    for piece in _pieces(descriptor):
        hashed.update(piece)
    return hashed.hexdigest()
