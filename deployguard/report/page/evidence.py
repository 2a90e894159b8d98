"""What lies in a forensics folder, for a page that shows it: files with their sums, what differed
in the failed tree, and the kinds of log lines that were new.

The folder may be gone, or on another machine; then there is nothing to show.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployguard.evidence.seal import SUMS

__all__ = ["Changes", "Evidence", "File", "Shape", "gather"]

#: What the page has room for.
MOST_FILES = 500
MOST_CHANGES = 50
#: JSON of ours is never longer.
_MOST_BYTES = 8 << 20


@dataclass(frozen=True)
class File:
    """A file of the folder, by its name in it."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Changes:
    """How a failed tree differed from the old one."""

    where: str
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class Shape:
    """A kind of line that a log did not have before."""

    where: str
    text: str
    count: int
    first: str


@dataclass(frozen=True)
class Evidence:
    """All of it; ``there`` is false where the folder is not on this machine."""

    path: str
    there: bool
    files: tuple[File, ...] = ()
    left_out: int = 0
    changes: tuple[Changes, ...] = ()
    shapes: tuple[Shape, ...] = field(default=())


def gather(path: str | None) -> Evidence | None:
    """What is in a folder; ``None`` where none was made."""
    if not path:
        return None
    folder = Path(path)
    if not folder.is_dir():
        return Evidence(path, there=False)
    sums = _sums(folder)
    names = sorted(_names(folder))
    files = [
        File(name, (folder / name).stat().st_size, sums.get(name, ""))
        for name in names[:MOST_FILES]
    ]
    return Evidence(
        path,
        there=True,
        files=tuple(files),
        left_out=len(names) - len(files),
        changes=tuple(_changes(folder, names)),
        shapes=tuple(_shapes(folder, names)),
    )


def _names(folder: Path) -> Iterator[str]:
    """Every file, without following a link; we make none."""
    for top, _, files in os.walk(folder):
        for name in files:
            path = Path(top) / name
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(folder).as_posix()


def _sums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / SUMS).read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}


def _changes(folder: Path, names: list[str]) -> Iterator[Changes]:
    for name in names:
        if not name.endswith("/CHANGES.json"):
            continue
        data = _read(folder / name)
        parts = {
            kind: tuple(str(path) for path in data.get(kind, ())) if isinstance(data, dict) else ()
            for kind in ("added", "changed", "removed")
        }
        yield Changes(name.removesuffix("/CHANGES.json"), **parts)


def _shapes(folder: Path, names: list[str]) -> Iterator[Shape]:
    for name in names:
        if Path(name).name != "checks.json":
            continue
        data = _read(folder / name)
        for check in data.get("checks", ()) if isinstance(data, dict) else ():
            observed = check.get("observed") or {}
            for one in observed.get("new", ()):
                where = f"{Path(name).parent.as_posix()}: {check['id']}".removeprefix(".: ")
                yield Shape(where, str(one["shape"]), int(one["count"]), str(one["first"]))
