"""What else goes wrong on real hosts: things that freeze, hang, refuse, fill up or are replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.controllers import Controller
from tests.crash.ground import LAYOUTS, STATE, Ground, make_releases, wait_for
from tests.crash.matrix import Grounds, in_threads
from tests.fleet.host import Host

pytestmark = [pytest.mark.fleet, pytest.mark.alone]

#: Not on the disk that is spoilt.
ELSEWHERE = "/var/tmp/paused"

Make = Callable[..., Ground]


@pytest.fixture
def ground(grounds: Grounds) -> Make:
    """One ground, ready, v1 live on it."""

    def make(layout: str = "releases", hosts: int = 1, **options: Any) -> Ground:
        made = grounds.add(layout, hosts, **options)
        made.set_up()
        return made

    return make


def paused_at(ground: Ground, point: str, new: str = "", **changes: Any) -> tuple[Controller, Path]:
    """A deploy that waits at a point of the first host; the file that lets it go on."""
    ground.number += 1
    ground.plan(new or ground.other, **changes)
    host = ground.hosts[0]
    wait = {"point": point, "action": "wait", "path": ELSEWHERE}
    run = ground.start("apply", faults={"hosts": {host.name: [wait]}})
    paused = host.path(ELSEWHERE)
    wait_for(lambda: paused.exists() or not run.running, point)
    assert paused.exists(), run.text
    return run, paused


def _sshd_of(ground: Ground, host: Host) -> list[int]:
    """The sshd processes of sessions, not the one that listens."""
    found = []
    for pid in ground.group(host).pids():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if line.startswith(b"sshd: deploy"):
            found.append(pid)
    return found


@pytest.mark.parametrize("what", ["host program", "sshd"])
def test_frozen_and_not_closed(ground: Make, what: str) -> None:
    """No connection ends, but no beat is answered: both sides count it as lost, and v1 is back."""
    shop = ground()
    (host,) = shop.hosts
    run, paused = paused_at(shop, "before done backend:tree")
    # With sudo above it, which stops when its command is stopped, and has to be thawed as well.
    program = shop.processes(host, b"exec(open(0")
    frozen = program if what == "host program" else _sshd_of(shop, host)
    assert frozen
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    paused.unlink()
    assert run.wait() in (3, 4), run.text
    for pid in frozen:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
    assert shop.end(run, ["v1"]) == "v1"


def test_sshd_is_restarted_by_the_deploy(ground: Make) -> None:
    """The session that the deploy runs in goes on."""
    shop = ground()
    shop.number += 1
    restart = {"run": ["systemctl", "restart", "ssh"], "undo_less": "it is running again"}
    mark = {"run": ["touch", f"/srv/shop.{shop.number}"], "undo_less": "a mark"}
    shop.plan(
        "v2",
        tasks=[
            {"name": "mark", "at": "before_start", **mark},
            {"name": "sshd", "at": "before_start", **restart},
        ],
    )
    run = shop.start("apply")
    assert run.wait() == 0, run.text
    assert shop.end(run, ["v2"]) == "v2"


def test_python_is_replaced_in_between(ground: Make) -> None:
    """`recover` runs under another interpreter than the deploy that it finishes."""
    shop = ground()
    (host,) = shop.hosts
    run, paused = paused_at(shop, "after prepared")
    run.kill()
    paused.unlink()
    host.run(["mkdir", "-p", "/opt/python/bin"])
    host.run(["cp", "/usr/bin/python3", "/opt/python/bin/python3"])
    text = (shop.directory / "plan.yaml").read_text()
    plan = text.replace("become: true", "become: true\n    python: /opt/python/bin/python3")
    (shop.directory / "plan.yaml").write_text(plan)
    shop.end(None, ["v1"])
    program = shop.lines_of("recover")
    assert program[-1]["exit_code"] == 0


def test_a_dead_run_loses_its_lock_by_rule(ground: Make) -> None:
    """The next deploy ends what the dead one left, says whose it was, and goes on."""
    shop = ground(lease=40)
    (host,) = shop.hosts
    run, paused = paused_at(shop, "after switched")
    run.kill()
    paused.unlink()
    (identifier,) = (
        name for name, (state, *_) in shop.transactions(host).items() if state == "switched"
    )
    lease = host.path(f"{STATE}/transactions/{identifier}/lease")
    wait_for(lambda: "unattended" in lease.read_text(), "the host is left alone")
    shop.number += 1
    shop.plan("v2")
    following = shop.start("apply", name="following")
    assert following.wait() == 0, following.text
    assert f"finished transaction {identifier} of " in following.text
    shop.version = "v1"
    assert shop.end(following, ["v2"]) == "v2"


#: systemd sends it instead of SIGTERM, and the service takes no notice.
_DEAF = "KillSignal=SIGCONT\n"


@pytest.mark.parametrize("patience", ["TimeoutStopSec=1", "TimeoutStopSec=infinity"])
def test_a_service_that_does_not_stop(ground: Make, tmp_path: Path, patience: str) -> None:
    """systemd kills what ignores its signal; where it would wait for ever, the plan's time ends."""
    deaf = make_releases(tmp_path / "deaf", "releases", _DEAF + patience + "\n")
    shop = ground(releases=deaf)
    shop.service = {"stop_timeout": "2s"}
    for version, allowed in (("v2", ["v2"]), ("bad", ["v2"])):
        shop.number += 1
        shop.plan(version)
        run = shop.start("apply")
        assert run.wait() == (0 if version == "v2" else 3), run.text
        shop.end(run, allowed)


def test_an_undo_that_fails(ground: Make) -> None:
    """The rest is undone, the state is `stuck`, exit 4, everything is kept; `recover` ends it."""
    shop = ground()
    (host,) = shop.hosts
    shop.number += 1
    task = {
        "name": "ours",
        "at": "before_start",
        "run": ["true"],
        "undo": ["test", "-e", "/srv/may-be-undone"],
    }
    shop.plan("bad", tasks=[task])
    run = shop.start("apply")
    assert run.wait() == 4, run.text
    assert "ours" in run.text and "web" in run.text
    (identifier,) = (
        name for name, (state, *_) in shop.transactions(host).items() if state == "stuck"
    )
    # All other steps were undone: the old tree is live, and serves.
    assert shop.world(host) == shop.worlds["v1"] and shop.served(host) == "v1"
    # Nothing is thrown away, and nobody else deploys over it.
    assert any(path.endswith("/releases/bad") for path in shop.staged(host))
    other = shop.start("apply", name="other")
    assert other.wait() == 6, other.text
    assert identifier in other.text
    host.write("/srv/may-be-undone", "")
    recover = shop.start("recover", name="recover")
    assert recover.wait() == 0, recover.text
    assert shop.end(None, ["v1"]) == "v1"


def test_killed_for_memory(ground: Make) -> None:
    """The OOM killer takes the host program and spares the dead-man, which does the rest."""
    shop = ground()
    (host,) = shop.hosts
    run, paused = paused_at(shop, "before switched")
    wait_for(lambda: bool(shop.processes(host, b"unattended")), "the dead-man's start")
    # Inside a container the kernel may not let systemd carry it out.
    show = ["systemctl", "show", "deployguard-*.service", "--property=OOMScoreAdjust", "--value"]
    assert host.run(show).stdout.split() == [b"-900"]
    run.kill()
    shop.kill_program(host)
    paused.unlink()
    assert shop.end(None, ["v1"]) == "v1"


# --- the disk ------------------------------------------------------------------------------------

BEFORE = ("before begun", "before staging", "before staged", "before armed")
SWITCHING = ("before intent backend:stop", "before intent backend:tree", "before switched")
AFTER = ("before prepared", "before restoring", "before undone task:mark", "before restored")


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EIO", "EROFS"])
def test_a_record_that_cannot_be_written(grounds: Grounds, error: str) -> None:
    """Wherever the disk gives out once, the host ends as the old version or the new, wholly."""
    shops = [grounds.add(layout, 1) for layout in LAYOUTS]
    grounds.set_up()
    points = [(p, "good") for p in (*BEFORE, *SWITCHING, AFTER[0])] + [
        (p, "bad") for p in AFTER[1:]
    ]
    wrong: list[str] = []

    def work(shop: Ground) -> None:
        for number, (point, release) in enumerate(points):
            if LAYOUTS[number % 2] != shop.layout:
                continue
            shop.number += 1
            old, new = shop.version, shop.other if release == "good" else "bad"
            shop.plan(new)
            fault = {"point": point, "action": "full", "error": error}
            run = shop.start("apply", faults={"hosts": {shop.hosts[0].name: [fault]}})
            code = run.wait()
            print(f"{error} {point}: exit {code}")
            try:
                assert code in (3, 4, 5), f"exit {code}: {run.text}"
                if code == 4:
                    recover = shop.start("recover", name="recover")
                    assert recover.wait() == 0, recover.text
                shop.end(run, [old])
            except AssertionError as trouble:
                wrong.append(f"{error} at {point}: {trouble}\n{shop.story(shop.hosts[0])}")
                return

    in_threads([lambda shop=shop: work(shop) for shop in shops])
    assert not wrong, "\n".join(wrong)


def _fill(host: Host) -> None:
    host.run(["sh", "-c", "cat /dev/zero > /srv/filler"], check=False)


def _take_inodes(host: Host) -> None:
    script = "import itertools\nfor n in itertools.count(): open('/srv/filler%d' % n, 'w')"
    host.run(["python3", "-c", script], check=False)


def _read_only(host: Host) -> None:
    host.run(["mount", "-o", "remount,ro", "/srv"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["before staging", "after intent backend:tree", "before restored"]
)
@pytest.mark.parametrize("spoil", [_fill, _take_inodes, _read_only])
def test_the_disk_of_the_tree(grounds: Grounds, point: str, spoil: Callable[[Host], None]) -> None:
    """Full, out of inodes or read-only, before and after the switch, and mended later.

    Old and new tree are on it; the host's journal is on another. Whatever the host could not do
    on the spoilt disk, `recover` does on the mended one.
    """
    (host,) = grounds.fleet.need(grounds.used + 1)[-1:]
    host.reset()
    host.small_disk("/srv", 16 << 20, inodes=500)
    shop = grounds.add("in_place", 1)
    shop.set_up()
    run, paused = paused_at(shop, point, "bad" if point == "before restored" else "")
    spoil(host)
    paused.unlink()
    code = run.wait()
    host.run(["mount", "-o", "remount,rw", "/srv"])
    host.run(["sh", "-c", "rm -f /srv/filler*"])
    print(f"{spoil.__name__} {point}: exit {code}")
    assert code in (0, 3, 4, 5), run.text
    if code == 4:
        recover = shop.start("recover", name="recover")
        assert recover.wait() == 0, recover.text
    shop.end(run, ["v1"] if code else ["v2"])
