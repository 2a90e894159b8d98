"""The seal of a forensics folder: the sha256 of every file, in the format of ``sha256sum``.

``sha256sum -c SHA256SUMS`` in the folder checks it without deployguard. The digest of the list
itself goes into the incident, so that a change to the list shows as well.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["SUMS", "seal", "verify"]

SUMS = "SHA256SUMS"


def seal(folder: Path) -> str:
    """Write ``SHA256SUMS`` into the folder and return the list's own sha256."""
    lines = [_line(_digest(folder / name), name) for name in _files(folder)]
    content = "".join(lines).encode("utf-8", "surrogateescape")
    descriptor = os.open(
        folder / SUMS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    return hashlib.sha256(content).hexdigest()


def verify(folder: Path, expected: str | None = None) -> list[str]:
    """What is not as it was sealed, in words; empty when all is. ``expected`` is what
    :func:`seal` returned."""
    try:
        content = (folder / SUMS).read_bytes()
    except OSError as error:
        return [f"{SUMS}: {error.strerror}"]
    problems = []
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        problems.append(f"{SUMS}: is not the list that was sealed")
    listed = {}
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        if line:
            name, digest = _parse(line)
            listed[name] = digest
    present = set(_files(folder))
    for name in sorted(listed):
        if name not in present:
            problems.append(f"{name}: is missing")
        elif _digest(folder / name) != listed[name]:
            problems.append(f"{name}: was changed")
    problems += [f"{name}: was added" for name in sorted(present - set(listed))]
    return problems


def _line(digest: str, name: str) -> str:
    """As GNU sha256sum writes it: a name with a line break is escaped, and marked."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != name else ""
    return f"{mark}{digest}  {escaped}\n"


def _parse(line: str) -> tuple[str, str]:
    marked = line.startswith("\\")
    digest, _, name = line.removeprefix("\\").partition("  ")
    if marked:
        pairs = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
        pieces, rest = [], name
        while rest:
            step = 2 if rest[:2] in pairs else 1
            pieces.append(pairs.get(rest[:2], rest[0]))
            rest = rest[step:]
        name = "".join(pieces)
    return name, digest


def _files(folder: Path) -> Iterator[str]:
    """Every file below the folder but the seal, as a relative name, in order. A link counts as a
    file: it is not followed, and as we write none it shows as added."""
    found = []
    for top, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]
        found += [os.path.relpath(os.path.join(top, name), folder) for name in files + links]
    return iter(sorted(name for name in found if name != SUMS))


def _digest(path: Path) -> str:
    if path.is_symlink():
        return hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1024 * 1024):
            digest.update(piece)
    return digest.hexdigest()
