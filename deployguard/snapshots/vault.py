"""The snapshots of one plan and environment in a store: objects by content, records by id.

Below ``PLAN/ENVIRONMENT/plain`` or ``…/sealed``, so that what is not encrypted is never taken for
what is:

* ``blobs/ab/NAME``: a content. The name is its sha256, or where it is sealed an HMAC of that.
* ``snapshots/ID``: a record. It is written when all that it names is there: without one nothing is
  a snapshot.
* ``garbage``: what nothing needed when retention looked, and since when.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from deployguard.onhost.trees import blobs
from deployguard.onhost.trees.manifest import Manifest, ManifestInvalid
from deployguard.snapshots.base import Damaged, SnapshotMissing, Store
from deployguard.snapshots.record import MAX_BYTES, Component, Snapshot, is_id, read
from deployguard.snapshots.sealing import Keyring

__all__ = ["Vault"]

#: An object of this size is written to a file on its way.
_IN_MEMORY = 4 * 1024 * 1024
_GARBAGE = "garbage"


class Vault:
    """One plan's and environment's part of a store. Used by several threads."""

    def __init__(self, store: Store, keys: Keyring, plan: str, environment: str) -> None:
        self.address = store.address
        self.key = keys.id()
        self._store = store
        self._keys = keys
        self._top = f"{plan}/{quote(environment, safe='')}"
        self._folder = f"{self._top}/{'sealed' if self.key else 'plain'}"

    # -- contents ----------------------------------------------------------------------------

    def object_of(self, digest: str, key: str | None = None) -> str:
        """The name of a content, below this vault's folder; of snapshots of an older key as well.

        Raises :class:`WrongKey`.
        """
        name = self._keys.name_of(digest, self.key if key is None else key)
        return f"blobs/{name[:2]}/{name}"

    def there(self) -> set[str]:
        """The names of all contents that may be relied on: what is on its way out is none."""
        found = set(self._names("blobs/"))
        return found.difference(self.garbage())

    def keep(self, digest: str, size: int, pieces: Iterable[bytes]) -> int:
        """Write a content, verified on both ends; how many bytes it takes in the store.

        Raises :class:`~deployguard.onhost.trees.blobs.BlobsInvalid` when it is not what its digest
        says.
        """
        return self._put(self.object_of(digest), blobs.verified(digest, size, pieces))

    def content(self, digest: str, size: int, key: str) -> Iterator[bytes]:
        """A content, verified; whoever reads it to its end has it. Raises :class:`Damaged`."""
        name = self.object_of(digest, key)
        try:
            yield from blobs.verified(digest, size, self._get(name))
        except blobs.BlobsInvalid:
            raise Damaged(f"{name} in {self.address} is not its content") from None

    def manifest(self, snapshot: Snapshot, component: Component) -> Manifest:
        """The tree of a component. Raises :class:`Damaged`, :class:`SnapshotMissing`."""
        pieces = self.content(component.tree, component.tree_size, snapshot.key)
        try:
            return Manifest.from_bytes(_whole(pieces, component.tree_size))
        except ManifestInvalid as error:
            raise Damaged(f"a tree of the snapshot {snapshot.id} is damaged: {error}") from None

    # -- records -----------------------------------------------------------------------------

    def ids(self) -> list[str]:
        """The ids of all snapshots, oldest first."""
        found = [name.rpartition("/")[2] for name in self._names("snapshots/")]
        return sorted(identifier for identifier in found if is_id(identifier))

    def snapshot(self, identifier: str = "") -> Snapshot:
        """The snapshot whose id this is, or the one that begins so; the newest without one.

        Raises :class:`SnapshotMissing` for none and for more than one.
        """
        ids = self.ids()
        found = [each for each in ids if each.startswith(identifier)]
        if identifier in ids:
            found = [identifier]
        if not found:
            raise self._none(identifier, ids)
        if identifier and len(found) > 1:
            hint = "name more of it; it begins " + ", ".join(found)
            raise SnapshotMissing(f"more than one snapshot begins with {identifier}", hint=hint)
        name = f"snapshots/{found[-1]}"
        return read(_whole(self._get(name), MAX_BYTES), found[-1], self._key_of(name))

    def _none(self, identifier: str, ids: list[str]) -> SnapshotMissing:
        other = self._top + ("/plain/" if self.key else "/sealed/")
        mend = "`deployguard snapshots list PLAN` shows those there are"
        if not ids:
            mend = "a deploy takes one, and so does `deployguard snapshots take PLAN`"
            if next(iter(self._store.names(f"{other}snapshots/")), None) is not None:
                which = "not encrypted: take the key out of" if self.key else "encrypted: name the"
                mend = f"there are some that are {which}{'' if self.key else ' key in'} the plan"
        named = f"no snapshot {identifier}" if identifier else "no snapshot"
        return SnapshotMissing(f"there is {named} in {self.address}/{self._top}", hint=mend)

    def write(self, snapshot: Snapshot) -> None:
        """Make it a snapshot; the last step, since all that it names must be there. Read back."""
        name = f"snapshots/{snapshot.id}"
        data = snapshot.encode()
        self._put(name, [data])
        if _whole(self._get(name), MAX_BYTES) != data:
            raise Damaged(f"{name} in {self.address} is not what was written there")

    def forget(self, identifier: str) -> None:
        """No longer a snapshot; what it named is left for retention."""
        self._store.delete(f"{self._folder}/snapshots/{identifier}")

    def needs(self, snapshot: Snapshot) -> dict[str, tuple[str, int]]:
        """All that a snapshot names: digest and size by the name of the object."""
        found: dict[str, tuple[str, int]] = {}
        trees: dict[str, Manifest] = {}
        for _, _, component in snapshot.components():
            if component.tree not in trees:
                trees[component.tree] = self.manifest(snapshot, component)
            wanted = {component.tree: component.tree_size, **trees[component.tree].blobs()}
            wanted |= {file.digest: file.size for file in component.files if file.exists}
            for digest, size in wanted.items():
                found[self.object_of(digest, snapshot.key)] = (digest, size)
        return found

    # -- retention ---------------------------------------------------------------------------

    def garbage(self) -> dict[str, float]:
        """What nothing needed when retention looked, by name, and since when."""
        try:
            found = json.loads(_whole(self._get(_GARBAGE), MAX_BYTES))
        except SnapshotMissing:
            return {}
        return {str(name): float(since) for name, since in found.items()}

    def set_garbage(self, garbage: dict[str, float]) -> None:
        """Write that down."""
        self._put(_GARBAGE, [_json(garbage)])

    def remove(self, name: str) -> None:
        """Remove a content."""
        self._store.delete(f"{self._folder}/{name}")

    def all(self) -> set[str]:
        """Every content that is there, by name."""
        return set(self._names("blobs/"))

    # -- objects -----------------------------------------------------------------------------

    def _names(self, prefix: str) -> Iterator[str]:
        skip = len(self._folder) + 1
        return (name[skip:] for name in self._store.names(f"{self._folder}/{prefix}"))

    def _put(self, name: str, pieces: Iterable[bytes]) -> int:
        full = f"{self._folder}/{name}"
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            file = cast(BinaryIO, spool)
            self._keys.seal(full, pieces, file)
            size = file.tell()
            file.seek(0)
            hashed = hashlib.sha256()
            while piece := file.read(1024 * 1024):
                hashed.update(piece)
            self._store.put(full, file, size, hashed.digest())
        return size

    def _get(self, name: str) -> Iterator[bytes]:
        full = f"{self._folder}/{name}"
        return self._keys.open(full, self._store.get(full))

    def _key_of(self, name: str) -> str:
        return self._keys.key_of(self._store.get(f"{self._folder}/{name}"))


def _whole(pieces: Iterator[bytes], limit: int) -> bytes:
    parts, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise Damaged("an object of the store is larger than it can be")
        parts.append(piece)
    return b"".join(parts)


def _json(data: Any) -> bytes:
    return json.dumps(data).encode("ascii")
