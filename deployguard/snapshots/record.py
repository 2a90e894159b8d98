"""What one snapshot says: which hosts ran what. Contents and manifests are named by their hash.

A record comes out of a store that somebody else may write to, so :func:`read` believes nothing:
every value has its type, and names what a plan could have made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deployguard.onhost.trees.manifest import MAX_ID, MAX_TIME, NOBODY, is_digest
from deployguard.snapshots.base import Damaged

__all__ = ["MAX_BYTES", "Component", "File", "Snapshot", "read"]

FORMAT = 1
#: Of a record; the trees are elsewhere.
MAX_BYTES = 256 * 1024 * 1024
#: Of a managed file, which is held in memory as a deploy holds it.
MAX_FILE = 64 * 1024 * 1024

_ID = re.compile(r"[0-9]{8}T[A-Za-z0-9._-]{1,72}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


@dataclass(frozen=True)
class File:
    """A file outside the tree; where it was not there, ``exists`` is false and the rest empty."""

    path: str
    exists: bool
    digest: str = ""
    size: int = 0
    mode: int = 0
    uid: int = NOBODY
    gid: int = NOBODY
    mtime_ns: int = 0


@dataclass(frozen=True)
class Component:
    """One component of one host: its tree, its files, and what is known of its service."""

    version: str
    path: str
    layout: str
    #: Hash and size of the encoded manifest, which is an object like the contents.
    tree: str
    tree_size: int
    count: int
    bytes: int
    files: tuple[File, ...] = ()
    #: Names of the owners, by number: another host may have other numbers.
    users: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)
    #: Sockets, pipes and devices of the tree: those who serve there make them anew.
    left_out: tuple[str, ...] = ()
    #: State of the unit: ``UnitFileState``, ``ActiveState``.
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """One snapshot, whole. ``key`` is the id of the key that it is sealed with, or empty."""

    id: str
    plan: str
    environment: str
    taken_at: float
    by: str
    hosts: Mapping[str, Mapping[str, Component]]
    key: str = ""

    def components(self) -> Iterator[tuple[str, str, Component]]:
        """Every host, component name and component."""
        for host, components in self.hosts.items():
            for name, component in components.items():
                yield host, name, component

    def versions(self) -> list[str]:
        """Every version in it, once."""
        return list(dict.fromkeys(component.version for _, _, component in self.components()))

    def encode(self) -> bytes:
        """As it lies in the store."""
        data = {"format": FORMAT, **asdict(self)}
        del data["key"]
        return json.dumps(data, sort_keys=True).encode("ascii")


def read(data: bytes, identifier: str, key: str) -> Snapshot:
    """The record with this id, which is named by its object. Raises :class:`Damaged`."""
    try:
        found = json.loads(data)
        if found["format"] != FORMAT:
            raise Damaged(
                f"the snapshot {identifier} is of format {found['format']!r}",
                hint="a newer deployguard wrote it; use that one",
            )
        _demand(found["id"] == identifier and is_id(identifier), "its id")
        hosts = {
            _text(host): {_text(name): _component(one) for name, one in components.items()}
            for host, components in found["hosts"].items()
        }
        _demand(bool(hosts) and all(hosts.values()), "its hosts")
        return Snapshot(
            identifier,
            _text(found["plan"]),
            _text(found["environment"]),
            float(found["taken_at"]),
            _text(found["by"]),
            hosts,
            key,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__} {error}"
        raise Damaged(
            f"the snapshot {identifier} is damaged: {why}", hint="restore another one"
        ) from None


def is_id(text: str) -> bool:
    """Whether a text could be the id of a snapshot, and so is safe as a name."""
    return _ID.fullmatch(text) is not None


def _component(data: dict[str, Any]) -> Component:
    _demand(_VERSION.fullmatch(data["version"]) is not None, "a version")
    _demand(data["layout"] in ("releases", "in_place", "git"), "a layout")
    _demand(is_digest(data["tree"]), "a digest")
    return Component(
        version=data["version"],
        path=_path(data["path"]),
        layout=data["layout"],
        tree=data["tree"],
        tree_size=_number(data["tree_size"], MAX_BYTES),
        count=_number(data["count"]),
        bytes=_number(data["bytes"]),
        files=tuple(_file(file) for file in data["files"]),
        users=_names(data["users"]),
        groups=_names(data["groups"]),
        left_out=tuple(_text(path) for path in data["left_out"]),
        facts={_text(name): _text(value) for name, value in data["facts"].items()},
    )


def _file(data: dict[str, Any]) -> File:
    if not data["exists"]:
        return File(_path(data["path"]), False)
    _demand(is_digest(data["digest"]), "a digest")
    return File(
        _path(data["path"]),
        True,
        data["digest"],
        _number(data["size"], MAX_FILE),
        _number(data["mode"], 0o7777),
        _number(data["uid"], MAX_ID),
        _number(data["gid"], MAX_ID),
        _number(data["mtime_ns"], MAX_TIME, -MAX_TIME),
    )


def _names(data: dict[str, Any]) -> dict[int, str]:
    return {_number(int(number), MAX_ID): _text(name) for number, name in data.items()}


def _path(value: Any) -> str:
    parts = _text(value).split("/")
    plain = parts[0] in ("", "~") and len(parts) > 1 and not {"", ".", ".."} & set(parts[1:])
    _demand(plain, "an absolute path")
    return str(value)


def _text(value: Any) -> str:
    _demand(type(value) is str and "\0" not in value, "a text")
    return str(value)


def _number(value: Any, most: int = 2**62, least: int = 0) -> int:
    _demand(type(value) is int and least <= value <= most, "a number")
    return int(value)


def _demand(true: bool, what: str) -> None:
    if not true:
        raise ValueError(f"{what} was expected")
