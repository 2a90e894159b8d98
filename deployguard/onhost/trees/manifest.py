"""A tree as data: one entry a path, in an order and an encoding that both ends share.

A manifest comes over the wire and names the paths a program with root's rights will create, so
``Manifest.from_bytes`` believes nothing: see ``_check``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from deployguard.onhost.trees.patterns import Patterns

ROOT = "."
KINDS = "fdlpscb"
MAX_NAME = 255
MAX_PATH = 4095
MAX_SIZE = 2**62
MAX_TIME = 2**66  # In nanoseconds; ext4 goes to the year 2446, which is more than 2**63.
MAX_ID = 2**32 - 2
MAX_BYTES = 1024 * 1024 * 1024
# What a tree carries along. Labels of a security policy or of an overlay belong to the host.
XATTRS = ("user.", "system.posix_acl_", "security.capability")
NOBODY = -1  # As uid or gid: the manifest does not say, and ``compare`` does not ask.

ALL_FIELDS = ("kind", "content", "target", "mode", "owner", "mtime", "dir_mtime", "xattrs")
# A deploy, or an application, touches the times of directories without changing anything.
DRIFT_FIELDS = ("kind", "content", "target", "mode", "owner", "xattrs")


class ManifestInvalid(ValueError):
    """The manifest is damaged, or names something no tree may hold."""


class Entry(NamedTuple):
    """One path of a tree, described completely.

    ``path`` is relative, with ``/``; bytes that are not UTF-8 are carried as lone surrogates
    (``os.fsdecode``); the top of the tree is ``.``. ``kind`` is one of ``f d l p s c b``, as in
    ``find -type``. ``mode`` is the permission bits with setuid, setgid and sticky; ``size`` is 0
    unless ``kind`` is ``f``; ``digest`` is the sha256 in hex of a file and the target of a link.
    ``xattrs`` are pairs of a name and the value in base64, ordered by name.
    """

    path: str
    kind: str
    mode: int = 0
    size: int = 0
    mtime_ns: int = 0
    digest: str = ""
    uid: int = NOBODY
    gid: int = NOBODY
    xattrs: Tuple[Tuple[str, str], ...] = ()


class Change(NamedTuple):
    """One path whose entry differs, and in which fields."""

    path: str
    fields: Tuple[str, ...]


class Difference(NamedTuple):
    """What ``compare`` found, each part in the order of the paths. False when there is nothing."""

    added: Tuple[str, ...]
    changed: Tuple[Change, ...]
    removed: Tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def paths(self) -> List[str]:
        """Every path that differs, once, in order."""
        return sorted([*self.added, *self.removed, *(change.path for change in self.changed)])

    def to_json(self) -> Dict[str, Any]:
        """As the protocol and the reports carry it."""
        return {
            "added": list(self.added),
            "changed": [[change.path, list(change.fields)] for change in self.changed],
            "removed": list(self.removed),
        }

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Difference:
        """The reverse of ``to_json``."""
        return cls(
            tuple(data["added"]),
            tuple(Change(path, tuple(fields)) for path, fields in data["changed"]),
            tuple(data["removed"]),
        )


class Manifest:
    """Every entry of one tree, ordered by path, the top first. Immutable."""

    __slots__ = ("_by_path", "_data", "_digest", "entries")

    def __init__(self, entries: Iterable[Entry]) -> None:
        """Raises :class:`ManifestInvalid` when the entries cannot be one tree."""
        ordered = sorted(entries, key=lambda entry: "" if entry.path == ROOT else entry.path)
        self.entries: Tuple[Entry, ...] = tuple(ordered)
        self._by_path: Dict[str, Entry] = {entry.path: entry for entry in ordered}
        self._data = b""
        self._digest = ""
        _check(self.entries, self._by_path)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Manifest) and self.entries == other.entries)

    def __hash__(self) -> int:
        return hash(self.entries)

    def __repr__(self) -> str:
        return "<Manifest of %d entries, %d bytes>" % (self.count(), self.total_bytes())

    def get(self, path: str) -> Optional[Entry]:
        """The entry of ``path``, if there is one."""
        return self._by_path.get(path)

    def count(self) -> int:
        """How many entries, directories and the top included."""
        return len(self.entries)

    def total_bytes(self) -> int:
        """The sizes of all files together."""
        return sum(entry.size for entry in self.entries)

    def blobs(self) -> Dict[str, int]:
        """The sizes of the distinct file contents, by digest, in the order of the paths."""
        return {entry.digest: entry.size for entry in self.entries if entry.kind == "f"}

    def without(self, patterns: Patterns) -> Manifest:
        """The same tree less what matches; what was below it goes too."""
        if not patterns:
            return self
        return Manifest(
            entry for entry in self.entries if entry.path == ROOT or not patterns.match(entry.path)
        )

    def owned_by(self, owner: Optional[Tuple[int, int]]) -> Manifest:
        """The same tree with one (uid, gid) for all of it; ``None`` says that it does not say."""
        uid, gid = owner or (NOBODY, NOBODY)
        return Manifest(entry._replace(uid=uid, gid=gid) for entry in self.entries)

    def digest(self) -> str:
        """The sha256 in hex of the canonical encoding: equal exactly when the trees are."""
        if not self._digest:
            self._digest = hashlib.sha256(self._columns()).hexdigest()
        return self._digest

    def to_bytes(self) -> bytes:
        """The compact encoding, for the wire and for the disk; of one that was read, just that."""
        if not self._data:
            self._data = zlib.compress(self._columns(), 3)
        return self._data

    @classmethod
    def from_bytes(cls, data: bytes, limit: int = MAX_BYTES) -> Manifest:
        """Read what ``to_bytes`` wrote. Raises :class:`ManifestInvalid`.

        ``limit`` bounds the text after decompression, since a small bomb makes a large list.
        """
        try:
            unpacker = zlib.decompressobj()
            text = unpacker.decompress(data, limit)
            if not unpacker.eof or unpacker.unused_data:
                raise ManifestInvalid("a manifest is cut off, followed by more, or too long")
            columns = json.loads(text)
        except (zlib.error, ValueError, RecursionError) as error:
            raise ManifestInvalid("not a manifest: %s" % error) from error
        manifest = cls(_rows(columns))
        manifest._data = bytes(data)
        return manifest

    def _columns(self) -> bytes:
        # Columns rather than rows: half the size once compressed, and twice as fast to read.
        columns = {
            "v": 1,
            "path": [entry.path for entry in self.entries],
            "kind": "".join(entry.kind for entry in self.entries),
            "mode": [entry.mode for entry in self.entries],
            "size": [entry.size for entry in self.entries],
            "mtime": [entry.mtime_ns for entry in self.entries],
            "digest": [entry.digest for entry in self.entries],
            "uid": [entry.uid for entry in self.entries],
            "gid": [entry.gid for entry in self.entries],
            "xattrs": [
                [index, entry.xattrs] for index, entry in enumerate(self.entries) if entry.xattrs
            ],
        }
        return json.dumps(columns, separators=(",", ":"), sort_keys=True).encode("ascii")


def compare(
    before: Manifest,
    after: Manifest,
    *,
    ignore: Optional[Patterns] = None,
    fields: Sequence[str] = ALL_FIELDS,
) -> Difference:
    """What was added, changed and removed from ``before`` to ``after``.

    ``ignore`` leaves paths out on both sides. ``fields`` says which attributes count as a change;
    owners that one side does not know (``NOBODY``) are no difference.
    """
    if before is after:
        return Difference((), (), ())
    skip = ignore or Patterns()
    wanted = frozenset(fields)
    added: List[str] = []
    changed: List[Change] = []
    for new in after.entries:
        old = before.get(new.path)
        if new == old or skip.match(new.path):
            continue
        if old is None:
            added.append(new.path)
            continue
        differing = tuple(field for field in _differing(old, new) if field in wanted)
        if differing:
            changed.append(Change(new.path, differing))
    removed = [
        old.path
        for old in before.entries
        if after.get(old.path) is None and not skip.match(old.path)
    ]
    return Difference(tuple(added), tuple(changed), tuple(removed))


def _differing(old: Entry, new: Entry) -> Iterator[str]:
    if old.kind != new.kind:
        yield "kind"
    elif old.kind == "f" and (old.digest != new.digest or old.size != new.size):
        yield "content"
    elif old.kind == "l" and old.digest != new.digest:
        yield "target"
    if old.mode != new.mode and "l" not in (old.kind, new.kind):
        yield "mode"  # The mode of a link means nothing on Linux.
    if _owner_differs(old.uid, new.uid) or _owner_differs(old.gid, new.gid):
        yield "owner"
    if old.mtime_ns != new.mtime_ns:
        yield "dir_mtime" if new.kind == "d" else "mtime"
    if old.xattrs != new.xattrs:
        yield "xattrs"


def _owner_differs(old: int, new: int) -> bool:
    return old != new and old != NOBODY and new != NOBODY


def _rows(columns: Any) -> Iterator[Entry]:
    """The entries of a decoded manifest, every value of the type it must have."""
    if not isinstance(columns, dict) or columns.get("v") != 1:
        raise ManifestInvalid("not a manifest of version 1")
    paths, kinds = columns.get("path"), columns.get("kind")
    numbers: List[Any] = [columns.get(name) for name in ("mode", "size", "mtime", "uid", "gid")]
    digests: Any = columns.get("digest")
    if not isinstance(paths, list) or not isinstance(kinds, str) or len(kinds) != len(paths):
        raise ManifestInvalid("the columns of a manifest do not fit together")
    for column in (digests, *numbers):
        if not isinstance(column, list) or len(column) != len(paths):
            raise ManifestInvalid("the columns of a manifest do not fit together")
    for column in numbers:
        # Not isinstance: a bool is an int as well.
        if not all(type(value) is int for value in column):
            raise ManifestInvalid("a number was expected in a manifest")
    for column in (paths, digests):
        if not all(type(value) is str for value in column):
            raise ManifestInvalid("a text was expected in a manifest")
    xattrs = _xattrs(columns.get("xattrs"), len(paths))
    mode, size, mtime, uid, gid = numbers
    attributes = [xattrs.get(index, ()) for index in range(len(paths))]
    columns_in_order: List[Any] = [paths, kinds, mode, size, mtime, digests, uid, gid, attributes]
    return map(Entry, *columns_in_order)


def _xattrs(column: Any, count: int) -> Dict[int, Tuple[Tuple[str, str], ...]]:
    found: Dict[int, Tuple[Tuple[str, str], ...]] = {}
    try:
        for index, pairs in column:
            if type(index) is not int or not 0 <= index < count or index in found or not pairs:
                raise ManifestInvalid("extended attributes of no entry")
            found[index] = tuple((str(name), str(value)) for name, value in pairs)
            for name, value in found[index]:
                if not name.startswith(XATTRS) or "\0" in name or len(name) > MAX_NAME:
                    raise ManifestInvalid("not an attribute a tree may carry: %r" % name)
                base64.b64decode(value, validate=True)
    except (TypeError, ValueError) as error:
        raise ManifestInvalid("not extended attributes: %s" % error) from error
    return found


def _check(entries: Tuple[Entry, ...], by_path: Dict[str, Entry]) -> None:
    """Raise unless the entries are one tree that can be made without leaving it."""
    if not entries or entries[0].path != ROOT or entries[0].kind != "d":
        raise ManifestInvalid("the top of the tree is missing, or no directory")
    if len(by_path) != len(entries):
        raise ManifestInvalid("a path occurs twice")
    directories: Set[str] = {entry.path for entry in entries if entry.kind == "d"}
    directories.discard(ROOT)
    for entry in entries:
        path = entry.path
        _check_values(entry)
        if path == ROOT:
            continue
        parent, slash, name = path.rpartition("/")
        if slash and parent not in directories:
            # Covers links, absent parents, absolute paths and empty components in one go.
            raise ManifestInvalid("not below a directory of the tree: %r" % path)
        if name in ("", ".", "..") or "\0" in name:
            raise ManifestInvalid("not a name: %r" % path)
        if len(path) > MAX_NAME or not path.isascii():
            _check_length(path, name)


def _check_length(path: str, name: str) -> None:
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ManifestInvalid("not a name: %r" % path) from None
    if raw.decode("utf-8", "surrogateescape") != path:
        # Two texts for the same bytes would be two entries for one file.
        raise ManifestInvalid("not the way these bytes are written: %r" % path)
    if len(raw) > MAX_PATH or len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
        raise ManifestInvalid("too long a name: %r" % path)


def _check_values(entry: Entry) -> None:
    kind = entry.kind
    if kind not in KINDS or len(kind) != 1:
        raise ManifestInvalid("not a kind of file: %r" % kind)
    owned = NOBODY <= entry.uid <= MAX_ID and NOBODY <= entry.gid <= MAX_ID
    if not 0 <= entry.mode <= 0o7777 or not owned:
        raise ManifestInvalid("not a mode or an owner: %r" % (entry,))
    if not 0 <= entry.size <= MAX_SIZE or (entry.size and kind != "f"):
        raise ManifestInvalid("not a size: %r" % (entry,))
    if not -MAX_TIME <= entry.mtime_ns <= MAX_TIME:
        raise ManifestInvalid("not a time: %r" % (entry,))
    if kind == "f":
        if not is_digest(entry.digest):
            raise ManifestInvalid("not a digest: %r" % (entry,))
    elif kind == "l":
        _check_target(entry.digest)
    elif entry.digest:
        raise ManifestInvalid("only files and links have content: %r" % (entry,))


def _check_target(target: str) -> None:
    try:
        raw = target.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ManifestInvalid("not the target of a link: %r" % target) from None
    if not 0 < len(raw) <= MAX_PATH or b"\0" in raw:
        raise ManifestInvalid("not the target of a link: %r" % target)


_DIGEST = re.compile("[0-9a-f]{64}").fullmatch


def is_digest(text: str) -> bool:
    """Whether ``text`` is a sha256 in lower-case hex: safe as a name, one text a digest."""
    return _DIGEST(text) is not None
