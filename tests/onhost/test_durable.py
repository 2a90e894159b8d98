"""Bytes that survive: whole files, atomic swaps, removal that stays inside."""

from __future__ import annotations

import errno
import os
import platform
import re
import stat
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from deployguard.onhost import durable
from tests.onhost.sample_trees import listing, make

ODD = os.fsdecode(b"odd \n\xff name")


def _without_root(action: Callable[[], None]) -> int:
    """Run ``action`` in a child process that has no root rights; its exit code."""
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            action()
        except BaseException as error:  # noqa: BLE001 - a child process must not return
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def test_write_file_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    """The new content and mode are there, and no temporary file."""
    path = str(tmp_path / ODD)
    durable.write_file(path, b"old", 0o644)
    durable.write_file(path, b"new", 0o640)
    assert Path(path).read_bytes() == b"new"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert os.listdir(str(tmp_path)) == [ODD]


def test_write_file_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the disk full, the old file is still whole and nothing lies beside it."""
    path = str(tmp_path / "state")
    durable.write_file(path, b"old")
    monkeypatch.setattr(os, "write", _full_after(1))
    with pytest.raises(OSError):
        durable.write_file(path, b"new")
    monkeypatch.undo()
    assert Path(path).read_bytes() == b"old"
    assert os.listdir(str(tmp_path)) == ["state"]


def test_a_name_of_the_longest_length_can_be_written(tmp_path: Path) -> None:
    """The temporary name does not grow with the name it stands in for."""
    path = str(tmp_path / ("n" * 255))
    durable.write_file(path, b"x")
    assert Path(path).read_bytes() == b"x"


def test_an_append_on_a_full_disk_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written of a failed append is cut off, so the next record follows a whole one."""
    path = str(tmp_path / "journal")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    durable.append(descriptor, b"first\n")
    monkeypatch.setattr(os, "write", _full_after(3))
    with pytest.raises(OSError):
        durable.append(descriptor, b"second\n")
    monkeypatch.undo()
    durable.append(descriptor, b"third\n")
    os.close(descriptor)
    assert Path(path).read_bytes() == b"first\nthird\n"


@pytest.mark.parametrize("first", ["file", "directory", "link"])
@pytest.mark.parametrize("second", ["file", "directory", "link"])
def test_exchange_swaps_any_two_kinds(tmp_path: Path, first: str, second: str) -> None:
    """Files, directories and links trade places; a link is swapped itself, not what it names."""
    left, right = str(tmp_path / ("left" + ODD)), str(tmp_path / "right")
    make(str(tmp_path / "elsewhere"), {"kept": "kept"})
    _place(left, first, "left")
    _place(right, second, "right")
    durable.exchange(left, right)
    assert _identify(left) == (second, "right")
    assert _identify(right) == (first, "left")
    assert listing(str(tmp_path / "elsewhere")) == [("kept", "b'kept'")]


def test_exchange_across_file_systems_says_so(tmp_path: Path) -> None:
    """EXDEV is the caller's to handle, and nothing has changed."""
    other = f"/dev/shm/deployguard-test-{os.getpid()}"
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    here = str(tmp_path / "here")
    try:
        _place(here, "directory", "here")
        _place(other, "directory", "other")
        with pytest.raises(durable.ExchangeUnsupported) as caught:
            durable.exchange(here, other)
        assert caught.value.errno == errno.EXDEV
        assert (_identify(here), _identify(other)) == (
            ("directory", "here"),
            ("directory", "other"),
        )
    finally:
        durable.remove_tree(other)


def test_exchange_without_the_wrapper_makes_the_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old libc has no renameat2; the kernel does."""
    if platform.machine() not in durable._RENAMEAT2:
        pytest.skip("no system call number for this machine")
    real = durable._libc()

    class Old:
        syscall = real.syscall

    monkeypatch.setattr(durable, "_libc", Old)
    _place(str(tmp_path / "a"), "file", "a")
    _place(str(tmp_path / "b"), "directory", "b")
    durable.exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    assert _identify(str(tmp_path / "a")) == ("directory", "b")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_exchange_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The probe says no and cleans up; the exchange raises with the reason."""
    assert durable.exchange_supported(str(tmp_path))

    def refuse(*args: Any) -> None:
        raise durable.ExchangeUnsupported(code, os.strerror(code))

    monkeypatch.setattr(durable, "_renameat2", refuse)
    assert not durable.exchange_supported(str(tmp_path))
    assert os.listdir(str(tmp_path)) == []
    # Without the other path, swap needs no exchange and works all the same.
    _place(str(tmp_path / "beside"), "directory", "new")
    durable.swap(str(tmp_path / "live"), str(tmp_path / "beside"))
    assert _identify(str(tmp_path / "live")) == ("directory", "new")


def test_other_errors_of_an_exchange_are_not_called_unsupported(tmp_path: Path) -> None:
    """A missing path is a missing path."""
    with pytest.raises(FileNotFoundError):
        durable.exchange(str(tmp_path / "a"), str(tmp_path / "b"))


@pytest.mark.parametrize("live", ["", "directory", "link"])
@pytest.mark.parametrize("beside", ["", "directory", "link"])
def test_swap_is_its_own_inverse(tmp_path: Path, live: str, beside: str) -> None:
    """First deploy, update and removal are one primitive, and the same call undoes it."""
    paths = str(tmp_path / "live"), str(tmp_path / "beside")
    for path, kind in zip(paths, (live, beside)):
        if kind:
            _place(path, kind, kind)
    if not live and not beside:
        with pytest.raises(FileNotFoundError):
            durable.swap(*paths)
        return
    durable.swap(*paths)
    assert [_identify(path)[0] for path in paths] == [beside, live]
    durable.swap(*paths)
    assert [_identify(path)[0] for path in paths] == [live, beside]


def test_rename_new_takes_no_taken_name(tmp_path: Path) -> None:
    """Even an empty directory in the way is an error, with and without the system call."""
    _place(str(tmp_path / "from"), "directory", "x")
    (tmp_path / "to").mkdir()
    with pytest.raises(FileExistsError):
        durable.rename_new(str(tmp_path / "from"), str(tmp_path / "to"))


def test_removing_a_tree_never_follows_a_link(tmp_path: Path) -> None:
    """Links to outside go; what they name stays. Absent paths and plain files are fine."""
    outside = make(str(tmp_path / "outside"), {"precious": "x"})
    tree = make(str(tmp_path / "tree"), {"a/b/c": "x", ODD + "/y": "y", "empty": None})
    os.symlink(outside, os.path.join(tree, "a", "link"))
    durable.remove_tree(tree)
    durable.remove_tree(tree)
    assert listing(outside) == [("precious", "b'x'")]
    os.symlink(outside, tree)
    durable.remove_tree(tree)
    assert os.listdir(str(tmp_path)) == ["outside"]
    assert listing(outside) == [("precious", "b'x'")]


def test_read_only_directories_are_removed_without_root(tmp_path: Path) -> None:
    """A release with modes 0555 or 0000 must not be there for good."""
    for folder in [tmp_path, *tmp_path.parents]:
        if os.geteuid() == 0 and str(folder).startswith("/tmp/"):
            os.chmod(str(folder), 0o777)

    def build_and_remove() -> None:
        tree = make(str(tmp_path / "tree"), {"a/b/c": "x", "shut/inner/d": "y", "shut/e": "z"})
        for path, mode in [("a/b", 0o555), ("a", 0o500), ("shut/inner", 0), ("shut", 0o444)]:
            os.chmod(os.path.join(tree, path), mode)
        os.chmod(tree, 0o555)
        durable.remove_tree(tree)

    assert _without_root(build_and_remove) == 0
    assert os.listdir(str(tmp_path)) == []


def test_a_very_deep_tree_is_removed(tmp_path: Path) -> None:
    """Deeper than the recursion limit, the descriptor limit and the longest path allow."""
    descriptor = os.open(str(tmp_path), os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=descriptor)
        below = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    durable.remove_tree(str(tmp_path / "deep"))
    assert os.listdir(str(tmp_path)) == []


def test_the_reserve_takes_room_and_gives_it_back(tmp_path: Path) -> None:
    """Blocks are really allocated; releasing twice is fine; no room leaves nothing behind."""
    path = str(tmp_path / "reserve")
    durable.reserve(path, 1024 * 1024)
    assert os.stat(path).st_blocks * 512 >= 1024 * 1024
    durable.release(path)
    durable.release(path)
    with pytest.raises(OSError):
        durable.reserve(path, 2**60)
    assert os.listdir(str(tmp_path)) == []


def test_make_directory_has_the_mode_whatever_the_umask(tmp_path: Path) -> None:
    """The mode is exact, parents are 0755, and what exists is left alone."""
    old = os.umask(0o077)
    try:
        durable.make_directory(str(tmp_path / "a" / "b" / "c"), 0o770)
        durable.make_directory(str(tmp_path / "a" / "b"), 0o700)
    finally:
        os.umask(old)
    modes = [stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("a", "a/b", "a/b/c")]
    assert modes == [0o755, 0o755, 0o770]


def test_a_sync_that_lost_data_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``syncfs`` reports lost writes, and so do we; without it everything is synced."""
    durable.sync_tree(str(tmp_path))

    class Lost:
        @staticmethod
        def syncfs(descriptor: int) -> int:
            return -1

    monkeypatch.setattr(durable, "_libc", Lost)
    monkeypatch.setattr(durable, "_last_errno", lambda: errno.EIO)
    with pytest.raises(OSError) as caught:
        durable.sync_tree(str(tmp_path))
    assert caught.value.errno == errno.EIO
    synced = []
    monkeypatch.setattr(durable, "_libc", lambda: None)
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    durable.sync_tree(str(tmp_path))
    assert synced == [True]


def test_only_durable_renames_and_syncs() -> None:
    """One place to get it right: no other module on the host may do it on its own."""
    forbidden = re.compile(
        r"\bos\.(rename|renames|replace|fsync|fdatasync|sync)\b|\bshutil\.(move|rmtree)\b|renameat2"
    )
    folder = Path(durable.__file__).parent
    guilty = [
        path.name
        for path in folder.rglob("*.py")
        if path.name != "durable.py" and forbidden.search(path.read_text(encoding="utf-8"))
    ]
    assert guilty == []


def _full_after(count: int) -> Callable[[int, Any], int]:
    """An ``os.write`` on a disk that has room for ``count`` more bytes."""
    real, room = os.write, [count]

    def write(descriptor: int, data: Any) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(descriptor, bytes(data)[: room[0]])
        room[0] -= written
        return written

    return write


def _place(path: str, kind: str, name: str) -> None:
    if kind == "file":
        Path(path).write_text(name)
    elif kind == "link":
        os.symlink("elsewhere/" + name, path)
    else:
        os.mkdir(path)
        Path(path, name).write_text(name)


def _identify(path: str) -> tuple[str, str]:
    if os.path.islink(path):
        return "link", os.path.basename(os.readlink(path))
    if os.path.isdir(path):
        return "directory", os.listdir(path)[0]
    if os.path.exists(path):
        return "file", Path(path).read_text()
    return "", ""


def test_a_new_file_has_no_other_name_meanwhile(tmp_path: Path) -> None:
    """Whoever is killed in between leaves what its own name finds."""
    path = tmp_path / "unit"
    durable.write_new(str(path), b"first", 0o644)
    durable.write_new(str(path), b"2", 0o644)
    assert path.read_bytes() == b"2" and path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(str(tmp_path)) == ["unit"]
