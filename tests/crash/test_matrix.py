"""Crash at every point: the controller, the host program, the network, the power.

In the end each host is wholly old or wholly new, by hash, mode, owner, mtime and link target; all
hosts of the transaction agree; the service is up and serves that version; and no lock, timer, unit,
process or staged tree is left. A git checkout is the very repository it was, or at the new commit.
The full matrix is all points with all four faults in all layouts on one host; on three hosts, all
points of the controller and the states of the host in the middle, the layouts taking turns. Which
points there are, and which of them are one, see ``matrix.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import matrix
from tests.crash.ground import ALL_LAYOUTS
from tests.crash.matrix import Case, Grounds
from tests.crash.nginxground import NginxGround, make_nginx_releases
from tests.crash.pm2ground import Pm2Ground, make_pm2_releases
from tests.crash.processground import ProcessGround

pytestmark = [pytest.mark.fleet, pytest.mark.alone]

FEW = (
    Case("releases", 1, "good", "host", "before begun", "power"),
    Case("releases", 1, "good", "host", "before done backend:tree", "power"),
    Case("releases", 1, "bad", "host", "after restoring", "program"),
    Case("releases", 1, "good", "host", "after prepared", "network"),
    Case("releases", 1, "good", "host", "after switched", "controller"),
    Case("in_place", 1, "good", "host", "after settled", "network"),
    Case("in_place", 1, "good", "host", "before done backend:keep", "program"),
    Case("in_place", 1, "good", "host", "before settled", "power"),
    Case("in_place", 1, "bad", "host", "before undone backend:tree", "power"),
    Case("in_place", 1, "good", "controller", "before decide", "controller"),
    Case("git", 1, "good", "host", "after preparing", "power"),
    Case("git", 1, "good", "host", "before done backend:tree", "power"),
    Case("git", 1, "bad", "host", "after intent backend:tag", "program"),
    Case("git", 1, "good", "controller", "before bundle HOST", "network"),
    Case("releases", 3, "good", "controller", "before commit HOST", "controller"),
    Case("releases", 3, "good", "host", "after prepared", "power"),
)


def test_a_few_crashes(grounds: Grounds, capsys: pytest.CaptureFixture[str]) -> None:
    """A few of the matrix, each of which was a violation once or is the likeliest to become one.

    The network of a host is cut at the vote; a power cut strikes between swap and start.
    """
    for layout in ALL_LAYOUTS:
        for _ in range(2 if layout == "git" else 3):
            grounds.add(layout, 1)
    grounds.add("releases", 3)
    grounds.set_up()
    _judge(grounds.play(FEW), capsys, at_least=len(FEW))


class UnstartedPm2Ground(Pm2Ground):
    """Where nobody has told PM2 to start at a boot: only the dead-man does."""

    kind = "pm2 that no boot starts"
    boots = False


UNDER_PM2 = (
    Case("pm2", 1, "good", "host", "before done backend:stop", "program"),
    Case("pm2", 1, "good", "host", "before done backend:tree", "power"),
    Case("pm2", 1, "good", "host", "after switched", "controller"),
    Case("pm2", 1, "bad", "host", "before undone backend:stop", "power"),
    Case("pm2", 1, "good", "host", "after prepared", "power"),
    Case(UnstartedPm2Ground.kind, 1, "good", "host", "before done backend:tree", "power"),
    Case(UnstartedPm2Ground.kind, 1, "bad", "host", "before undone backend:stop", "power"),
)


AS_A_PROCESS = (
    Case("process", 1, "good", "host", "after switched", "controller"),
    Case("process", 1, "good", "host", "before done backend:tree", "power"),
)


def test_a_few_crashes_of_a_process(grounds: Grounds, capsys: pytest.CaptureFixture[str]) -> None:
    """What the dead-man starts again lives on when the unit that it ran as has gone."""
    grounds.add("releases", 1, make=ProcessGround)
    grounds.set_up()
    _judge(grounds.play(AS_A_PROCESS), capsys, at_least=len(AS_A_PROCESS))


RELOADED = (
    Case("nginx", 1, "good", "host", "before done backend:tree", "power"),
    Case("nginx", 1, "good", "host", "after switched", "controller"),
    Case("nginx", 1, "good", "host", "after prepared", "power"),
    Case("nginx", 1, "bad", "host", "before undone backend:tree", "program"),
    Case("nginx", 1, "bad", "host", "before restored", "power"),
)


def test_a_few_crashes_around_a_reload(
    grounds: Grounds, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A static site behind an nginx that nobody stops: its old program serves whatever is there."""
    releases = make_nginx_releases(tmp_path / "releases-nginx")
    for _ in range(2):
        grounds.add("releases", 1, make=NginxGround, releases=releases)
    grounds.set_up()
    _judge(grounds.play(RELOADED), capsys, at_least=len(RELOADED))


def test_a_few_crashes_under_pm2(
    grounds: Grounds, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its daemon dies with the power, and a boot starts what it saved, whatever stands there."""
    releases = make_pm2_releases(tmp_path / "releases-pm2")
    for _ in range(2):
        grounds.add("releases", 1, make=Pm2Ground, releases=releases)
    grounds.add("releases", 1, make=UnstartedPm2Ground, releases=releases)
    grounds.set_up()
    _judge(grounds.play(UNDER_PM2), capsys, at_least=len(UNDER_PM2))


@pytest.mark.slow
def test_crash_at_every_point(grounds: Grounds, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole matrix, without a single violation."""
    for layout in ALL_LAYOUTS:
        # As many at once as two processors can serve within the leases.
        for _ in range(6):
            grounds.add(layout, 1)
        grounds.add(layout, 3)
    grounds.set_up()
    points = grounds.points()
    cases = matrix.shuffled([*matrix.one_host(points), *matrix.three_hosts(points)], seed=1)
    _judge(grounds.play(cases), capsys, at_least=400)


def _judge(tally: matrix.Tally, capsys: pytest.CaptureFixture[str], at_least: int) -> None:
    with capsys.disabled():
        print(f"\ncrash matrix: {tally}")
    assert not tally.violations, "\n".join(tally.violations)
    assert not tally.missed, "\n".join(tally.missed)
    assert tally.count >= at_least
