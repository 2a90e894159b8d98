"""What is sent to a host: the bootstrap, and the host program as an archive.

The program is named by the hash of its files, so a host keeps it between connections and between
versions of deployguard, and no version number has to be right. The archive is a compressed JSON
object of path to text. It is not a zip, because ``zipimport`` does not cache bytecode and a zip
has dates; and it holds no bytecode, which would tie it to one Python.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["MARKER", "Program", "command", "host_program", "pack", "shell_line"]

#: Begins each line of the bootstrap; whatever a login shell prints before is skipped.
MARKER = "deployguard-bootstrap: "

_HERE = Path(__file__).parent
# Python reads its real start from stdin: a command line of a few KiB would stand in every `ps`
# and in sudo's log, and csh takes no newline in quotes. The buffered read cannot swallow more
# than the start, because nothing is sent after it until the host has answered.
_START = 'import _signal;_signal.alarm(60);exec(open(0,"rb",closefd=False).read(%d))'


@dataclass(frozen=True)
class Program:
    """A host program ready to be sent."""

    sha256: str
    archive: bytes
    length: int

    def bootstrap(self, state_directory: str | None) -> bytes:
        """The source that starts the program on a host, to be written to the command's stdin."""
        call = f"start({MARKER!a}, {self.sha256!a}, {state_directory or ''!a})\n"
        return _source("bootstrap.py") + b"\n\n" + call.encode("ascii")

    def parcel(self) -> bytes:
        """The answer to ``need``: three sizes, the installer's source, the archive."""
        code = _source("installation.py")
        sizes = b"%11d %11d %11d\n" % (len(code), len(self.archive), self.length)
        return sizes + code + self.archive


def command(python: str, bootstrap: bytes, *, become: bool) -> list[str]:
    """The argv that makes ``python`` run ``bootstrap`` from its stdin, as root with ``become``.

    ``-I -S``: neither the environment nor the host's site-packages have a say, and with ``-X utf8``
    its locale has none. The last argument is only there to be read in ``ps``.
    """
    argv = [python, "-I", "-S", "-X", "utf8", "-c", _START % len(bootstrap), "deployguard"]
    return ["sudo", "-n", "--", *argv] if become else argv


def shell_line(argv: Sequence[str]) -> str:
    """``argv`` as the one string SSH takes; safe in sh, bash, zsh, fish and csh alike."""
    return shlex.join(argv)


def pack(source: Path) -> Program:
    """The program whose ``deployguard.onhost`` is the directory ``source``."""
    files = {"deployguard/__init__.py": ""}
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        files[f"deployguard/onhost/{name}"] = path.read_text(encoding="utf-8")
    document = json.dumps(files, sort_keys=True, separators=(",", ":")).encode("ascii")
    # The hash is that of the text: what zlib makes of it differs between its versions.
    sha256 = hashlib.sha256(document).hexdigest()
    return Program(sha256, zlib.compress(document, 9), len(document))


@cache
def host_program() -> Program:
    """The program that is installed with this deployguard."""
    return pack(_HERE.parent / "onhost")


@cache
def _source(name: str) -> bytes:
    return (_HERE / name).read_bytes()
