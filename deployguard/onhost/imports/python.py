"""Which modules the source of a Python program asks for, and whether they are there.

A program of its own, which imports nothing of deployguard: the interpreter that will run the
release runs it, from its text, because only that one knows the release's syntax and what is
installed for it. Nothing of the release is imported. Asked in JSON on stdin, answered on stdout::

    {"tree", "root", "kept", "roots", "entries", "own", "packages"}
    {"problems": ["app/main.py:3 needs telemetry"], "files": 12}

``tree`` is where the release stands; the ``kept`` paths in it come from ``root``. ``roots`` are the
folders in it that modules are looked for in, ``own`` top-level names that are the release's even
where it lacks them. With ``packages`` any other name has to be installed.

What stands in a ``try`` that catches its failure, or behind ``TYPE_CHECKING``, may be missing. Of a
package of the release's own the modules have to be there, and a name that is imported from one is a
module or something that the package binds; inside modules nothing is looked for.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

_BINARY = (".so", ".pyd")
_CATCHING = ("ImportError", "ModuleNotFoundError", "Exception", "BaseException")


class Need(NamedTuple):
    """``import module``, or ``from module import name``; relative by ``level`` folders."""

    module: str
    name: str
    level: int
    line: int


class Release:
    """The files of the release, as they will be."""

    def __init__(self, asked: Dict[str, Any]) -> None:
        self._tree = asked["tree"]
        self._root = asked["root"]
        self._kept = asked["kept"] if self._root else []
        self.roots = [_plain(root) for root in asked["roots"]]

    def place(self, relative: str) -> str:
        """Where a path in the tree stands now."""
        for kept in self._kept:
            if relative == kept or relative.startswith(kept + "/"):
                return os.path.join(self._root, relative)
        return os.path.join(self._tree, relative)

    def is_file(self, relative: str) -> bool:
        """Whether it is there."""
        return os.path.isfile(self.place(relative))

    def is_package(self, relative: str) -> bool:
        """Whether it is a folder that modules can be in."""
        return os.path.isdir(self.place(relative))

    def module(self, path: str) -> Optional[str]:
        """The file of the module ``a/b``; empty for a package without one, ``None`` if missing."""
        if self.is_file(path + "/__init__.py"):
            return path + "/__init__.py"
        if self.is_file(path + ".py"):
            return path + ".py"
        if self._binary(path):
            return ""
        return "" if self.is_package(path) else None

    def _binary(self, path: str) -> bool:
        folder, stem = os.path.split(path)
        try:
            names = os.listdir(self.place(folder) if folder else self._tree)
        except OSError:
            return False
        return any(name.split(".")[0] == stem and name.endswith(_BINARY) for name in names)

    def top(self, name: str) -> Optional[str]:
        """The root that has the top-level module ``name``, or ``None``."""
        for root in self.roots:
            if self.module(_join(root, name)) is not None:
                return root
        return None


def check(asked: Dict[str, Any]) -> Dict[str, Any]:
    """Follow every import from the entries; see the module."""
    release = Release(asked)
    problems: List[str] = []
    waiting: List[str] = []
    for entry in asked["entries"]:
        file = _entry(release, entry)
        if file is None:
            problems.append("%s is not there" % entry)
        elif file:
            waiting.append(file)
    seen = set()
    while waiting:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        tree, problem = _parse(release, file)
        if tree is None:
            problems.append(problem)
            continue
        for need in _needs(tree):
            found, missing = _resolve(release, asked, file, need)
            waiting += found
            if missing:
                problems.append("%s:%d needs %s" % (file, need.line, missing))
    return {"problems": list(dict.fromkeys(problems)), "files": len(seen)}


def _entry(release: Release, entry: str) -> Optional[str]:
    if entry.endswith(".py") or "/" in entry:
        return _plain(entry) if release.is_file(_plain(entry)) else None
    root = release.top(entry.split(".")[0])
    if root is None:
        return None
    path = _join(root, entry.replace(".", "/"))
    if release.is_file(path + "/__main__.py"):
        return path + "/__main__.py"
    return release.module(path)


def _parse(release: Release, file: str) -> Tuple[Optional[ast.Module], str]:
    try:
        with open(release.place(file), "rb") as stream:
            return ast.parse(stream.read(), file), ""
    except SyntaxError as error:
        return None, "%s:%d is no Python %d.%d: %s" % (
            file,
            error.lineno or 0,
            sys.version_info[0],
            sys.version_info[1],
            error.msg,
        )
    except (OSError, ValueError) as error:
        return None, "%s cannot be read: %s" % (file, error)


# -- what a source asks for ------------------------------------------------------------------------


def _needs(node: ast.AST) -> Iterator[Need]:
    """Every import that has to work, in functions as well."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Need(alias.name, "", 0, node.lineno)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield Need(node.module or "", alias.name, node.level, node.lineno)
    elif isinstance(node, ast.Try) and _catches(node):
        for part in (*node.handlers, *node.orelse, *node.finalbody):
            yield from _needs(part)
    elif isinstance(node, ast.If) and _for_types(node.test):
        for part in node.orelse:
            yield from _needs(part)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _needs(child)


def _catches(node: ast.Try) -> bool:
    for handler in node.handlers:
        if handler.type is None:
            return True
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        for kind in kinds:
            name = kind.attr if isinstance(kind, ast.Attribute) else getattr(kind, "id", "")
            if name in _CATCHING:
                return True
    return False


def _for_types(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


# -- whether it is there ---------------------------------------------------------------------------


def _resolve(
    release: Release, asked: Dict[str, Any], file: str, need: Need
) -> Tuple[List[str], str]:
    """The files that an import leads to, and what of it is missing."""
    if need.level:
        folder = os.path.dirname(file)
        for _ in range(need.level - 1):
            if not folder:
                return [], "%s%s, from outside of the release" % ("." * need.level, need.module)
            folder = os.path.dirname(folder)
        shown = "." * need.level + need.module
        return _own(release, folder, need.module, need.name, shown)
    top = need.module.split(".")[0]
    root = release.top(top)
    if root is not None:
        return _own(release, root, need.module, need.name, need.module)
    if top in asked["own"]:
        return [], need.module
    if asked["packages"] and not _installed(top):
        return [], need.module
    return [], ""


def _own(
    release: Release, folder: str, module: str, name: str, shown: str
) -> Tuple[List[str], str]:
    """Every module on the way to ``module``, and ``name`` in it."""
    files: List[str] = []
    path, current = folder, release.module(folder) if folder else ""
    for part in module.split(".") if module else []:
        if current and _makes_modules(release, current):
            return files, ""
        path = _join(path, part)
        current = release.module(path)
        if current is None:
            return files, shown
        if current:
            files.append(current)
    if not name or name == "*":
        return files, ""
    if release.module(_join(path, name)) is not None and release.is_package(path):
        inner = release.module(_join(path, name))
        return files + ([inner] if inner else []), ""
    is_package = current == "" or bool(current and current.endswith("/__init__.py"))
    if path and is_package and release.is_package(path) and not _binds(release, current, name):
        return files, "%s from %s" % (name, shown)
    return files, ""


def _makes_modules(release: Release, file: str) -> bool:
    """Whether a package does things to its modules that nobody can read off its folder."""
    try:
        with open(release.place(file), "rb") as stream:
            text = stream.read()
    except OSError:
        return True
    return any(word in text for word in (b"__path__", b"sys.modules", b"__getattr__", b"exec("))


def _binds(release: Release, file: Optional[str], name: str) -> bool:
    """Whether the ``__init__`` of a package binds a name, or may do so unseen."""
    if not file:
        return False
    tree, _ = _parse(release, file)
    if tree is None or _makes_modules(release, file):
        return True
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [(alias.asname or alias.name).split(".")[0] for alias in node.names]
            if name in names or "*" in names:
                return True
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name == name:
                return True
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            if node.id == name:
                return True
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("globals", "setattr"):
            return True
    return name.startswith("__")


def _installed(name: str) -> bool:
    try:
        return name in sys.builtin_module_names or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return name in sys.modules


def _plain(path: str) -> str:
    normal = os.path.normpath(path)
    return "" if normal == "." else normal


def _join(folder: str, name: str) -> str:
    return folder + "/" + name if folder else name


def main() -> None:
    """Answer one question."""
    # The folder we were started in has no part in this.
    sys.path[:] = [path for path in sys.path if path]
    json.dump(check(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
