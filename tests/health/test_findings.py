"""Results of checks in words, and layers that contradict one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deployguard.health.disagreement import disagreements
from deployguard.health.findings import from_results, lies_before, step_failed


@dataclass
class Source:
    """Where a component comes from."""

    version: str


def entry(layer: str, state: str = "healthy", message: str = "", **more: Any) -> dict[str, Any]:
    """One check in a result of ``healthcheck.watch``."""
    return {
        "id": f"backend/{layer}",
        "component": "backend",
        "layer": layer,
        "name": layer,
        "critical": True,
        "required": True,
        "settled": True,
        "state": state,
        "message": message or f"{layer} is {state}",
        "final": False,
        "observed": {},
        "samples": 3,
        "restarts": 0,
        "first_healthy_at": None,
        "first_healthy_after": None,
        **more,
    }


def process(state: str = "healthy", active: str = "active", **more: Any) -> dict[str, Any]:
    """The process check of a systemd unit."""
    return entry("process", state, f"backend.service is {active}",
                 **{"observed": {"active": active}, **more})  # fmt: skip


CLOSED = entry("port", "unhealthy", "127.0.0.1 port 3000 is closed")
OPEN = entry("port", message="127.0.0.1 port 3000 accepts connections")
HTTP_503 = entry("http", "unhealthy", "http://x answered 503", observed={"status": 503})
HTTP_200 = entry("http", message="http://x answered 200", observed={"status": 200})


def words(*checks: dict[str, Any], version: str = "v2") -> list[str]:
    """The disagreements of one component."""
    return [finding.message for finding in disagreements("web1", checks, {"backend": version})]


def test_an_active_process_behind_a_closed_port() -> None:
    """It hangs in its start, or listens elsewhere."""
    assert words(process(), CLOSED) == [
        "process up, not serving: the process manager says active, "
        "but 127.0.0.1 port 3000 is closed"
    ]
    online = process(observed={"pm2": "online", "restarts": 0, "instance": "0:a:1"})
    assert words(online, CLOSED) == [
        "process up, not serving: PM2 says online, but 127.0.0.1 port 3000 is closed"
    ]


def test_all_well_below_and_http_says_no() -> None:
    """A dependency is gone, or the application is broken in itself."""
    assert words(process(), OPEN, HTTP_503) == [
        "the process manager says active and 127.0.0.1 port 3000 accepts connections, "
        "but HTTP answers 503"
    ]
    silent = entry("http", "unhealthy", "http://x did not answer")
    assert words(process(), silent) == ["the process manager says active, but HTTP gives no answer"]


def test_of_several_endpoints_those_that_say_no_are_named_once() -> None:
    """Who reads it need not ask which, and does not read it four times."""
    database, cache, search = (
        {**HTTP_503, "id": f"backend/{name}", "name": name} for name in ("database", "cache", "ai")
    )
    gone = {**search, "observed": {}}
    assert words(process(), HTTP_200, database, cache, gone) == [
        "the process manager says active, but HTTP answers 503 (database, cache)",
        "the process manager says active, but HTTP gives no answer (ai)",
    ]
    (first, _) = disagreements("web1", [process(), HTTP_200, database, cache, gone], {})
    assert "backend/database: " in first.evidence and "backend/cache: " in first.evidence


def test_restarts_hidden_behind_an_active_state() -> None:
    """The state of this moment is active; the count knows better."""
    looped = process("unhealthy", restarts=4, settled=True)
    assert words(looped) == [
        "the process manager says active, but it restarted 4 times since the switch"
    ]
    assert "restarted once" in words(process("unhealthy", restarts=1))[0]


def test_the_old_version_is_still_served() -> None:
    """The switch happened on the disk, and the process did not notice."""
    stale = entry(
        "http",
        "unhealthy",
        'version is "v1", expected "v2"',
        observed={
            "status": 200,
            "mismatches": {
                "version": {"expected": "v2", "found": "v1"},
                "status": {"expected": "ok", "found": "bad"},
                "absent": {"expected": "v2"},
            },
        },
    )
    assert words(stale) == ["serves version v1 though v2 was deployed"]
    assert words(stale, version="v3") == []


def test_somebody_else_answers() -> None:
    """The unit failed, and its port is served nonetheless."""
    failed = process("unhealthy", "failed", final=True)
    assert words(failed, OPEN, HTTP_200) == [
        "the process manager says failed, but 127.0.0.1 port 3000 accepts connections: "
        "something else listens there",
        "the process manager says failed, but HTTP answers 200: something else serves it",
    ]


def test_a_health_endpoint_that_does_not_look_at_its_database() -> None:
    """Nor does it notice what others see of it."""
    full = entry("postgres", "unhealthy", "PostgreSQL at db:5432 has no connection left")
    errors = entry("prometheus", "unhealthy", "errors is 7, at most 1 wanted")
    news = entry("logs", "unhealthy", "1 new kind of error in the journal of shop.service")
    assert words(HTTP_200, full, errors, news) == [
        "PostgreSQL at db:5432 has no connection left, but the health endpoint says it is well",
        "HTTP answers 200, but errors is 7, at most 1 wanted",
        "HTTP answers 200, but 1 new kind of error in the journal of shop.service",
    ]
    assert words(HTTP_200, entry("prometheus", "unknown"), entry("logs")) == []


def test_a_database_that_is_blamed_and_well() -> None:
    """The release cannot reach what this host can: it is its address, its password, its pool."""
    blames = entry("http", "unhealthy", 'http://x answered 503: {"database": "away"}',
                   observed={"status": 503})  # fmt: skip
    well = entry("postgres", message="PostgreSQL at db:5432 answers")
    assert words(blames, well) == [
        "PostgreSQL at db:5432 answers, but HTTP answers 503 and blames it: this host reaches it, "
        "so look at how the release does: its address, its password, its pool"
    ]
    assert words(HTTP_503, well) == []
    assert words(blames, entry("redis")) == []


def test_a_certificate_that_the_check_of_the_url_did_not_look_at() -> None:
    """A plain answer has none to disagree with."""
    expired = entry("tls", "unhealthy", "the certificate of x:443 expired 3 days ago")
    blind = entry("http", message="https://x answered 200", observed={"status": 200})
    assert words(blind, expired) == [
        "HTTP answers 200, but the certificate of x:443 expired 3 days ago"
    ]
    assert words(HTTP_200, expired) == []


def test_a_health_endpoint_that_does_not_look_at_its_dependency() -> None:
    """It says that all is well while the database is unreachable."""
    tcp = entry("tcp", "unhealthy", "db port 5432 is closed")
    assert words(HTTP_200, tcp) == [
        "db port 5432 is closed, but the health endpoint says it is well"
    ]


def test_layers_that_agree_are_no_finding() -> None:
    """All well, or all dead, or of different components."""
    assert words(process(), OPEN, HTTP_200) == []
    assert words(process("unhealthy", "failed", final=True), CLOSED) == []
    other = {**CLOSED, "component": "frontend"}
    assert words(process(), other) == []


def test_one_finding_for_each_check_that_failed() -> None:
    """What failed for good first, what was merely not there yet behind it, then disagreements."""
    late = entry("http", "unhealthy", "http://x answered 503", settled=False,
                 observed={"status": 503}, first_healthy_after=1.5)  # fmt: skip
    optional = entry("tcp", "unhealthy", "cache is away", critical=False, required=False)
    result = {"healthy": False, "checks": [optional, late, process(), CLOSED]}
    found = from_results("web1", result, {"backend": Source("v2")})
    assert [(one.layer, one.critical) for one in found] == [
        ("port", True),
        ("http", True),
        ("tcp", False),
        ("disagreement", False),
    ]
    assert found[0].host == "web1" and found[0].message == CLOSED["message"]
    assert found[1].message == "not settled when the watch ended: http://x answered 503"
    assert found[1].evidence.splitlines() == [
        "backend/http: unhealthy after 3 samples",
        "first healthy after 1.50 s",
        "status: 503",
    ]
    assert found[3].evidence.splitlines()[1].startswith("backend/port: unhealthy")


def test_a_healthy_result_has_no_findings() -> None:
    """Nothing to report."""
    assert from_results("web1", {"healthy": True, "checks": [process(), OPEN]}, {}) == []


def test_a_step_that_broke() -> None:
    """The operation's id names the component."""
    found = step_failed("web1", "backend:start", "status 1")
    assert (found.component, found.layer, found.name) == ("backend", "step", "start")
    assert step_failed("web1", "", "lost").name == "step"


SICK = entry(
    "container",
    "unhealthy",
    "the container of gateway says unhealthy: curl: not found",
    service="gateway",
    observed={"health": "unhealthy", "test": "curl -f x", "said": "curl: not found"},
)
WELL = entry(
    "container",
    message="gateway is healthy",
    service="gateway",
    observed={"health": "healthy", "test": "curl -f x"},
)


def test_a_container_that_says_unhealthy_behind_an_endpoint_that_is_well() -> None:
    """Its health check is wrong, and whoever mends it wants to see what it asks."""
    found = disagreements("web1", [SICK, HTTP_200], {})
    assert [(one.name, one.critical) for one in found] == [("container/http", False)]
    assert found[0].message.startswith(
        "the container of gateway says unhealthy, the endpoint answers healthy"
    )
    assert "health check: curl -f x\nit said: curl: not found" in found[0].evidence


def test_a_container_that_says_healthy_behind_an_endpoint_that_is_not() -> None:
    """Nobody would have heard of it."""
    assert words(WELL, HTTP_503) == [
        "the container of gateway says healthy, and the endpoint answers 503"
    ]


def test_containers_and_endpoints_are_matched_by_service() -> None:
    """In a stack of nine, the endpoint of one says nothing of another."""
    other = entry("container", service="db", observed={})
    of_db = {**HTTP_200, "service": "db"}
    of_gateway = {**HTTP_200, "service": "gateway"}
    assert words(SICK, other, HTTP_200) == []
    assert words(SICK, other, of_db) == []
    assert len(words(SICK, other, of_gateway)) == 1
    assert words(SICK, of_db) == []


def test_a_container_without_a_health_check_contradicts_nobody() -> None:
    """It only runs."""
    running = entry("container", service="gateway", observed={"states": {"x": "running"}})
    down = entry("container", "unhealthy", service="gateway", observed={})
    assert words(running, HTTP_503) == []
    assert words(down, HTTP_200) == []


def test_a_container_that_lied_before_the_deploy() -> None:
    """It is said with what failed, and that the deploy is not to blame; other layers are not."""
    baseline = {"checks": [SICK, HTTP_200, entry("process"), entry("port", "unhealthy")]}
    (found,) = lies_before("web1", baseline)
    assert found.message.startswith(
        "before the deploy already: the container of gateway says unhealthy"
    )
    assert not found.critical
    assert lies_before("web1", {"checks": [WELL, HTTP_200]}) == []
    assert lies_before("web1", None) == []
