"""Installs the host program in its state directory. Sent along with it, run by ``bootstrap.py``.

It runs alone as well, under Python 3.8 or later, and only when a host sees a version of the
program for the first time.
"""

# Python 3.8 runs this.
# ruff: noqa: UP006, UP031, UP035

import contextlib
import fcntl
import hashlib
import json
import os
import py_compile
import shutil
import tempfile
import time
import zlib
from typing import Dict

#: How many versions stay although nobody runs them: an older deployguard may come back.
KEEP = 3


def sync(path: str) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def install(programs: str, sha256: str, archive: bytes, length: int) -> None:
    """Unpack beside and rename: two of us at once do no harm, and a torn one is never found.

    Everything is compiled and synced first. The dead-man starts the program after a power cut,
    with nobody there to send it again, and Python does not forgive a torn ``.pyc``.
    """
    final = os.path.join(programs, sha256)
    unpacker = zlib.decompressobj()
    document = unpacker.decompress(archive, length + 1)
    if hashlib.sha256(document).hexdigest() != sha256:
        raise OSError("the program was damaged on its way")
    temporary = tempfile.mkdtemp("", ".new-", programs)
    try:
        unpack(json.loads(document.decode("ascii")), temporary, final)
        os.rename(temporary, final)
    except OSError:
        shutil.rmtree(temporary, True)
        if not os.path.isdir(final):  # Else somebody was faster, which is as good.
            raise
    sync(programs)
    with contextlib.suppress(OSError):  # An old version too many is no reason not to deploy.
        prune(programs, sha256)


def unpack(files: Dict[str, str], root: str, final: str) -> None:
    directories = [root]
    for name, text in sorted(files.items()):
        path = os.path.join(root, *name.split("/"))
        directory = os.path.dirname(path)
        if directory not in directories:
            cache = os.path.join(directory, "__pycache__")
            os.makedirs(cache, 0o700)
            directories += [directory, cache]
        with open(path, "wb") as target:
            target.write(text.encode("utf-8"))
        sync(path)
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        shown = os.path.join(final, *name.split("/"))
        made = py_compile.compile(path, dfile=shown, doraise=True, invalidation_mode=mode)
        sync(str(made))
    for directory in reversed(directories):
        sync(directory)


def prune(programs: str, sha256: str) -> None:
    """Remove the versions that are neither in use nor among the last used."""
    versions, torn = [], []
    for name in os.listdir(programs):
        used = os.stat(os.path.join(programs, name)).st_mtime
        if not name.startswith("."):
            versions.append((used, name))
        elif used < time.time() - 3600:
            torn.append((used, name))
    for _, name in sorted(versions)[:-KEEP] + torn:
        if name != sha256:
            remove_unused(os.path.join(programs, name))


def remove_unused(path: str) -> None:
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        away = "%s/.old-%d-%s" % (os.path.dirname(path), os.getpid(), os.path.basename(path))
        os.rename(path, away)
        shutil.rmtree(away, True)
    except BlockingIOError:
        pass  # A process runs it, and may import more of it.
    finally:
        os.close(held)
