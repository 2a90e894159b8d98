"""Durations, sizes, modes and names: the small values a plan is made of."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

__all__ = [
    "BUSINESS_DAY",
    "CHANGED_AT",
    "AbsolutePath",
    "Argv",
    "ComponentName",
    "Duration",
    "HostName",
    "Mode",
    "Size",
    "Span",
    "Whole",
    "is_duration",
    "parse_duration",
    "parse_mode",
    "parse_size",
    "refuse_bool",
    "parse_span",
]

_DURATION = re.compile(r"^(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"^(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>B|[KMGT]i?B)$")
_BYTES = {"B": 1} | {
    f"{prefix}{infix}B": (1024 if infix else 1000) ** power
    for power, prefix in enumerate("KMGT", start=1)
    for infix in ("", "i")
}


_NO_DURATION = "not a duration; write it as 250ms, 30s, 5m, 2h or 1d"
BUSINESS_DAY = "next_business_day"
_NO_SPAN = f"not a target; write it as 15m, 4h or {BUSINESS_DAY}"
_NO_SIZE = "not a size; write it as 500 MB or 2 GiB"


def parse_duration(value: object) -> object:
    """``30s``, ``1.5m``, ``250ms``, ``2h``, ``1d`` or a number of seconds, as float seconds."""
    if isinstance(value, str):
        match = _DURATION.match(value.strip())
        if match is None:
            raise ValueError(_NO_DURATION)
        return float(match["number"]) * _SECONDS[match["unit"]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(_NO_DURATION)
    return value


def is_duration(value: object) -> bool:
    """Whether it is a text that can only be a duration."""
    return isinstance(value, str) and _DURATION.match(value.strip()) is not None


def parse_span(value: object) -> object:
    """A duration, or ``next_business_day``."""
    if isinstance(value, str) and value.strip() == BUSINESS_DAY:
        return BUSINESS_DAY
    try:
        seconds = parse_duration(value)
    except ValueError:
        raise ValueError(_NO_SPAN) from None
    assert isinstance(seconds, int | float)
    if seconds <= 0:
        raise ValueError(_NO_SPAN)
    return float(seconds)


def parse_size(value: object) -> object:
    """``2 GiB``, ``500 MB``, ``10 KiB`` or a number of bytes, as int bytes."""
    if isinstance(value, str):
        match = _SIZE.match(value.strip())
        if match is None:
            raise ValueError(_NO_SIZE)
        return int(float(match["number"]) * _BYTES[match["unit"]])
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(_NO_SIZE)
    return value


def parse_mode(value: object) -> object:
    """A file mode in octal, quoted: ``"0640"``."""
    if isinstance(value, str):
        if not re.fullmatch(r"0?[0-7]{3,4}", value):
            raise ValueError('not a file mode; write it quoted and in octal, as "0640"')
        return int(value, 8)
    raise ValueError('not a file mode; write it quoted and in octal, as "0640"')


def refuse_bool(value: object) -> object:
    """Python counts ``True`` as 1; a plan that says ``port: true`` is mistaken."""
    if isinstance(value, bool):
        raise ValueError("not a number")
    return value


Whole = Annotated[int, BeforeValidator(refuse_bool)]
Duration = Annotated[
    float, BeforeValidator(parse_duration, json_schema_input_type=float | str), Field(ge=0)
]
Span = Annotated[float | str, BeforeValidator(parse_span, json_schema_input_type=float | str)]
Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=int | str), Field(ge=0)]
Mode = Annotated[int, BeforeValidator(parse_mode, json_schema_input_type=str)]
#: ISO 8601 with a time zone, or empty: a variable that is not set where nobody set it.
CHANGED_AT = r"^(\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?$"
Argv = Annotated[tuple[str, ...], Field(min_length=1)]
AbsolutePath = Annotated[str, Field(pattern=r"^/")]
# Both become file names in journals and forensics; a host may be named by its address.
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9:][A-Za-z0-9.:_-]{0,252}$")]
ComponentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
