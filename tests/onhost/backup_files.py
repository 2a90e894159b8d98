"""Backups of every kind, whole and spoilt."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sqlite3
import tarfile
import zipfile
from pathlib import Path
from typing import Callable, Dict, NamedTuple

SQL = b"CREATE TABLE t (n int);\n" * 500 + b"--\n-- PostgreSQL database dump complete\n--\n\n"


class Kind(NamedTuple):
    """How a backup is made, and how one that does not open."""

    good: Callable[[Path], object]
    broken: Callable[[Path], object]


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _bytes(make: Callable[[], bytes]) -> Kind:
    return Kind(lambda path: path.write_bytes(make()), lambda path: path.write_bytes(_cut(make())))


def _tar(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        member = tarfile.TarInfo("dump.sql")
        member.size = len(SQL)
        archive.addfile(member, io.BytesIO(SQL))
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dump.sql", SQL)
    return buffer.getvalue()


def _sqlite(path: Path) -> None:
    if path.exists():
        path.unlink()
    database = sqlite3.connect(str(path))
    database.execute("CREATE TABLE t (n text)")
    database.executemany("INSERT INTO t VALUES (?)", [("x" * 100,)] * 500)
    database.commit()
    database.close()


def _torn_sqlite(path: Path) -> None:
    _sqlite(path)
    data = bytearray(path.read_bytes())
    data[8192:12288] = b"\0" * 4096
    path.write_bytes(data)


#: By the ending of the file.
KINDS: Dict[str, Kind] = {
    "sql": _bytes(lambda: SQL),
    "sql.gz": _bytes(lambda: gzip.compress(SQL)),
    "sql.xz": _bytes(lambda: lzma.compress(SQL)),
    "sql.bz2": _bytes(lambda: bz2.compress(SQL)),
    "tar": _bytes(lambda: _tar("w")),
    "tar.gz": _bytes(lambda: _tar("w:gz")),
    "tgz": _bytes(lambda: _tar("w:gz")),
    "tar.xz": _bytes(lambda: _tar("w:xz")),
    "zip": _bytes(_zip),
    "sqlite3": Kind(_sqlite, _torn_sqlite),
    "bin": Kind(lambda path: path.write_bytes(b"x"), lambda path: path.write_bytes(b"")),
}
