"""Which modules the source of a Node program asks for, and whether they are there.

Nothing is run. A source is cut into tokens, as far as that is needed to tell code from comments,
strings, templates and regular expressions; in the tokens ``require("x")``, ``import … from "x"``,
``import("x")`` and ``export … from "x"`` are found. A name that is put together at run time is
nobody's to check. What stands in a ``try`` may be missing: that is how an optional module is asked
for.

A relative name is looked up as ``require`` does, with endings, ``package.json`` and ``index.js``;
of a package the folder is looked for in each ``node_modules`` on the way up. What a package needs
in turn is its own business.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from deployguard.onhost.imports.overlay import Overlay

#: Files that are read for what they ask for in turn.
_SOURCES = (".js", ".cjs", ".mjs")
_ENDINGS = ("", ".js", ".json", ".node", ".mjs", ".cjs")
_MAX_SOURCE = 8 * 1024 * 1024

_BUILT_IN = frozenset(
    """
    _http_agent _http_client _http_common _http_incoming _http_outgoing _http_server
    _stream_duplex _stream_passthrough _stream_readable _stream_transform _stream_wrap
    _stream_writable _tls_common _tls_wrap assert async_hooks buffer child_process cluster console
    constants crypto dgram diagnostics_channel dns domain events fs http http2 https inspector
    module net os path perf_hooks process punycode querystring readline repl stream string_decoder
    sys timers tls trace_events tty url util v8 vm wasi worker_threads zlib
    """.split()  # noqa: SIM905 - a list of words, to be read as one
)

_TOKEN = re.compile(
    r"""
    (?P<space>[\s\ufeff]+|//[^\n]*|/\*.*?\*/|\#![^\n]*)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<word>[A-Za-z_$\u0080-\uffff][\w$\u0080-\uffff]*)
  | (?P<number>\d[\w.]*)
  | (?P<mark>=>|\+\+|--|\.\.\.|[^\s"'`/])
    """,
    re.VERBOSE | re.DOTALL,
)
_REGEX = re.compile(r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[A-Za-z]*")
_TEMPLATE = re.compile(r"(?:[^`\\$]|\\.|\$(?!\{))*", re.DOTALL)
#: After these a slash begins a regular expression; after any other word it divides.
_BEFORE_REGEX = frozenset(
    ("return", "typeof", "case", "in", "of", "delete", "void", "throw", "new", "else", "do")
    + ("instanceof", "yield", "await")
)


class NotRead(Exception):
    """The source cannot be told into tokens; nothing is said of it."""


class Need(NamedTuple):
    """One module that a source asks for."""

    name: str
    line: int
    optional: bool


class Token(NamedTuple):
    """``kind`` is ``word``, ``string``, ``number``, ``mark`` or ``regex``."""

    kind: str
    text: str
    at: int


# -- what a source asks for ------------------------------------------------------------------------


def needs(source: str) -> List[Need]:
    """Every module that is asked for by a plain name. Raises :class:`NotRead`."""
    if "require" not in source and "import" not in source and "export" not in source:
        return []
    tokens = list(_tokens(source))
    found = []
    trying: List[bool] = []
    line, counted = 1, 0
    for index, token in enumerate(tokens):
        if token.text == "{" and token.kind == "mark":
            trying.append(index > 0 and tokens[index - 1].text == "try")
        elif token.text == "}" and token.kind == "mark" and trying:
            trying.pop()
        elif token.kind == "word" and (index == 0 or tokens[index - 1].text not in (".", "?.")):
            name = _asked(tokens, index)
            if name is not None:
                line += source.count("\n", counted, token.at)
                counted = token.at
                found.append(Need(name, line, any(trying)))
    return found


def _asked(tokens: List[Token], index: int) -> Optional[str]:
    """The module that the word at ``index`` asks for."""
    word = tokens[index].text
    following = tokens[index + 1 : index + 4]
    texts = [token.text for token in following]
    if word in ("require", "import") and texts[:1] == ["("]:
        plain = len(following) == 3 and following[1].kind == "string" and texts[2] in (")", ",")
        return _value(following[1]) if plain else None
    if word == "import" and following and following[0].kind == "string":
        return _value(following[0])
    if word == "import" and following and (following[0].kind == "word" or texts[0] in ("{", "*")):
        return None if texts[0] == "type" and texts[1:2] != ["from"] else _from(tokens, index + 1)
    if word == "export" and texts[:1] in (["*"], ["{"]):
        return _from(tokens, index + 1)
    return None


def _from(tokens: List[Token], index: int) -> Optional[str]:
    """The name behind ``from``, where the clause that begins at ``index`` has one."""
    depth = 0
    for position in range(index, min(index + 4000, len(tokens) - 1)):
        token = tokens[position]
        if token.text in ("{", "}") and token.kind == "mark":
            depth += 1 if token.text == "{" else -1
        elif token.text == "from" and depth == 0 and tokens[position + 1].kind == "string":
            return _value(tokens[position + 1])
        elif depth == 0 and not (token.kind == "word" or token.text in (",", "*")):
            return None
    return None


def _value(token: Token) -> Optional[str]:
    text = token.text[1:-1]
    return text if "\\" not in text else None


def _tokens(source: str) -> Iterator[Token]:
    """All but space and comments; what stands in a template's ``${}`` is code as well."""
    at, last = 0, Token("mark", "", 0)
    templates: List[int] = []  # how many braces are open in each ``${`` that is
    while at < len(source):
        character = source[at]
        if character == "`" or (character == "}" and templates and templates[-1] == 0):
            if character == "}":
                templates.pop()
            ends = _template(source, at + 1)
            if source[ends] == "$":
                templates.append(0)
            at, last = ends + (2 if source[ends] == "$" else 1), Token("string", "``", at)
            yield Token("mark", "`", at)
            continue
        token, at = _next(source, at, last)
        if token is None:
            continue
        if templates and token.kind == "mark" and token.text in ("{", "}"):
            templates[-1] += 1 if token.text == "{" else -1
        last = token
        yield token
    if templates:
        raise NotRead("a template that does not end")


def _next(source: str, at: int, last: Token) -> Tuple[Optional[Token], int]:
    match = _TOKEN.match(source, at)
    if match is None and source[at] == "/":
        if _divides(last):
            return Token("mark", "/", at), at + 1
        match = _REGEX.match(source, at)
        if match is None:
            raise NotRead("a slash that is neither division nor pattern")
        return Token("regex", match[0], at), match.end()
    if match is None:
        raise NotRead("a string that does not end")
    kind = str(match.lastgroup)
    return (None if kind == "space" else Token(kind, match[0], at)), match.end()


def _divides(last: Token) -> bool:
    if last.kind == "word":
        return last.text not in _BEFORE_REGEX
    return last.kind in ("number", "string", "regex") or last.text in (")", "]", "}", "++", "--")


def _template(source: str, at: int) -> int:
    """Where the text of a template ends: at its backquote, or at a ``${``."""
    match = _TEMPLATE.match(source, at)
    ends = at if match is None else match.end()
    if ends >= len(source):
        raise NotRead("a template that does not end")
    return ends


# -- whether it is there ---------------------------------------------------------------------------


class Modules:
    """Looks names up as Node does, in a tree that is not yet where it will be."""

    def __init__(self, overlay: Overlay, *, packages: bool) -> None:
        self._overlay = overlay
        self._packages = packages
        self._documents: Dict[str, Dict[str, object]] = {}

    def find(self, name: str, file: str) -> Optional[str]:
        """The file that ``name`` means in ``file``; empty where there is no telling, or no need.

        ``None`` where it is missing.
        """
        directory = posixpath.dirname(file)
        if name.startswith(("./", "../", "/")) or name in (".", ".."):
            plain = re.split(r"[?#]", name)[0]
            return self._file(posixpath.normpath(posixpath.join(directory, plain)))
        if ":" in name or name.startswith(("#", "@/", "~")):
            return ""  # node:fs, a URL; an alias that something else resolves
        parts = name.split("/")
        package = "/".join(parts[:2]) if name.startswith("@") else parts[0]
        if not self._packages or package in _BUILT_IN or self._is_own(package, directory):
            return ""
        return "" if self._installed(package, directory) else None

    def _file(self, path: str) -> Optional[str]:
        for ending in _ENDINGS:
            if self._overlay.is_file(path + ending):
                return path + ending
        if not self._overlay.is_directory(path):
            # TypeScript asks for x.js and means x.ts.
            stem = posixpath.splitext(path)[0]
            return "" if any(self._overlay.is_file(stem + ts) for ts in (".ts", ".tsx")) else None
        main = self._document(path).get("main")
        if isinstance(main, str) and main:
            for ending in (*_ENDINGS, "/index.js"):
                target = posixpath.normpath(posixpath.join(path, main)) + ending
                if self._overlay.is_file(target):
                    return target
        for ending in _ENDINGS[1:]:
            if self._overlay.is_file(path + "/index" + ending):
                return path + "/index" + ending
        return None

    def _installed(self, package: str, directory: str) -> bool:
        for folder in _upwards(directory):
            if posixpath.basename(folder) != "node_modules" and self._overlay.is_directory(
                posixpath.join(folder, "node_modules", package)
            ):
                return True
            if any(self._overlay.is_file(posixpath.join(folder, pnp)) for pnp in _PLUG_AND_PLAY):
                return True
        return False

    def _is_own(self, package: str, directory: str) -> bool:
        """A package may ask for itself by its name, or call its folders by names of its own."""
        for folder in _upwards(directory):
            document = self._document(folder)
            if document:
                aliases = document.get("_moduleAliases")
                known = aliases if isinstance(aliases, dict) else {}
                return document.get("name") == package or package in known
        return False

    def _document(self, folder: str) -> Dict[str, object]:
        """The package.json of a folder; empty where there is none."""
        if folder not in self._documents:
            try:
                text = self._overlay.read(posixpath.join(folder, "package.json"), _MAX_SOURCE)
                document = json.loads(text)
            except (OSError, ValueError):
                document = {}
            self._documents[folder] = document if isinstance(document, dict) else {}
        return self._documents[folder]


_PLUG_AND_PLAY = (".pnp.cjs", ".pnp.js")


def _upwards(directory: str) -> Iterator[str]:
    while True:
        yield directory
        if directory in ("/", ""):
            return
        directory = posixpath.dirname(directory)


def walk(overlay: Overlay, entries: List[str], *, packages: bool) -> Iterator[Optional[str]]:
    """Follow every module from the ``entries``, files as they will be called.

    Yields what is missing in words, and ``None`` after each source, so that the caller can end it.
    """
    modules = Modules(overlay, packages=packages)
    seen = set()
    waiting = []
    for entry in entries:
        found = modules.find(entry, "/")
        if found:
            waiting.append(found)
        else:
            yield "%s is not there" % overlay.shown(entry)
    while waiting:
        file = overlay.real_name(waiting.pop(0))
        if file in seen or not file.endswith(_SOURCES) or "/node_modules/" in file:
            continue
        seen.add(file)
        yield None
        try:
            asked = needs(overlay.read(file, _MAX_SOURCE).decode("utf-8", "replace"))
        except (OSError, NotRead):
            continue
        for need in asked:
            target = modules.find(need.name, file)
            if target:
                waiting.append(target)
            elif target is None and not need.optional:
                yield "%s:%d needs %s" % (overlay.shown(file), need.line, need.name)
