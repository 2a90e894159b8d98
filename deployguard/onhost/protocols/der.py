"""What a person wants to know of a certificate, read from its DER form.

``ssl`` shows the fields of a certificate only once it has found nothing wrong with it; what is
wrong is exactly what we want to show. Nothing is verified here.
"""

from __future__ import annotations

import calendar
from typing import Iterator, List, NamedTuple, Tuple

_SEQUENCE, _SET, _OID, _OCTETS = 0x30, 0x31, 0x06, 0x04
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_UTC_TIME, _TIME = 0x17, 0x18
_DNS, _IP = 0x82, 0x87
_COMMON_NAME, _ORGANIZATION, _ALT_NAMES = b"\x55\x04\x03", b"\x55\x04\x0a", b"\x55\x1d\x11"
#: A certificate may be for many names; findings show a few.
MAX_NAMES = 20


class Certificate(NamedTuple):
    """Instants are UTC seconds; ``names`` are those it is for, ``issuer`` who vouches for it."""

    not_before: float
    not_after: float
    issuer: str
    names: List[str]


def read_certificate(data: bytes) -> Certificate:
    """The fields of one certificate. Raises ``ValueError`` where it is none."""
    outer, _ = _element(data, 0, _SEQUENCE)
    body, _ = _element(outer, 0, _SEQUENCE)
    fields = list(_elements(body))
    if fields and fields[0][0] == _VERSION:
        del fields[0]
    if len(fields) < 6:
        raise ValueError("a certificate with too few fields")
    _, _, (_, issuer), (_, validity), (_, subject) = fields[:5]
    times = list(_elements(validity))
    if len(times) != 2:
        raise ValueError("a certificate without its dates")
    names: List[str] = []
    for tag, content in fields[6:]:
        if tag == _EXTENSIONS:
            names += _alternative_names(content)
    return Certificate(
        _instant(*times[0]),
        _instant(*times[1]),
        _name(issuer),
        names[:MAX_NAMES] or [name for name in (_name(subject),) if name],
    )


def _alternative_names(content: bytes) -> Iterator[str]:
    extensions, _ = _element(content, 0, _SEQUENCE)
    for _, extension in _elements(extensions):
        parts = list(_elements(extension))
        if not parts or parts[0] != (_OID, _ALT_NAMES) or parts[-1][0] != _OCTETS:
            continue
        names, _ = _element(parts[-1][1], 0, _SEQUENCE)
        for tag, value in _elements(names):
            if tag == _DNS:
                yield value.decode("ascii", "replace")
            elif tag == _IP and len(value) in (4, 16):
                import ipaddress

                yield str(ipaddress.ip_address(value))


def _name(content: bytes) -> str:
    """The common name of a distinguished name, or else its organisation."""
    found = {}
    for tag, group in _elements(content):
        if tag != _SET:
            continue
        for _, pair in _elements(group):
            parts = list(_elements(pair))
            if len(parts) == 2 and parts[0][0] == _OID:
                found[parts[0][1]] = parts[1][1].decode("utf-8", "replace")
    return found.get(_COMMON_NAME) or found.get(_ORGANIZATION) or ""


def _instant(tag: int, content: bytes) -> float:
    """``YYMMDDhhmmssZ`` or ``YYYYMMDDhhmmssZ``."""
    text = content.decode("ascii", "replace")
    if not text.endswith("Z") or not text[:-1].isdigit():
        raise ValueError("not a date in a certificate: %r" % text[:40])
    digits = text[:-1]
    if tag == _UTC_TIME and len(digits) == 12:
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    elif tag != _TIME or len(digits) != 14:
        raise ValueError("not a date in a certificate: %r" % text[:40])
    year, month, day = int(digits[:4]), int(digits[4:6]), int(digits[6:8])
    if not 1 <= month <= 12 or not 1 <= day <= 31 or year < 1:
        raise ValueError("not a date in a certificate: %r" % text[:40])
    clock = [int(digits[at : at + 2]) for at in (8, 10, 12)]
    return float(calendar.timegm((year, month, day, clock[0], clock[1], clock[2])))


def _elements(data: bytes) -> Iterator[Tuple[int, bytes]]:
    at = 0
    while at < len(data):
        tag, content, at = _next(data, at)
        yield tag, content


def _element(data: bytes, at: int, tag: int) -> Tuple[bytes, int]:
    found, content, after = _next(data, at)
    if found != tag:
        raise ValueError("expected element 0x%02x, found 0x%02x" % (tag, found))
    return content, after


def _next(data: bytes, at: int) -> Tuple[int, bytes, int]:
    if at + 2 > len(data):
        raise ValueError("an element that is not whole")
    tag, length = data[at], data[at + 1]
    at += 2
    if length >= 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or at + size > len(data):
            raise ValueError("an element whose length is not whole")
        length = int.from_bytes(data[at : at + size], "big")
        at += size
    if at + length > len(data):
        raise ValueError("an element that is not whole")
    return tag, data[at : at + length], at + length
