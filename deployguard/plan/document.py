"""Values that remember where they stand in a file, and findings about them.

A :class:`Node` is one value of the file with its place; a mapping's keys have places of their own.
Everything that finds something wrong yields a :class:`Finding`: a path in the document and plain
words. :meth:`Document.mistake` turns it into a :class:`~deployguard.errors.Mistake` with the
place. So no rule needs to carry line numbers about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from deployguard.errors import Mistake

__all__ = ["Document", "Entry", "Finding", "Node", "Path", "Place", "TooLarge", "dotted"]

Path = tuple[str | int, ...]

# Aliases are shared in the tree and multiply when it is unfolded: ten anchors of ten aliases each
# are ten thousand million values. A plan for 10,000 hosts has about 100,000.
MAX_VALUES = 400_000
MAX_DEPTH = 128


class TooLarge(Exception):
    """Unfolding the aliases gives more values than any plan has."""


class Place(NamedTuple):
    """Where something stands; line and column count from 1."""

    file: str
    line: int
    column: int


class Entry(NamedTuple):
    """One key of a mapping, with the key's place, and its value."""

    place: Place
    node: Node


class Node:
    """One value. ``value`` is a scalar, a dict of :class:`Entry` or a list of nodes.

    ``text`` is a plain scalar as it was written: the version ``1.10`` is the number 1.1, and only
    the text can say so to the person who wrote it.
    """

    __slots__ = ("place", "text", "value")

    def __init__(self, place: Place, value: Any, text: str | None = None) -> None:
        self.place = place
        self.value = value
        self.text = text


@dataclass(frozen=True)
class Finding:
    """Something wrong at a path of the document. ``on_key``: the key is wrong, not its value."""

    path: Path
    message: str
    hint: str = ""
    on_key: bool = False
    place: Place | None = None


def dotted(path: Path) -> str:
    """``components.backend.checks[2].http``; keys are shown as they are, dots and all."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


@dataclass
class Document:
    """A parsed file: its values, and what was found wrong while reading it.

    ``surprises`` are the values that YAML 1.1 and YAML 1.2 read differently. They are mistakes in
    a plan; in an inventory, which Ansible reads as YAML 1.1, they are values.
    """

    file: str
    root: Node
    findings: list[Finding] = field(default_factory=list)
    surprises: list[Finding] = field(default_factory=list)

    def plain(self) -> Any:
        """The values alone, as dicts, lists and scalars. Raises :class:`TooLarge`."""
        left = MAX_VALUES

        def unfold(node: Node, depth: int) -> Any:
            nonlocal left
            left -= 1
            if left < 0 or depth > MAX_DEPTH:
                raise TooLarge
            value = node.value
            if isinstance(value, dict):
                return {key: unfold(entry.node, depth + 1) for key, entry in value.items()}
            if isinstance(value, list):
                return [unfold(item, depth + 1) for item in value]
            return value

        return unfold(self.root, 0)

    def node(self, path: Path) -> Node | None:
        """The value at a path, or ``None`` when the file has none there."""
        node = self.root
        for part in path:
            value = node.value
            if isinstance(value, dict) and part in value:
                node = value[part].node
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                node = value[part]
            else:
                return None
        return node

    def locate(self, path: Path, *, on_key: bool = False) -> tuple[Place, Path]:
        """The place of a path, and how much of the path the file really has.

        A scalar is shown at its value, a block at its key, because that is where its name stands.
        """
        node, place = self.root, self.root.place
        reached = 0
        for part in path:
            value = node.value
            if isinstance(value, dict) and part in value:
                entry = value[part]
                node, place = entry.node, entry.place
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                node = value[part]
                place = node.place
            else:
                break
            reached += 1
        whole = reached == len(path)
        if not (on_key and whole) and not isinstance(node.value, dict | list):
            place = node.place
        return place, path[:reached]

    def mistake(self, finding: Finding) -> Mistake:
        """The finding with its file, line and column."""
        place, known = self.locate(finding.path, on_key=finding.on_key)
        place = finding.place or place
        return Mistake(
            file=place.file,
            line=place.line,
            column=place.column,
            where=dotted(known),
            message=finding.message,
            hint=finding.hint,
        )

    def places(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Dotted path and place of every scalar, key of a block and item in this file.

        As in :meth:`locate` a scalar is at its value. Of a host there is only its name:

        a thousand of them would fill the plan with places that nobody asks for.
        """

        def walk(node: Node, path: Path) -> Iterator[tuple[str, tuple[int, int]]]:
            if isinstance(node.value, dict):
                for key, entry in node.value.items():
                    below = (*path, key)
                    scalar = not isinstance(entry.node.value, dict | list)
                    place = entry.node.place if scalar else entry.place
                    if place.file == self.file:
                        yield dotted(below), (place.line, place.column)
                    if len(below) != 2 or below[0] != "hosts":
                        yield from walk(entry.node, below)
            elif isinstance(node.value, list):
                for index, item in enumerate(node.value):
                    below = (*path, index)
                    yield dotted(below), (item.place.line, item.place.column)
                    yield from walk(item, below)

        yield from walk(self.root, ())
