"""GitHub Actions: annotations, outputs, the job summary, masks, and quoting of foreign text.

A runner takes every line of the log that looks like ``::command::`` for one. Text from hosts is
therefore written between ``stop-commands`` and its token, and data in our own commands is escaped.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from deployguard.secret import Secret

__all__ = ["Workflow"]

#: GitHub shows ten annotations of a kind for a step and drops the rest in silence.
ANNOTATIONS = 10
#: GitHub refuses the whole summary of a step above this.
SUMMARY_BYTES = 1024 * 1024


class Workflow:
    """The job a run is part of. ``log`` is where its commands go."""

    def __init__(self, environment: Mapping[str, str], log: TextIO) -> None:
        self._environment = environment
        self._log = log
        self._annotations: Counter[str] = Counter()

    def annotate(
        self,
        level: Literal["error", "warning", "notice"],
        message: str,
        *,
        title: str = "",
        file: str = "",
        line: int = 0,
        column: int = 0,
    ) -> None:
        """An annotation; the eleventh of a kind and later ones are only in the log."""
        self._annotations[level] += 1
        if self._annotations[level] > ANNOTATIONS:
            return
        places = {
            "title": title,
            "file": self._in_repository(file) if file else "",
            "line": str(line or ""),
            "col": str(column or ""),
        }
        self._command(level, message, {name: value for name, value in places.items() if value})

    def mask(self, secret: Secret) -> None:
        """Have the runner mask a secret, line by line: it knows no others."""
        for line in secret.reveal().splitlines():
            if line.strip():
                self._command("add-mask", line, {})

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Fold what is written inside, and take none of it for a command."""
        token = secrets.token_hex(16)
        self._command("group", title, {})
        self._command("stop-commands", token, {})
        try:
            yield
        finally:
            self._command(token, "", {})
            self._command("endgroup", "", {})

    def output(self, **values: str) -> None:
        """Outputs of the step. The delimiter is random, so that no value can end it early."""
        path = self._environment.get("GITHUB_OUTPUT")
        if path:
            delimiter = f"deployguard_{secrets.token_hex(16)}"
            lines = [
                f"{name.replace('_', '-')}<<{delimiter}\n{value}\n{delimiter}\n"
                for name, value in values.items()
            ]
            _append(path, "".join(lines).encode())

    def summary(self, markdown: str) -> None:
        """The job summary; cut with a note where it does not fit."""
        path = self._environment.get("GITHUB_STEP_SUMMARY")
        if not path:
            return
        data = markdown.encode("utf-8", "replace")
        room = SUMMARY_BYTES - (os.path.getsize(path) if os.path.exists(path) else 0)
        if len(data) > room:
            note = "\n\n… cut here; the forensics folder has the whole.\n".encode()
            data = data[: max(0, room - len(note))].decode("utf-8", "ignore").encode() + note
            data = data if len(data) <= room else b""
        _append(path, data)

    def _in_repository(self, file: str) -> str:
        """Annotations show beside a file only under its path in the repository."""
        root = self._environment.get("GITHUB_WORKSPACE")
        full = Path(file).absolute()
        if root and full.is_relative_to(root):
            return str(full.relative_to(root))
        return file

    def _command(self, name: str, data: str, properties: Mapping[str, str]) -> None:
        pairs = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
        self._log.write(f"::{name}{' ' + pairs if pairs else ''}::{_data(data)}\n")
        self._log.flush()


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _append(path: str, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)
