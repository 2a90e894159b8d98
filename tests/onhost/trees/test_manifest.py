"""The manifest: one text a tree, and nothing hostile gets through."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.trees.manifest import (
    ALL_FIELDS,
    NOBODY,
    Change,
    Difference,
    Entry,
    Manifest,
    ManifestInvalid,
    compare,
)
from deployguard.onhost.trees.patterns import Patterns

SHA = "a" * 64
OTHER = "b" * 64
TOP = Entry(".", "d", 0o755)


def _file(path: str, **changes: Any) -> Entry:
    return Entry(path, "f", 0o644, 3, 5, SHA)._replace(**changes)


def _directory(path: str) -> Entry:
    return Entry(path, "d", 0o755)


def _tampered(**columns: Any) -> bytes:
    data = json.loads(zlib.decompress(Manifest([TOP, _file("x")]).to_bytes()))
    data.update(columns)
    return zlib.compress(json.dumps(data).encode())


def test_entries_are_ordered_with_parents_first() -> None:
    """Whatever the order they came in; the encoding is the same."""
    entries = [_file("a/b"), _directory("a"), _file("a-b"), _file("!"), TOP]
    manifest = Manifest(entries)
    assert [entry.path for entry in manifest] == [".", "!", "a", "a-b", "a/b"]
    assert manifest == Manifest(entries[::-1])
    assert manifest.digest() == Manifest(entries[::-1]).digest()
    assert (manifest.count(), manifest.total_bytes(), manifest.blobs()) == (5, 9, {SHA: 3})


@pytest.mark.parametrize(
    "field",
    [
        {"mode": 0o600},
        {"mtime_ns": 6},
        {"digest": OTHER},
        {"uid": 1},
        {"gid": 1},
        {"xattrs": (("user.x", "AA=="),)},
        {"path": "y"},
    ],
)
def test_the_digest_covers_every_field(field: dict[str, Any]) -> None:
    """Two trees that differ in anything have different digests."""
    one, two = Manifest([TOP, _file("x")]), Manifest([TOP, _file("x")._replace(**field)])
    assert one.digest() != two.digest()
    assert Manifest.from_bytes(two.to_bytes()) == two


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [_file(".")],
        [_file("x")],
        [TOP, _file("/etc/passwd")],
        [TOP, _file("/x")],
        [TOP, _file("../x")],
        [TOP, _file("..")],
        [TOP, _directory("a"), _file("a/../x")],
        [TOP, _directory(".."), _file("../x")],
        [TOP, _directory("a"), _file("a//x")],
        [TOP, _directory("a"), _file("a/./x")],
        [TOP, _directory("a"), _directory("a/")],
        [TOP, _directory("./a")],
        [TOP, _file("")],
        [TOP, _file("x"), _file("x")],
        [TOP, TOP],
        [TOP, _file("a/x")],
        [TOP, _file("a"), _file("a/x")],
        [TOP, Entry("a", "l", 0o777, digest="/etc"), _file("a/x")],
        [TOP, _file("x\0y")],
        [TOP, _file("n" * 256)],
        [TOP, _file("\udc80" * 256)],
        [TOP, _file("\ud800")],
        # The bytes of "é", spelt as two escaped bytes: a second entry for the same file.
        [TOP, _file("é"), _file("\udcc3\udca9")],
        [TOP, _file("x", digest="")],
        [TOP, _file("x", digest="../../../etc/passwd")],
        [TOP, _file("x", digest=SHA.upper())],
        [TOP, _file("x", size=-1)],
        [TOP, _file("x", size=2**63)],
        [TOP, _file("x", mode=0o10000)],
        [TOP, _file("x", mode=-1)],
        [TOP, _file("x", uid=-2)],
        [TOP, _file("x", gid=2**32)],
        [TOP, _file("x", mtime_ns=2**80)],
        [TOP, _file("x", kind="x")],
        [TOP, _file("x", kind="")],
        [TOP, Entry("x", "l", 0o777)],
        [TOP, Entry("x", "l", 0o777, digest="a\0b")],
        [TOP, Entry("x", "l", 0o777, digest="t" * 4096)],
        [TOP, Entry("x", "d", 0o755, size=1)],
        [TOP, Entry("x", "p", 0o755, digest=SHA)],
    ],
)
def test_what_no_tree_may_hold_is_refused(entries: list[Entry]) -> None:
    """Names that leave the tree, names below files and links, and values out of range."""
    with pytest.raises(ManifestInvalid):
        Manifest(entries)


def test_a_path_longer_than_the_kernel_takes_is_refused() -> None:
    """Each component is fine, the whole is not."""
    entries, path = [TOP], ""
    for _ in range(20):
        path = path + "/" + "n" * 250 if path else "n" * 250
        entries.append(_directory(path))
    with pytest.raises(ManifestInvalid):
        Manifest(entries)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        zlib.compress(b"nonsense"),
        zlib.compress(b"[]"),
        zlib.compress(b"{}"),
        zlib.compress(b'{"v":2}'),
        zlib.compress(b"[" * 100000),
        Manifest([TOP]).to_bytes()[:-3],
        Manifest([TOP]).to_bytes() + b"more",
        _tampered(path=[".", 7]),
        _tampered(path=["."]),
        _tampered(path="."),
        _tampered(kind=["d", "f"]),
        _tampered(kind="d"),
        _tampered(mode=[0, "0"]),
        _tampered(mode=[0, True]),
        _tampered(mode=[0, 1.5]),
        _tampered(size=None),
        _tampered(digest=[None, None]),
        _tampered(xattrs=None),
        _tampered(xattrs=7),
        _tampered(xattrs=[[9, [["user.x", ""]]]]),
        _tampered(xattrs=[[1, [["user.x"]]]]),
        _tampered(xattrs=[[1, [["user.x", "not base64"]]]]),
        _tampered(xattrs=[[1, [["user.x", "ééé"]]]]),
        # These would undo the protection of the host itself.
        _tampered(xattrs=[[1, [["trusted.overlay.opaque", "eQ=="]]]]),
        _tampered(xattrs=[[1, [["security.selinux", "eQ=="]]]]),
    ],
)
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    """Damaged, cut off, of the wrong types: one kind of error for all of it."""
    with pytest.raises(ManifestInvalid):
        Manifest.from_bytes(data)


def test_a_bomb_is_stopped_by_the_limit() -> None:
    """A kilobyte that unpacks to megabytes is refused before it is parsed."""
    with pytest.raises(ManifestInvalid, match="too long"):
        Manifest.from_bytes(zlib.compress(b" " * 10_000_000), limit=1_000_000)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_raise_anything_else(data: bytes) -> None:
    """Fuzz: raw, and as the text inside."""
    for text in (data, zlib.compress(data)):
        with pytest.raises(ManifestInvalid):
            Manifest.from_bytes(text)


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(st.sampled_from(["path", "kind", "mode", "mtime", "digest", "uid", "xattrs", "v"]), _JSON)
def test_any_column_may_be_any_json(column: str, value: Any) -> None:
    """Fuzz: one column replaced by whatever JSON can say."""
    try:
        manifest = Manifest.from_bytes(_tampered(**{column: value}))
    except ManifestInvalid:
        return
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_compare_names_the_attributes_that_differ() -> None:
    """Each attribute has its field; what is added and removed is no change."""
    before = Manifest(
        [
            TOP._replace(mtime_ns=1),
            _file("content"),
            _file("mode"),
            _file("owner", uid=1, gid=1),
            _file("mtime"),
            _file("xattrs"),
            _file("kind"),
            _file("gone"),
            _file("same", uid=NOBODY),
            Entry("target", "l", 0o777, digest="a"),
        ]
    )
    after = Manifest(
        [
            TOP._replace(mtime_ns=2),
            _file("content", digest=OTHER),
            _file("mode", mode=0o600),
            _file("owner", uid=1, gid=2),
            _file("mtime", mtime_ns=6),
            _file("xattrs", xattrs=(("user.x", ""),)),
            _directory("kind"),
            _file("new"),
            _file("same", uid=7),
            Entry("target", "l", 0o777, digest="b"),
        ]
    )
    difference = compare(before, after)
    assert difference.added == ("new",)
    assert difference.removed == ("gone",)
    assert difference.changed == (
        Change(".", ("dir_mtime",)),
        Change("content", ("content",)),
        Change("kind", ("kind", "mode", "dir_mtime")),
        Change("mode", ("mode",)),
        Change("mtime", ("mtime",)),
        Change("owner", ("owner",)),
        Change("target", ("target",)),
        Change("xattrs", ("xattrs",)),
    )
    assert {field for change in difference.changed for field in change.fields} == set(ALL_FIELDS)
    assert difference.paths()[:3] == [".", "content", "gone"]
    assert Difference.from_json(json.loads(json.dumps(difference.to_json()))) == difference


def test_compare_sees_only_what_it_is_asked_for() -> None:
    """Fields narrow what counts; ignored paths count on neither side, nor does what is below."""
    before = Manifest([TOP, _directory("a"), _file("a/x"), _file("log")])
    after = Manifest([TOP, _directory("a"), _file("a/y"), _file("log", mtime_ns=9)])
    assert not compare(before, after, ignore=Patterns(["a"]), fields=("content",))
    assert not compare(before, before)
    assert compare(before, after, fields=("content",)) == Difference(("a/y",), (), ("a/x",))


def test_parts_and_owners_can_be_left_out() -> None:
    """Leaving out a directory leaves out what is below it; owners can be set for all."""
    manifest = Manifest([TOP, _directory("a"), _file("a/x", uid=3), _file("b")])
    assert [entry.path for entry in manifest.without(Patterns(["a"]))] == [".", "b"]
    assert {(e.uid, e.gid) for e in manifest.owned_by((5, 6))} == {(5, 6)}
    assert not compare(manifest, manifest.owned_by(None))
