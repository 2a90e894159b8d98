"""Tars for tests, made member by member: the good ones and the ones no ``tar`` would write."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import zstandard

Member = tuple[tarfile.TarInfo, bytes]

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.compress,
}


def member(name: str, content: bytes = b"", **attributes: object) -> Member:
    """A regular file, or whatever ``type`` says."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mtime = 1_600_000_000
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def directory(name: str, mode: int = 0o755) -> Member:
    """A directory."""
    return member(name, type=tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> Member:
    """A symbolic link."""
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> Member:
    """A hard link."""
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar(members: Iterable[Member], form: int = tarfile.PAX_FORMAT) -> bytes:
    """The archive, uncompressed."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write(folder: Path, members: Iterable[Member], form: str = "tar.gz") -> Path:
    """The archive as a file; its name says nothing about its form."""
    path = folder / "release"
    path.write_bytes(COMPRESS[form](tar(members)))
    return path
