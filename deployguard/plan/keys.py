"""Keys as they are written: 32 random bytes each, in hex or base64, the one in use first."""

from __future__ import annotations

import base64
import binascii

from deployguard.errors import UsageError
from deployguard.plan.snapshots import KEY_MEND
from deployguard.secret import Secret

__all__ = ["KEY_BYTES", "parse_keys"]

KEY_BYTES = 32


def parse_keys(text: Secret) -> list[bytes]:
    """Every key of a text, one a word. The first seals, all of them open what was sealed before.

    Raises :class:`UsageError`; the message says which word it is, never what it holds.
    """
    words = text.reveal().split()
    keys = [_key(word) for word in words]
    bad = [number for number, key in enumerate(keys, start=1) if key is None]
    if bad or not words:
        which = f"line {bad[0]} of {text.origin}" if len(words) > 1 and bad else text.origin
        raise UsageError(f"{which} is no key: 64 hex digits, or 32 bytes in base64", hint=KEY_MEND)
    return [key for key in keys if key is not None]


def _key(word: str) -> bytes | None:
    try:
        key = bytes.fromhex(word) if len(word) == 2 * KEY_BYTES else base64.b64decode(word, b"+/")
    except (ValueError, binascii.Error):
        return None
    return key if len(key) == KEY_BYTES else None
