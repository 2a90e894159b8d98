"""Is there a backup, how old is it, and does it open?

A backup that nobody has read since it was made is a hope. What opens it is told by its ending:
archives are read to their end, which proves every checksum in them; dumps of PostgreSQL are listed
by ``pg_restore``; dumps as SQL must have their last line, which a dump that was cut off has not;
SQLite files are checked by SQLite. Whatever else it is, a command of the plan opens it.
"""

from __future__ import annotations

import glob
import os
import shutil
import stat
from typing import IO, Any, Callable, Dict, List, Optional, Tuple

from deployguard.onhost.system import System

#: A backup that is being written is the newest one, and does not open yet: look at a few.
TRIED = 3

_PIECE = 1024 * 1024
_TAIL = 4096
_END_OF_TAR = 1024
_DUMP = b"PGDMP"
_SQLITE = b"SQLite format 3\0"
#: The last words of a dump as SQL, by who wrote it.
_LAST_WORDS = (b"PostgreSQL database dump complete", b"Dump completed")

Found = Dict[str, Any]


class Broken(Exception):
    """It does not open; the message says why."""


class _Late(Exception):
    """It takes longer than the plan allows."""


def look(question: Dict[str, Any], system: System) -> Found:
    """The newest backup that is good, or the newest one with what is wrong with it.

    ``question``: ``pattern`` (a glob), ``younger_than`` (seconds) and ``least`` (bytes), others are
    not opened, ``opens`` (true, false, or an argv with ``{path}`` in it) and ``deadline`` (seconds
    for all of it). The answer has ``count`` of files that match, and of the one chosen ``path``,
    ``age`` (seconds, negative for one of the future), ``bytes`` and ``broken``, which is empty for
    a good one.
    """
    now = system.now()
    candidates = _candidates(question["pattern"])
    if not candidates:
        return {"count": 0}
    until = system.monotonic() + float(question["deadline"])
    first: Optional[Found] = None
    for path, info in candidates[:TRIED]:
        found = {"count": len(candidates), "path": path, "broken": ""}
        found.update(age=now - info.st_mtime, bytes=_size(path, info))
        if found["age"] <= question["younger_than"] and found["bytes"] >= question["least"]:
            found["broken"] = _open(path, question["opens"], system, until)
            if not found["broken"]:
                return found
        first = first or found
    assert first is not None
    return first


def _candidates(pattern: str) -> List[Tuple[str, os.stat_result]]:
    """What the pattern matches, newest first."""
    found = []
    for path in glob.glob(pattern, recursive=True):
        try:
            info = os.stat(path)
        except OSError:
            continue
        if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
            found.append((path, info))
    return sorted(found, key=lambda one: one[1].st_mtime, reverse=True)


def _size(path: str, info: os.stat_result) -> int:
    if not stat.S_ISDIR(info.st_mode):
        return info.st_size
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def _open(path: str, opens: Any, system: System, until: float) -> str:
    """What is wrong with it; empty when it opens."""
    if opens is False:
        return ""
    try:
        if opens is not True:
            _ask([word.replace("{path}", path) for word in opens], system, until)
        else:
            _read(path, system, until)
    except Broken as error:
        return str(error)
    except _Late:
        return "it could not be read to its end in time"
    except Exception as error:  # noqa: BLE001 - of lzma, tarfile, zipfile, sqlite3: it is broken
        return "%s: %s" % (type(error).__name__, error)
    return ""


def _ask(argv: List[str], system: System, until: float) -> None:
    done = system.run(argv, timeout=max(until - system.monotonic(), 0.1))
    if not done.ok:
        raise Broken(done.describe())


def _read(path: str, system: System, until: float) -> None:
    def in_time() -> None:
        if system.monotonic() > until:
            raise _Late

    if os.path.isdir(path):
        if not any(os.scandir(path)):
            raise Broken("it is an empty directory")
        return
    with open(path, "rb") as file:
        head = file.read(16)
    name = path.lower()
    if not head:
        raise Broken("it is empty")
    if head.startswith(_DUMP):
        _ask(["pg_restore", "--list", path], system, until)
    elif head == _SQLITE:
        _sqlite(path)
    elif name.endswith(".zip"):
        _zip(path, in_time)
    elif name.endswith(".zst"):
        if shutil.which("zstd") is None:
            raise Broken("nothing on the host opens .zst; install zstd, or say what `opens` it")
        _ask(["zstd", "--test", "--quiet", path], system, until)
    else:
        inner, stream = _stream(path)
        with stream:
            if inner.endswith((".tar", ".tgz", ".txz", ".tbz2")):
                _tar(stream, in_time)
            else:
                _to_the_end(stream, inner, in_time)


def _stream(path: str) -> Tuple[str, IO[bytes]]:
    """The content without its compression, and the name it has without that."""
    name, ending = os.path.splitext(path.lower())
    if ending in (".gz", ".tgz"):
        import gzip

        return (path.lower() if ending == ".tgz" else name), gzip.open(path, "rb")  # type: ignore[return-value]
    if ending in (".xz", ".txz"):
        import lzma

        return (path.lower() if ending == ".txz" else name), lzma.open(path, "rb")
    if ending in (".bz2", ".tbz2"):
        import bz2

        return (path.lower() if ending == ".tbz2" else name), bz2.open(path, "rb")
    return path.lower(), open(path, "rb")


def _to_the_end(stream: IO[bytes], name: str, in_time: Callable[[], None]) -> None:
    tail = b""
    while True:
        in_time()
        piece = stream.read(_PIECE)
        if not piece:
            break
        tail = (tail + piece)[-_TAIL:]
    if name.endswith(".sql") and not any(words in tail for words in _LAST_WORDS):
        raise Broken("the dump was cut off: its last line is missing")


def _tar(stream: IO[bytes], in_time: Callable[[], None]) -> None:
    import tarfile

    members = 0
    watched = _Watched(stream)
    with tarfile.open(fileobj=watched, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            members += 1
            content = archive.extractfile(member) if member.isreg() else None
            while content is not None and content.read(_PIECE):
                in_time()
    if not members:
        raise Broken("the archive has nothing in it")
    # The checksum of the compression stands behind the end of the archive.
    while watched.read(_PIECE):
        in_time()
    if watched.tail.strip(b"\0"):
        raise Broken("the archive was cut off: its end is missing")


class _Watched:
    """A stream of which the end is remembered: that of an archive is two blocks of nothing."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.tail = b""

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        self.tail = (self.tail + data)[-_END_OF_TAR:]
        return data


def _zip(path: str, in_time: Callable[[], None]) -> None:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                while member.read(_PIECE):
                    in_time()


def _sqlite(path: str) -> None:
    import sqlite3
    from urllib.parse import quote

    # Immutable: a backup has no log beside it, and nothing may be written there.
    database = sqlite3.connect("file:%s?mode=ro&immutable=1" % quote(path), uri=True)
    try:
        ((said,),) = database.execute("PRAGMA quick_check(1)").fetchall()
    finally:
        database.close()
    if said != "ok":
        raise Broken(said)
