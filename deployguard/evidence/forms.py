"""The shapes in which one secret shows up in logs, dumps and URLs.

A log rarely prints a password as it is: it is part of a base64 header, percent-encoded in a URL,
escaped in JSON within JSON, or a line of a key that has many.
"""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

__all__ = ["MIN_SECRET", "forms"]

#: Shorter ones would redact half of every text and are not looked for.
MIN_SECRET = 4
_MIN_BASE64 = 6
_MIN_LINE = 12


def forms(secret: bytes) -> set[bytes]:
    """Every byte string to look for; empty when the secret is too short to be looked for."""
    found: set[bytes] = set()
    for value in {secret, secret.strip(), *_lines(secret)}:
        if len(value) >= MIN_SECRET:
            found |= _of_value(value)
    return found


def _lines(secret: bytes) -> set[bytes]:
    """The lines of a key file, which a log shows one by one, each behind a time stamp."""
    lines = [line.strip() for line in secret.splitlines()]
    return {line for line in lines if len(line) >= _MIN_LINE} if len(lines) > 1 else set()


def _of_value(value: bytes) -> set[bytes]:
    found = {value, value.hex().encode(), value.hex().upper().encode()}
    found |= _percent(value) | _base64(value)
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return found
    return found | _escaped(text) | {text.encode("utf-16-le"), text.encode("utf-16-be")}


def _percent(value: bytes) -> set[bytes]:
    found = set()
    for encoded in (quote(value, safe=""), quote(value), quote_plus(value)):
        found.add(encoded.encode())
        found.add(_lower_escapes(encoded).encode())
    return found


def _lower_escapes(encoded: str) -> str:
    first, *rest = encoded.split("%")
    return first + "".join("%" + part[:2].lower() + part[2:] for part in rest)


def _base64(value: bytes) -> set[bytes]:
    """The characters that depend on the secret alone, for each of the three ways it can lie in
    the groups of three bytes, whatever stands before and behind it."""
    found = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + value)
        first = -(-8 * before // 6)
        last = 8 * (before + len(value)) // 6
        cores = {encoded[first:last]}
        if before == 0:
            cores.add(encoded)
        for core in cores:
            if len(core) >= _MIN_BASE64:
                found.add(core)
                found.add(core.translate(bytes.maketrans(b"+/", b"-_")))
    return found


def _escaped(text: str) -> set[bytes]:
    ascii_json = json.dumps(text)[1:-1]
    plain_json = json.dumps(text, ensure_ascii=False)[1:-1]
    # As Go writes it, and everything that must be safe inside a script element.
    web_json = ascii_json
    for character in "<>&":
        web_json = web_json.replace(character, f"\\u{ord(character):04x}")
    shapes = {
        ascii_json,
        plain_json,
        web_json,
        ascii_json.replace("/", "\\/"),
        json.dumps(ascii_json)[1:-1],
        json.dumps(plain_json, ensure_ascii=False)[1:-1],
        repr(text)[1:-1],
        text.replace("'", "'\\''"),
        html.escape(text),
        html.escape(text, quote=False),
    }
    return {shape.encode("utf-8") for shape in shapes}
