"""A disk that remembers: one file on a FUSE mount that logs every write and every flush.

It is mounted by a loop device, so that a file system on it knows it as any disk with a write cache:
what was written is safe once a later flush has been answered, and not before. The log is a file,
and its length at a moment is the moment's place in it.

Run as ``python -m tests.crash.disk BASE LOG MOUNTPOINT``, it serves ``MOUNTPOINT/disk``, which
starts as a copy of ``BASE``, until it is unmounted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

#: Loop devices promise, as disks do, that a sector is written whole or not at all.
SECTOR = 512
#: What ext4 writes at a time.
BLOCK = 4096

_HEAD = struct.Struct("<cQI")
_WRITE, _FLUSH = b"w", b"f"


class Event(NamedTuple):
    """A write, or a flush where ``data`` is empty; ``end`` is its place in the log."""

    end: int
    offset: int
    data: bytes

    @property
    def is_flush(self) -> bool:
        return not self.data


def read_log(path: Path) -> list[Event]:
    """Every write and flush, oldest first."""
    log = path.read_bytes()
    events, at = [], 0
    while at < len(log):
        _, offset, size = _HEAD.unpack_from(log, at)
        at += _HEAD.size + size
        events.append(Event(at, offset, log[at - size : at]))
    return events


class Disk:
    """The recorded disk; ``file`` is what a loop device is attached to."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.log = folder / "log"
        self.file = folder / "fuse" / "disk"
        self.file.parent.mkdir()
        command = [sys.executable, "-m", "tests.crash.disk", base, self.log, self.file.parent]
        # fuse3 is there under this name in every distribution.
        environment = dict(os.environ, FUSE_LIBRARY_NAME="fuse3")
        self._process = subprocess.Popen([str(word) for word in command], env=environment)
        while not self.file.exists():
            assert self._process.poll() is None, "the FUSE disk did not start"
            time.sleep(0.01)

    def now(self) -> int:
        """The place in the log."""
        return self.log.stat().st_size

    def close(self) -> None:
        """Unmount it; the log stays."""
        unmount(self.file.parent)
        self._process.wait(30)


@contextlib.contextmanager
def attached(file: Path) -> Iterator[Path]:
    """A loop device for the file."""
    command = ["losetup", "--find", "--show", str(file)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    with until_closed(device):
        yield Path(device)


@contextlib.contextmanager
def until_closed(device: str) -> Iterator[None]:
    """A loop device that goes with whoever has it open or mounted, however that ends."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # It is in use: the kernel detaches it at the last close.
        subprocess.run(["losetup", "--detach", device], check=True)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def mounted(device: Path, at: Path, kind: str, options: str) -> Iterator[None]:
    """The file system of a device, or of a file by way of a loop device."""
    command = ["mount", "-t", kind, "-o", options, str(device), str(at)]
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        unmount(at)


def unmount(at: Path) -> None:
    """Unmount; a process that is about to end may still hold a file there."""
    for _ in range(100):
        done = subprocess.run(["umount", str(at)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.02)
    raise OSError(errno.EBUSY, done.stderr.strip(), str(at))


def _serve(base: str, log: str, mountpoint: str) -> None:
    import mfusepy

    class Recorder(mfusepy.Operations):
        """The root directory and its one file."""

        use_ns = True

        def __init__(self) -> None:
            self.content = bytearray(Path(base).read_bytes())
            self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
            if path == "/disk":
                size = len(self.content)
                return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}
            raise mfusepy.FuseOSError(errno.ENOENT)

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", "disk"]

        def open(self, path: str, flags: int) -> int:
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return bytes(self.content[offset : offset + size])

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            self.content[offset : offset + len(data)] = data
            os.write(self.log, _HEAD.pack(_WRITE, offset, len(data)) + data)
            return len(data)

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            os.write(self.log, _HEAD.pack(_FLUSH, 0, 0))
            return 0

    # One thread: the order in the log is the order in which the requests were answered.
    mfusepy.FUSE(Recorder(), mountpoint, foreground=True, nothreads=True, fsname="deployguard-disk")


if __name__ == "__main__":
    _serve(*sys.argv[1:])
