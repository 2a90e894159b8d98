"""What the models object to, in the words of someone who writes plans.

pydantic says *Input should be a valid tuple [type=tuple_type]*; a person needs *expected a list,
found "backend"; write it as [backend]*, at the line where it stands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from deployguard.plan.document import Document, Finding, Path
from deployguard.plan.quantity import CHANGED_AT, is_duration
from deployguard.plan.suggestion import did_you_mean, meant
from deployguard.plan.template import has_template

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

__all__ = ["Objections", "pattern_words"]

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}
# Blocks that may be written shorter; the short form is what most people meant to write.
_EXPECTED_BLOCK = {
    "Artifact": "a path, or a block with `path`",
    "SystemdService": "a unit name, or a block with `unit`",
    "Pm2Service": "a process name, or a block with `name`",
    "ComposeService": "a compose file in the tree, or a block",
    "ContainerCheck": "a service or several, or a block with `services`",
    "PortCheck": "a port number, or a block with `number`",
    "HttpCheck": "a URL, or a block with `url`",
    "Dump": "a list of arguments, or a block with `postgresql` or `command`",
    "CommandCheck": "a list of arguments, or a block with `argv`",
    "PostgresCheck": "a DSN, or a block with `dsn`",
    "MysqlCheck": "a DSN, or a block with `dsn`",
    "RedisCheck": "a DSN, or a block with `dsn`",
    "TlsCheck": "the name of a server, or a block with `address`",
    "Host": "a mapping such as {address: web1.example.com}",
}
_PATTERNS = {
    CHANGED_AT: (
        "is not a moment; write it in ISO 8601 with its time zone, as in 2026-11-21T10:05:00Z"
    ),
    r"^/": "is not an absolute path; it starts with /, as in /srv/app",
    r"^[0-9a-f]{64}$": "is not a SHA-256; that is 64 of the characters 0-9 and a-f",
    r"^[a-z0-9][a-z0-9_-]*$": ("is not a compose project; use lower case letters, digits, - and _"),
    r"^[^/\s]+\.(service|socket|timer|target|path)$": (
        "is not a systemd unit; give its full name, as in backend.service"
    ),
    r"^[A-Za-z_][A-Za-z0-9_]{0,127}$": (
        "is not the name of an environment variable; it is made of letters, digits and _"
    ),
    r"^[^/\s]+$": "is not a name or an address; write it without https:// and without a path",
    r"^[A-Za-z0-9@_][A-Za-z0-9@._:-]*$": (
        "is not a PM2 process name; use letters, digits, @, ., _, : and -"
    ),
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "is not one word; use letters, digits, ., _ and -",
    r"^[^/]": "is not a path in the release; write it without the / in front",
    r"^(deployment|statefulset|daemonset)/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$": (
        "is not a workload; write it as deployment/api, statefulset/db or daemonset/agent"
    ),
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$": (
        "is not a namespace; use up to 63 small letters, digits and -"
    ),
    r"^[^-\s]\S*$": "is not the name of a context",
    r"^https?://": "is not a URL; it starts with http:// or https://",
    r"^[^/\s]+/[^/\s]+$": "is not a repository; write it as owner/name",
    r"^[^\s~^:?*\[\\-][^\s~^:?*\[\\]*$": (
        "is not the name of a commit; give a SHA, a tag or a branch"
    ),
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": (
        "cannot be a name; use up to 64 letters, digits, ., _ and -, a letter or digit first"
    ),
    r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$": (
        "cannot be a version; use up to 128 letters, digits, ., _, + and -, a letter or digit first"
    ),
    r"^\S+$": "is not one word; write it without spaces",
    r"^[^\s@<>,]+@[^\s@<>,]+$": "is not the address of a mailbox; write it as ops@example.com",
    r"^\+[1-9][0-9]{6,14}$": "is not a telephone number; write it as +4915112345678",
    r"^AC[0-9a-fA-F]{32}$": "is not the SID of an account; Twilio's begin with AC",
    r"^SK[0-9a-fA-F]{32}$": "is not the SID of an API key; Twilio's begin with SK",
    r"^MG[0-9a-fA-F]{32}$": "is not the SID of a messaging service; Twilio's begin with MG",
    r"^[A-Za-z0-9:][A-Za-z0-9.:_-]{0,252}$": (
        "cannot be the name of a host; use letters, digits, ., :, _ and -"
    ),
}


def pattern_words(pattern: str) -> str:
    """What a pattern of the models asks for, in words: ``problem; mend``."""
    return _PATTERNS.get(pattern, f"does not match {pattern}")


def found(value: Any, text: str | None = None) -> str:
    """How a value of the file is shown in a message; ``text`` is how it was written."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return text or str(value).lower()
    if isinstance(value, int | float):
        return f"the number {_short(text or str(value))}"
    if isinstance(value, str):
        return f'"{_short(value)}"'
    return "a mapping" if isinstance(value, dict) else "a list"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:59]}…"


class Objections:
    """The findings in one pydantic error about ``data``, which came from ``document``.

    ``unrendered`` puts templates back in the place of values that must not be shown.
    """

    def __init__(
        self,
        model: type[BaseModel],
        document: Document,
        data: dict[str, Any],
        unrendered: Callable[[str], str] = str,
    ) -> None:
        self._unrendered = unrendered
        self._model = model
        self._document = document
        self._data = data

    def findings(self, error: ValidationError) -> list[Finding]:
        """Every objection as a finding, one for each place."""
        plain: list[Finding] = []
        # A union objects once for each of its branches; a person wants one sentence.
        branches: dict[Path, list[str]] = {}
        details = error.errors(include_url=False)
        unknown = [
            self._path(detail["loc"])[0]
            for detail in details
            if detail["type"] == "extra_forbidden"
        ]
        deeper = {
            path[:length]
            for path, _ in (self._path(detail["loc"]) for detail in details)
            for length in range(len(path))
        }
        for detail in details:
            path, rest = self._path(detail["loc"])
            kind = detail["type"]
            if kind == "too_short" and path in deeper:
                continue  # one that is wrong does not count, and is named
            if kind in _EXPECTED and rest != ["[key]"]:
                if rest and path in deeper:
                    continue  # another branch got further and says more
                expected = self._expected(detail)
                phrases = branches.setdefault(path, [])
                if expected not in phrases:
                    phrases.append(expected)
            elif kind == "missing":
                if not self._misspelt(path, str(detail["loc"][-1]), unknown):
                    plain.append(self._missing(path, str(detail["loc"][-1])))
            elif kind == "extra_forbidden":
                plain.append(self._unknown(path))
            else:
                plain.append(self._other(path, kind, detail, on_key=rest == ["[key]"]))
        refused = {finding.path for finding in plain}
        for path, phrases in branches.items():
            if path not in refused:
                plain.append(self._wrong_type(path, phrases))
        return plain

    def _path(self, loc: tuple[int | str, ...]) -> tuple[Path, list[str]]:
        """The part of a pydantic ``loc`` that is in the document, and what is left over.

        Left over are union branches, the keys a shorthand stands for, and missing keys.
        """
        value: Any = self._data
        path: list[str | int] = []
        rest: list[str] = []
        for part in loc:
            here = part in value if isinstance(value, dict) else False
            if isinstance(value, list) and isinstance(part, int):
                here = part < len(value)
            if here:
                value = value[part]
                path.append(part)
            else:
                rest.append(str(part))
        return tuple(path), rest

    def _at(self, path: Path) -> Any:
        value: Any = self._data
        for part in path:
            value = value[part]
        return value

    def found(self, path: Path) -> str:
        """The value at a path as the file has it.

        A template is shown as it was written, and with what it gave unless that may be a secret.
        """
        node = self._document.node(path)
        value = self._at(path)
        if node is None or isinstance(node.value, dict | list):
            return found(value)
        if isinstance(node.value, str) and has_template(node.value) and isinstance(value, str):
            secret = self._unrendered(value) != value
            given = "" if secret else f", which gives {found(value)}"
            return f'"{_short(node.value)}"{given}'
        if node.value != value:
            return found(value)  # replaced from the command line
        return found(node.value, node.text)

    def _expected(self, detail: Mapping[str, Any]) -> str:
        name = (detail.get("ctx") or {}).get("class_name", "")
        return _EXPECTED_BLOCK.get(name, _EXPECTED[detail["type"]])

    def _wrong_type(self, path: Path, phrases: list[str]) -> Finding:
        value = self._at(path)
        if path == ("hosts",):
            phrases = ["a mapping of hosts, or the path of an inventory file"]
        elif path[:1] == ("serial",):
            phrases = ["a number of hosts, or a percentage such as 50%"]
        expected = " or ".join(phrases)
        message = f"expected {expected}, found {self.found(path)}"
        return Finding(path, message, self._mend(path, phrases, value))

    def _mend(self, path: Path, phrases: list[str], value: Any) -> str:
        node = self._document.node(path)
        written = node.text if node is not None and node.text else str(value)
        if value is None:
            return "give it a value, or remove the line"
        if "text" in phrases and isinstance(value, bool | int | float):
            return f'quote it: "{_short(written)}"'
        if (
            any("a list" in phrase for phrase in phrases)
            and isinstance(value, str)
            and not has_template(written)
        ):
            try:
                words = shlex.split(value)
            except ValueError:
                words = value.split()
            if words and len(value) <= 60 and not re.search(r"[\[\]{},\"'#]", value):
                return f"write it as [{', '.join(words)}]"
        if phrases == ["a mapping"] and isinstance(value, list):
            return "write it as `key: value` lines, without the -"
        return ""

    def _missing(self, block: Path, key: str) -> Finding:
        description = ""
        model = self._block(block)
        if model is not None:
            description = next(
                (
                    field.description or ""
                    for name, field in model.model_fields.items()
                    if (field.alias or name) == key
                ),
                "",
            )
        return Finding(block, f'"{key}" is missing', description.rstrip("."), on_key=True)

    def _misspelt(self, block: Path, key: str, unknown: list[Path]) -> bool:
        return any(
            path[:-1] == block and meant(str(path[-1]), [key]) == key for path in unknown if path
        )

    def _unknown(self, path: Path) -> Finding:
        key = str(path[-1])
        model = self._block(path[:-1])
        fields = field_names(model) if model is not None else []
        match = meant(key, fields)
        if match is not None:
            hint = f'did you mean "{match}"?'
        else:
            hint = self._belongs(key) or did_you_mean(key, fields, among="this block has")
        return Finding(path, "unknown key", hint, on_key=True)

    def _belongs(self, key: str) -> str:
        """The block that does have such a key, for a line that slipped to a wrong indent."""
        for name, model in _blocks(self._model).items():
            if key in field_names(model):
                return f"it belongs in {name}"
        return ""

    def _block(self, path: Path) -> type[BaseModel] | None:
        for model in _models_at(self._model, path):
            return model
        return None

    def _other(self, path: Path, kind: str, detail: Mapping[str, Any], *, on_key: bool) -> Finding:
        context = detail.get("ctx") or {}
        shown = f'"{_short(str(path[-1]))}"' if on_key and path else self.found(path)
        if kind == "string_pattern_mismatch":
            problem, _, hint = pattern_words(context["pattern"]).partition("; ")
            return Finding(path, f"{shown} {problem}", hint, on_key)
        if kind == "literal_error":
            words = re.findall(r"'([^']*)'", context["expected"])
            value = self._at(path)
            hint = did_you_mean(value, words) if isinstance(value, str) else ""
            if not hint.startswith("did you"):
                hint = ""
            return Finding(path, f"expected {_either(words)}, found {shown}", hint)
        if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
            bound = next(iter(context.values()))
            bound = int(bound) if float(bound).is_integer() else bound
            if is_duration(self._at(path)):
                bound = f"{bound}s"
            least = "at least" if kind.startswith("greater") else "at most"
            return Finding(path, f"must be {least} {bound}, found {shown}")
        if kind == "too_short":
            return Finding(path, "must not be empty")
        if kind == "value_error":
            return self._value_error(path, str(context.get("error", "")), shown)
        message = str(detail["msg"])
        return Finding(path, message[:1].lower() + message[1:], on_key=on_key)

    def _value_error(self, path: Path, text: str, shown: str) -> Finding:
        value = self._at(path)
        problem, _, hint = text.partition("; ")
        if isinstance(value, dict):
            # Written with nothing after the colon, a kind of check counts as not written.
            empty = [key for key, item in value.items() if item is None]
            if empty and problem.startswith("needs exactly one"):
                bare = empty[0] in ("process", "baseline", "approval", "logs")
                mend = f"write {empty[0]}: {{}}" if bare else "give it a value"
                return Finding((*path, empty[0]), f"{empty[0]} has no value", mend)
            return Finding(path, problem, hint)
        if problem.startswith("not "):
            return Finding(path, f"{shown} is {problem}", hint)
        return Finding(path, problem, hint)


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1] if words else "")))


def field_names(model: type[BaseModel]) -> list[str]:
    """The keys a block may have in the file; what only the loader fills is not among them."""
    return [field.alias or name for name, field in model.model_fields.items() if not field.exclude]


def _models_at(model: type[BaseModel], path: Path) -> Iterator[type[BaseModel]]:
    """The models that describe the value at a path of the document."""
    annotations: list[Any] = [model]
    for part in path:
        below: list[Any] = []
        for annotation in annotations:
            for kind, inner in _unwrapped(annotation):
                if kind == "model":
                    below += [
                        field.annotation
                        for name, field in inner.model_fields.items()
                        if (field.alias or name) == part
                    ]
                elif kind == ("item" if isinstance(part, int) else "value"):
                    below.append(inner)
        annotations = below
    for annotation in annotations:
        yield from (inner for kind, inner in _unwrapped(annotation) if kind == "model")


def _unwrapped(annotation: Any) -> Iterator[tuple[str, Any]]:
    """``Annotated`` and unions taken off: models, and what mappings and lists hold."""
    from types import UnionType
    from typing import Annotated, Union, get_args, get_origin

    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _unwrapped(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for branch in get_args(annotation):
            yield from _unwrapped(branch)
    elif origin is dict:
        yield "value", get_args(annotation)[1]
    elif origin in (tuple, list):
        yield "item", get_args(annotation)[0]
    elif isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        yield "model", annotation


def _blocks(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Every block of the plan by the name of its place, outermost first."""
    blocks: dict[str, type[BaseModel]] = {}
    queue: list[tuple[str, Any]] = [("the top level", model)]
    while queue:
        name, annotation = queue.pop(0)
        for kind, inner in _unwrapped(annotation):
            if kind != "model":
                suffix = ".NAME" if kind == "value" else "[]"
                queue.append((name + suffix, inner))
            elif inner not in blocks.values():
                blocks[name] = inner
                prefix = "" if inner is model else f"{name}."
                queue += [
                    (f"{prefix}{field.alias or key}", field.annotation)
                    for key, field in inner.model_fields.items()
                ]
    return blocks
