"""Glob patterns over the paths of a tree, all of them compiled into one regular expression.

A pattern is anchored at the top of the tree: ``*.log`` is a log at the top, ``**/*.log`` one
anywhere. ``*`` and ``?`` stay within a component, ``**`` as a whole component is any number of
them, ``[a-z]`` and ``[!a-z]`` are classes. What matches a directory covers everything below it.
"""

from __future__ import annotations

import re
from typing import Iterable, List, Tuple


class Patterns:
    """Does a path of the tree match any of the globs? No globs match nothing.

    ``spared`` is a directory at the top in which nothing matches, whatever the globs say.
    """

    __slots__ = ("_match", "_spared", "globs")

    def __init__(self, globs: Iterable[str] = (), spared: str = "") -> None:
        self.globs: Tuple[str, ...] = tuple(globs)
        self._spared = (spared, spared + "/")
        compiled = "|".join(_translate(glob) for glob in self.globs)
        try:
            self._match = re.compile("(?:%s)(?:/|\\Z)" % compiled, re.DOTALL).match
        except re.error as error:
            raise ValueError("not a pattern: %s in %r" % (error, self.globs)) from error

    def __bool__(self) -> bool:
        return bool(self.globs)

    def __repr__(self) -> str:
        return "Patterns(%r)" % (self.globs,)

    def match(self, path: str) -> bool:
        """Whether ``path`` (relative, with ``/``) or a directory above it matches."""
        if not self.globs or self._match(path) is None:
            return False
        return path != self._spared[0] and not (
            self._spared[0] and path.startswith(self._spared[1])
        )


def _components(glob: str) -> Tuple[str, ...]:
    parts = tuple(part for part in glob.split("/") if part not in ("", "."))
    if glob.startswith("/") or ".." in parts or not parts or "\0" in glob:
        raise ValueError("not a pattern for paths in a tree: %r" % glob)
    return parts


def _translate(glob: str) -> str:
    parts = _components(glob)
    pieces = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part != "**":
            pieces.append(_component(part) + ("" if last else "/"))
        elif last:
            pieces.append("[^/]+")  # Everything below, and what it holds with it.
        else:
            pieces.append("(?:[^/]+/)*")
    return "".join(pieces)


def _component(part: str) -> str:
    pieces: List[str] = []
    index = 0
    while index < len(part):
        character = part[index]
        index += 1
        if character == "*":
            if pieces[-1:] != ["[^/]*"]:
                pieces.append("[^/]*")
        elif character == "?":
            pieces.append("[^/]")
        elif character == "[":
            # A "]" right after the bracket (or after the "!") belongs to the class.
            start = index + 1 if part[index : index + 1] == "!" else index
            end = part.find("]", start + 1)
            if end < 0:
                pieces.append("\\[")
                continue
            negated = "^" if start > index else ""
            members = re.sub(r"([\\\[\]^&~|])", r"\\\1", part[start:end])
            pieces.append("(?!/)[%s%s]" % (negated, members))
            index = end + 1
        else:
            pieces.append(re.escape(character))
    return "".join(pieces)
