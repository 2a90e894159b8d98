"""Deploys back and forth on real hosts while a killer strikes at random: ``make torture N=200``.

Each round deploys the other version, or now and then one that does not start, and something dies
at a time drawn from 1.1 times what a deploy usually takes: the controller, a host program, the
cable or the power of a host. Then, as in the matrix, every host must be wholly old or wholly new.
The seed is printed, and ``SEED=…`` draws the same again; what it meets depends on the machine as
well, so that a failure prints the story of its hosts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from functools import partial
from pathlib import Path

from tests.crash.controllers import Controllers
from tests.crash.ground import ALL_LAYOUTS, Ground
from tests.crash.matrix import FAULTS, Grounds, in_threads
from tests.fleet.container import until
from tests.fleet.fleet import Fleet
from tests.fleet.machine import FleetUnavailable

#: How often the release does not start.
BAD = 0.2


def usual(ground: Ground) -> float:
    """Seconds that a deploy takes here and now."""
    began = time.monotonic()
    ground.deploy(ground.other)
    return time.monotonic() - began


def strike_round(ground: Ground, dice: random.Random, seconds: float) -> str:
    """One deploy, one death, and what came of it. Raises :class:`Violation`."""
    ground.number += 1
    old = ground.version
    good = dice.random() >= BAD
    new = ground.other if good else "bad"
    fault, victim = dice.choice(FAULTS), dice.choice(ground.hosts)
    moment = dice.uniform(0, 1.1 * seconds)
    ground.plan(new)
    began = time.monotonic()
    run = ground.start("apply")
    until(lambda: not run.running, began + moment, 0.005)
    if fault == "controller":
        run.kill()
    elif fault == "program":
        ground.kill_program(victim)
    elif fault == "network":
        with ground.cut(victim):
            run.wait()
            ground.settled_alone(victim)
    else:
        victim.power_cut()
        victim.boot()
    end = ground.end(run, [old, new] if good else [old])
    return f"{fault}, {'good' if good else 'bad'} release: {'new' if end != old else 'old'}"


def torture(grounds: Grounds, rounds: int, seed: int) -> list[str]:
    """That many rounds over all grounds; what went wrong."""
    left = iter(range(rounds))
    lock = threading.Lock()
    ends: Counter[str] = Counter()
    wrong: list[str] = []

    def work(ground: Ground, number: int) -> None:
        dice = random.Random(f"{seed}-{number}")
        seconds = usual(ground)
        while True:
            with lock:
                if next(left, None) is None:
                    return
            try:
                end = strike_round(ground, dice, seconds)
                with lock:
                    ends[end] += 1
                    done = sum(ends.values()) + len(wrong)
                    if done % 20 == 0:
                        print(f"{done} rounds", flush=True)
            except Exception:  # noqa: BLE001 - whatever it is, the round did not end well
                story = "\n".join(ground.story(host) for host in ground.hosts)
                with lock:
                    wrong.append(f"{traceback.format_exc()}\n{story}")
                    print(wrong[-1], flush=True)
                for host in ground.hosts:
                    with contextlib.suppress(Exception):
                        host.heal_network()
                    host.reset()
                ground.set_up()

    in_threads([partial(work, ground, n) for n, ground in enumerate(grounds.grounds)])
    for end, count in sorted(ends.items()):
        print(f"  {count:4} {end}")
    return wrong


def main(argv: list[str]) -> int:
    """Run it; 0 when nothing was torn."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.torture", description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(argv)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"{options.rounds} rounds, SEED={seed}", flush=True)
    began = time.monotonic()
    try:
        fleet = Fleet.up(1, f"torture-{os.getpid()}")
    except FleetUnavailable as error:
        print(f"no test hosts: {error}", file=sys.stderr)
        return 1
    with fleet, tempfile.TemporaryDirectory() as directory:
        fleet.enter()
        with Controllers() as controllers:
            grounds = Grounds(fleet, Path(directory), controllers)
            for layout in ALL_LAYOUTS:
                for hosts in (1, 1, 3):
                    grounds.add(layout, hosts)
            grounds.set_up()
            wrong = torture(grounds, options.rounds, seed)
    seconds = time.monotonic() - began
    print(f"{options.rounds} rounds in {seconds:.0f} s, {len(wrong)} violations; SEED={seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
