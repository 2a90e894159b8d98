"""Post-mortems on the disk: ``YYYY-MM-DD-<version>.md``, one for each incident.

A draft that is there is brought up to date: what the machine knows is written anew, and what people
wrote stays to the letter. A file is whole at every moment, the old one or the new one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from deployguard.errors import UsageError
from deployguard.evidence.layout import safe_name
from deployguard.evidence.timeline import iso
from deployguard.report.postmortem.blocks import renewed
from deployguard.report.postmortem.document import blocks, document
from deployguard.report.postmortem.facts import Facts
from deployguard.report.postmortem.judge import judge

__all__ = ["DIRECTORY", "draft", "found", "read", "write"]

#: Where they go when nobody says otherwise; relative to the plan.
DIRECTORY = "contexts/retrospectives/deployment-rollbacks"

_MODE = 0o600
#: A post-mortem is written by people.
_MOST_BYTES = 8 << 20


def draft(facts: Facts, directory: Path, redact: Callable[[str], str]) -> Path:
    """Write the draft of an incident, or bring it up to date; where it is.

    Raises ``OSError``.
    """
    there = found(facts.linked("postmortem"))
    path = there if there is not None else _place(facts, directory)
    if path.exists():
        text = renewed(read(path), blocks(facts, redact))
    else:
        text = document(facts, redact)
    write(path, text)
    return path


def found(links: list[str]) -> Path | None:
    """The post-mortem that was linked last and is on this machine."""
    return next((Path(link) for link in reversed(links) if Path(link).is_file()), None)


def read(path: Path) -> str:
    """The text of a post-mortem. Raises :class:`UsageError` for what is none."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is too large for a post-mortem")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text in UTF-8") from None


def _place(facts: Facts, directory: Path) -> Path:
    # What failed, or what it came after.
    deploy = next(iter((*facts.deploys, *facts.committed)), None)
    version = deploy.version if deploy is not None else facts.incident.id
    name = safe_name(f"{iso(facts.incident.detected_at)[:10]}-{version}")
    for path in _names(directory, name):
        if not path.exists() or judge(read(path)).incident == facts.incident.id:
            return path
    raise FileExistsError(f"{directory / name}.md: there are a thousand of these already")


def _names(directory: Path, name: str) -> Iterator[Path]:
    yield directory / f"{name}.md"
    yield from (directory / f"{name}-{number}.md" for number in range(2, 1000))


def write(path: Path, text: str, mode: int = _MODE) -> None:
    """Write a file whole, or not at all; one that is there keeps its mode. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else mode
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
