"""A document that the machine and people write together.

What the machine knows stands in *blocks* between two comments, each with the hash of what is
between them. They can be written anew without touching a line of anybody else's, and a change by
hand shows. What only people know is asked for in lines that begin with :data:`TO_WRITE`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

__all__ = [
    "TO_WRITE",
    "Block",
    "ask",
    "block",
    "blocks_of",
    "cell",
    "renewed",
    "table",
    "without_blocks",
]

#: How a line begins that a person replaces.
TO_WRITE = "> TO WRITE:"

_BLOCK = re.compile(
    r"^<!-- deployguard:begin (?P<name>[a-z-]+) sha256:(?P<hash>[0-9a-f]{16}) -->\n"
    r"(?P<text>.*?)"
    r"^<!-- deployguard:end (?P=name) -->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """What stands between two comments; ``true`` while nobody has changed it."""

    name: str
    text: str
    true: bool


def ask(what: str) -> str:
    """A line that a person replaces by what it asks for."""
    return f"{TO_WRITE} {what}"


def block(name: str, lines: Iterable[str], redact: Callable[[str], str]) -> str:
    """A block of the machine's, without secrets."""
    text = redact("\n".join(lines)).replace("<!--", "<!- -").strip("\n") + "\n"
    return (
        f"<!-- deployguard:begin {name} sha256:{_hash(text)} -->\n{text}"
        f"<!-- deployguard:end {name} -->"
    )


def blocks_of(document: str) -> dict[str, Block]:
    """The blocks of a document by name."""
    return {
        found["name"]: Block(found["name"], found["text"], _hash(found["text"]) == found["hash"])
        for found in _BLOCK.finditer(document)
    }


def renewed(document: str, blocks: Mapping[str, str]) -> str:
    """The document with its blocks written anew; everything else stays to the letter."""
    return _BLOCK.sub(lambda found: blocks.get(found["name"], found[0]), document)


def without_blocks(document: str) -> str:
    """What people wrote, and what they are asked for."""
    return _BLOCK.sub("", document)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterable[str]:
    """A table in Markdown; the cells are texts from anywhere."""
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(cell(text) for text in row)} |"


def cell(text: str) -> str:
    """Text from elsewhere in one cell, where it can neither end the cell nor become HTML."""
    flat = " ".join(text.split())
    for mark in ("\\", "|", "<"):
        flat = flat.replace(mark, "\\" + mark)
    return flat


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
