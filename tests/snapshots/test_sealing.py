"""What lies in a store gives nothing away, and nothing but the whole of it opens."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.snapshots.base import Damaged, WrongKey
from deployguard.snapshots.sealing import Keyring
from tests.snapshots.conftest import KEY, OTHER_KEY

SEALED = Keyring([KEY])
#: More than one chunk, and nothing that compresses.
LONG = b"".join(bytes([n % 251, n * 7 % 256, n * n % 253]) for n in range(200_000))


def sealed(ring: Keyring, name: str, data: bytes) -> bytes:
    """An object as it would lie in a store."""
    out = io.BytesIO()
    ring.seal(name, [data], out)
    return out.getvalue()


def opened(ring: Keyring, name: str, data: bytes, piece: int = 1000) -> bytes:
    """Its content, from pieces of some size."""
    pieces = (data[at : at + piece] for at in range(0, len(data), piece))
    return b"".join(ring.open(name, pieces))


@given(data=st.binary(max_size=300), repeat=st.integers(0, 2000), piece=st.integers(1, 100_000))
def test_any_content_comes_back(data: bytes, repeat: int, piece: int) -> None:
    """Whatever it is, however it arrives, sealed or not."""
    content = data * repeat
    for ring in (SEALED, Keyring()):
        assert opened(ring, "a", sealed(ring, "a", content), piece) == content


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_bit_can_change(at: float, bit: int) -> None:
    """A bit anywhere in a sealed object, its header included, and it does not open."""
    data = bytearray(sealed(SEALED, "a", b"content " * 20))
    data[int(at * len(data))] ^= 1 << bit
    with pytest.raises((Damaged, WrongKey)):
        opened(SEALED, "a", bytes(data))


@pytest.mark.parametrize("ring", [SEALED, Keyring()], ids=["sealed", "plain"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_what_is_cut_off_does_not_open(ring: Keyring, share: float) -> None:
    """Nor does what ends right behind a chunk."""
    data = sealed(ring, "a", LONG)
    with pytest.raises(Damaged):
        opened(ring, "a", data[: int(len(data) * share)])
    with pytest.raises(Damaged):
        opened(ring, "a", data[: 4 + 8 + 32 + 64 * 1024 + 16])
    with pytest.raises(Damaged):
        opened(ring, "a", data + b"more")


def test_chunks_cannot_be_moved() -> None:
    """Two chunks in each other's place, or one left out."""
    data = sealed(SEALED, "a", LONG)
    start, size = 4 + 8 + 32, 64 * 1024 + 16
    chunks = [data[at : at + size] for at in range(start, len(data), size)]
    assert len(chunks) > 3
    for order in ([1, 0, *range(2, len(chunks))], range(1, len(chunks)), [0, 0, 1]):
        with pytest.raises(Damaged):
            opened(SEALED, "a", data[:start] + b"".join(chunks[n] for n in order))


def test_an_object_opens_under_its_own_name_only() -> None:
    """So a store cannot hand out one for another."""
    with pytest.raises(Damaged, match="changed"):
        opened(SEALED, "b", sealed(SEALED, "a", b"content"))


def test_equal_contents_are_not_equal_objects() -> None:
    """A random salt for each; and names are of the key, not of the content alone."""
    assert sealed(SEALED, "a", b"content") != sealed(SEALED, "a", b"content")
    digest = "ab" * 32
    names = {ring.name_of(digest, ring.id()) for ring in (SEALED, Keyring([OTHER_KEY]))}
    assert len(names) == 2 and digest not in names


def test_another_key_is_told_from_damage() -> None:
    """The message has both ids and the mend; an older key still opens what it sealed."""
    other = Keyring([OTHER_KEY])
    data = sealed(SEALED, "a", b"content")
    with pytest.raises(WrongKey) as told:
        opened(other, "a", data)
    assert SEALED.id() in told.value.message and other.id() in told.value.message
    assert "key_file or key_env" in told.value.hint
    with pytest.raises(WrongKey, match="no key is given"):
        opened(Keyring(), "a", data)
    assert opened(Keyring([OTHER_KEY, KEY]), "a", data) == b"content"


def test_what_is_not_sealed_is_not_taken_for_it() -> None:
    """Whoever may write to the store cannot put something plain there."""
    with pytest.raises(Damaged, match="not encrypted"):
        opened(SEALED, "a", sealed(Keyring(), "a", b"content"))


def test_a_bomb_stays_small() -> None:
    """What is small in the store and large outside comes out a little at a time."""
    data = sealed(SEALED, "a", bytes(50_000_000))
    assert len(data) < 500_000
    first = next(iter(SEALED.open("a", [data])))
    assert len(first) <= 64 * 1024


def test_no_key_shows() -> None:
    """In no repr, in no message."""
    assert KEY.hex() not in repr(SEALED.current) and repr(SEALED.current) == f"<Key {SEALED.id()}>"
