"""Power cuts of one recorded deploy: what the disk may hold, and what the host makes of it.

At an instant, everything that was written before the last answered flush is on the disk. Of what
was written after it, any part may be: each block of 4 KiB on its own, since the disk's cache goes
out in any order; and of a block that was just being written, any of its sectors of 512 bytes.

Run as ``python -m tests.crash.diskcuts OPTIONS`` in a mount namespace of its own, so that whatever
ends it leaves nothing mounted. Prints a report as JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.crash.disk import BLOCK, SECTOR, Disk, Event, attached, mounted, read_log, until_closed
from tests.crash.diskhost import DiskBench, HostProgram, Recovery, Truth, run_apart

_MIB = 1024 * 1024


class Kind(NamedTuple):
    """A file system: how it is made and mounted, and what a hostile world mounts it with."""

    size: int
    make: list[str]
    options: str
    hostile: str
    #: Whether it bears a block of its own of which some sectors are new and some old.
    torn: bool


_LAZY = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
KINDS = {
    # What hides a missing sync from those who replace files by renaming is left off.
    "ext4": Kind(
        64 * _MIB,
        ["mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-E", _LAZY],
        "noatime,noauto_da_alloc",
        ",data=writeback",
        True,
    ),
    # Its log has what was synced and nothing else: a name that is not synced is lost. Of its
    # superblock it has one copy on a disk of this size, with a checksum over all its sectors.
    "btrfs": Kind(128 * _MIB, ["mkfs.btrfs", "-q", "-K", "--mixed"], "noatime", "", False),
}
_STEPS = {"begin": "begun", "stage": "staged", "arm": "armed", "switch": "switched"}
_STEPS["prepare"] = "prepared"


@dataclasses.dataclass
class Options:
    """One recording, and how it is cut."""

    kind: str = "ext4"
    layout: str = "releases"
    outcome: str = "committed"
    #: Names and sizes get to the disk as early, and contents as late, as they may.
    hostile: bool = False
    left_out: str = ""
    images: int = 100
    seed: int = 0
    #: Stop at the first violation: for a sync that was left out on purpose.
    first: bool = False
    only: int | None = None
    #: Where the work is done.
    memory: str | None = None


@dataclasses.dataclass
class Recording:
    """A deploy, and what a controller knew when."""

    deploy: Any
    old: Truth
    begun: int
    #: As it is after the switch; and the whole host, after the commit.
    new: Truth = dataclasses.field(default_factory=lambda: Truth({}, {}, {}))
    events: list[Event] = dataclasses.field(default_factory=list)
    #: What was answered, by its place in the log.
    answers: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    decided: int = sys.maxsize
    ended: int = 0


@dataclasses.dataclass
class Image:
    """What a power cut leaves."""

    number: int
    at: int
    kind: str
    #: Which of the writes up to ``flushed`` are there for sure.
    flushed: int
    parts: list[tuple[int, bytes]]
    lost: int


class Cutter:
    """Works in a folder of its own."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.mount = folder / "mnt"
        self.mount.mkdir()
        self.kind = KINDS[options.kind]
        self._mount_options = self.kind.options + (self.kind.hostile if options.hostile else "")

    def prepare(self) -> DiskBench:
        """A disk with a host on it that has been deployed to twice."""
        self.base = self.folder / "base"
        with open(self.base, "wb") as file:
            file.truncate(self.kind.size)
        subprocess.run([*self.kind.make, str(self.base)], check=True)
        with attached(self.base) as device, self._mounted(device, "noatime"):
            bench = DiskBench(self.mount, self.folder, self.options.layout)
            bench.settle_in()
        return bench

    def _mounted(self, device: Path, options: str) -> contextlib.AbstractContextManager[None]:
        return mounted(device, self.mount, self.options.kind, options)

    def record(self, bench: DiskBench) -> Recording:
        """Deploy on the recorded disk."""
        disk = Disk(self.base, self.folder)
        bench.served = "v2"
        try:
            with attached(disk.file) as device:
                self.device = device
                with self._mounted(device, self._mount_options):
                    nudged = str(self.mount / "other") if self.options.hostile else ""
                    program = HostProgram(bench, self.options.left_out, nudged)
                    recording = Recording(bench.over(program, "v3"), Truth.now(bench), disk.now())
                    self._deploy(recording, bench, disk)
                    program.hang_up()
        finally:
            disk.close()
        recording.events = read_log(disk.log)
        return recording

    def _deploy(self, recording: Recording, bench: DiskBench, disk: Disk) -> None:
        deploy = recording.deploy
        for step, state in _STEPS.items():
            deploy.to(step)
            recording.answers.append((disk.now(), state))
        recording.new = Truth.now(bench)
        if self.options.outcome == "restored":
            assert deploy.restore()["state"] == "restored"
        else:
            recording.decided = disk.now()
            deploy.to("commit")
            recording.new = recording.new._replace(world=bench.world())
        recording.answers.append((disk.now(), self.options.outcome))
        recording.ended = disk.now()
        assert recording.new.live == bench.build_tree("v3"), "v3 is not what was built"

    def cut(self, bench: DiskBench, recording: Recording) -> dict[str, Any]:
        """Every image, and what is wrong after it."""
        options = self.options
        report: dict[str, Any] = {"images": 0, "violations": [], "states": {}, "flushes": 0}
        report["writes"] = sum(not event.is_flush for event in recording.events)
        content = bytearray(self.base.read_bytes())
        file = self.folder / "image"
        applied = 0
        with contextlib.ExitStack() as stack:
            # The next boot may give the disk another number.
            stack.enter_context(occupied(self.device, self.folder))
            for image in images(recording, options, report):
                while applied < image.flushed:
                    event = recording.events[applied]
                    content[event.offset : event.offset + len(event.data)] = event.data
                    applied += 1
                if options.only not in (None, image.number):
                    continue
                with open(file, "r+b" if file.exists() else "w+b") as stream:
                    stream.write(content)
                    for offset, data in image.parts:
                        stream.seek(offset)
                        stream.write(data)
                self._judge(bench, recording, image, file, report)
                if options.first and report["violations"]:
                    break
        return report

    def _judge(
        self,
        bench: DiskBench,
        recording: Recording,
        image: Image,
        file: Path,
        report: dict[str, Any],
    ) -> None:
        chance = random.Random(f"{self.options.seed} {image.number}")
        answered = ""
        for place, state in recording.answers:
            if place <= image.at:
                answered = state
        decided = image.at >= recording.decided
        alone, powered = chance.random() < 0.5, chance.random() < 0.5
        onwards = chance.random() < 0.1

        def work() -> dict[str, Any]:
            with self._mounted(file, "loop," + self._mount_options):
                mine = Recovery(bench, recording.deploy, recording.old, recording.new, decided)
                # In a child: what it has open is closed before the disk is unmounted.
                wrong, found = run_apart(
                    lambda: (mine.run(answered, alone, powered, onwards), mine.found)
                )
                return {"wrong": wrong, "found": found}

        result = work()
        report["images"] += 1
        found = result["found"]
        report["states"][found] = report["states"].get(found, 0) + 1
        if result["wrong"]:
            report["violations"].append(
                {
                    "image": image.number,
                    "kind": image.kind,
                    "lost": image.lost,
                    "answered": answered,
                    "found": found,
                    "alone": alone,
                    "decided": decided,
                    "powered": powered,
                    "wrong": [text[:1500] for text in result["wrong"][:5]],
                }
            )


@contextlib.contextmanager
def occupied(device: Path, folder: Path) -> Iterator[None]:
    """The loop device is in use for something else."""
    dummy = folder / "dummy"
    dummy.write_bytes(bytes(1024 * 1024))
    taken = subprocess.run(["losetup", str(device), str(dummy)], check=False)
    # Where somebody else was quicker, it is in use as well.
    with until_closed(str(device)) if taken.returncode == 0 else contextlib.nullcontext():
        yield


def images(recording: Recording, options: Options, report: dict[str, Any]) -> Iterator[Image]:
    """For each time between two flushes nothing, all, and parts of what was written in it."""
    chance = random.Random(f"{options.seed} {options.layout} {options.outcome} {options.hostile}")
    windows = list(_windows(recording))
    report["flushes"] = len(windows)
    # Where more was written there is more to lose.
    weights = [min(len(pieces), 40) for _, _, pieces in windows]
    extra = max(options.images - 2 * len(windows), 0)
    sample = min(options.images / (2 * len(windows)), 1.0)
    number = 0
    for (flushed, places, pieces), weight in zip(windows, weights, strict=True):
        last = places[-1]
        plans: list[tuple[str, int]] = [("nothing", last)]
        if pieces:
            plans.append(("all", last))
            share = round(extra * weight / max(sum(weights), 1) + chance.random() * 0.99)
            # A single block can be there, missing or torn.
            kinds = _PARTS if len(pieces) > 1 else ()
            if KINDS[options.kind].torn:
                kinds += _TORN
            if kinds:
                plans += [(chance.choice(kinds), chance.choice(places)) for _ in range(share)]
        for kind, at in plans:
            if chance.random() >= sample:
                continue
            written = [piece for piece in pieces if piece[0] <= at]
            kept = _keep(kind, written, chance)
            yield Image(number, at, kind, flushed, kept, len(written) - len(kept))
            number += 1


def _windows(
    recording: Recording,
) -> Iterator[tuple[int, list[int], list[tuple[int, int, bytes]]]]:
    """How many events are safe, the instants until the next flush, and what is written in them."""
    flushed, places, pieces = 0, [0], []
    for index, event in enumerate(recording.events):
        if event.is_flush:
            if places[-1] >= recording.begun:
                yield flushed, places, pieces
            flushed, places, pieces = index + 1, [event.end], []
            if event.end > recording.ended:
                return
            continue
        places.append(event.end)
        for start in range(0, len(event.data), BLOCK):
            pieces.append((event.end, event.offset + start, event.data[start : start + BLOCK]))


_PARTS = ("few", "half", "most", "but one", "one", "late")
_TORN = ("torn",)


def _keep(
    kind: str, written: list[tuple[int, int, bytes]], chance: random.Random
) -> list[tuple[int, bytes]]:
    parts = [(offset, data) for _, offset, data in written]
    if kind == "nothing" or not parts:
        return []
    if kind == "all":
        return parts
    if kind == "but one":
        parts.pop(chance.randrange(len(parts)))
        return parts
    if kind == "one":
        return [chance.choice(parts)]
    if kind == "late":
        return parts[chance.randrange(len(parts)) :]
    if kind == "torn":
        return [
            (offset + start, data[start : start + SECTOR])
            for offset, data in parts
            for start in range(0, len(data), SECTOR)
            if chance.random() < 0.5
        ]
    share = {"few": 0.1, "half": 0.5, "most": 0.9}[kind]
    return [part for part in parts if chance.random() < share]


def main(text: str) -> int:
    """The report of the cuts with these options."""
    options = Options(**json.loads(text))
    # What is cleared away at the end is so when somebody else ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.memory) as folder:
        cutter = Cutter(options, Path(folder))
        bench = cutter.prepare()
        recording = cutter.record(bench)
        recorded = time.monotonic()
        report = cutter.cut(bench, recording)
    report["recording"] = round(recorded - began, 1)
    report["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
