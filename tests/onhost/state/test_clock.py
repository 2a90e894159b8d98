"""The clock on the wall may jump both ways: it dates records, and nothing waits by it."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

from deployguard.onhost.state import lease
from deployguard.onhost.system import System
from tests.onhost.bench import Bench

_TEN_YEARS = 10 * 365 * 86400.0
_SOURCE = Path(lease.__file__).resolve().parents[2]
#: What waits, or judges how long something took. On the host: everything.
_WAITING = [
    *sorted((_SOURCE / "onhost").rglob("*.py")),
    *sorted((_SOURCE / "rollout").glob("*.py")),
    *sorted((_SOURCE / "health").glob("*.py")),
    *(_SOURCE / "transport" / name for name in ("session.py", "inbox.py", "ssh.py", "channel.py")),
]


def jump(system: System) -> System:
    """Its clock on the wall is set by ten years, forth and back, each time it is read."""
    jumps, real = itertools.cycle([0.0, _TEN_YEARS, -_TEN_YEARS]), system.now
    system.now = lambda: real() + next(jumps)  # type: ignore[method-assign]
    return system


@pytest.mark.parametrize("layout", ["releases", "in_place"])
def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, layout: str) -> None:
    """A deploy commits, a second one is restored, and neither takes longer or shorter for it."""
    bench = Bench(str(tmp_path), layout)
    jump(bench.system)
    bench.release("v1")
    bench.deploy("v2").to("commit")
    assert bench.served == "v2"
    result = bench.deploy("v3").to("switch").restore()
    assert result["state"] == "restored" and bench.served == "v2"
    assert all(0 <= seconds < 60 for seconds in result["seconds"].values())


def test_a_lease_is_as_long_as_it_is(tmp_path: Path) -> None:
    """By the clock since boot."""
    system = jump(System())
    lease.renew(str(tmp_path), 30.0, system)
    assert all(20.0 < lease.left(str(tmp_path), system) < 30.1 for _ in range(3))


@pytest.mark.parametrize("path", _WAITING, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_duration_is_reckoned_from_the_wall(path: Path) -> None:
    """`now()` and `time.time()` are recorded; no sum, difference or comparison has them in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.BinOp, ast.Compare)):
            assert not [read for read in ast.walk(node) if _reads_the_wall(read)], "%s:%d" % (
                path.name,
                node.lineno,
            )


def _reads_the_wall(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    whose = node.func.value
    wall = isinstance(whose, ast.Name) and whose.id == "time" and node.func.attr == "time"
    return wall or node.func.attr == "now"
