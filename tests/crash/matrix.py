"""Every point at which something can die, times everything that can die there.

The points are named by the code: a host reaches one before and after each record of its journal,
the controller before and after each request to a host and around the decision. A run of each kind
in which nothing goes wrong lists them. Two points of a host between which nothing becomes durable
and nothing is done are one point, and are played once: a record that only confirms (`done`,
`undone`, `checked`) is on the disk with the next one that is synced. So are `after VERB` and the
`before` of the next request to the same host.

A good release and one that does not start take the same way up to `checked`; the second is played
from there on.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from deployguard.onhost.state.records import parse
from tests.crash.controllers import Controller, Controllers
from tests.crash.ground import ALL_LAYOUTS, PAUSED, STATE, Ground, make_releases, wait_for
from tests.fleet.fleet import Fleet
from tests.fleet.host import Host

#: What dies: the controller (SIGKILL), the host program (SIGKILL), the cable, the power.
FAULTS = ("controller", "program", "network", "power")

#: A run may not come as far as its point, on a machine so busy that a lease ends before.
ATTEMPTS = 3

_CONFIRMS = ("done", "undone", "checked")


@dataclass(frozen=True)
class Case:
    """One way for a deploy to be struck."""

    layout: str
    hosts: int
    release: str
    side: str
    point: str
    fault: str

    def __str__(self) -> str:
        where = f"{self.hosts} host{'s' * (self.hosts > 1)}, {self.layout}, {self.release} release"
        return f"{self.fault} at {self.side} `{self.point}` ({where})"


@dataclass
class Tally:
    """What came of the cases."""

    played: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """Cases in which the fault struck at its point."""
        return sum(self.played.values())

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(self.played.items()))
        ends = ", ".join(f"{end} {number}" for end, number in sorted(self.ends.items()))
        lines = [
            f"{self.count} cases in {self.seconds:.0f} s: {kinds}",
            f"ended with {ends}; {len(self.violations)} violations, {len(self.missed)} missed",
        ]
        return "\n".join([*lines, *self.violations, *self.missed])


# --- which points there are ----------------------------------------------------------------------


def host_points(ground: Ground, release: str) -> list[str]:
    """The points of a host program, from the journal of the run that was just made."""
    host = ground.hosts[0]
    newest = max(ground.transactions(host))
    records, _ = parse(host.path(f"{STATE}/transactions/{newest}/journal").read_bytes())
    points: list[str] = []
    bad_begins = False
    for record in records:
        kind = record["kind"]
        name = f"{kind} {record['id']}" if "id" in record else kind
        bad_begins |= kind == "restoring"
        if release == "bad" and not bad_begins:
            continue
        if kind in ("done", "undone"):
            points.append(f"before {name}")
        elif kind == "intent":
            points.append(f"after {name}")
        elif kind not in _CONFIRMS:
            points += [f"before {name}", f"after {name}"]
    return points


def controller_points(lines: Sequence[str], release: str) -> list[str]:
    """The points of a controller, from its list."""
    # Which contents have to travel depends on what the host still has; to it that is `begun`.
    lines = [line for line in dict.fromkeys(lines) if " blobs " not in line]
    if release == "bad":
        lines = lines[lines.index("before decide") :]
    last = [lines[-1]]
    return [line for line in lines if line.startswith("before")] + last


# --- one case ------------------------------------------------------------------------------------


def play(ground: Ground, case: Case) -> str:
    """Play a case to its end; how it ended, or an empty string where the point was not reached.

    Raises :class:`Violation`.
    """
    victim = ground.hosts[len(ground.hosts) // 2]
    ground.number += 1
    old = ground.version
    new = ground.other if case.release == "good" else "bad"
    ground.plan(new)
    if case.side == "host":
        paused = victim.path(PAUSED)
        wait = {"point": case.point, "action": "wait", "path": PAUSED}
        run = ground.start("apply", faults={"hosts": {victim.name: [wait]}})
    else:
        paused = ground.directory / "paused"
        wait = {"point": case.point, "action": "wait", "path": str(paused)}
        run = ground.start("apply", faults={"controller": [wait]})
    wait_for(lambda: paused.exists() or not run.running, f"`{case.point}`")
    reached = paused.exists()
    if reached:
        strike(ground, case.fault, victim, run, paused)
    end = ground.end(run, [old, ground.other] if case.release == "good" else [old])
    return ("new" if end != old else "old") if reached else ""


def strike(ground: Ground, fault: str, victim: Host, run: Controller, paused: Path) -> None:
    """Let it happen, and let what waits at the point go on."""

    def go_on() -> None:
        with contextlib.suppress(FileNotFoundError):
            paused.unlink()

    if fault == "controller":
        run.kill()
        go_on()
    elif fault == "program":
        ground.kill_program(victim)
        go_on()
    elif fault == "network":
        with ground.cut(victim):
            go_on()
            # Both sides learn of it by silence, and come to their ends without the other.
            run.wait()
            ground.settled_alone(victim)
    elif fault == "power":
        victim.power_cut()
        go_on()
        victim.boot()
    else:
        raise ValueError(fault)


# --- many cases ----------------------------------------------------------------------------------


class Grounds:
    """Hosts in groups, each with a layout, and cases that are played on all of them at once."""

    def __init__(self, fleet: Fleet, directory: Path, controllers: Controllers) -> None:
        self.fleet = fleet
        self.directory = directory
        self.controllers = controllers
        self.grounds: list[Ground] = []
        self.used = 0
        self._releases = {
            layout: make_releases(directory / f"releases-{layout}", layout)
            for layout in ALL_LAYOUTS
        }

    def add(self, layout: str, hosts: int, **options: Any) -> Ground:
        """A ground on hosts that nobody has yet."""
        chosen = self.fleet.need(self.used + hosts)[self.used : self.used + hosts]
        self.used += hosts
        options.setdefault("releases", self._releases[layout])
        make: type[Ground] = options.pop("make", Ground)
        ground = make(
            self.fleet,
            chosen,
            self.directory / f"ground-{len(self.grounds)}",
            layout,
            self.controllers,
            **options,
        )
        self.grounds.append(ground)
        return ground

    def set_up(self) -> None:
        """v1 on all hosts."""
        in_threads([ground.set_up for ground in self.grounds])

    def points(self) -> dict[tuple[str, str], dict[str, list[str]]]:
        """By layout and release: the points of a host and those of the controller."""
        found = {}
        for layout in ALL_LAYOUTS:
            ground = next((g for g in self.grounds if g.layout == layout), None)
            if ground is None:
                continue
            for release in ("good", "bad"):
                ground.number += 1
                old = ground.version
                ground.plan(ground.other if release == "good" else "bad")
                listing = ground.directory / "points"
                listing.unlink(missing_ok=True)
                run = ground.start("apply", faults={"list": str(listing)})
                ground.end(run, [old, ground.other])
                lines = listing.read_text().splitlines()
                own = [line.replace(ground.hosts[0].name, "HOST") for line in lines]
                found[layout, release] = {
                    "host": host_points(ground, release),
                    "controller": controller_points(own, release),
                }
        return found

    def play(self, cases: Iterable[Case], say: Callable[[str], None] = lambda text: None) -> Tally:
        """Play all cases, each on a ground of its layout and size."""
        began = time.monotonic()
        tally = Tally()
        queues: dict[tuple[str, int], queue.SimpleQueue[Case]] = {}
        for case in cases:
            queues.setdefault((case.layout, case.hosts), queue.SimpleQueue()).put(case)
        lock = threading.Lock()

        def work(ground: Ground) -> None:
            mine = queues.get((ground.kind, len(ground.hosts)))
            while mine is not None:
                try:
                    case = mine.get_nowait()
                except queue.Empty:
                    return
                start = time.monotonic()
                for _ in range(ATTEMPTS):
                    end, trouble = _play_safely(ground, case)
                    if end or trouble:
                        break
                with lock:
                    if trouble:
                        tally.violations.append(f"{case}: {trouble}")
                    elif not end:
                        tally.missed.append(str(case))
                    if end or trouble:
                        tally.played[case.fault] += 1
                        tally.ends[end or "violation"] += 1
                    say(f"{case}: {trouble or end or 'missed'}, {time.monotonic() - start:.1f} s")

        in_threads([partial(work, ground) for ground in self.grounds])
        tally.seconds = time.monotonic() - began
        return tally


def _play_safely(ground: Ground, case: Case) -> tuple[str, str]:
    """How a case ended, or what is wrong; the ground is in order again in either case."""
    named = Case(
        case.layout,
        case.hosts,
        case.release,
        case.side,
        case.point.replace("HOST", ground.hosts[len(ground.hosts) // 2].name),
        case.fault,
    )
    try:
        return play(ground, named), ""
    except Exception as error:  # noqa: BLE001 - whatever it is, the case did not end well
        trouble = f"{type(error).__name__}: {error}"
        if not isinstance(error, AssertionError):
            trouble += "\n" + traceback.format_exc()
        trouble += "\n" + "\n".join(ground.story(host) for host in ground.hosts)
    for host in ground.hosts:
        with contextlib.suppress(Exception):
            host.heal_network()
        host.reset()
    ground.set_up()
    return "", trouble


def in_threads(works: Sequence[Callable[[], object]]) -> None:
    """Run all at once; the first error is raised when all have ended."""
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# --- which cases ---------------------------------------------------------------------------------


def one_host(points: dict[tuple[str, str], dict[str, list[str]]]) -> list[Case]:
    """All points, all layouts, all four faults."""
    return [
        Case(layout, 1, release, side, point, fault)
        for (layout, release), sides in points.items()
        for side, names in sides.items()
        for point in names
        for fault in FAULTS
    ]


#: What a host enters there changes what the other hosts may do.
_OF_INTEREST = ("staged", "armed", "switched", "prepared", "committed", "restoring", "restored")


def three_hosts(points: dict[tuple[str, str], dict[str, list[str]]]) -> list[Case]:
    """All points of the controller, and the states of the host in the middle; layouts in turn."""
    cases = []
    for release in ("good", "bad"):
        for side in ("host", "controller"):
            for number, point in enumerate(points["releases", release][side]):
                if side == "host" and point.split()[1] not in _OF_INTEREST:
                    continue
                for turn, fault in enumerate(FAULTS):
                    layout = ALL_LAYOUTS[(number + turn) % len(ALL_LAYOUTS)]
                    cases.append(Case(layout, 3, release, side, point, fault))
    return cases


def shuffled(cases: list[Case], seed: int) -> list[Case]:
    """In an order that spreads what takes long."""
    random.Random(seed).shuffle(cases)
    return cases
