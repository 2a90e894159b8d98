"""What the machine wrote into a post-mortem, read as anybody would."""

from __future__ import annotations

import re

__all__ = ["block", "cells", "table"]


def cells(line: str) -> list[str]:
    """The cells of one row of a table."""
    parts = re.split(r"(?<!\\)\|", line)[1:-1]
    return [re.sub(r"\\([\\|<])", r"\1", part.strip()) for part in parts]


def block(text: str, name: str) -> str:
    """What the machine wrote under a name."""
    found = re.search(
        rf"<!-- deployguard:begin {name} sha256:\S+ -->\n(.*?)<!-- deployguard:end {name} -->",
        text,
        re.DOTALL,
    )
    assert found is not None, name
    return found[1]


def table(text: str, name: str) -> list[list[str]]:
    """The rows of the first table in a block, without its head."""
    lines = [line for line in block(text, name).splitlines() if line.startswith("|")]
    return [cells(line) for line in lines[2:]]
