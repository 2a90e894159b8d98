"""The loop over all checks of a host, on a clock that only moves when the loop waits."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from deployguard.onhost.probes import healthcheck, registry
from deployguard.onhost.probes.base import CheckData, Finding, finding
from deployguard.onhost.system import System
from tests.onhost.fake_system import FakeSystem


class World:
    """What the probes find, as a function of the time since the start."""

    def __init__(self, system: FakeSystem) -> None:
        self.system = system
        self.start = system.time
        self.answers: dict[str, Any] = {}
        self.seen: list[str] = []

    def probe(self, check: CheckData, system: System) -> Finding:
        """Stands in for every kind of probe."""
        self.seen.append(check["id"])
        answer: Finding = self.answers[check["id"]](system.monotonic() - self.start, check)
        return answer


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world of scripted probes on a fake clock."""
    world = World(FakeSystem())
    for kind in ("process", "port", "http"):
        monkeypatch.setitem(registry._PROBES, kind, world.probe)
    return world


def check(identifier: str, kind: str = "port", **options: Any) -> CheckData:
    """A check of component ``a`` with the usual times."""
    data: Any = {
        "id": identifier,
        "component": "a",
        "kind": kind,
        "name": kind,
        "critical": True,
        "timeout": 5.0,
        "interval": 0.5,
        "deadline": 30.0,
        "min_healthy_time": 0.0,
        **options,
    }
    result: CheckData = data
    return result


def after(seconds: float) -> Any:
    """Healthy from then on."""
    return lambda t, _: finding("healthy" if t >= seconds else "unhealthy", f"at {t:.2f}")


def test_a_quick_service_is_noticed_quickly(world: World) -> None:
    """Up after 80 ms, healthy well before the half second of the interval."""
    world.answers["p"] = after(0.08)
    result = healthcheck.watch([check("p")], world.system)
    assert result["healthy"]
    assert result["seconds"] < 0.2


def test_looks_become_rarer_up_to_the_interval(world: World) -> None:
    """Half a minute of waiting is about sixty looks, not a thousand."""
    world.answers["p"] = after(29.0)
    result = healthcheck.watch([check("p")], world.system)
    assert result["healthy"]
    assert 55 < result["checks"][0]["samples"] < 75


def test_the_last_look_is_taken_at_the_deadline(world: World) -> None:
    """A service that comes up in the last moment is seen, whatever the interval."""
    world.answers["p"] = after(29.99)
    result = healthcheck.watch([check("p", interval=7.0)], world.system)
    assert result["healthy"]
    assert result["seconds"] == pytest.approx(30.0)


@pytest.mark.parametrize("order", [("p", "h"), ("h", "p")])
def test_checks_that_share_a_deadline_fail_together(world: World, order: tuple[str, str]) -> None:
    """Which of them was asked first at the deadline does not decide which is named."""
    checks = {
        "p": check("p", deadline=3.0),
        "h": check("h", "http", deadline=3.0),
    }
    world.answers = {"p": after(100.0), "h": after(100.0)}
    result = healthcheck.watch([checks[name] for name in order], world.system)
    assert [one["settled"] for one in result["checks"]] == [True, True]
    assert all(one["message"].startswith("not healthy within 3 s") for one in result["checks"])


def test_a_critical_failure_ends_the_watch(world: World) -> None:
    """The rescue does not wait for the deadline of the other checks, but has seen each once."""
    world.answers["p"] = lambda t, _: finding("unhealthy", "failed", final=True)
    world.answers["h"] = after(100.0)
    result = healthcheck.watch([check("p", "process"), check("h", "http")], world.system)
    assert not result["healthy"]
    assert result["seconds"] < 0.1
    states = {one["id"]: (one["state"], one["settled"]) for one in result["checks"]}
    assert states == {"p": ("unhealthy", True), "h": ("unhealthy", False)}


def test_a_check_that_is_not_critical_fails_without_harm(world: World) -> None:
    """It is given its time, and then it is a finding."""
    world.answers["p"] = after(0.0)
    world.answers["h"] = after(100.0)
    result = healthcheck.watch([check("p"), check("h", "http", critical=False)], world.system)
    assert result["healthy"]
    assert result["seconds"] == pytest.approx(30.0)
    assert [one["state"] for one in result["checks"]] == ["healthy", "unhealthy"]


def test_a_crash_loop_during_the_soak_of_another_check_fails(world: World) -> None:
    """The process check itself has no soak and was settled at once; it is still looked at."""

    def loop(t: float, _: Any) -> Finding:
        count = int(t / 3.0)
        return finding("healthy", "active", observed={"restarts": count, "instance": str(count)})

    world.answers["p"] = loop
    world.answers["h"] = after(0.0)
    checks = [check("p", "process"), check("h", "http", min_healthy_time=10.0)]
    result = healthcheck.watch(checks, world.system)
    assert not result["healthy"]
    assert result["seconds"] < 4.0
    assert result["restarts"] == {"p": 1}
    assert "restarted since the start" in result["checks"][0]["message"]


def test_the_process_is_looked_at_once_more_at_the_end(world: World) -> None:
    """It died after its last look and just before the others were settled."""
    world.answers["p"] = lambda t, _: (
        finding("healthy", "runs") if t < 4.7 else finding("unhealthy", "gone", final=True)
    )
    world.answers["h"] = after(0.0)
    checks = [
        check("p", "process", interval=4.6),
        check("h", "http", min_healthy_time=4.8, interval=1.0),
    ]
    result = healthcheck.watch(checks, world.system)
    assert not result["healthy"]
    assert result["checks"][0]["message"] == "gone"


def test_a_wedged_probe_costs_its_timeout_only(world: World) -> None:
    """The other check is settled meanwhile; the wedged one fails as unknown at its deadline."""
    world.system.hanging.append("h")
    world.answers["p"] = after(2.0)
    result = healthcheck.watch([check("h", "http", deadline=8.0), check("p")], world.system)
    assert not result["healthy"]
    wedged, other = result["checks"]
    assert wedged["state"] == "unknown"
    assert "no answer within 5.0 s" in wedged["message"]
    assert 8.0 <= result["seconds"] <= 9.0
    assert other["first_healthy_after"] < 3.0


def test_threads_keep_a_hanging_name_lookup_from_holding_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the real machine: a probe that blocks in C does not delay the check beside it."""
    release = threading.Event()

    def hang(_: CheckData, __: System) -> Finding:
        release.wait(20.0)
        return finding("healthy", "at last")

    monkeypatch.setitem(registry._PROBES, "http", hang)
    monkeypatch.setitem(registry._PROBES, "port", lambda c, s: finding("healthy", "open"))
    monkeypatch.setattr(healthcheck, "SLACK", 0.05)
    checks = [check("h", "http", timeout=0.05, deadline=0.0), check("p")]
    began = time.monotonic()
    result = healthcheck.watch(checks, System())
    release.set()
    assert time.monotonic() - began < 10.0
    assert [one["state"] for one in result["checks"]] == ["unknown", "healthy"]


def test_once_looks_once_and_does_not_judge_versions(world: World) -> None:
    """The baseline of the old version is healthy, and says what it serves."""

    def old(_: float, data: Any) -> Finding:
        assert data["json"] == {"status": "ok"}
        assert "body" not in data
        return finding("healthy", "200", observed={"fields": {"status": "ok", "version": "v1"}})

    world.answers["h"] = old
    data = check(
        "h",
        "http",
        json={"status": "ok", "version": "v2"},
        versioned=["version"],
        body="v2",
        body_versioned=True,
        min_healthy_time=60.0,
    )
    result = healthcheck.watch([data], world.system, mode="once")
    assert result["healthy"]
    assert result["seconds"] < 0.1
    assert result["checks"][0]["samples"] == 1
    assert result["checks"][0]["observed"]["fields"]["version"] == "v1"


def baseline(*entries: dict[str, Any]) -> dict[str, Any]:
    """A result of mode ``once``."""
    return {"checks": list(entries)}


def test_a_restore_must_serve_what_was_served_before(world: World) -> None:
    """The expectation of the new version is replaced by the value of the baseline."""
    seen: list[Any] = []

    def look(t: float, data: Any) -> Finding:
        seen.append(data["json"])
        return finding("healthy", "200")

    world.answers["h"] = look
    data = check(
        "h",
        "http",
        json={"status": "ok", "version": "v2", "build": "v2"},
        versioned=["version", "build"],
    )
    before = baseline({"id": "h", "state": "healthy", "observed": {"fields": {"version": "v1"}}})
    result = healthcheck.watch([data], world.system, mode="restore", baseline=before)
    assert result["healthy"]
    # There was no build before, so nothing can be expected of it.
    assert seen[0] == {"status": "ok", "version": "v1"}


def test_a_restore_does_not_ask_for_what_was_not_healthy_before(world: World) -> None:
    """Two of three up before means two of three after; the third is looked at once."""
    world.answers.update(p=after(0.5), q=after(1000.0), r=after(1000.0))
    before = baseline(
        {"id": "p", "state": "healthy", "observed": {}},
        {"id": "q", "state": "unhealthy", "observed": {}},
        {"id": "r", "state": "unknown", "observed": {}},
    )
    checks = [check("p"), check("q"), check("r")]
    result = healthcheck.watch(checks, world.system, mode="restore", baseline=before)
    assert result["healthy"]
    assert result["seconds"] < 1.0
    assert [one["required"] for one in result["checks"]] == [True, False, False]
    assert [one["samples"] for one in result["checks"]][1:] == [1, 1]


def test_a_restore_that_does_not_get_healthy_says_so(world: World) -> None:
    """What was healthy before must be healthy again."""
    world.answers["p"] = after(1000.0)
    before = baseline({"id": "p", "state": "healthy", "observed": {}})
    result = healthcheck.watch([check("p")], world.system, mode="restore", baseline=before)
    assert not result["healthy"]


def test_events_tell_of_changes_only(world: World) -> None:
    """Down, up, settled: not every look."""
    world.answers["p"] = after(3.0)
    events: list[dict[str, Any]] = []
    healthcheck.watch([check("p", min_healthy_time=2.0)], world.system, emit=events.append)
    assert [(event["state"], event["settled"]) for event in events] == [
        ("unhealthy", False),
        ("healthy", False),
        ("healthy", True),
    ]
    assert events[0]["check"] == "p"


def test_a_watch_can_be_stopped(world: World) -> None:
    """An interrupted watch is not healthy, and says that it was stopped."""
    world.answers["p"] = after(1000.0)
    result = healthcheck.watch([check("p")], world.system, stop=lambda: world.system.time > 1002.0)
    assert result["stopped"] and not result["healthy"]
    assert result["seconds"] < 3.0


def test_no_checks_are_healthy(world: World) -> None:
    """Files without a service have nothing to ask."""
    assert healthcheck.watch([], world.system)["healthy"]
