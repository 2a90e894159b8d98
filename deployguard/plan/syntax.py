"""YAML text to a tree of nodes with places, with every mistake in plain words.

The tree is built from libyaml's events rather than by PyYAML's composer: the composer recurses in
C and kills the process on a few thousand opening brackets, and it forgets which words were quoted.
"""

from __future__ import annotations

import re
from typing import Any

from deployguard.errors import Mistake, PlanInvalid
from deployguard.plan.document import Document, Entry, Finding, Node, Path, Place
from deployguard.plan.scalars import read_plain

__all__ = ["parse", "read"]

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64

_STANDARD = "tag:yaml.org,2002:"
# libyaml's words, and what a person did to cause them.
_PLAIN_WORDS = (
    (
        "cannot start any token",
        "this character cannot start a value",
        "quote the text; indent with spaces, not tabs",
    ),
    (
        "mapping values are not allowed",
        "a second `: ` on one line, or a wrong indent",
        "quote the text that holds the colon, or line the key up with its neighbours",
    ),
    (
        "could not find expected ':'",
        "a key without a colon",
        "write `key: value`, or indent the line so that it belongs to the text above",
    ),
    (
        "did not find expected key",
        "this line does not fit in with the lines above",
        "line it up with its neighbours, and look for a quote that was not closed",
    ),
    (
        "did not find expected '-' indicator",
        "this line does not fit in with the list above",
        "line it up with the other `-`",
    ),
    (
        "block sequence entries are not allowed",
        "a list cannot start here",
        "put the first `-` on a line of its own",
    ),
    ("did not find expected ',' or ']'", "a list opened with [ is not closed", "add , or ]"),
    ("did not find expected ',' or '}'", "a mapping opened with { is not closed", "add , or }"),
    ("did not find expected node content", "a value is missing here", ""),
    ("unexpected end of stream", "the file ends inside a quoted text", "close the quote"),
    ("unexpected document indicator", "a `---` inside a quoted text", "close the quote"),
    ("found undefined tag handle", "tags such as !e!x are not used in plans", "remove the tag"),
    (
        "found unknown escape character",
        "an unknown \\ escape in double quotes",
        "write \\\\ or use single quotes",
    ),
    ("found unexpected ':'", "a colon that ends no key", "put a space after it, or quote the text"),
    ("invalid Unicode character", "an escape for half of a character", "write the character"),
    ("found a tab character", "a tab cannot indent", "use spaces"),
    ("incompatible YAML document", "an unknown %YAML version", "remove the %YAML line"),
)


def read(path: str, shown: str) -> bytes:
    """The bytes of a file, or a mistake at its first line."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise PlanInvalid([Mistake(shown, 1, 1, "", f"cannot be read: {reason}")]) from None
    if len(data) > MAX_BYTES:
        message = f"is larger than {MAX_BYTES // 1024**2} MiB; that is not a plan"
        raise PlanInvalid([Mistake(shown, 1, 1, "", message)])
    return data


def parse(data: bytes, file: str) -> Document:
    """Parse one file. Raises :class:`PlanInvalid` when there is no tree to go on with."""
    import yaml

    text = _decode(data, file)
    loader: Any = None
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        return _Builder(loader, yaml, file).document()
    except yaml.MarkedYAMLError as error:
        raise PlanInvalid([_syntax_mistake(error, text, file)]) from None
    except yaml.YAMLError:
        raise PlanInvalid([_character_mistake(text, file)]) from None
    except _Fatal as fatal:
        place = fatal.place
        mistake = Mistake(file, place.line, place.column, "", fatal.message, fatal.hint)
        raise PlanInvalid([mistake]) from None
    finally:
        if loader is not None:
            loader.dispose()


class _Fatal(Exception):
    """The rest of the file cannot be read."""

    def __init__(self, place: Place, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.place, self.message, self.hint = place, message, hint


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        message = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        mistake = Mistake(file, line, column, "", message, "save the file as UTF-8")
        raise PlanInvalid([mistake]) from None


def _character_mistake(text: str, file: str) -> Mistake:
    from yaml.reader import Reader

    match = Reader.NON_PRINTABLE.search(text)
    at = match.start() if match else 0
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    what = f"the character U+{ord(text[at]):04X}" if match else "a character"
    return Mistake(file, line, column, "", f"{what} is not allowed in YAML", "remove it")


def _syntax_mistake(error: Any, text: str, file: str) -> Mistake:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = error.problem or error.context or "not YAML"
    message, hint = problem, ""
    for theirs, ours, mend in _PLAIN_WORDS:
        if theirs in problem:
            message, hint = ours, mend
            break
    lines = text.splitlines()
    here = lines[line - 1] if line <= len(lines) else ""
    if re.match(r"[ ]*\t", here) and "tab" not in message:
        message, hint = "a tab cannot indent", "use spaces"
    elif re.match(r"\s*(- )?[^:#]*: *[%@`]", here):
        message, hint = "a value cannot start with %, @ or `", "quote it"
    opened = error.context_mark
    # Of a block that is a line nobody needs; of a bracket or quote it is the one to look at.
    if (
        opened is not None
        and opened.line + 1 < line
        and ("opened" in message or "quoted" in message)
    ):
        message += f" (it began at line {opened.line + 1})"
    return Mistake(file, line, column, "", message, hint)


class _Builder:
    """Builds the tree of one document from the parser's events."""

    def __init__(self, loader: Any, yaml: Any, file: str) -> None:
        self._next = loader.get_event
        self._yaml = yaml
        self._file = file
        self._anchors: dict[str, Node] = {}
        self._path: list[str | int] = []
        self.findings: list[Finding] = []
        self.surprises: list[Finding] = []

    def document(self) -> Document:
        yaml = self._yaml
        self._next()
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            raise _Fatal(Place(self._file, 1, 1), "the file is empty")
        root = self._node(self._next())
        self._next()
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise _Fatal(
                self._place(event),
                "a second document starts here",
                "a plan is one document; remove the --- line or split the file",
            )
        if root.value is None:
            raise _Fatal(Place(self._file, 1, 1), "the file is empty")
        return Document(self._file, root, self.findings, self.surprises)

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1)

    def _find(self, place: Place, message: str, hint: str = "") -> None:
        self.findings.append(Finding(self.path, message, hint, place=place))

    @property
    def path(self) -> Path:
        return tuple(self._path)

    def _node(self, event: Any) -> Node:
        yaml = self._yaml
        place = self._place(event)
        if isinstance(event, yaml.AliasEvent):
            node = self._anchors.get(event.anchor)
            if node is None:
                raise _Fatal(
                    place,
                    f"*{event.anchor} refers to an anchor that is not defined above",
                    f"write &{event.anchor} at the value it should repeat",
                )
            return node
        if len(self._path) > MAX_DEPTH:
            raise _Fatal(place, f"nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._refuse_tag(event, place, "seq")
            node = Node(place, self._items())
        else:
            self._refuse_tag(event, place, "map")
            node = Node(place, self._entries(place))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _refuse_tag(self, event: Any, place: Place, kind: str) -> None:
        if event.tag not in (None, "!", _STANDARD + kind):
            self._surprise_tag(event.tag, place)

    def _surprise_tag(self, tag: str, place: Place) -> None:
        shown = f"!!{tag[len(_STANDARD) :]}" if tag.startswith(_STANDARD) else tag
        self.surprises.append(
            Finding(self.path, f"the tag {shown} is not used here", "remove it", place=place)
        )

    def _scalar(self, event: Any, place: Place) -> Node:
        text: str = event.value
        if not text.isprintable():
            text = self._refuse_characters(text, place)
        if event.implicit[0]:
            scalar = read_plain(text)
            if scalar.surprise:
                self.surprises.append(Finding(self.path, scalar.surprise, scalar.hint, place=place))
            return Node(place, scalar.value, text)
        tag = event.tag
        if tag in (None, "!", _STANDARD + "str"):
            return Node(place, text)
        self._surprise_tag(tag, place)
        return Node(place, text)

    def _refuse_characters(self, text: str, place: Place) -> str:
        # An escape such as "\0" or "\ud800" reaches what no program or file name can hold.
        if "\0" in text:
            self._find(place, "holds a NUL character", "remove it")
            return text.replace("\0", "")
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._find(place, "holds half of a character", "write the character itself")
            return text.encode("utf-8", "replace").decode()
        return text

    def _items(self) -> list[Node]:
        items: list[Node] = []
        end = self._yaml.SequenceEndEvent
        while not isinstance(event := self._next(), end):
            self._path.append(len(items))
            items.append(self._node(event))
            self._path.pop()
        return items

    def _entries(self, place: Place) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        merged: list[Node] = []
        end = self._yaml.MappingEndEvent
        while not isinstance(event := self._next(), end):
            key = self._key(event)
            key_place = self._place(event)
            self._path.append(key)
            if key == "<<" and event.implicit[0]:
                merged.append(self._node(self._next()))
            else:
                node = self._node(self._next())
                if key in entries:
                    first = entries[key].place.line
                    self._find(
                        key_place, f"the key is here twice, first at line {first}", "keep one"
                    )
                else:
                    entries[key] = Entry(key_place, node)
            self._path.pop()
        for node in merged:
            self._merge(entries, node, place)
        return entries

    def _key(self, event: Any) -> str:
        yaml = self._yaml
        place = self._place(event)
        if isinstance(event, yaml.ScalarEvent):
            text: str = event.value
            if not text.isprintable():
                self._find(place, "a key with a line break or control character", "remove it")
                text = self._refuse_characters(text, place)
            elif event.implicit[0] and text != "<<":
                scalar = read_plain(text)
                # As a key, y or n is a name to every reader we know.
                if not isinstance(scalar.value, str) or (scalar.surprise and len(text) > 1):
                    self._path.append(text)
                    self.surprises.append(_key_surprise(self.path, text, scalar.surprise, place))
                    self._path.pop()
            return text
        if isinstance(event, yaml.MappingStartEvent) and event.flow_style:
            raise _Fatal(
                place,
                "{ starts a mapping, and a mapping cannot be a key",
                'quote a value that starts with a template: "{{ version }}"',
            )
        raise _Fatal(place, "a key must be text", "quote it")

    def _merge(self, entries: dict[str, Entry], node: Node, place: Place) -> None:
        sources = node.value if isinstance(node.value, list) else [node]
        for source in sources:
            if not isinstance(source.value, dict):
                self._find(
                    source.place if source.place.line > 1 else place,
                    "<< merges mappings only",
                    "name the anchor of a mapping: <<: *name",
                )
                continue
            for key, entry in source.value.items():
                entries.setdefault(key, entry)


def _key_surprise(path: Path, text: str, surprise: str, place: Place) -> Finding:
    if not text:
        return Finding(path[:-1], "a key is missing before the colon", place=place)
    return Finding(
        path,
        f"a key must be text, and {surprise or text + ' is not'}",
        f'quote it: "{text}"',
        on_key=True,
        place=place,
    )
