"""Trees for tests: any tree a file system can hold, as data, and how to write it to a disk."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from hypothesis import strategies as st

# Names that have broken programs before; bytes, since not all of them are text.
_ODD = [
    b" ",
    b"-rf",
    b"a b",
    b"new\nline",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"e\xcc\x81",
    b"...",
    b"*",
    b"n" * 255,
    b"a-b",
    b"\x7f\x1b[31m",
    b"\xed\xa0\x80",
]
NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"c"]),
    st.sampled_from(_ODD),
    st.binary(min_size=1, max_size=6).filter(
        lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
    ),
)
# Owner bits stay, so that the tests also run for a user who is not root.
_MODES = st.integers(0, 0o7777).map(lambda mode: mode | 0o400)
_DIRECTORY_MODES = st.integers(0, 0o1777).map(lambda mode: mode | 0o700)
_TIMES = st.integers(0, 4_000_000_000 * 10**9)
_CONTENTS = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    # Around the sizes at which the code changes its ways; few distinct ones, so that some repeat.
    st.sampled_from([4095, 65536, 2**18, 2**20 - 1, 2**20, 2**20 + 1]).map(lambda n: b"x" * n),
)


class File(NamedTuple):
    """A regular file."""

    content: bytes
    mode: int
    mtime_ns: int


class Link(NamedTuple):
    """A symbolic link; a target inside the tree, or none at all."""

    target: bytes
    mtime_ns: int


class Directory(NamedTuple):
    """A directory and what is in it."""

    children: dict[bytes, Any]
    mode: int
    mtime_ns: int


_FILES = st.builds(File, _CONTENTS, _MODES, _TIMES)
_LINKS = st.builds(Link, st.one_of(NAMES, st.sampled_from([b"a/b", b"./a", b"a/../b"])), _TIMES)


def _directories(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Directory]:
    return st.builds(
        Directory, st.dictionaries(NAMES, children, max_size=4), _DIRECTORY_MODES, _TIMES
    )


TREES = _directories(st.recursive(st.one_of(_FILES, _LINKS), _directories, max_leaves=12))


def write_tree(path: bytes, tree: Directory) -> None:
    """Make ``path`` the given tree; directories get their times last."""
    os.mkdir(path, 0o700)
    for name, node in tree.children.items():
        below = path + b"/" + name
        if isinstance(node, Directory):
            write_tree(below, node)
        elif isinstance(node, Link):
            os.symlink(node.target, below)
            os.utime(below, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)
        else:
            with open(below, "wb") as file:
                file.write(node.content)
            os.chmod(below, node.mode)
            os.utime(below, ns=(node.mtime_ns, node.mtime_ns))
    os.chmod(path, tree.mode)
    os.utime(path, ns=(tree.mtime_ns, tree.mtime_ns))


def make(root: str, files: dict[str, Any]) -> str:
    """A small tree from path to content (bytes or text), ``None`` for a directory, in one call."""
    os.makedirs(root, exist_ok=True)
    for path, content in files.items():
        full = os.path.join(root, path)
        if content is None:
            os.makedirs(full, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
    return root


def listing(root: str) -> list[tuple[str, str]]:
    """Every path below ``root`` with its kind and content, read with other means than the code."""
    found = []
    for base, directories, names in os.walk(root):
        for name in directories + names:
            full = os.path.join(base, name)
            what = "directory"
            if os.path.islink(full):
                what = "-> " + os.readlink(full)
            elif os.path.isfile(full):
                with open(full, "rb") as file:
                    what = repr(file.read())
            found.append((os.path.relpath(full, root), what))
    return sorted(found)
