"""Certificates in DER: what may stand where one is expected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.protocols.der import MAX_NAMES, Certificate, read_certificate


def element(tag: int, *contents: bytes) -> bytes:
    """One element, with a length as long as it needs."""
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes(2, "big")
    return bytes([tag, 0x82]) + length + content


def name(oid: bytes, text: bytes) -> bytes:
    """A distinguished name of one part."""
    return element(0x30, element(0x31, element(0x30, element(0x06, oid), element(0x0C, text))))


def certificate(
    starts: bytes = element(0x17, b"240101000000Z"),
    ends: bytes = element(0x18, b"20991231235959Z"),
    alternatives: bytes = b"",
    issuer: bytes = name(b"\x55\x04\x0a", b"Example Org"),
) -> bytes:
    """A certificate with these dates and names; its key and signature are none."""
    extensions = b""
    if alternatives:
        value = element(0x04, element(0x30, alternatives))
        extension = element(0x30, element(0x06, b"\x55\x1d\x11"), value)
        extensions = element(0xA3, element(0x30, extension))
    body = element(
        0x30,
        element(0xA0, element(0x02, b"\x02")),
        element(0x02, b"\x01"),
        element(0x30),
        issuer,
        element(0x30, starts, ends),
        name(b"\x55\x04\x03", b"shop.example.com"),
        element(0x30),
        extensions,
    )
    return element(0x30, body, element(0x30), element(0x03, b"\0"))


def test_a_certificate() -> None:
    """Dates in both forms; the name of the organisation where there is no other."""
    found = read_certificate(certificate())
    assert found == Certificate(1704067200.0, 4102444799.0, "Example Org", ["shop.example.com"])


def test_the_alternative_names() -> None:
    """Names and addresses, and no more of them than anybody reads."""
    names = element(0x82, b"a.example") + element(0x87, b"\x7f\0\0\x01")
    names += element(0x87, b"\0" * 15 + b"\x01") + element(0x86, b"http://x")
    assert read_certificate(certificate(alternatives=names)).names == [
        "a.example",
        "127.0.0.1",
        "::1",
    ]
    many = element(0x82, b"x.example") * 100
    assert len(read_certificate(certificate(alternatives=many)).names) == MAX_NAMES


@pytest.mark.parametrize(
    "date",
    [
        element(0x17, b"240101000000+0100"),
        element(0x17, b"20240101000000Z"),
        element(0x18, b"240101000000Z"),
        element(0x18, b"20241301000000Z"),
        element(0x18, b"20240132000000Z"),
        element(0x18, b"00000101000000Z"),
        element(0x02, b"1"),
        b"",
    ],
)
def test_dates_that_are_none(date: bytes) -> None:
    """An error, and not a day."""
    with pytest.raises(ValueError):
        read_certificate(certificate(ends=date))


@st.composite
def nearly_certificates(draw: Any) -> bytes:
    """A certificate in which some bytes are others, and which may end early."""
    data = bytearray(certificate(alternatives=element(0x82, b"a") + element(0x87, b"\x7f\0\0\x01")))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(data=st.one_of(st.binary(max_size=300), nearly_certificates()))
def test_any_bytes_are_a_certificate_or_none(data: bytes) -> None:
    """And no other exception."""
    try:
        found = read_certificate(data)
    except ValueError:
        return
    assert isinstance(found, Certificate) and found.not_after < 1e15
