"""The containment workflow: an API behind a Prometheus that dies of its own success.

v1.5.0 of a compose stack passes its checks, and twenty-five orders later it takes no more. The
watch sees it; the response assesses, contains what critical asks for, computes the ways out, rolls
back, proves it, takes the containment back, and the incident is closed. The plan is
playbooks/orders/plan.yaml to the letter; docs/incidents/containment.md shows what it says.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, shown
from tests.docs.test_commands import assert_shown
from tests.drivers.stacks import python_on
from tests.fleet.fleet import Fleet
from tests.fleet.host import Host
from tests.playbooks.published import Published
from tests.releases import pack
from tests.servers.program import folder, program, running

SOURCES = Path(__file__).parent / "orders"
PAGE = ROOT / "docs" / "incidents" / "containment.md"
SESSIONS = 25
PATIENCE = 120.0


class Orders:
    """The machine of that night, and somebody with a plan."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.host: Host = fleet.hosts[0]
        self.folder = directory
        self.published = Published(fleet, directory, ["app1.example.com"])
        self.metrics = f"http://{fleet.controller}:9090"
        for version in ("v1.4.2", "v1.5.0"):
            build = directory.parent / version
            shutil.copytree(SOURCES, build)
            (build / "VERSION").write_text(f"{version}\n")
            (directory / "dist").mkdir(exist_ok=True)
            pack(build, directory / "dist" / f"orders-{version}.tar.gz")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """As somebody, or a job, types it."""
        return self.published.run("deployguard", *words)

    def order(self) -> int:
        """One customer; the status of the answer."""
        request = urllib.request.Request(f"http://{self.host.address}:8000/orders", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def health(self) -> dict[str, Any]:
        """What the API says of itself."""
        try:
            with urllib.request.urlopen(
                f"http://{self.host.address}:8000/health", timeout=10
            ) as it:
                found: dict[str, Any] = json.loads(it.read())
        except urllib.error.HTTPError as error:
            found = json.loads(error.read())
        return found

    def measured(self, query: str) -> float | None:
        """What Prometheus answers; nothing where it has no data."""
        url = f"{self.metrics}/api/v1/query?query={urllib.parse.quote(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            result = json.loads(answer.read())["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def running(self) -> set[str]:
        """The services of the stack whose containers run."""
        label = "label=com.docker.compose.project=orders"
        argv = ["docker", "ps", "--filter", label, "--format"]
        argv += ['{{.Label "com.docker.compose.service"}}']
        return set(self.host.run(argv).stdout.decode().split())

    def tidy(self) -> None:
        """Nothing of it is left for whoever has the host next."""
        label = "label=com.docker.compose.project=orders"
        ids = self.host.run(["docker", "ps", "-aq", "--filter", label]).stdout.decode().split()
        if ids:
            self.host.run(["docker", "rm", "-f", "-v", *ids])
        self.host.run(["docker", "network", "prune", "--force"])
        paths = ["/srv/orders", "/srv/.orders.deployguard", "/srv/orders-data"]
        self.host.run(["rm", "-rf", *paths, "/var/lib/deployguard", "/var/backups/orders.log"])


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes by itself."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def orders(engines: Fleet, tmp_path: Path) -> Iterator[Orders]:
    """v1.4.2 took orders, v1.5.0 was deployed and is well, and Prometheus has seen both."""
    python_on(engines.hosts[0])
    directory = Path(shutil.copytree(ROOT / "playbooks" / "orders", tmp_path / "orders"))
    made = Orders(engines, directory)
    made.tidy()
    made.host.run(["mkdir", "-p", "/srv/orders-data"])
    hosts = made.host.path("/etc/hosts")
    before = hosts.read_text()
    hosts.write_text(before + f"{engines.controller} metrics1.example.com\n")
    with prometheus(engines, made.host):
        first = made.run("apply", "plan.yaml", "--release", "v1.4.2")
        assert first.returncode == 0, first.stdout
        assert [made.order() for _ in range(5)] == [200] * 5
        # What is compared with is the rate a moment before the deploy.
        until(lambda: made.measured("sum(rate(http_errors_total[5m] offset 2s))") == 0.0)
        second = made.run("apply", "plan.yaml")
        assert second.returncode == 0, second.stdout
        yield made
    made.tidy()
    hosts.write_text(before)


def prometheus(fleet: Fleet, host: Host) -> Any:
    """Debian's, on a machine of its own; it scrapes the API twice a second."""
    return _Prometheus(fleet, host)


class _Prometheus:
    def __init__(self, fleet: Fleet, host: Host) -> None:
        self._daemon = program("prometheus", "prometheus")
        self._target = f"{host.address}:8000"
        self._listen = f"{fleet.controller}:9090"

    def __enter__(self) -> None:
        self._folder = folder("prometheus")
        base = self._folder.__enter__()
        (base / "prometheus.yml").write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
            "scrape_configs:\n"
            "  - job_name: orders\n"
            f"    static_configs: [{{targets: ['{self._target}']}}]\n"
        )
        argv = [self._daemon, f"--config.file={base}/prometheus.yml"]
        argv += [f"--storage.tsdb.path={base}/data", f"--web.listen-address={self._listen}"]
        self._running = running(argv, "Server is ready", base)
        self._running.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._running.__exit__(*error)
        self._folder.__exit__(*error)


def is_shown(command: str, said: str) -> None:
    """The page shows this for that command."""
    (found,) = [one for one in shown(PAGE) if one.command == command]
    lines = [line for line in said.splitlines() if line and not line.startswith("{")]
    assert_shown([line for line in found.output if line], "\n".join(lines))


def test_from_the_first_sign_to_the_end(orders: Orders, capsys: pytest.CaptureFixture[str]) -> None:
    """Seen, assessed, contained, rolled back, verified, taken back, resolved, closed."""
    answers = [orders.order() for _ in range(SESSIONS + 10)]
    assert answers == [200] * SESSIONS + [500] * 10
    until(lambda: (orders.measured("sum(rate(http_errors_total[5m]))") or 0.0) > 0.01)
    assert orders.health()["status"] == "no quote sessions"

    seen = orders.run("watch", "plan.yaml", "--for", "1s")
    assert seen.returncode == 9, seen.stdout
    is_shown("deployguard watch plan.yaml --for 1s", seen.stdout)

    began = time.monotonic()
    response = orders.run(
        "incident", "respond", "plan.yaml", "--choose", "rollback", "--yes", "--json"
    )
    took = time.monotonic() - began
    with capsys.disabled():
        print(f"\ncontainment: {took:.1f} s from the command to the proof")
    assert response.returncode == 0, response.stdout
    is_shown("deployguard incident respond plan.yaml --choose rollback --yes", response.stdout)
    _assert_response(response.stdout)

    # The old version takes orders, and nothing that was contained is left.
    health = orders.health()
    assert (health["status"], health["version"]) == ("healthy", "v1.4.2")
    assert (health["maintenance"], health["payments"]) == ("disabled", "closed")
    assert [orders.order() for _ in range(SESSIONS + 5)] == [200] * (SESSIONS + 5)
    assert orders.running() == {"api", "recommendations"}
    # The backup has the orders of both versions, and of no later time.
    saved = orders.host.read("/var/backups/orders.log").decode().splitlines()
    assert len(saved) == 5 + SESSIONS

    for command in (
        'deployguard incident resolve --cause "quote sessions leak" --fix "closed in v1.5.1"',
        'deployguard incident close --anyway "the post-mortem is in the handbook"',
        "deployguard incident list --all",
    ):
        done = orders.published.run("bash", "-c", command)
        assert done.returncode == 0, done.stdout
        is_shown(command, done.stdout)
    _assert_documented(orders)


def _assert_response(text: str) -> None:
    """What was found out is what was the matter, and what was chosen was computed."""
    lines = [json.loads(line) for line in text.splitlines() if line[:1] == "{"]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(line["type"], []).append(line)
    before, after = by_kind["assessment"]
    failing = {
        one["name"]: one["critical"] for one in before["checks"] if one["state"] != "healthy"
    }
    assert failing == {"api": True}
    metrics = {one["name"]: one for one in before["metrics"]}
    assert metrics["up"]["state"] == "healthy"
    assert metrics["error_rate"]["state"] == "unhealthy"
    assert metrics["error_rate"]["before"] == 0.0
    (log,) = before["logs"]
    assert (log["errors"], log["kinds"][0]["count"]) == (10, 10)
    assert "no quote session is free" in log["kinds"][0]["first"]
    assert [one["version"] for one in before["recent"]] == ["v1.4.2", "v1.5.0"]
    assert before["suggests"] == 1

    rollback, hotfix, mitigate = by_kind["options"][0]["options"]
    assert (rollback["possible"], rollback["version"]) == (True, "v1.4.2")
    assert (rollback["downtime"]["n"], rollback["downtime"]["what"]) == (1, "deploy")
    assert f"{SESSIONS} orders written since the deploy" in rollback["data"][-1]
    assert not hotfix["possible"] and not mitigate["possible"]
    (outcome,) = by_kind["outcome"]
    assert (outcome["version"], outcome["status"]) == ("v1.4.2", "committed")
    assert after["healthy"]
    assert {one["state"] for one in after["checks"]} == {"healthy"}


def _assert_documented(orders: Orders) -> None:
    """The timeline has every step in its order, each with its time and by whom."""
    shown = orders.run("incident", "show", "--json", *_only(orders))
    (incident,) = [json.loads(line) for line in shown.stdout.splitlines() if line[:1] == "{"]
    assert (incident["state"], incident["severity"]) == ("closed", "critical")
    kinds = [entry["kind"] for entry in incident["timeline"]]
    assert kinds == [
        "opened",
        "assessed",
        *("containing", "contained") * 4,
        "decided",
        "deployed",
        *("released",) * 4,
        "responded",
        "mitigated",
        "resolved",
        "closed",
    ]
    steps = [e["detail"]["step"] for e in incident["timeline"] if e["kind"] == "containing"]
    assert steps == [
        "emergency backup",
        "recommendations off",
        "circuit breaker",
        "maintenance mode",
    ]
    times = [entry["at"] for entry in incident["timeline"]]
    assert times == sorted(times)
    # Both deploys: the one that did it, and the one that ended it.
    linked = [one["value"] for one in incident["links"] if one["kind"] == "transaction"]
    assert len(linked) == 2


def _only(orders: Orders) -> list[str]:
    listed = orders.run("incident", "list", "--all", "--json")
    (found,) = [json.loads(line) for line in listed.stdout.splitlines() if line[:1] == "{"]
    return [str(found["id"])]
