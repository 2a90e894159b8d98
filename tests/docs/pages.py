"""Reads the pages: headings as anchors, links, tables between marks, and blocks of code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """Every page of the repository."""
    folders = ("docs", "playbooks", "forensics", "tests/fleet")
    found = [*ROOT.glob("*.md")]
    for folder in folders:
        found += (ROOT / folder).rglob("*.md")
    return sorted(found)


def named(page: Path) -> str:
    """A page as a test id."""
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """The targets of a page's links."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """What ``#…`` may follow the page's name, as GitHub makes it from the headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number, once = 0, slug
        while once in found:
            number += 1
            once = f"{slug}-{number}"
        found.add(once)
    return found


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code in a language."""
    return [text for _, kind, text in _FENCE.findall(page.read_text()) if kind == language]


def table(page: Path, mark: str) -> list[list[str]]:
    """The rows of the table between ``<!-- mark -->`` and ``<!-- end -->``, without its head."""
    text = page.read_text()
    found = re.search(rf"^<!-- {mark} -->\n(.*?)^<!-- end -->$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{named(page)} has no table {mark}"
    return rows(found[1])


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the first table in a text, without its head."""
    lines = []
    for line in text.splitlines():
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            break
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def section(page: Path, heading: str) -> str:
    """What stands below a heading, up to the next."""
    text = page.read_text()
    pattern = rf"^## {re.escape(heading)}$\n(.*?)(?=^## |\Z)"
    found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{named(page)} has no section {heading}"
    return found[1]


def words(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


@dataclass(frozen=True)
class Shown:
    """One command that a page shows, with the output that it shows below it."""

    page: str
    command: str
    output: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {self.command}"


def shown(page: Path) -> list[Shown]:
    """Every command in the ``console`` blocks of a page, without its prompt and comment."""
    found: list[Shown] = []
    for block in blocks(page, "console"):
        for part in re.split(r"^[$#] ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.rstrip().partition("\n")
            command = re.sub(r"\s+# .*$", "", command)
            found.append(Shown(named(page), command, tuple(output.splitlines())))
    return found
