"""The members of a tar as a manifest: strict where ``tar`` is lenient, and nothing is extracted.

Only the final state counts: a member that is repeated replaces the earlier one, as if both had
been extracted. What could only be unpacked by writing through a link, or outside, is refused.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from typing import IO, Any, cast

from deployguard.artifact.base import PIECE, ArtifactInvalid, Limits
from deployguard.artifact.confine import escaping_links
from deployguard.artifact.headers import Member, Unusual, members
from deployguard.onhost.trees.manifest import (
    MAX_NAME,
    MAX_PATH,
    NOBODY,
    ROOT,
    XATTRS,
    Entry,
    Manifest,
    ManifestInvalid,
)

Places = dict[str, tuple[int, int]]
_Sparse = tuple[tarfile.TarFile, tarfile.TarInfo]

_BLOCK = 512
# Long names and pax headers are read into memory whole; real ones are a few kilobytes.
_MAX_HEADER = 4 * 1024 * 1024
_MAX_TIME = 2**53
_SECOND = 1_000_000_000
_TIME = re.compile(r"(-?)(\d{1,16})(?:\.(\d*))?\Z")
_XATTR = "SCHILY.xattr."


def read_members(
    source: str,
    spool: IO[bytes],
    *,
    strip_components: int,
    owner_from_artifact: bool,
    limits: Limits,
) -> tuple[Manifest, Places]:
    """The manifest of the tar in ``spool``, and where in it each content lies, by digest.

    Contents that are not in one piece in the tar (sparse files) are appended to ``spool``.
    """
    reader = _Reader(spool, strip_components, owner_from_artifact, limits)
    try:
        try:
            reader.read_ordinary()
        except Unusual:
            reader = _Reader(spool, strip_components, owner_from_artifact, limits)
            reader.read_any()
        reader.add_parents()
        if not reader.problems:
            manifest = Manifest(reader.entries.values())
            reader.problems += escaping_links(manifest)
    except (
        tarfile.TarError,
        ManifestInvalid,
        _Refused,
        EOFError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        reader.problems.append(str(error) if isinstance(error, _Refused) else f"damaged: {error}")
    if reader.problems:
        raise ArtifactInvalid(source, reader.problems)
    return manifest, reader.places


class _Refused(Exception):
    """The archive as a whole is refused; the text says why."""


class _Bounded:
    """The spool, as the tar reader sees it: no read is of a hostile header's size, and what
    was appended for sparse files is not there.
    """

    def __init__(self, spool: IO[bytes], end: int) -> None:
        self._spool = spool
        self._end = end
        self.seek = spool.seek
        self.tell = spool.tell

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _MAX_HEADER:
            raise _Refused(f"damaged: a header of {count} bytes")
        return self._spool.read(max(0, min(count, self._end - self._spool.tell())))


class _Reader:
    """One pass over the archive."""

    def __init__(self, spool: IO[bytes], strip: int, owners: bool, limits: Limits) -> None:
        self._spool = spool
        self._end = spool.seek(0, os.SEEK_END)
        self._spool_end = self._end
        self._strip = strip
        self._owners = owners
        self._limits = limits
        self._total = 0
        self._newest = 0
        self.entries: dict[str, Entry] = {}
        self.places: Places = {}
        self.problems: list[str] = []

    def read_ordinary(self) -> None:
        """Raises :class:`Unusual` for an archive that only ``tarfile`` can judge."""
        descriptor = self._spool.fileno()
        for member in members(lambda size, at: os.pread(descriptor, size, at), self._end):
            self._add(member)
            self._bound()

    def read_any(self) -> None:
        """The same by ``tarfile``: slow, and at home with every kind of tar."""
        self._spool.seek(0)
        with tarfile.open(
            fileobj=cast("Any", _Bounded(self._spool, self._end)),  # read, seek and tell suffice
            mode="r:",
            encoding="utf-8",
            errors="surrogateescape",
        ) as archive:
            while (info := archive.next()) is not None:
                cast("Any", archive).members = []  # They would pile up, 2 KB each.
                self._add(_member(info), (archive, info) if info.issparse() else None)
                self._bound()
            # Where the headers stop making sense tarfile sees the end, as if all were well.
            if os.pread(self._spool.fileno(), _BLOCK, archive.offset) != bytes(_BLOCK):
                raise _Refused(
                    "truncated or damaged: there is no end-of-archive mark after "
                    f"{len(self.entries)} entries"
                )

    def _bound(self) -> None:
        if len(self.entries) > self._limits.entries:
            raise _Refused(f"it has more than {self._limits.entries} entries")

    def add_parents(self) -> None:
        """Directories that members imply, and the top; the archive's newest time stands in."""
        for path in [ROOT, *self.entries]:
            parent = path
            while parent not in ("", ROOT):
                parent = parent.rpartition("/")[0] or ROOT
                found = self.entries.get(parent)
                if found is None:
                    self._imply(parent)
                elif found.kind != "d":
                    self.problems.append(f"{path!r}: lies below {parent!r}, which is no directory")
                    break
                elif parent != ROOT:
                    break  # Its own parents are looked at in its own turn.
        if ROOT not in self.entries:
            self._imply(ROOT)

    def _imply(self, path: str) -> None:
        self.entries[path] = Entry(path, "d", 0o755, 0, self._newest)
        self._bound()

    def _add(self, member: Member, sparse: _Sparse | None = None) -> None:
        path = self._path(member.name)
        if path is None:
            return
        if path == ROOT and member.kind != "d":
            # Stripped of all its name, a file is left out; `tar` does the same.
            if not self._strip:
                self.problems.append(f"{member.name!r}: the top of the tree must be a directory")
            return
        entry = self._entry(member, path, sparse)
        if entry is not None:
            self._total += entry.size
            if self._total > self._limits.total_bytes:
                raise _Refused(f"its files are more than {self._limits.total_bytes} bytes")
            self._newest = max(self._newest, entry.mtime_ns)
            self.entries[path] = entry

    def _entry(self, member: Member, path: str, sparse: _Sparse | None) -> Entry | None:
        uid, gid = (member.uid, member.gid) if self._owners else (NOBODY, NOBODY)
        kind, mode, time = member.kind, member.mode & 0o7777, _mtime_ns(member)
        if kind == "f":
            digest, xattrs = self._content(member, sparse), _xattrs(member)
            return Entry(path, "f", mode, member.size, time, digest, uid, gid, xattrs)
        if kind == "d":
            return Entry(path, "d", mode, 0, time, "", uid, gid, _xattrs(member))
        if kind == "l":
            return Entry(path, "l", 0o777, 0, time, member.linkname, uid, gid)
        if kind == "h":
            return self._hard_link(member, path)
        self.problems.append(f"{member.name!r}: only files, directories and links can be deployed")
        return None

    def _hard_link(self, member: Member, path: str) -> Entry | None:
        """A file of its own, with what the other name holds at this point."""
        target = self._path(member.linkname)
        found = self.entries.get(target) if target is not None else None
        if found is None or found.kind not in "fl":
            self.problems.append(
                f"{member.name!r}: a hard link to {member.linkname!r}, which is no file before it"
            )
            return None
        return found._replace(path=path)

    def _path(self, name: str) -> str | None:
        """The path in the tree, or None for what is stripped or refused."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        problem = ""
        if name.startswith("/"):
            problem = "an absolute name"
        elif ".." in parts:
            problem = "the name climbs out of its directory"
        elif "\0" in name:
            problem = "a NUL in the name"
        elif (len(name) > MAX_NAME or not name.isascii()) and _too_long(name, parts):
            problem = "too long a name"
        if problem:
            self.problems.append(f"{name[:MAX_PATH]!r}: {problem}")
            return None
        if len(parts) < self._strip:
            return None
        return "/".join(parts[self._strip :]) or ROOT

    def _content(self, member: Member, sparse: _Sparse | None) -> str:
        """Hash the content, and note where it lies."""
        place = (member.offset, member.size)
        if member.size < 0 or self._total + member.size > self._limits.total_bytes:
            raise _Refused(f"its files are more than {self._limits.total_bytes} bytes")
        if sparse is not None:
            place = self._append_sparse(*sparse)
        elif member.offset + member.size > self._end:
            raise _Refused(f"truncated in {member.name!r}")
        digest = self._hash(*place)
        self.places.setdefault(digest, place)
        return digest

    def _append_sparse(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[int, int]:
        file = archive.extractfile(member)
        start = self._spool_end
        while file is not None and (data := file.read(PIECE)):
            self._spool.seek(self._spool_end)
            self._spool_end += self._spool.write(data)
        self._spool.flush()
        if self._spool_end - start != member.size:
            raise _Refused(f"truncated in {member.name!r}")
        return start, member.size

    def _hash(self, start: int, size: int) -> str:
        descriptor = self._spool.fileno()
        if size <= PIECE:
            return hashlib.sha256(os.pread(descriptor, size, start)).hexdigest()
        hashed = hashlib.sha256()
        for at in range(start, start + size, PIECE):
            hashed.update(os.pread(descriptor, min(PIECE, start + size - at), at))
        return hashed.hexdigest()


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _too_long(name: str, parts: list[str]) -> bool:
    return len(_raw(name)) > MAX_PATH or any(len(_raw(part)) > MAX_NAME for part in parts)


def _member(info: tarfile.TarInfo) -> Member:
    kind = "d" if info.isdir() else "l" if info.issym() else "h" if info.islnk() else "?"
    return Member(
        info.name,
        "f" if info.isreg() else kind,
        info.mode,
        info.uid,
        info.gid,
        info.size,
        info.mtime,
        info.linkname,
        cast("dict[str, str]", info.pax_headers),
        info.offset_data,
    )


def _mtime_ns(member: Member) -> int:
    """To the nanosecond: ``TarInfo.mtime`` has been through a float."""
    text = member.pax.get("mtime")
    match = _TIME.match(text) if isinstance(text, str) else None
    if match is None:
        if not -_MAX_TIME <= member.mtime <= _MAX_TIME:
            raise _Refused(f"{member.name!r}: not a time: {member.mtime}")
        return int(member.mtime) * _SECOND
    sign, whole, fraction = match.groups()
    value = int(whole) * _SECOND + int((fraction or "")[:9].ljust(9, "0"))
    return -value if sign else value


def _xattrs(member: Member) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(_pairs(member)))


def _pairs(member: Member) -> Iterator[tuple[str, str]]:
    for keyword, value in member.pax.items():
        if keyword.startswith(_XATTR):
            name = keyword[len(_XATTR) :]
            if name.startswith(XATTRS):
                yield name, base64.b64encode(_raw(value)).decode("ascii")
