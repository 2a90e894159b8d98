"""Two at once: one wins, the other is told so (6 or 7), and nothing is torn.

Two controllers deploy to the same hosts, from one machine or from two; or a `recover`, with and
without `--force`, comes in the middle of a deploy. When the second comes is drawn, over the whole
length of a deploy; a draw in which they did not meet is no race, and is drawn again.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from functools import partial

import pytest

from tests.crash.controllers import Controller
from tests.crash.ground import LAYOUTS, Ground, Violation
from tests.crash.matrix import Grounds, in_threads

pytestmark = [pytest.mark.fleet, pytest.mark.alone]

KINDS = ("apply, same machine", "apply, other machine", "recover", "recover --force")


def race(ground: Ground, kind: str, delay: float) -> str:
    """Who won; empty where the two did not meet. Raises :class:`Violation`."""
    ground.number += 1
    old, new = ground.version, ground.other
    ground.plan(new)
    first = ground.start("apply", name="first")
    # Not a wait for something to happen: when the other one comes is what the draw is about.
    time.sleep(delay)
    arguments = ["apply"] if kind.startswith("apply") else kind.split()
    elsewhere = "elsewhere" if kind == "apply, other machine" else ""
    second = ground.start(*arguments, name="second", state=elsewhere)
    codes = first.wait(), second.wait()
    winner = judge(kind, codes, first, second)
    ground.end(None, [old, new])
    return winner


def judge(kind: str, codes: tuple[int, int], first: Controller, second: Controller) -> str:
    """Who won by what the two say. Raises :class:`Violation` where that makes no sense."""
    idle = second.lines[-1].get("status") == "unchanged" if second.lines else False
    beaten = [code in (6, 7) for code in codes]
    if beaten == [False, True] and codes[0] == 0:
        return "the first"
    if beaten == [True, False] and codes[1] == 0:
        return "the second"
    if codes == (0, 0) and (idle or kind.startswith("recover")):
        # They did not meet, or met when there was nothing left to differ about.
        return "" if idle else "both, of one mind"
    said = f"first: {first.text}\nsecond: {second.text}"
    raise Violation(f"{kind}: exit codes {codes}\n{said}")


def races(grounds: Grounds, number: int, seed: int) -> tuple[Counter[str], list[str]]:
    """That many races on all grounds at once; who won how often, and what went wrong."""
    print(f"seed {seed}")
    wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
    for position in range(number):
        wanted.put(KINDS[position % len(KINDS)])
    won: Counter[str] = Counter()
    wrong: list[str] = []
    lock = threading.Lock()

    def work(ground: Ground, dice: random.Random) -> None:
        # Those that do not meet are drawn again, by whichever ground is free.
        for _ in range(20 * number):
            try:
                kind = wanted.get_nowait()
            except queue.Empty:
                return
            delay = dice.uniform(0, 1.5)
            try:
                winner = race(ground, kind, delay)
            except (AssertionError, TimeoutError) as error:
                with lock:
                    told = "\n".join(ground.story(host) for host in ground.hosts)
                    wrong.append(f"{kind}, {delay:.3f} s later: {error}\n{told}")
                return
            if not winner:
                wanted.put(kind)
                continue
            with lock:
                won[f"{kind}: {winner}"] += 1
            if wrong:
                return

    in_threads([partial(work, g, random.Random(seed + n)) for n, g in enumerate(grounds.grounds)])
    return won, wrong


def _judge(
    grounds: Grounds, number: int, capsys: pytest.CaptureFixture[str], seed: int = 20261
) -> None:
    with capsys.disabled():
        won, wrong = races(grounds, number, seed)
        for result, count in sorted(won.items()):
            print(f"  {count:3} {result}")
    assert not wrong, "\n".join(wrong)
    assert sum(won.values()) == number


def test_a_few_races(grounds: Grounds, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of each kind."""
    for layout in LAYOUTS:
        grounds.add(layout, 1)
        grounds.add(layout, 1)
    grounds.set_up()
    _judge(grounds, 8, capsys)


@pytest.mark.slow
def test_a_hundred_races(grounds: Grounds, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty-five of each kind, on one host and on three."""
    for layout in LAYOUTS:
        for _ in range(3):
            grounds.add(layout, 1)
        grounds.add(layout, 3)
    grounds.set_up()
    _judge(grounds, 100, capsys)
