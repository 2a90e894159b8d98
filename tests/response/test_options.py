"""The options, computed from states made by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployguard.response.assessment import (
    Assessment,
    CheckSeen,
    Deploy,
    ErrorKind,
    HostSeen,
    LogSeen,
    Metric,
    resource_notes,
    suggested_severity,
)
from deployguard.response.history import History, history_of
from deployguard.response.options import (
    Candidate,
    Migration,
    Option,
    WayBack,
    Written,
    options,
    suggested,
)
from tests.response.test_history import NOON, row

#: v1, v2, back to v1, v2 again; v2 is live since ten minutes.
HISTORY = history_of(
    [row(1, "v1", None), row(2, "v2", "v1"), row(3, "v1", "v2"), row(4, "v2", "v1")]
)
DEPLOYED = NOON + 400
NOW = DEPLOYED + 600


def host(name: str, **changes: Any) -> HostSeen:
    """A host that runs v2 and has kept v1."""
    live = (Deploy(name, "web", "v2", "txn-004", DEPLOYED, ("v1",)),)
    return HostSeen(name, **{"live": live, **changes})


def check(name: str, where: str = "web1", **changes: Any) -> CheckSeen:
    """A check that fails."""
    values: dict[str, Any] = {"component": "web", "kind": "http", "critical": True}
    values |= {"state": "unhealthy", "message": "answered 503"}
    return CheckSeen(where, name=name, **{**values, **changes})


NEWS = LogSeen(
    "web1",
    "web",
    "the journal of web",
    900,
    2,
    40,
    9,
    (ErrorKind("ERROR <*>", 9, "ERROR 7", True),),
)


def seen(**changes: Any) -> Assessment:
    """Two hosts, a critical check that fails on each, and news in a log."""
    values: dict[str, Any] = {
        "hosts": (host("web1"), host("web2")),
        "checks": (check("http"), check("http", "web2"), check("process", state="healthy")),
        "logs": (NEWS,),
    }
    return Assessment(NOW, 1.0, DEPLOYED, **{**values, **changes})


def computed(assessment: Assessment | None = None, **changes: Any) -> dict[str, Option]:
    """The options by kind; the incident began a minute after the deploy."""
    history: History = changes.pop("history", HISTORY)
    values: dict[str, Any] = {
        "way_back": WayBack("v1"),
        "candidate": Candidate("v3"),
        "written": Written(0.0, "orders"),
        "mitigations": ("limit",),
        "began": DEPLOYED + 60,
    }
    found = options(assessment or seen(), history, **{**values, **changes})
    assert [option.kind for option in found] == ["rollback", "hotfix", "mitigate"]
    return {option.kind: option for option in found}


def test_a_clear_case() -> None:
    """It began after the deploy, the errors are new, v1 is known and rollbacks work here."""
    found = computed()
    back = found["rollback"]
    assert (back.possible, back.version, back.confidence) == (True, "v1", "high")
    assert "it began 60 s after the deploy" in back.pro
    assert "1 kind of errors in the logs that were not there before it" in back.pro
    assert "1 of 1 rollbacks here went well" in back.pro
    # How long it took the last time it was done, and no table of somebody's.
    assert (back.downtime.n, back.downtime.what, back.downtime.median) == (1, "rollback", 6.0)
    assert back.data == ("no orders written since the deploy",)
    assert suggested(found.values()) is back


def test_what_was_never_measured_is_not_known() -> None:
    """Without a history there is no number, and hardly anything speaks for anything."""
    found = computed(history=History())
    assert not found["rollback"].downtime.known
    assert "none was measured here yet" in found["rollback"].downtime_words
    assert not found["hotfix"].downtime.known
    # A deploy takes the steps that a rollback takes.
    first = computed(history=history_of([row(1, "v1", None), row(2, "v2", "v1")]))["rollback"]
    assert (first.downtime.what, first.downtime.n) == ("deploy", 1)
    assert "none was rolled back here yet" in first.downtime_words


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"way_back": WayBack()}, "no host has an earlier version"),
        ({"way_back": WayBack("v1", ("web1: disk: 3 MB free",))}, "web1: disk: 3 MB free"),
        (
            {"assessment": seen(hosts=(host("web1"), HostSeen("web2", "no route")))},
            "web2: no route",
        ),
        (
            {"assessment": seen(hosts=(host("web1", unfinished=("T is unfinished (held)",)),))},
            "web1: T is unfinished",
        ),
    ],
)
def test_impossible(changes: dict[str, Any], reason: str) -> None:
    """The reason is told, and what is not possible is not suggested."""
    found = computed(**changes)
    assert not found["rollback"].possible
    assert reason in found["rollback"].impossible[0]
    best = suggested(found.values())
    assert best is None or best.kind != "rollback"


def test_what_speaks_against_a_rollback() -> None:
    """A dependency that is down, a deploy long ago, an incident that is older than the deploy."""
    database = check("database", kind="postgres", message="connection refused")
    down = computed(seen(checks=(check("http"), database)))["rollback"]
    assert down.confidence == "low"
    assert any("database fails as well" in text for text in down.contra)
    late = computed(began=DEPLOYED + 3 * 86400)["rollback"]
    assert (late.confidence, "nothing was deployed in the 24 hours" in late.contra[0]) == (
        "low",
        True,
    )
    early = computed(began=DEPLOYED - 60)["rollback"]
    assert (early.confidence, "before the version that is live" in early.contra[0]) == ("low", True)
    blind = computed(way_back=WayBack("v1", unproven="no answer within 60 s"))["rollback"]
    assert (blind.possible, blind.confidence) == (True, "low")


def test_data_at_risk() -> None:
    """Migrations by their kind, files by name, writes by number."""
    way = WayBack(
        "v1",
        migrations=(
            Migration("web1", "wider", "expand_only", "v2"),
            Migration("web1", "migrate", "reversible", "v2"),
            Migration("web2", "migrate", "reversible", "v2"),
        ),
        changed=tuple(f"web1: uploads/{n}.png" for n in range(7)),
    )
    back = computed(way_back=way, written=Written(12.0, "orders"))["rollback"]
    assert [text for text in back.data if "migrate" in text] == [
        "what migrate of v2 has added goes with its down step"
    ]
    assert "nothing of wider of v2: the wider schema stays" in back.data
    assert any("uploads/4.png and 2 more" in text for text in back.data)
    assert back.data[-1] == (
        "12 orders written since the deploy: those in what the down step drops are lost"
    )
    unknown = computed(written=Written(None, unknown="psql: not found"))["rollback"]
    assert unknown.data == ("writes since the deploy: not known (psql: not found)",)


def test_a_hotfix_needs_a_release() -> None:
    """And one that failed here before is not worth much."""
    none = computed(candidate=Candidate(problem="there is no release after v2"))["hotfix"]
    assert none.impossible == ("there is no release after v2",)
    fresh = computed()["hotfix"]
    assert (fresh.possible, fresh.confidence) == (True, "low")
    assert "v3 has never run here" in fresh.contra
    rows = [row(1, "v1", None), row(2, "v2", "v1"), row(3, "v3", "v2", "rolled_back")]
    failed = computed(history=history_of(rows))["hotfix"]
    assert "v3 failed here before: txn-003" in failed.contra
    restored = row(
        3, "v3", "v2", "rolled_back", seconds={"switch": 1.0, "check": 1.0, "restore": 4.0}
    )
    back = computed(history=history_of([*rows[:2], restored]))["hotfix"]
    assert "what runs now was back within 8 s (median of 1)" in back.downtime_words
    timed = computed(history=dataclasses.replace(HISTORY, fixes=(600.0, 1800.0, 7200.0)))["hotfix"]
    assert any("3 incidents here a new version was live 30 min later" in t for t in timed.contra)


def test_mitigation_has_to_be_in_the_plan() -> None:
    """It is only what somebody thought of before."""
    assert not computed(mitigations=())["mitigate"].possible
    tried = computed(history=dataclasses.replace(HISTORY, mitigated=(True, True)))["mitigate"]
    assert (tried.possible, tried.confidence) == (True, "medium")
    assert "healthy afterwards 2 of 2 times here" in tried.pro


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, 1),
        ({"checks": (check("http"),)}, 2),
        ({"hosts": (host("web1"), HostSeen("web2", "no route")), "checks": ()}, 2),
        ({"checks": (check("http", state="unknown"), check("http", "web2", state="unknown"))}, 1),
        ({"checks": (check("search", critical=False),)}, 3),
        ({"checks": (), "metrics": (Metric("up", "unknown", "no answer"),)}, 3),
        ({"checks": ()}, 3),
        ({"checks": (), "logs": ()}, 4),
    ],
)
def test_severity(changes: dict[str, Any], level: int) -> None:
    """From what is critical, and on how many hosts; what is unknown is not healthy."""
    assert suggested_severity(seen(**changes))[0] == level


def test_resources_that_stand_out() -> None:
    """A disk that is nearly full is told once, whatever paths are on it."""
    disk = {"bytes": 100 * 2**30, "bytes_free": 5 * 2**30, "inodes": 1000, "inodes_free": 900}
    facts = {
        "disks": [{"path": "/", **disk}, {"path": "/srv", **disk}],
        "memory_bytes": {"MemTotal": 8 * 2**30, "MemAvailable": 2**28},
        "load": [9.5, 1.0, 1.0],
        "host": {"cpus": 4},
    }
    assert [note.text for note in resource_notes("web1", facts)] == [
        "/ is nearly full: 5.0 GiB free, 5%",
        "memory is short: 0.2 of 8.0 GiB available",
        "load 9.5 on 4 CPUs",
    ]
    assert list(resource_notes("web1", {"load": [0.1], "host": {"cpus": 1}})) == []
