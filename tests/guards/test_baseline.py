"""`baseline`: a system that is down before the deploy is noticed before the deploy."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.guards.conftest import Shop


def stop_serving(shop: Shop) -> None:
    """The program that is live dies."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = os.readlink(process / "cwd").startswith(str(shop.root))
        except OSError:
            continue
        if inside:
            os.kill(int(process.name), signal.SIGKILL)


def test_a_system_that_is_down_is_refused(shop: Shop) -> None:
    """What is not healthy is named, with what it said."""
    shop.guarded({"baseline": {}})
    stop_serving(shop)
    refused = shop.assert_refused("baseline", "not healthy before the deploy: web process: ")
    assert "web http: http://127.0.0.1" in refused.err and "connection refused" in refused.err
    assert "--fix" in refused.err


def test_a_healthy_system_passes(shop: Shop) -> None:
    """It is healthy before, so what goes wrong afterwards is the deploy's."""
    shop.guarded({"baseline": {}})
    shop.assert_passes("baseline", "healthy before the deploy")


@pytest.mark.parametrize("how", ["option", "plan"])
def test_the_deploy_is_the_fix(shop: Shop, how: str) -> None:
    """Said on the command line or in the plan; it is on record then."""
    shop.guarded({"baseline": {"fix": how == "plan"}})
    stop_serving(shop)
    options = ("--fix",) if how == "option" else ()
    assert shop.plan(*options).code == 0
    done = shop.apply(*options)
    assert done.code == 0, done.err
    assert "v2" in shop.served()
    (said,) = done.lines[-1]["overrides"]
    assert (said["guard"], said["reason"]) == ("baseline", "this deploy is the fix")
    assert "web http" in said["refused"][0]
    shown = shop.run("history", "--json").lines[0]
    assert shown["overrides"][0]["reason"] == "this deploy is the fix"


def test_what_is_known_to_be_down_may_be(shop: Shop) -> None:
    """By the component, or by the one check."""
    stop_serving(shop)
    shop.guarded({"baseline": {"allow": ["web/process"]}})
    shop.assert_refused("baseline", "web http")
    shop.guarded({"baseline": {"allow": ["web"]}})
    shop.assert_passes("baseline")


def test_nothing_is_asked_of_what_is_not_there(shop: Shop) -> None:
    """A first deploy has no baseline."""
    shop.guarded({"baseline": {}}, path=str(shop.site.root / "srv2"))
    assert shop.run("plan", shop.site.plan, "--release", "v2").code == 0


def test_it_is_on_the_timeline_without_the_guard(shop: Shop) -> None:
    """Who reads the incident afterwards learns that it was down before."""
    stop_serving(shop)
    done = shop.apply()
    assert done.code == 0, done.err
    notes = [event["message"] for event in done.lines[-1]["timeline"] if event["status"] == "note"]
    assert any(note.startswith("not healthy before: web http: ") for note in notes)


def test_a_restore_is_as_healthy_as_it_was(shop: Shop) -> None:
    """What was not healthy before is not after it: nobody is told that all is well."""
    checks = [
        {"http": {"url": f"http://127.0.0.1:{shop.site.port}/", "deadline": "5s"}},
        {"command": {"name": "cache", "argv": ["test", "-e", str(shop.root / "cache")]}},
        {"command": {"name": "crons", "argv": ["false"], "critical": False}},
    ]
    shop.guarded(checks=checks)
    shop.site.release("v3", "import sys\nsys.exit(1)\n")
    failed = shop.apply(release="v3")
    assert failed.code == 3, failed.err
    outcome = failed.lines[-1]
    assert outcome["summary"].endswith(
        "1 host restored, files verified, healthy as before: 2 checks were not healthy then either"
    )
    assert outcome["hosts"][0]["sick"] == ["web/cache", "web/crons"]
    assert "files verified, healthy as before, but for web/cache, web/crons)" in failed.err
