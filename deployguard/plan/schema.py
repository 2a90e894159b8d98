"""The JSON Schema of the plan file, made from the models, for editors and `check-jsonschema`.

It describes the file rather than the models: templates may stand where a number or a fixed word is
asked for, `hosts:` may name an inventory, and what only the loader fills is not in it. It cannot
say everything that :func:`deployguard.plan.load` checks.
"""

from __future__ import annotations

from typing import Any

__all__ = ["json_schema"]

_TEMPLATE = {"$ref": "#/$defs/Template"}
# Keywords that a template's text would break before it is rendered.
_NARROWING = ("pattern", "enum", "const")
# pydantic leaves its own words where a bound stands beside a validator.
_BOUNDS = {"ge": "minimum", "le": "maximum"}
_FILLED = {"Plan": ("source", "places", "given"), "HttpCheck": ("versioned",)}


def json_schema() -> dict[str, Any]:
    """The schema of a plan file, JSON Schema 2020-12."""
    from deployguard.plan.model import Plan

    raw = Plan.model_json_schema(by_alias=True, mode="validation")
    definitions: dict[str, Any] = raw.setdefault("$defs", {})
    for name, keys in _FILLED.items():
        properties = (raw if name == "Plan" else definitions[name])["properties"]
        for key in keys:
            del properties[key]
    raw["required"].remove("version")  # `--release` may give it
    hosts = raw["properties"]["hosts"]
    inventory = {"type": "string", "description": "Path of an inventory, relative to the plan."}
    description = hosts.pop("description")
    raw["properties"]["hosts"] = {"anyOf": [hosts, inventory], "description": description}
    schema: dict[str, Any] = _opened(raw)
    schema["$defs"]["Template"] = {
        "type": "string",
        "pattern": r"\{\{|\{%",
        "description": "Text with a Jinja2 template in it.",
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "deployguard plan"
    return schema


def _opened(node: Any) -> Any:
    """The schema with a template allowed beside every number, truth value and narrowed text."""
    if isinstance(node, list):
        return [_opened(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") in ("integer", "number", "boolean") or any(
        isinstance(node.get(keyword), str | list) for keyword in _NARROWING
    ):
        about = {key: node[key] for key in ("description", "default") if key in node}
        rest = {
            _BOUNDS.get(key, key): value
            for key, value in node.items()
            if key not in about and key != "title"
        }
        return about | {"anyOf": [rest, _TEMPLATE]}
    opened: dict[str, Any] = {}
    for key, value in node.items():
        if key == "default":
            opened[key] = value
        elif key == "title":
            continue  # only the key again, capitalised
        elif key in _BOUNDS:
            opened[_BOUNDS[key]] = value
        elif key in ("properties", "patternProperties", "$defs"):
            opened[key] = {name: _opened(inner) for name, inner in value.items()}
        else:
            opened[key] = _opened(value)
    if "patternProperties" in opened:
        opened.setdefault("additionalProperties", False)
    return opened
