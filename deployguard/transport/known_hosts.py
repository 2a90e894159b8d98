"""Reads and extends known_hosts files, by their text alone.

paramiko's own reader knows neither ``@revoked`` nor wildcards, and it parses every key of every
line, which for the file of a large fleet takes longer than to connect.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

__all__ = ["Judge", "KnownKey", "NotTrusted", "add", "fingerprint", "known_keys", "name_of"]


@dataclass(frozen=True)
class KnownKey:
    """One line of a known_hosts file. ``marker`` is ``revoked``, ``cert-authority`` or empty."""

    path: Path
    line: int
    marker: str
    kind: str
    key: str


class NotTrusted(Exception):
    """A key was refused, the host's or ours: to try again changes nothing."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Judge:
    """Whether a host shows the key it should, by one of three policies."""

    def __init__(
        self, name: str, files: Sequence[str], mode: Literal["strict", "accept_new", "off"]
    ) -> None:
        self._name = name
        self._mode = mode
        self._files = [Path(file).expanduser() for file in files]
        known = [] if mode == "off" else known_keys(self._files, name)
        self._revoked = {entry.key for entry in known if entry.marker == "revoked"}
        self._known = [entry for entry in known if not entry.marker]

    @property
    def kinds(self) -> set[str]:
        """The kinds of key that would be recognised, as SSH calls them when it negotiates."""
        kinds = {entry.kind for entry in self._known}
        return kinds | {"rsa-sha2-512", "rsa-sha2-256"} if "ssh-rsa" in kinds else kinds

    def judge(self, kind: str, key: str) -> None:
        """Return when the key is to be trusted; else raise :class:`NotTrusted`."""
        if self._mode == "off":
            return
        shown = f"{kind} {fingerprint(key)}"
        if key in self._revoked:
            raise NotTrusted(f"the host key of {self._name} is revoked: {shown}")
        if any(entry.key == key for entry in self._known):
            return
        file = self._files[0]
        if self._known:
            places = ", ".join(f"{entry.path}:{entry.line}" for entry in self._known)
            raise NotTrusted(
                f"the host key of {self._name} is not the known one: it shows {shown}, which is "
                f"not in {places}. Somebody may be in between",
                "if the host was installed anew: "
                f"ssh-keygen -R '{self._name}' -f {self._known[0].path}",
            )
        if self._mode == "strict":
            raise NotTrusted(
                f"the host key of {self._name} is not known: {shown}",
                "compare it with `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` on the host, then "
                f"add it, as ssh-keyscan would: echo '{self._name} {kind} {key}' >> {file}",
            )
        add(file, self._name, kind, key)


def name_of(address: str, port: int) -> str:
    """What known_hosts calls a host: the bare address on port 22."""
    return address.lower() if port == 22 else f"[{address.lower()}]:{port}"


def known_keys(paths: Iterable[Path], name: str) -> list[KnownKey]:
    """The lines of ``paths`` about ``name``; a file that is not there has none."""
    return [known for path in paths for names, known in _lines(path) if _matches(names, name)]


def fingerprint(key: str) -> str:
    """``SHA256:…`` of a key in base64, as every OpenSSH tool shows it."""
    digest = hashlib.sha256(base64.b64decode(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def add(path: Path, name: str, kind: str, key: str) -> None:
    """Append one line, in one write: other connections may be adding theirs."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    opened = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(opened).st_size
        torn = size > 0 and os.pread(opened, 1, size - 1) != b"\n"
        os.write(opened, f"{chr(10) if torn else ''}{name} {kind} {key}\n".encode())
    finally:
        os.close(opened)


def _lines(path: Path) -> Iterator[tuple[str, KnownKey]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(None, 4)
        marker = words.pop(0)[1:] if words and words[0].startswith("@") else ""
        if len(words) >= 3 and not words[0].startswith("#"):
            yield words[0], KnownKey(path, number, marker, words[1], words[2])


def _matches(names: str, name: str) -> bool:
    if names.startswith("|1|"):
        return _matches_hash(names, name)
    found = False
    for pattern in names.lower().split(","):
        negated = pattern.startswith("!")
        # The brackets of `[host]:port` are themselves, not a set as in a shell.
        plain = pattern.lstrip("!").replace("[", "[[]")
        if fnmatchcase(name, plain):
            if negated:
                return False
            found = True
    return found


def _matches_hash(names: str, name: str) -> bool:
    try:
        _, _, salt, digest = names.split("|")
        made = hmac.new(base64.b64decode(salt), name.encode("utf-8"), hashlib.sha1).digest()
        return hmac.compare_digest(made, base64.b64decode(digest))
    except ValueError:
        return False
