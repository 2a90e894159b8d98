"""The host's own answer in an incident: kinds of errors before and since, within a deadline."""

from __future__ import annotations

import json
import threading
from typing import Any, Dict, List

import pytest

from deployguard.onhost.logs.source import Line
from deployguard.onhost.probes import healthcheck
from deployguard.onhost.queries import assessment, errorlogs
from deployguard.onhost.system import System

#: 2026-11-21T12:00:00Z.
NOON = 1795262400.0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-21T12:00:00Z started", NOON),
        ("[2026-11-21 12:00:00.123 UTC] ERROR x", NOON),
        ("2026-11-21T14:00:00+02:00 ERROR x", NOON),
        ("2026-11-21T06:30:00-0530 ERROR x", NOON),
        ("2026-13-41T12:00:00Z no day", None),
        ("Traceback (most recent call last):", None),
        ("x" * 90 + " 2026-11-21T12:00:00Z", None),
    ],
)
def test_times_of_lines(text: str, at: float) -> None:
    """Near the start of a line, in any of the usual ways."""
    assert errorlogs.time_of(text) == at


def test_a_line_without_a_time_belongs_to_the_one_before() -> None:
    """A traceback stays whole; a log without times is all of it since."""
    lines = [
        Line("2026-11-21T11:59:00Z ERROR old"),
        Line("  File x"),
        Line("2026-11-21T12:01:00Z ERROR new"),
        Line("  File y"),
    ]
    before, after, timed = errorlogs.divided(lines, NOON)
    assert (len(before), len(after), timed) == (2, 2, True)
    before, after, timed = errorlogs.divided([Line("ERROR x"), Line("ok")], NOON)
    assert (len(before), len(after), timed) == (0, 2, False)


def test_kinds_of_errors_that_are_new() -> None:
    """A kind that was there before is no news, however often it comes; the new ones are first."""
    before = [Line("ERROR order 7 not found"), Line("ok"), Line("ERROR order 9 not found")]
    after = [Line("ERROR order %d not found" % n) for n in range(50)]
    after += [Line("CRITICAL no connection to db1")] * 2 + [Line("ok")]
    was, now = errorlogs.compared(before, after)
    assert was == {"lines": 3, "errors": 2, "kinds": 1}
    assert (now["lines"], now["errors"]) == (53, 52)
    assert [(kind["new"], kind["count"]) for kind in now["kinds"]] == [(True, 2), (False, 50)]
    assert now["kinds"][0]["first"] == "CRITICAL no connection to db1"


def test_a_look_at_everything(tmp_path: Any) -> None:
    """Checks, resources and a log of this machine; what cannot be read says why."""
    log = tmp_path / "app.log"
    log.write_text("2026-11-21T11:00:00Z ok\n2026-11-21T12:30:00Z FATAL no room\n")
    args: Dict[str, Any] = {
        "checks": [_command("yes", ["true"]), _command("no", ["false"])],
        "logs": [
            {"id": "app", "component": "app", "log": {"path": str(log)}},
            {"id": "none", "component": "app", "log": {"path": str(tmp_path / "none")}},
        ],
        "since": NOON,
        "disks": ["/"],
        "seconds": 30.0,
    }
    found = assessment.assess(args, System())
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert states == {"yes": "healthy", "no": "unhealthy"}
    assert found["resources"]["disks"][0]["bytes_free"] > 0
    app, none = found["logs"]
    assert (app["before"]["lines"], app["since"]["errors"], app["timed"]) == (1, 1, True)
    assert "there is no" in none["unknown"]
    json.dumps(found)


def test_what_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the deadline there is an answer, with what came until then."""
    hang = threading.Event()

    def watch(*_: Any, **__: Any) -> Dict[str, Any]:
        hang.wait()
        return {"checks": []}

    monkeypatch.setattr(healthcheck, "watch", watch)
    args = {"checks": [_command("yes", ["true"])], "disks": ["/"], "since": NOON, "seconds": 5.0}
    try:
        found = assessment.assess(args, _Late())
    finally:
        hang.set()
    assert found["checks"] is None
    assert found["resources"]["disks"][0]["path"] == "/"


class _Late(System):
    """Its clock stands still until the resources are there, and then it is late."""

    def __init__(self) -> None:
        self.asked: List[float] = []

    def lanes(self) -> Any:
        real = super().lanes()
        first = [True]

        class Lanes:
            def start(self, key: str, call: Any) -> None:
                real.start(key, call)

            def wait(self, _: float) -> Any:
                # The one answer that comes is waited for as long as it takes; the other never is.
                if first.pop() if first else False:
                    return real.wait(60.0)
                return None

        return Lanes()


def _command(name: str, argv: List[str]) -> Dict[str, Any]:
    return {
        "id": "app/" + name, "component": "app", "kind": "command", "name": name,
        "critical": True, "timeout": 10.0, "interval": 1.0, "deadline": 10.0,
        "min_healthy_time": 0.0, "argv": argv, "env": {}, "directory": "/",
    }  # fmt: skip
