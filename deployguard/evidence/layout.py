"""The forensics folder: where everything of one failed deploy lies, redacted and sealed.

::

    DIRECTORY/v1.2.4-1702291800/
        backend/                 the failed tree: listing, changes, changed files
        backend-service.log      what the service logged during the deploy
        host-facts.json
        checks.json
        metadata.json
        SHA256SUMS

That is one host. With several, each has a folder of its own, named after it, and only
``metadata.json`` and ``SHA256SUMS`` are on top. Files are 0600, folders 0700.

What a host sends is not trusted: its names become ours one by one, no link is ever made, and it
may send so many files and bytes and no more.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from deployguard.evidence.redact import Redactor
from deployguard.evidence.seal import SUMS, seal

__all__ = ["METADATA", "Folder"]

METADATA = "metadata.json"
MAX_FILES = 20_000
MAX_BYTES = 256 * 1024 * 1024
_MAX_NAME = 200
_MAX_DEPTH = 40
_PIECE = 64 * 1024
_UNSAFE = re.compile(r"[^A-Za-z0-9._+@=,~ -]|^-|^ |[. ]$")
_RESERVED = frozenset({METADATA, SUMS})


class Folder:
    """One forensics folder while it is filled. Hosts may be added from several threads."""

    def __init__(self, path: Path, hosts: Sequence[str], redactor: Redactor) -> None:
        self.path = path
        self._redactor = redactor
        self._lock = threading.Lock()
        self._hosts = dict.fromkeys(hosts, path)
        if len(hosts) > 1:
            names = _Names()
            self._hosts = {host: path / names.give(host, "") for host in hosts}
            for folder in self._hosts.values():
                folder.mkdir(mode=0o700)

    @classmethod
    def create(
        cls, directory: Path, version: str, epoch: int, hosts: Sequence[str], redactor: Redactor
    ) -> Folder:
        """Make ``directory/version-epoch``; with a number behind it if that exists already."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = safe_name(f"{version}-{epoch}")
        for number in range(1, 1000):
            path = directory / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                continue
            return cls(path, hosts, redactor)
        raise FileExistsError(f"{directory / name}: there are a thousand of these already")

    def host(self, host: str) -> Path:
        """Where the files of a host go."""
        return self._hosts[host]

    def add_bundle(self, host: str, pieces: Iterable[bytes]) -> list[str]:
        """Unpack what the host packed, redacted. Returns the problems, in words.

        A bundle that ends too early leaves what came before the end.
        """
        return _Unpacking(self._hosts[host], self._redactor).run(pieces)

    def add_text(self, host: str, name: str, text: str) -> None:
        """Write one text of ours into the folder of a host."""
        data = self._redactor.text(text).encode("utf-8", "backslashreplace")
        _write(self._hosts[host] / safe_name(name), data)

    def add_json(self, host: str, name: str, value: Any) -> None:
        """Write JSON data of ours into the folder of a host."""
        _write(self._hosts[host] / safe_name(name), self._json(value))

    def finish(self, metadata: dict[str, Any]) -> str:
        """Write ``metadata.json``, with the redaction report and the list of files added, and seal
        the folder. Returns the seal. May be repeated when there is more to tell."""
        files = [
            {"file": os.path.relpath(path, self.path), "bytes": path.stat().st_size}
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and path.relative_to(self.path).as_posix() not in _RESERVED
        ]
        folders = {host: os.path.relpath(path, self.path) for host, path in self._hosts.items()}
        with self._lock:
            content = dict(self._redactor.data(metadata))
            content.update(files=files, folders=folders, redaction=self._redactor.report())
            _write(self.path / METADATA, self._json(content, redact=False))
            return seal(self.path)

    def _json(self, value: Any, *, redact: bool = True) -> bytes:
        value = self._redactor.data(value) if redact else value
        text = json.dumps(value, indent=2, sort_keys=True, default=str)
        return text.encode("ascii") + b"\n"


def safe_name(name: str) -> str:
    """One component of a path, harmless in a shell, a listing and a file system."""
    cleaned = _UNSAFE.sub("_", name)
    return cleaned[:_MAX_NAME] or "_"


class _Names:
    """Gives every hostile name one of ours, the same each time, different ones different."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], str] = {}
        self._taken: set[tuple[str, str]] = set()

    def give(self, name: str, folder: str) -> str:
        if (folder, name) not in self._given:
            base = safe_name(name)
            chosen, number = base, 1
            # Without regard to case: the folder may be unpacked where that makes no difference.
            while (folder, chosen.lower()) in self._taken or (not folder and chosen in _RESERVED):
                number += 1
                chosen = f"{base}~{number}"
            self._taken.add((folder, chosen.lower()))
            self._given[folder, name] = chosen
        return self._given[folder, name]


class _Unpacking:
    """One bundle of one host on its way to the disk."""

    def __init__(self, root: Path, redactor: Redactor) -> None:
        self._root = root
        self._redactor = redactor
        self._names = _Names()
        self._problems: list[str] = []

    def run(self, pieces: Iterable[bytes]) -> list[str]:
        source: Any = _Gunzip(iter(pieces), MAX_BYTES)
        try:
            with tarfile.open(fileobj=source, mode="r|") as archive:
                for count, member in enumerate(archive, start=1):
                    self._take(archive, member)
                    if count >= MAX_FILES:
                        raise ValueError(f"more than {MAX_FILES} files")
        except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
            self._problems.append(f"the bundle broke off: {error}")
        return self._problems

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        # Sparse files are small in the bundle and of any size on the disk.
        path = self._path(member.name) if member.isfile() and not member.issparse() else None
        content = archive.extractfile(member) if path is not None else None
        if path is None or content is None:
            self._problems.append(f"left out, not a plain file: {member.name[:200]!r}")
            return
        try:
            self._folders(path.parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except (FileExistsError, NotADirectoryError) as error:
            self._problems.append(f"left out: {member.name[:200]!r}: {error.strerror}")
            return
        with os.fdopen(descriptor, "wb") as target:
            self._copy(content, target)

    def _path(self, name: str) -> Path | None:
        parts = name.split("/")
        if len(parts) > _MAX_DEPTH or any(part in ("", ".", "..") for part in parts):
            return None
        path, above = self._root, ""
        for part in parts:
            # A secret may be part of a name as well.
            path /= self._names.give(self._redactor.text(part), above)
            above += "/" + part
        return path

    def _folders(self, folder: Path) -> None:
        """Make the folders down to this one, each 0700."""
        if folder != self._root and not folder.is_dir():
            self._folders(folder.parent)
            folder.mkdir(mode=0o700)

    def _copy(self, content: IO[bytes], target: IO[bytes]) -> None:
        stream = self._redactor.stream()
        try:
            while piece := content.read(_PIECE):
                target.write(stream.feed(piece))
        finally:
            target.write(stream.finish())


class _Gunzip:
    """Compressed pieces as a file to read from, up to a limit: a small bomb makes a large tar."""

    def __init__(self, pieces: Iterator[bytes], limit: int) -> None:
        self._pieces = pieces
        self._left = limit
        self._unpacker = zlib.decompressobj(wbits=31)
        self._ready = b""

    def read(self, count: int) -> bytes:
        out = []
        while count > 0:
            if not self._ready and not self._more():
                break
            out.append(self._ready[:count])
            self._ready = self._ready[count:]
            count -= len(out[-1])
        return b"".join(out)

    def _more(self) -> bool:
        while not self._ready:
            piece = self._unpacker.unconsumed_tail or next(self._pieces, None)
            if piece is None:
                return False
            self._ready = self._unpacker.decompress(piece, 1024 * 1024)
            self._left -= len(self._ready)
            if self._left < 0:
                raise ValueError("larger than allowed")
        return True


def _write(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
        stream.write(data)
