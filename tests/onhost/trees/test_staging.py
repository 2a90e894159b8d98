"""Building a tree beside the live one: exact, from anything on the host, believing nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.trees import blobs, space
from deployguard.onhost.trees.manifest import Entry, Manifest, compare
from deployguard.onhost.trees.patterns import Patterns
from deployguard.onhost.trees.scan import StatCache, scan
from deployguard.onhost.trees.staging import build, missing, verify
from tests.onhost.sample_trees import TREES, Directory, listing, make, write_tree

BIG = b"b" * (blobs.LARGE + 7)


def _send(root: str, manifest: Manifest, wanted: dict[str, int], store: str) -> None:
    """What the controller does: send the contents that are wanted, from the tree at ``root``."""
    paths = {entry.digest: entry.path for entry in manifest if entry.kind == "f"}
    contents = ((d, s, [Path(root, paths[d]).read_bytes()]) for d, s in wanted.items())
    blobs.receive(blobs.encode(contents), store, wanted)


@given(TREES, TREES, st.booleans())
def test_any_tree_is_built_exactly(new: Directory, live: Directory, consume: bool) -> None:
    """From any live tree to any new one: only the difference travels, the result is identical."""
    with tempfile.TemporaryDirectory() as folder:
        new_root, live_root = os.path.join(folder, "new"), os.path.join(folder, "live")
        target, store = os.path.join(folder, "target"), os.path.join(folder, "store")
        write_tree(os.fsencode(new_root), new)
        write_tree(os.fsencode(live_root), live)
        os.mkdir(store)
        wanted, here = scan(new_root), scan(live_root)
        lacking = missing(wanted, [here])
        assert set(lacking) == set(wanted.blobs()) - set(here.blobs())
        _send(new_root, wanted, lacking, store)
        assert missing(wanted, [here], store) == {}
        assert (
            build(wanted, target, [(live_root, here)], store_dir=store, consume_store=consume) == {}
        )
        assert scan(target) == wanted
        assert not verify(target, wanted)
        assert scan(live_root) == here, "the live tree was touched"


def test_what_is_missing_is_named_and_the_next_call_completes(tmp_path: Path) -> None:
    """Nothing is built from half of the contents; what a dead attempt left is replaced."""
    new = make(str(tmp_path / "new"), {"a": "1", "b/c": "2", "big": BIG})
    live = make(str(tmp_path / "live"), {"other": "1"})
    store = make(str(tmp_path / "store"), {})
    target = make(str(tmp_path / "target"), {"left/over": "x"})
    wanted, here = scan(new), scan(live)
    lacking = build(wanted, target, [(live, here)], store_dir=store)
    assert lacking == missing(wanted, [here])
    assert sorted(lacking.values()) == [1, len(BIG)]
    _send(new, wanted, lacking, store)
    assert build(wanted, target, [(live, here)], store_dir=store) == {}
    assert not verify(target, wanted)


@pytest.mark.parametrize("trick", ["content", "longer", "gone", "link", "fifo", "directory"])
@pytest.mark.parametrize("size", ["small", "big"])
def test_a_source_that_changed_falls_out(tmp_path: Path, trick: str, size: str) -> None:
    """Whatever became of the file since the scan, its content is asked for instead."""
    content = b"old" if size == "small" else BIG
    live = make(str(tmp_path / "live"), {"x": content})
    new = make(str(tmp_path / "new"), {"x": content, "y": content})
    wanted, here = scan(new), scan(live)
    path = os.path.join(live, "x")
    os.unlink(path)
    if trick == "content":
        make(live, {"x": content[:-1] + b"!"})
    elif trick == "longer":
        make(live, {"x": content + b"!"})
    elif trick == "link":
        os.symlink(os.path.join(new, "x"), path)
    elif trick == "fifo":
        os.mkfifo(path)
    elif trick == "directory":
        os.mkdir(path)
    target, store = str(tmp_path / "target"), make(str(tmp_path / "store"), {})
    lacking = build(wanted, target, [(live, here)], store_dir=store)
    if (trick, size) == ("longer", "big"):
        # The content that was scanned is still there, whole: as good as any.
        assert lacking == {}
        return
    assert lacking == wanted.blobs()
    _send(new, wanted, lacking, store)
    assert build(wanted, target, [(live, here)], store_dir=store) == {}
    assert not verify(target, wanted)


def test_another_place_is_tried_before_anything_is_asked_for(tmp_path: Path) -> None:
    """The same content in another file or another tree will do; a tree that is gone is skipped."""
    live = make(str(tmp_path / "live"), {"a": "same", "b": "same"})
    older = make(str(tmp_path / "older"), {"c": "same"})
    gone = make(str(tmp_path / "gone"), {"c": "same"})
    wanted = scan(live)
    sources = [(root, scan(root)) for root in (gone, live, older)]
    shutil.rmtree(gone)
    make(live, {"a": "diff", "b": "diff"})
    target = str(tmp_path / "target")
    assert build(wanted, target, sources) == {}
    assert not verify(target, wanted)


@pytest.mark.parametrize("content", [b"small", BIG])
@pytest.mark.parametrize("consume", [False, True])
def test_a_store_that_rotted_is_not_believed(tmp_path: Path, content: bytes, consume: bool) -> None:
    """After a power cut a pack may hold zeros; the next build asks again and completes."""
    new = make(str(tmp_path / "new"), {"a": content, "b": content})
    wanted = scan(new)
    store, target = make(str(tmp_path / "store"), {}), str(tmp_path / "target")
    _send(new, wanted, wanted.blobs(), store)
    for blob in blobs.stored(store).values():
        with open(blob.path, "r+b") as file:
            file.seek(blob.offset)
            file.write(b"\0\0\0")
    lacking = build(wanted, target, store_dir=store, consume_store=consume)
    assert lacking == wanted.blobs()
    _send(new, wanted, lacking, store)
    assert build(wanted, target, store_dir=store, consume_store=consume) == {}
    assert not verify(target, wanted)


def test_large_blobs_are_moved_only_when_the_store_may_be_consumed(tmp_path: Path) -> None:
    """Two trees may be built from one store, unless its only user says otherwise."""
    new = make(str(tmp_path / "new"), {"a": BIG, "b": BIG})
    wanted = scan(new)
    store = make(str(tmp_path / "store"), {})
    _send(new, wanted, wanted.blobs(), store)
    for name, consume in [("one", False), ("two", False), ("three", True)]:
        target = str(tmp_path / name)
        assert build(wanted, target, store_dir=store, consume_store=consume) == {}
        assert not verify(target, wanted)
        assert {os.stat(os.path.join(target, path)).st_nlink for path in ("a", "b")} == {1}
    assert blobs.stored(store) == {}


def test_nothing_that_was_built_shares_a_file_with_its_source(tmp_path: Path) -> None:
    """A program that writes to one tree must not write to the other."""
    live = make(str(tmp_path / "live"), {"a": "1", "b": BIG})
    manifest = scan(live)
    target = str(tmp_path / "target")
    build(manifest, target, [(live, manifest)])
    for path in ("a", "b"):
        with open(os.path.join(target, path), "r+b") as file:
            file.write(b"XX")
    assert scan(live) == manifest


def test_blocks_are_shared_where_the_file_system_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone is hashed like any copy; a refusal is remembered; a wrong clone falls back."""
    live = make(str(tmp_path / "live"), {"a": BIG, "b": BIG + b"2", "small": "x"})
    manifest = scan(live)
    calls: list[str] = []

    def clone(target: int, request: int, source: int) -> None:
        assert request == 0x40049409
        calls.append(mode)
        if mode == "refuse":
            raise OSError(errno.EOPNOTSUPP, "no")
        os.lseek(target, 0, os.SEEK_SET)
        os.write(target, os.pread(source, 2 * len(BIG), 0) if mode == "clone" else b"wrong")
        os.lseek(target, 0, os.SEEK_SET)

    monkeypatch.setattr(fcntl, "ioctl", clone)
    for mode in ("clone", "wrong", "refuse"):
        target = str(tmp_path / mode)
        assert build(manifest, target, [(live, manifest)]) == {}
        assert not verify(target, manifest)
    assert calls == ["clone", "clone", "wrong", "wrong", "refuse"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_are_one_owner_or_the_manifests_own(tmp_path: Path) -> None:
    """One owner for everything, links and the top included; setuid survives the change."""
    live = make(str(tmp_path / "live"), {"d/a": "1", "e": "2"})
    os.symlink("d", os.path.join(live, "link"))
    os.chmod(os.path.join(live, "e"), 0o4755)
    os.chown(os.path.join(live, "d", "a"), 7, 8)
    os.chmod(os.path.join(live, "d", "a"), 0o6750)
    os.chown(os.path.join(live, "link"), 9, 9, follow_symlinks=False)
    manifest = scan(live)
    one, kept = str(tmp_path / "one"), str(tmp_path / "kept")
    build(manifest, one, [(live, manifest)], owner=(1001, 1002))
    assert scan(one) == manifest.owned_by((1001, 1002))
    build(manifest, kept, [(live, manifest)], owner=(1, 1), keep_owner=True)
    assert scan(kept) == manifest
    unsaid = str(tmp_path / "unsaid")
    build(manifest.owned_by(None), unsaid, [(live, manifest)], keep_owner=True)
    assert {(e.uid, e.gid) for e in scan(unsaid)} == {(os.geteuid(), os.getegid())}


def test_extended_attributes_come_along(tmp_path: Path) -> None:
    """Those of files and of directories."""
    live = make(str(tmp_path / "live"), {"d/a": "1"})
    try:
        os.setxattr(os.path.join(live, "d"), "user.d", b"1")
        os.setxattr(os.path.join(live, "d", "a"), "user.a", b"\0\xff")
    except OSError:
        pytest.skip("no extended attributes on this file system")
    manifest = scan(live)
    build(manifest, str(tmp_path / "target"), [(live, manifest)])
    assert scan(str(tmp_path / "target")) == manifest


def test_the_tree_is_closed_until_it_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its top is 0700 and ours until the last moment, whatever is given away below it."""
    live = make(str(tmp_path / "live"), {"d/a": "1", "b": "2"})
    manifest = scan(live)
    target = str(tmp_path / "target")
    modes = []
    chmod, utime = os.fchmod, os.utime

    def note() -> None:
        modes.append(stat.S_IMODE(os.stat(target).st_mode))

    # What is made with the right mode gets its time alone; the top gets both, in this order.
    monkeypatch.setattr(os, "fchmod", lambda *given: (note(), chmod(*given)))
    monkeypatch.setattr(os, "utime", lambda *given, **more: (note(), utime(*given, **more)))
    old = os.umask(0)
    try:
        build(manifest, target, [(live, manifest)])
    finally:
        os.umask(old)
    assert modes == [0o700] * 4 + [0o755]


def test_a_full_disk_is_an_error_and_the_source_is_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC reaches the caller as it is."""
    live = make(str(tmp_path / "live"), {"a": "1" * 100})
    manifest = scan(live)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError) as caught:
        build(manifest, str(tmp_path / "target"), [(live, manifest)])
    assert caught.value.errno == errno.ENOSPC
    assert scan(live) == manifest


def test_special_files_cannot_be_built(tmp_path: Path) -> None:
    """A manifest of a live tree may hold them; a release may not."""
    manifest = Manifest([Entry(".", "d", 0o755), Entry("p", "p", 0o644)])
    with pytest.raises(ValueError):
        build(manifest, str(tmp_path / "target"))
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("path", "fields"),
    [("a", ("content",)), ("d", ("mode",)), ("link", ("target",)), ("d/b", ("mtime",))],
)
def test_verify_finds_any_change(tmp_path: Path, path: str, fields: Any) -> None:
    """Also one that the stat of a file does not show to a trusting cache."""
    root = make(str(tmp_path / "r"), {"a": "1", "d/b": "2", "log/x": "3"})
    os.symlink("a", os.path.join(root, "link"))
    cache = StatCache()
    manifest = scan(root, cache=cache)
    full = os.path.join(root, path)
    status = os.lstat(full)
    times = (status.st_atime_ns, status.st_mtime_ns)
    if fields == ("content",):
        make(root, {"a": "x"})
        os.utime(full, ns=times)
    elif fields == ("mode",):
        os.chmod(full, 0o700)
    elif fields == ("target",):
        os.unlink(full)
        os.symlink("d", full)
        os.utime(full, ns=times, follow_symlinks=False)
    else:
        os.utime(full, ns=(1, 1))
    make(root, {"log/y": "4"})
    difference = verify(root, manifest, ignore=Patterns(["log"]), cache=cache)
    relevant = [c for c in difference.changed if c.path != "."]
    assert [(c.path, c.fields) for c in relevant] == [(path, fields)]
    assert (difference.added, difference.removed) == ((), ())


def test_space_is_counted_in_blocks_and_inodes(tmp_path: Path) -> None:
    """Small files take a block each, what travels lies on the disk twice for a while."""
    files: dict[str, bytes | None] = {f"f{n}": b"%d" % n for n in range(100)}
    manifest = scan(make(str(tmp_path / "r"), {**files, "big": BIG}))
    held = space.needed(manifest, {})
    assert held.bytes == 100 * 4096 + -(-len(BIG) // 4096) * 4096 + 4096
    assert 102 <= held.inodes <= 120
    travelling = space.needed(manifest, manifest.blobs(), reserve=5000)
    assert travelling.bytes >= held.bytes + len(BIG) + 190 + 5000
    consumed = space.needed(manifest, manifest.blobs(), consume_store=True)
    assert consumed.bytes < held.bytes + len(BIG)


def test_space_is_known_for_a_path_that_is_not_there_yet(tmp_path: Path) -> None:
    """The file system of what exists above it; one without a limit on inodes has plenty."""
    free = space.free(str(tmp_path / "a" / "b"))
    assert 0 < free.bytes <= shutil.disk_usage(str(tmp_path)).free
    assert free.inodes > 0
    assert not compare(scan(str(tmp_path)), scan(str(tmp_path)))
    assert space.Space(1, 2).inodes == 2
    assert listing(str(tmp_path)) == []
