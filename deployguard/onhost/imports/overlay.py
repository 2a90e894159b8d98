"""A staged tree as it will be when it is live: at its own path, with what the host keeps in it.

Until the switch a tree ``in_place`` stands in another folder, and the kept paths are in the old
one. Whoever wants to know what a program will find asks here, by the names that will be.
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import List, Optional, Sequence

_MAX_LINKS = 40


class Overlay:
    """``live`` is where the tree will be and ``tree`` where it is; ``kept`` are relative paths that
    come from ``root``, the live tree of now."""

    def __init__(self, live: str, tree: str, root: Optional[str], kept: Sequence[str]) -> None:
        self.live = live
        self._tree = tree
        self._root = root
        self._kept = list(kept) if root is not None else []

    def place(self, path: str) -> str:
        """Where ``path``, as it will be called, stands now. Links are not followed."""
        if path != self.live and not path.startswith(self.live + "/"):
            return path
        relative = path[len(self.live) + 1 :]
        for kept in self._kept:
            if relative == kept or relative.startswith(kept + "/"):
                assert self._root is not None
                return os.path.join(self._root, relative)
        return os.path.join(self._tree, relative) if relative else self._tree

    def real_name(self, path: str) -> str:
        """The path with every link in it followed, as it will be. Raises :class:`OSError`."""
        done, links = "/", 0
        waiting: List[str] = [part for part in path.split("/") if part]
        while waiting:
            part = waiting.pop(0)
            if part in (".", ".."):
                done = posixpath.dirname(done) if part == ".." else done
                continue
            name = posixpath.join(done, part)
            try:
                target = os.readlink(self.place(name))
            except OSError:
                done = name  # no link, or not there
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError("%s: too many links" % path)
            if target.startswith("/"):
                done = "/"
            waiting[:0] = [piece for piece in target.split("/") if piece]
        return done

    def _mode(self, path: str) -> int:
        try:
            return os.lstat(self.place(self.real_name(path))).st_mode
        except (OSError, ValueError):
            return 0

    def is_file(self, path: str) -> bool:
        """Whether a plain file will be there."""
        return stat.S_ISREG(self._mode(path))

    def is_directory(self, path: str) -> bool:
        """Whether a directory will be there."""
        return stat.S_ISDIR(self._mode(path))

    def read(self, path: str, limit: int) -> bytes:
        """The first ``limit`` bytes of a file. Raises :class:`OSError`."""
        with open(self.place(self.real_name(path)), "rb") as file:
            return file.read(limit)

    def shown(self, path: str) -> str:
        """A path for people: relative where it is in the tree."""
        return path[len(self.live) + 1 :] if path.startswith(self.live + "/") else path
