"""What an environment declares of itself: versions, configuration keys, limits.

The file that a plan names is YAML with the three blocks of :class:`Facts`. Its mistakes are found
when the plan is loaded, each with the place in that file.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from deployguard.plan.block import Block
from deployguard.plan.quantity import parse_duration, parse_size

__all__ = ["Facts", "read_facts"]


def _limit(value: object) -> object:
    """A number, a size or a duration, as a number."""
    if isinstance(value, str):
        for parse in (parse_size, parse_duration):
            try:
                return parse(value)
            except ValueError:
                continue
        raise ValueError("not a limit; write it as 40, 512 MiB or 30s")
    if isinstance(value, bool):
        raise ValueError("not a limit; write it as 40, 512 MiB or 30s")
    return value


Limit = Annotated[float, BeforeValidator(_limit, json_schema_input_type=str | float)]


class Facts(Block):
    """What one environment is like, as far as a release may depend on it."""

    versions: dict[str, str] = Field(
        default_factory=dict, description="Versions by name; must be the same."
    )
    config: tuple[str, ...] = Field(
        (), description="Keys that are configured; must be the same, whatever their values."
    )
    limits: dict[str, Limit] = Field(
        default_factory=dict,
        description="Numbers, sizes or durations by name; not below those that were tested with.",
    )


def read_facts(path: str) -> Facts:
    """The facts in a file. Raises :class:`~deployguard.errors.PlanInvalid` with its mistakes."""
    from pydantic import ValidationError

    from deployguard.errors import PlanInvalid
    from deployguard.plan.document import TooLarge
    from deployguard.plan.mistakes import Objections
    from deployguard.plan.syntax import parse, read

    document = parse(read(path, path), path)
    findings = [*document.findings, *document.surprises]
    try:
        data: Any = document.plain()
    except TooLarge:
        data = None
    if not isinstance(data, dict):
        from deployguard.plan.document import Finding

        finding = Finding((), "expected versions:, config: and limits:", place=document.root.place)
        raise PlanInvalid([document.mistake(finding)], subject=path)
    facts = None
    try:
        facts = Facts.model_validate(data)
    except ValidationError as error:
        findings += Objections(Facts, document, data).findings(error)
    if findings or facts is None:
        raise PlanInvalid([document.mistake(finding) for finding in findings], subject=path)
    return facts
