"""Reading live trees: complete, quick with a cache, unmoved by what moves."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from deployguard.onhost.trees import scan as tree_module
from deployguard.onhost.trees import statcache
from deployguard.onhost.trees.manifest import Entry, Manifest, compare
from deployguard.onhost.trees.patterns import Patterns
from deployguard.onhost.trees.scan import ScanFailed, StatCache, scan, vouch
from tests.onhost.sample_trees import TREES, Directory, Link, make, write_tree

OLD = 1_500_000_000 * 10**9


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content was read."""
    names: list[str] = []
    real = tree_module._read_file

    def read(name: str, *rest: Any) -> Any:
        names.append(name)
        return real(name, *rest)

    monkeypatch.setattr(tree_module, "_read_file", read)
    return names


@given(TREES)
def test_every_entry_is_seen_as_it_was_written(tree: Directory) -> None:
    """Any tree: each path with its kind, mode, size, time and content, and nothing more."""
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(os.fsencode(folder), b"root")
        write_tree(root, tree)
        cache = StatCache()
        manifest = scan(os.fsdecode(root), cache=cache)
        assert {os.fsencode(entry.path) for entry in manifest} == set(_check(manifest, b".", tree))
        assert Manifest.from_bytes(manifest.to_bytes()) == manifest
        again = StatCache.from_bytes(cache.to_bytes(), manifest)
        assert scan(os.fsdecode(root), cache=again) == manifest


def _check(manifest: Manifest, path: bytes, node: Any) -> list[bytes]:
    entry = manifest.get(os.fsdecode(path))
    assert entry is not None
    assert entry.mtime_ns == node.mtime_ns
    if isinstance(node, Link):
        assert (entry.kind, entry.digest) == ("l", os.fsdecode(node.target))
        return [path]
    assert entry.mode == node.mode
    if not isinstance(node, Directory):
        digest = hashlib.sha256(node.content).hexdigest()
        assert (entry.kind, entry.digest, entry.size) == ("f", digest, len(node.content))
        return [path]
    assert entry.kind == "d"
    found = [path]
    for name, child in node.children.items():
        found += _check(manifest, name if path == b"." else path + b"/" + name, child)
    return found


def test_special_files_are_recorded_and_never_opened(tmp_path: Path) -> None:
    """A fifo without a writer would block an open for ever; a socket cannot be opened at all."""
    os.mkfifo(str(tmp_path / "fifo"))
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(str(tmp_path))
    try:
        listener.bind("socket")
    finally:
        os.chdir(here)
        listener.close()
    kinds = {entry.path: entry.kind for entry in scan(str(tmp_path))}
    assert kinds == {".": "d", "fifo": "p", "socket": "s"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_devices_are_recorded(tmp_path: Path) -> None:
    """A device node in a live tree is noted, not read."""
    try:
        os.mknod(str(tmp_path / "null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no right to make devices here")
    entry = scan(str(tmp_path)).get("null")
    assert entry is not None
    assert (entry.kind, entry.size, entry.digest) == ("c", 0, "")


def test_skipped_paths_are_not_even_looked_at(tmp_path: Path) -> None:
    """Paths that belong to the host are left out, with what is below them."""
    root = make(str(tmp_path / "r"), {"a/x": "1", "uploads/b/y": "2", "c/uploads/z": "3"})
    found = [entry.path for entry in scan(root, skip=Patterns(["uploads"]))]
    assert found == [".", "a", "a/x", "c", "c/uploads", "c/uploads/z"]


def test_a_link_to_a_directory_is_a_link(tmp_path: Path) -> None:
    """Nothing behind a link belongs to the tree, not even when the top is reached by one."""
    make(str(tmp_path), {"outside/x": "1", "root/y": "2"})
    os.symlink("../outside", str(tmp_path / "root" / "link"))
    os.symlink("root", str(tmp_path / "current"))
    found = {entry.path: entry.kind for entry in scan(str(tmp_path / "current"))}
    assert found == {".": "d", "link": "l", "y": "f"}


def test_extended_attributes_are_part_of_an_entry(tmp_path: Path) -> None:
    """Of files and directories, with any bytes as the value."""
    path = make(str(tmp_path / "r"), {"d/x": "1"}) + "/d/x"
    try:
        os.setxattr(path, "user.note", b"\xff\0")
        os.setxattr(os.path.dirname(path), "user.dir", b"")
    except OSError:
        pytest.skip("no extended attributes on this file system")
    cache = StatCache()
    _age(str(tmp_path / "r"))
    for _ in range(2):
        manifest = scan(str(tmp_path / "r"), cache=cache)
        assert [entry.xattrs for entry in manifest] == [
            (),
            (("user.dir", ""),),
            (("user.note", "/wA="),),
        ]
        cache = StatCache.from_bytes(cache.to_bytes(), manifest)


def test_what_the_cache_vouches_for_is_not_opened(tmp_path: Path, opened: list[str]) -> None:
    """A second scan reads nothing; ``rehash`` reads everything; a change reads that file."""
    root = make(str(tmp_path / "r"), {"a": "1", "d/b": "2"})
    _age(root)
    cache = StatCache()
    first = scan(root, cache=cache)
    assert sorted(opened) == ["a", "b"]
    opened.clear()
    assert scan(root, cache=cache) == first
    assert opened == []
    assert scan(root, cache=cache, rehash=True) == first
    assert sorted(opened) == ["a", "b"]
    opened.clear()
    make(root, {"a": "3"})
    assert [change.path for change in compare(first, scan(root, cache=cache)).changed] == ["a"]
    assert opened == ["a"]


@pytest.mark.parametrize(
    "change",
    ["add", "add_below", "remove", "write", "chmod", "chmod_dir", "rename", "relink", "replace"],
)
def test_one_stat_an_entry_finds_any_change(tmp_path: Path, change: str) -> None:
    """A tree just built is known without listing a directory; whatever is done to it is seen."""
    root = make(str(tmp_path / "r"), {"a": "1", "d/b": "2", "d/e/c": "3"})
    os.symlink("a", os.path.join(root, "link"))
    built = scan(root)
    _age(root)
    cache = StatCache.from_bytes(vouch(root, built, Patterns()).to_bytes(), built)
    assert scan(root, cache=cache) is built
    deeds: dict[str, Callable[[], object]] = {
        "add": lambda: make(root, {"new": ""}),
        "add_below": lambda: make(root, {"d/e/new": ""}),
        "remove": lambda: os.unlink(os.path.join(root, "d/e/c")),
        "write": lambda: make(root, {"d/b": "3"}),
        "chmod": lambda: os.chmod(os.path.join(root, "a"), 0o600),
        "chmod_dir": lambda: os.chmod(os.path.join(root, "d"), 0o700),
        "rename": lambda: os.rename(os.path.join(root, "a"), os.path.join(root, "z")),
        "relink": lambda: relink(os.path.join(root, "link")),
        "replace": lambda: replace(os.path.join(root, "d")),
    }

    def relink(path: str) -> None:
        os.unlink(path)
        os.symlink("d", path)

    def replace(path: str) -> None:
        os.rename(path, path + ".real")
        os.symlink(path + ".real", path)

    deeds[change]()
    found = scan(root, cache=cache)
    assert found != built and found == scan(root)


def test_other_patterns_are_another_tree(tmp_path: Path) -> None:
    """What was left out then may have changed in the directories without a trace."""
    root = make(str(tmp_path / "r"), {"a": "1", "logs/x": "2"})
    skip = Patterns(["logs"])
    built = scan(root, skip=skip)
    _age(root)
    cache = vouch(root, built, skip)
    assert scan(root, skip=skip, cache=cache) is built
    assert scan(root, cache=cache).get("logs/x") is not None


def test_what_does_not_stand_as_built_is_not_vouched_for(tmp_path: Path) -> None:
    """Another mode, size or time than the manifest's: the next scan reads it."""
    root = make(str(tmp_path / "r"), {"mode": "1", "size": "22", "time": "3", "same": "4"})
    built = scan(root)
    os.chmod(os.path.join(root, "mode"), 0o600)
    make(root, {"size": "1"})
    os.utime(os.path.join(root, "time"), ns=(OLD, OLD))
    _age(root)
    cache = vouch(root, built, Patterns())
    assert len(cache) == 2
    assert scan(root, cache=cache) == scan(root)


def test_a_tree_may_be_renamed_as_a_whole(tmp_path: Path) -> None:
    """That moves the ctime of its top; nobody may have used the moment to add something."""
    root = make(str(tmp_path / "r"), {"a": "1", "d/b": "2"})
    built = scan(root)
    _age(root)
    cache = vouch(root, built, Patterns())
    moved = str(tmp_path / "m")
    os.rename(root, moved)
    _age(moved)
    assert scan(moved, cache=StatCache.from_bytes(cache.to_bytes(), built)) is not built
    stamp = os.stat(moved).st_mtime_ns
    cache.renew_top(moved)
    assert scan(moved, cache=cache) is built
    make(moved, {"new": ""})
    os.utime(moved, ns=(stamp, stamp))
    _age(moved)
    cache.renew_top(moved)
    assert scan(moved, cache=cache).get("new") is not None


def test_a_change_that_hides_its_time_is_found(tmp_path: Path) -> None:
    """Same size and same mtime: the ctime still tells."""
    root = make(str(tmp_path / "r"), {"a": "1"})
    path = os.path.join(root, "a")
    os.utime(path, ns=(OLD, OLD))
    _age(root)
    cache = StatCache()
    before = scan(root, cache=cache)
    make(root, {"a": "2"})
    os.utime(path, ns=(OLD, OLD))
    assert [c.fields for c in compare(before, scan(root, cache=cache)).changed] == [("content",)]


def test_a_file_touched_in_the_tick_of_the_scan_is_hashed_again(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git's racy timestamps: its stat may not move when it changes once more."""
    root = make(str(tmp_path / "r"), {"fresh": "1", "coarse": "2", "aged": "3"})
    now = 2_000_000_000 * 10**9
    real = statcache.stamp_of

    def stamp(status: os.stat_result) -> Any:
        size, _, _, inode, device = real(status)
        ages = {1: now - 1_000_000, 2: now - 10**9, 3: now - 10**9 + 1}
        # Directories are not what this is about: fresh, so that none is vouched for.
        age = int(Path(root, names[inode]).read_text()) if inode in names else 1
        moment = ages[age]
        return size, OLD, moment, inode, device

    names = {os.stat(os.path.join(root, name)).st_ino: name for name in os.listdir(root)}
    monkeypatch.setattr(statcache, "stamp_of", stamp)
    monkeypatch.setattr(time, "time_ns", lambda: now)
    cache = StatCache()
    scan(root, cache=cache)
    opened.clear()
    scan(root, cache=cache)
    assert sorted(opened) == ["coarse", "fresh"]


@pytest.mark.parametrize(
    "data", [b"", b"x", b"x\x9c", StatCache().to_bytes()[:-2], b"x\x9c\x03\x00\x00\x00\x00\x01"]
)
def test_a_damaged_cache_is_an_empty_one(data: bytes) -> None:
    """It saves time, nothing else, so it is never a reason to fail."""
    assert len(StatCache.from_bytes(data, Manifest([Entry(".", "d")]))) == 0


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that is not known in full cannot be promised back, so the scan fails."""
    root = make(str(tmp_path / "r"), {"a": "1", "b": "2"})
    real = os.open

    def refuse(path: Any, *rest: Any, **options: Any) -> int:
        if path == "a":
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ScanFailed) as caught:
        scan(root)
    assert caught.value.paths == ["a"]
    assert "'a'" in str(caught.value)
    monkeypatch.undo()
    with pytest.raises(NotADirectoryError):
        scan(os.path.join(root, "a"))
    with pytest.raises(FileNotFoundError):
        scan(os.path.join(root, "absent"))


def test_a_file_replaced_between_stat_and_open_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a link to something secret, by a fifo, by nothing, by a directory: never followed."""
    root = make(str(tmp_path / "r"), {"dir": "1", "fifo": "1", "gone": "1", "link": "1"})
    make(str(tmp_path), {"secret": "s"})
    real = tree_module._read_file

    def replace(name: str, *rest: Any) -> Any:
        path = os.path.join(root, name)
        if os.path.isfile(path) and not os.path.islink(path):
            os.unlink(path)
            if name == "dir":
                make(path, {"below": "2"})
            elif name == "fifo":
                os.mkfifo(path)
            elif name == "link":
                os.symlink("../secret", path)
        return real(name, *rest)

    monkeypatch.setattr(tree_module, "_read_file", replace)
    found = {entry.path: entry.kind for entry in scan(root)}
    assert found == {".": "d", "dir": "d", "dir/below": "f", "fifo": "p", "link": "l"}


def test_a_file_that_never_holds_still_is_recorded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that grows with every look does not stop the scan, and is not cached."""
    root = make(str(tmp_path / "r"), {"log": "1"})
    real = tree_module.hash_file

    def grow(descriptor: int, size: int) -> Any:
        found = real(descriptor, size)
        with open(os.path.join(root, "log"), "a") as file:
            file.write("more")
        return found

    monkeypatch.setattr(tree_module, "hash_file", grow)
    cache = StatCache()
    entry = scan(root, cache=cache).get("log")
    assert entry is not None
    assert entry.kind == "f"
    text = Path(root, "log").read_bytes()[: entry.size]
    assert hashlib.sha256(text).hexdigest() == entry.digest
    assert len(cache) == 0


def test_a_tree_under_change_can_be_scanned(tmp_path: Path) -> None:
    """Directories and files come and go all the while: no error, and always a valid manifest."""
    root = make(str(tmp_path / "r"), {f"still/{n}": "x" for n in range(50)})
    done = threading.Event()

    def disturb() -> None:
        number = 0
        while not done.is_set():
            number += 1
            folder = os.path.join(root, f"moving{number % 3}")
            make(folder, {"a/b/c": "x" * (number % 100), "d": "y"})
            os.rename(folder, folder + "x")
            shutil.rmtree(folder + "x")

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(30):
            manifest = scan(root)
            assert sum(1 for entry in manifest if entry.path.startswith("still/")) == 50
    finally:
        done.set()
        thread.join()


def _age(root: str) -> None:
    """Wait until everything in ``root`` is older than the tick that the cache distrusts."""
    assert os.path.isdir(root)
    time.sleep(2 * statcache._TICK / 1e9)
