"""What is left of a plan when the blocks that the models refuse are taken out.

The rules between blocks need a whole, valid plan. With a single misspelt key there would be none,
and its author would meet the other half of the mistakes only in the next run.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from deployguard.plan.document import Path

if TYPE_CHECKING:
    from pydantic import ValidationError

    from deployguard.plan.model import Plan

__all__ = ["remainder"]

# Each round goes one level further out; the deepest block of a plan is eight levels down.
_ROUNDS = 10
_PLACEHOLDERS: dict[str, Any] = {"name": "x", "version": "0", "hosts": {}, "components": {}}


def remainder(
    model: type[Plan], data: dict[str, Any], error: ValidationError
) -> tuple[Plan | None, set[Path]]:
    """The plan without what ``error`` is about, and the paths that were taken out of ``data``."""
    from pydantic import ValidationError

    rest = copy.deepcopy(data)
    removed: set[Path] = set()
    for _ in range(_ROUNDS):
        details = error.errors(include_url=False, include_context=False, include_input=False)
        # All are found before the first is taken out, or the second of two mistakes in one block
        # would take the block around it.
        paths = {_innermost_key(rest, detail["loc"]) for detail in details}
        for path in paths:
            _take_out(rest, path)
        removed |= paths
        for key, placeholder in _PLACEHOLDERS.items():
            if key not in rest:
                rest[key] = copy.deepcopy(placeholder)
                removed.add((key,))
        try:
            return model.model_validate(rest), removed
        except ValidationError as again:
            error = again
    return None, removed


def _innermost_key(rest: dict[str, Any], loc: tuple[int | str, ...]) -> Path:
    """The path of the innermost key on the way; a list goes as a whole, so that no index moves."""
    path: Path = ()
    walked: Path = ()
    value: Any = rest
    for part in loc:
        if isinstance(value, dict) and part in value:
            walked = path = (*walked, part)
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            walked = (*walked, part)
            value = value[part]
    return path


def _take_out(rest: dict[str, Any], path: Path) -> None:
    value: Any = rest
    for part in path[:-1]:
        if isinstance(value, dict) and part not in value:
            return  # went with the block around it
        value = value[part]
    if path:
        value.pop(path[-1], None)
