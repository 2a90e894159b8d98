"""Power cuts at block level: what a disk may hold after one is recovered from, whatever it is.

A deploy runs on a disk that logs every write and every flush. For each time between two flushes
there are images of what a power cut may leave then: everything that was flushed, and any part of
what was written since. Each is mounted, the host recovers, and is looked at from end to end.

``DISK_SEED`` is the seed of what is lost; a violation names the image, and ``only`` repeats it.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.onhost.bench import MEMORY

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("DISK_SEED", "20261121"))
_PROGRAMS = ("mkfs.ext4", "mkfs.btrfs", "mount", "losetup", "unshare")


def _absent() -> str:
    """Why there can be no recorded disk on this machine, in a line."""
    if os.geteuid() != 0:
        return "only root can mount"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if ctypes.util.find_library("fuse3") is None:
        absent.append("libfuse3")
    if importlib.util.find_spec("mfusepy") is None:
        absent.append("mfusepy")
    absent += [name for name in ("/dev/fuse", "/dev/loop-control") if not os.path.exists(name)]
    return "`make hosts` installs what is missing: " + ", ".join(absent) if absent else ""


@pytest.fixture(autouse=True, scope="module")
def _disks() -> None:
    reason = _absent()
    if reason and os.environ.get("CI"):
        pytest.fail("no recorded disk: " + reason, pytrace=False)
    if reason:
        pytest.skip("no recorded disk: " + reason)


Cut = Callable[..., dict[str, Any]]


@pytest.fixture
def cut(capsys: pytest.CaptureFixture[str]) -> Cut:
    """Records and cuts, as ``diskcuts.Options`` say; the sum of it is printed."""

    def reported(**options: Any) -> dict[str, Any]:
        report = _cut(options)
        what = ", ".join(str(value) for value in options.values())
        with capsys.disabled():
            print(
                f"\n{what}: {report['images']} images of {report['flushes']} flushes, "
                f"{len(report['violations'])} violations, seed {SEED}, {report['seconds']} s"
            )
        return report

    return reported


def _cut(options: dict[str, Any]) -> dict[str, Any]:
    wanted = json.dumps(dict(options, seed=SEED, memory=_memory()))
    # Whatever ends it, nothing stays mounted: its mounts are its own.
    command = ["unshare", "--mount", "--propagation", "private", sys.executable]
    done = subprocess.run(
        [*command, "-m", "tests.crash.diskcuts", wanted],
        cwd=ROOT,
        env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin"),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _memory() -> str | None:
    """Where an image is mounted fastest; a container may have little of it."""
    if MEMORY is None:
        return None
    free = os.statvfs(MEMORY)
    return MEMORY if free.f_bavail * free.f_frsize > 2**30 else None


def test_a_few_cuts(cut: Cut) -> None:
    """A sample of what the proofs below do thoroughly."""
    report = cut(images=40, outcome="restored", layout="in_place", hostile=True)
    assert report["violations"] == []
    assert report["images"] >= 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "hostile", "layout", "outcome"),
    [
        ("ext4", False, "releases", "committed"),
        ("ext4", False, "releases", "restored"),
        ("ext4", False, "in_place", "committed"),
        ("ext4", False, "in_place", "restored"),
        # Another program syncs just before we do, every time, and the file system is told to keep
        # no order between contents and names.
        ("ext4", True, "releases", "committed"),
        ("ext4", True, "in_place", "restored"),
        # A file system that syncs what it is asked to, and nothing that came before.
        ("btrfs", False, "releases", "committed"),
        ("btrfs", False, "in_place", "restored"),
    ],
)
def test_power_cuts_between_any_two_flushes(
    cut: Cut, kind: str, hostile: bool, layout: str, outcome: str
) -> None:
    """Old or new as the decision says, entry by entry; nothing is left; the next deploy works."""
    # A hostile world flushes more often, and each flush is to have its images.
    images = 300 if hostile else 180
    report = cut(kind=kind, hostile=hostile, layout=layout, outcome=outcome, images=images)
    assert report["violations"] == []
    assert report["images"] > report["flushes"] > 50
    states = {"idle", "begun", "staged", "armed", "switched", "prepared", outcome}
    assert set(report["states"]) == states


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_out", "kind"),
    [("a tree", "ext4"), ("a record", "ext4"), ("a file", "ext4"), ("a name", "btrfs")],
)
def test_a_sync_that_is_left_out_is_caught(cut: Cut, left_out: str, kind: str) -> None:
    """The proof would notice: without any one kind of sync there is a violation."""
    assert cut(left_out=left_out, kind=kind, images=150, first=True)["violations"]
