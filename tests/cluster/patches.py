"""The three kinds of patches that kubectl sends."""

from __future__ import annotations

import copy
from typing import Any

#: The key by which the elements of a list are told apart, by the name of the list.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "conditions": "type",
    "ownerReferences": "uid",
}


def strategic(old: Any, patch: Any, name: str = "") -> Any:
    """A strategic merge patch: lists of the known names are merged element by element."""
    if isinstance(old, dict) and isinstance(patch, dict):
        return _mapping(old, patch)
    if isinstance(old, list) and isinstance(patch, list) and _key(name, patch, old):
        return _elements(old, patch, _key(name, patch, old))
    return copy.deepcopy(patch)


def _mapping(old: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    if patch.get("$patch") == "replace":
        return {k: copy.deepcopy(v) for k, v in patch.items() if k != "$patch"}
    new = copy.deepcopy(old)
    keys = patch.get("$retainKeys")
    if keys is not None:
        new = {k: v for k, v in new.items() if k in keys}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            new[field] = [v for v in new.get(field, []) if v not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            new.pop(key, None)
        elif key in new:
            new[key] = strategic(new[key], value, key)
        else:
            new[key] = strategic({} if isinstance(value, dict) else [], value, key)
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            _reorder(new, key.partition("/")[2], order)
    return new


def _reorder(new: dict[str, Any], field: str, order: list[Any]) -> None:
    merge = _key(field, order, new.get(field, []))
    if merge and field in new:
        place = {entry[merge]: number for number, entry in enumerate(order) if merge in entry}
        new[field].sort(key=lambda entry: place.get(entry.get(merge), len(place)))


def _key(name: str, patch: list[Any], old: list[Any]) -> str:
    if name == "ports":
        both = [entry for entry in [*patch, *old] if isinstance(entry, dict)]
        return "containerPort" if any("containerPort" in entry for entry in both) else "port"
    return _MERGE_KEYS.get(name, "")


def _elements(old: list[Any], patch: list[Any], key: str) -> list[Any]:
    new = copy.deepcopy(old)
    for entry in patch:
        if entry.get("$patch") == "replace":
            continue
        at = next((i for i, known in enumerate(new) if known.get(key) == entry.get(key)), None)
        if entry.get("$patch") == "delete":
            if at is not None:
                del new[at]
        elif at is None:
            new.append(strategic({}, entry))
        else:
            new[at] = strategic(new[at], entry)
    return new


def merge(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    new = copy.deepcopy(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merge(new.get(key), value)
    return new


def operations(old: Any, patch: list[dict[str, Any]]) -> Any:
    """RFC 6902, as far as `rollout undo` needs it."""
    new = copy.deepcopy(old)
    for step in patch:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]
        ]
        target = new
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        if step["op"] in ("add", "replace"):
            target[last] = copy.deepcopy(step["value"])
        elif step["op"] == "remove":
            target.pop(last, None)
        else:
            raise ValueError(f"no operation {step['op']}")
    return new
