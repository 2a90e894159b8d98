"""Blob streams: only what was asked for, only what its hash says, nothing else on the disk."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.trees import blobs
from deployguard.onhost.trees.blobs import BlobsInvalid, encode, receive, stored

LARGE = b"l" * (blobs.LARGE + 5)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _wanted(*contents: bytes) -> dict[str, int]:
    return {_sha(content): len(content) for content in contents}


def _stream(*contents: bytes) -> bytes:
    return b"".join(encode((_sha(c), len(c), [c]) for c in contents))


def _record(content: bytes, digest: bytes = b"", length: int = -1) -> bytes:
    raw = digest or hashlib.sha256(content).digest()
    return raw + struct.pack(">Q", len(content) if length < 0 else length) + content


def _held(store: str) -> dict[str, bytes]:
    found = {}
    for digest, blob in stored(store).items():
        with open(blob.path, "rb") as file:
            file.seek(blob.offset)
            found[digest] = file.read(blob.size)
    return found


@given(
    st.lists(st.one_of(st.binary(max_size=50), st.just(LARGE)), max_size=6, unique=True),
    st.integers(1, 70000),
)
def test_what_is_sent_is_stored(contents: list[bytes], piece: int) -> None:
    """Small and large, empty ones too, however the stream is cut into pieces."""
    data = b"".join(encode((_sha(c), len(c), [c[:7], c[7:]]) for c in contents))
    with tempfile.TemporaryDirectory() as store:
        pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
        assert receive(pieces, store, _wanted(*contents)) == [_sha(c) for c in contents]
        assert _held(store) == {_sha(c): c for c in contents}


def test_pieces_are_never_longer_than_the_protocol_allows() -> None:
    """64 KiB, whatever the contents."""
    contents = [os.urandom(300_000), b"", b"x"]
    pieces = list(encode((_sha(c), len(c), [c]) for c in contents))
    assert max(len(piece) for piece in pieces) == blobs.PIECE
    assert all(pieces)


def test_a_content_that_changed_is_not_sent_under_its_old_name() -> None:
    """Longer, shorter or different: the sender itself refuses."""
    for content in (b"abcd", b"ab", b"abx"):
        with pytest.raises(BlobsInvalid):
            list(encode([(_sha(b"abc"), 3, [content])]))


@pytest.mark.parametrize(
    "text",
    [
        _record(b"good") + _record(b"unasked"),
        _record(b"good") + _record(b"good"),
        _record(b"good") + _record(b"other", digest=b"\1" * 32),
        _record(b"good") + _record(b"evil!", digest=hashlib.sha256(b"small").digest()),
        _record(b"good") + _record(b"evil", digest=hashlib.sha256(b"small").digest(), length=5),
        _record(b"good") + _record(b"small", length=4),
        _record(b"good") + _record(b"small", length=2**63),
        _record(b"good") + _record(b"small")[:-1],
        _record(b"good") + _record(b"small")[:20],
        _record(b"good") + _record(LARGE)[:-1],
        _record(b"good") + _record(LARGE[:-1] + b"!", digest=hashlib.sha256(LARGE).digest()),
    ],
)
def test_what_is_wrong_is_refused_and_what_came_before_is_kept(tmp_path: Path, text: bytes) -> None:
    """Unasked, repeated, mislabelled, cut off: refused, and none of it stays on the disk."""
    store = str(tmp_path)
    with pytest.raises(BlobsInvalid):
        receive([zlib.compress(text)], store, _wanted(b"good", b"small", LARGE))
    assert _held(store) == {_sha(b"good"): b"good"}
    assert os.listdir(store) == ["00000001.pack"]
    # Asked again for the rest, it is complete.
    receive([_stream(b"small", LARGE)], store, _wanted(b"small", LARGE))
    assert set(_held(store)) == set(_wanted(b"good", b"small", LARGE))


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b""],
        [b"not zlib"],
        [_stream(b"good")[:-1]],
        [_stream(b"good"), b"more"],
        [_stream(b"good") + b"more"],
        [_stream(b"good") + _stream(b"small")],
    ],
)
def test_a_stream_that_is_no_whole_stream_is_refused(tmp_path: Path, pieces: list[bytes]) -> None:
    """Damaged, cut off, or followed by more."""
    with pytest.raises(BlobsInvalid):
        receive(pieces, str(tmp_path), _wanted(b"good", b"small"))


@given(st.binary(max_size=120))
def test_fuzz_never_stores_anything_unasked(data: bytes) -> None:
    """Any bytes: an error of one kind, or an empty stream; nothing but asked-for contents."""
    with tempfile.TemporaryDirectory() as store:
        for text in (data, zlib.compress(data)):
            try:
                assert receive([text], store, _wanted(b"x")) in ([], [_sha(b"x")])
            except BlobsInvalid:
                pass
        assert set(_held(store)) <= {_sha(b"x")}


def test_a_bomb_costs_no_more_than_what_was_asked_for(tmp_path: Path) -> None:
    """A gigabyte of zeros under a wanted name of another size stops at its header."""
    packer = zlib.compressobj(9)
    head = hashlib.sha256(b"x").digest() + struct.pack(">Q", 2**30)
    pieces = [packer.compress(head)] + [packer.compress(bytes(2**20)) for _ in range(64)]
    with pytest.raises(BlobsInvalid):
        receive([*pieces, packer.flush()], str(tmp_path), _wanted(b"x"))
    assert _held(str(tmp_path)) == {}


def test_a_pack_torn_by_a_power_cut_offers_its_whole_records(tmp_path: Path) -> None:
    """The index is made from the pack itself, up to where it stops making sense."""
    receive([_stream(b"one", b"two")], str(tmp_path), _wanted(b"one", b"two"))
    pack = tmp_path / "00000001.pack"
    pack.write_bytes(pack.read_bytes()[:-1])
    assert set(stored(str(tmp_path))) == {_sha(b"one")}
    (tmp_path / "stray").write_bytes(b"")
    (tmp_path / "nonsense.blob").write_bytes(b"")
    assert set(stored(str(tmp_path))) == {_sha(b"one")}
    assert stored(str(tmp_path / "absent")) == {}
    assert stored(None) == {}
