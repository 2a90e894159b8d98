"""What an unquoted YAML word means, and whether every reader of YAML would agree.

``no``, ``010``, ``12:30``, ``1_000`` and ``2024-01-02`` are text in one version of YAML and
something else in another. People who write them mean text or a number, and find out in production
which one they got. A plan must say it: quoted, or as a plain number.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = ["Scalar", "read_plain"]

# Any other first character makes it text, whatever follows; nearly all words end here.
_TELLING = frozenset("+-.0123456789~nNtTfFyYoO")

_NULL = frozenset(("~", "null", "Null", "NULL"))
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_LOOSE_BOOL = {
    spelling: meaning
    for meaning, words in ((True, ("yes", "on", "y")), (False, ("no", "off", "n")))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_HEX = re.compile(r"[-+]?0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_OCTAL = re.compile(r"[-+]?0[0-9]+|[-+]?0o[0-7]+")
_BINARY = re.compile(r"[-+]?0b[01_]+")
_GROUPED = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?")
_READINGS = (
    (_BINARY, "read as a binary number by some"),
    (_GROUPED, "read as a number without its _ by some, and as text by others"),
    (_SEXAGESIMAL, "read as a number to base 60 by some, as 12:30 would be 750"),
    (_EXPONENT, "read as a number by some, and as text by others"),
    (_NOT_FINITE, "not a number that can be used here"),
    (_DATE, "read as a date by some"),
)


class Scalar(NamedTuple):
    """The value; and, when readers of YAML differ about it, what is wrong and how to mend it."""

    value: bool | int | float | str | None
    surprise: str = ""
    hint: str = ""


def read_plain(text: str) -> Scalar:
    """Read one unquoted word.

    The value given beside a surprise is the one PyYAML, and so Ansible, would read where that is
    a truth value or an octal number, and the text itself otherwise.
    """
    if not text:
        return Scalar(None)
    if text[0] not in _TELLING:
        return Scalar(text)
    if text in _NULL:
        return Scalar(None)
    if text in _BOOL:
        return Scalar(_BOOL[text])
    if text in _LOOSE_BOOL:
        meaning = _LOOSE_BOOL[text]
        return Scalar(
            # One letter is text to PyYAML, and a truth value to other readers.
            meaning if len(text) > 1 else text,
            f"{text} is read as {str(meaning).lower()} by some and as text by others",
            f'write {str(meaning).lower()}, or quote it: "{text}"',
        )
    return _number(text)


def _number(text: str) -> Scalar:
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    quoted = f'quote it: "{shown}"'
    try:
        if _INT.fullmatch(text):
            return Scalar(int(text))
        if _HEX.fullmatch(text):
            return Scalar(int(text, 16))
        if _FLOAT.fullmatch(text):
            number = float(text)
            if math.isfinite(number):
                return Scalar(number)
            return Scalar(text, f"{shown} is too large a number", quoted)
    except ValueError:
        # Python refuses to read more than 4300 digits.
        return Scalar(text, f"{shown} is too long a number", quoted)
    if _OCTAL.fullmatch(text):
        return Scalar(
            _octal(text),
            f"{shown} starts with 0 and is read as an octal number by some",
            f"{quoted}, or write it without the 0",
        )
    for pattern, reading in _READINGS:
        if pattern.fullmatch(text):
            return Scalar(text, f"{shown} is {reading}", quoted)
    return Scalar(text)


def _octal(text: str) -> int | str:
    digits = text.lstrip("+-")
    if len(digits) > 20 or set(digits) - set("01234567"):
        return text
    return int(digits, 8)
