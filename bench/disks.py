"""A disk of its own for every host, and one for the controller; or the machine's for all.

Two reasons. A host's sync must write out that host's data only, as on a real machine; and an ext4
without a journal, which many a virtual machine has as its root, makes new files twenty times slower
for minutes after many were deleted, so that each run would pay for the clean-up of the one before.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from tests.fleet.fleet import Fleet
from tests.fleet.host import Host, unmount_below
from tests.fleet.machine import command

HOST_BYTES = 2 << 30
CONTROLLER_BYTES = 8 << 30
#: Where what is deployed lies, and where the host program keeps what it knows of it.
PLAIN = ("srv", "var/lib/deployguard")


class Disks:
    """Images of journalled ext4 file systems, mounted through loop devices; sparse, so small."""

    def __init__(self, folder: Path, *, images: bool = True) -> None:
        self._images = images
        _sweep(folder)
        self._folder = Path(tempfile.mkdtemp(prefix=f"disks-{os.getpid()}-", dir=folder))
        self._mounted: list[Path] = []

    def __enter__(self) -> Disks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for place in reversed(self._mounted):
            unmount_below(place)
        _remove(self._folder)

    def scratch(self) -> Path:
        """A directory on a disk for the controller."""
        place = self._folder / "scratch"
        self._mount(place, CONTROLLER_BYTES)
        return place

    def grow(self, fleet: Fleet, count: int) -> list[Host]:
        """Grow a fleet to ``count`` hosts, each on a disk of its own."""
        there = len(fleet.hosts)
        for number in range(there + 1, count + 1):
            self._mount(fleet.home / "hosts" / f"web{number}", HOST_BYTES)
        hosts = fleet.need(count)
        for host in hosts[there:]:
            for path in PLAIN:
                self._bind(host.directory / "plain" / path, host.directory / "disk" / path)
        return hosts

    def _bind(self, place: Path, seen_as: Path) -> None:
        """Take the host's root, an overlay above the shared base, out of the way.

        No real machine has one, and to make a file through it costs twice.
        """
        place.mkdir(parents=True)
        seen_as.mkdir(parents=True, exist_ok=True)
        command(["mount", "--bind", str(place), str(seen_as)])

    def _mount(self, place: Path, size: int) -> None:
        if not self._images:
            place.mkdir(parents=True)
            return
        image = self._folder / f"{place.name}.ext4"
        with image.open("wb") as file:
            file.truncate(size)
        # Not lazily: the kernel would go on to write inode tables during the first runs.
        lazy = "lazy_itable_init=0,lazy_journal_init=0"
        command(["mkfs.ext4", "-q", "-F", "-m", "0", "-N", "131072", "-E", lazy, str(image)])
        place.mkdir(parents=True)
        # Directly, past this machine's page cache: a real disk does not copy every block twice.
        found = command(["losetup", "--find", "--show", "--direct-io=on", str(image)])
        device = found.strip()
        command(["mount", "-o", "noatime", device, str(place)])
        command(["losetup", "--detach", device])  # when it is unmounted
        self._mounted.append(place)


def _sweep(folder: Path) -> None:
    """Remove what benchmarks that were killed have left."""
    for left in folder.glob("disks-*-*"):
        if not Path("/proc", left.name.split("-")[1]).exists():
            _remove(left)


def _remove(folder: Path) -> None:
    unmount_below(folder)
    shutil.rmtree(folder)
