"""The tables of ``docs/plan.md``, made from the models so that they cannot go stale.

``python -m deployguard.plan.reference docs/plan.md`` writes them between their markers; a test
fails while that would change the file.
"""

from __future__ import annotations

import re
import sys
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from deployguard.plan.quantity import parse_duration, parse_mode, parse_size, parse_span

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

__all__ = ["table", "with_tables"]

_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_QUANTITIES: dict[object, str] = {
    parse_duration: "duration",
    parse_span: "duration",
    parse_size: "size",
    parse_mode: "mode",
}
_SIMPLE = {str: "text", int: "number", float: "number", bool: "true/false", Any: "any value"}
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def with_tables(text: str) -> str:
    """The document with every marked table made anew."""
    from deployguard.plan import model

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}{table(getattr(model, match[2]))}{match[3]}"

    return _MARKED.sub(fill, text)


def table(block: type[BaseModel]) -> str:
    """One block's keys as a Markdown table."""
    # What all checks have is told once; a check that has another default tells that.
    inherited = {
        name
        for base in block.__mro__[1:]
        if base.__name__ == "CheckOptions"
        for name in base.__annotations__
        if name not in block.__annotations__
    }
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in block.model_fields.items():
        if field.exclude or name in inherited:
            continue
        kind = _words(field.annotation, field.metadata)
        meaning = (field.description or "").replace("|", r"\|")
        rows.append(f"| `{field.alias or name}` | {kind} | {_default(field, kind)} | {meaning} |")
    return "\n".join(rows) + "\n"


def _words(annotation: Any, metadata: list[Any]) -> str:
    for item in metadata:
        quantity = _QUANTITIES.get(getattr(item, "func", None))
        if quantity is not None:
            return quantity
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0], list(arguments[1:]))
    if origin in (Union, UnionType):
        return " or ".join(_words(part, []) for part in arguments if part is not type(None))
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        return f"list of {_words(arguments[0], [])}"
    if origin is dict:
        return f"mapping to {_words(arguments[1], [])}"
    return _SIMPLE.get(annotation) or f"[block](#{annotation.__name__.lower()})"


def _default(field: FieldInfo, kind: str) -> str:
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}) or hasattr(type(value), "model_fields"):
        return ""
    if kind == "duration":
        for seconds, unit in _UNITS:
            if value >= seconds and value % seconds == 0:
                return f"`{value / seconds:g}{unit}`"
        return f"`{value:g}s`"
    if kind == "size":
        return f"`{value // 1024**2} MiB`"
    if kind == "mode":
        return f'`"{value:04o}"`'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def main(path: str) -> None:
    """Write the tables into one document."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(with_tables(text))


if __name__ == "__main__":
    main(sys.argv[1])
