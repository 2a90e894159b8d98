"""The other good end: the old version back, identical, serving, with the evidence and one issue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.host import Host
from tests.github.server import GitHubServer
from tests.scenarios.conftest import MakeScene
from tests.scenarios.scene import Result, Scene


class Before:
    """What the hosts were like, to compare with afterwards."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.trees = {host.name: scene.tree(host) for host in scene.hosts}
        self.units = {host.name: scene.unit_state(host) for host in scene.hosts}

    def assert_back(self, *hosts: Host) -> None:
        """Identical by hash, mode, owner, mtime and link target; the unit too; v1 serving."""
        for host in hosts or self.scene.hosts:
            assert self.scene.tree(host) == self.trees[host.name]
            assert self.scene.unit_state(host) == self.units[host.name]
            assert self.scene.served(host)["version"] == "v1"
            assert self.scene.leftovers(host) == []


def assert_one_issue(github: GitHubServer, result: Result, *words: str) -> None:
    """Exactly one issue, marked, linked from the outcome, saying what a person needs."""
    (issue,) = github.repository.issues.values()
    body = str(issue["body"])
    assert result.outcome["incident_url"]
    assert result.outcome["transaction"] in body
    for word in words:
        assert word in body, f"{word!r} is not in the issue:\n{body}"


def assert_forensics(scene: Scene, result: Result, *hosts: str) -> Path:
    """The folder is there, sealed, with the parts that every failure has, and no secret."""
    folder = Path(result.outcome["forensics"])
    assert folder.is_dir() and folder.parent == scene.directory / "forensics"
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["transaction"] == result.outcome["transaction"]
    for host in hosts:
        own = folder if len(scene.hosts) == 1 else folder / host
        assert (own / "backend" / "MANIFEST.jsonl").stat().st_size > 0
        assert (own / "backend" / "files" / "VERSION").exists()
        assert (own / "backend-service.log").stat().st_size > 0
        assert json.loads((own / "checks.json").read_text())["healthy"] is False
        assert json.loads((own / "host-facts.json").read_text())
    check = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False
    )
    assert check.returncode == 0
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
        if path.is_file():
            assert b"hunter2secret" not in path.read_bytes()
    return folder


FAILURES = {
    "unhealthy": ("unhealthy", "no", "answered 503"),
    "exits": ("exit", "no", "failed"),
    "crash-loops": ("crash 0.2", "always", "restart"),
    "silent": ("silent", "no", "port {port} is closed"),
    "wrong-version": ("wrong", "no", "v0-wrong"),
    "too-slow": ("slow 9", "no", "is closed"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_on_one_host(scene: MakeScene, github: GitHubServer, failure: str) -> None:
    """Each way to fail is noticed, named, and ends with v1 identical and serving."""
    fault, restart, words = FAILURES[failure]
    shop = scene(hosts=1, restart=restart)
    shop.checks[0]["process"]["min_healthy_time"] = "1s"
    assert shop.apply("v1").code == 0
    before = Before(shop)
    failed = shop.apply("v2", fault=fault)
    assert failed.code == 3, failed
    before.assert_back()
    assert_forensics(shop, failed, "web1")
    assert_one_issue(github, failed, words.format(port=shop.port), "web1", "v1")


@pytest.mark.parametrize("layout", ["releases", "in_place"])
def test_real_release_on_three_hosts(scene: MakeScene, github: GitHubServer, layout: str) -> None:
    """3,670 files on three hosts: all back, identical."""
    shop = scene(hosts=3, real=True, layout=layout)
    assert shop.apply("v1").code == 0
    before = Before(shop)
    failed = shop.apply("v2", fault="unhealthy")
    assert failed.code == 3, failed
    before.assert_back()
    assert_forensics(shop, failed, "web1", "web2", "web3")
    assert_one_issue(github, failed, "answered 503", "web3", "identical and healthy")


def test_last_host_of_the_last_batch(scene: MakeScene, github: GitHubServer) -> None:
    """Two batches are through when host 3 fails: all three go back."""
    shop = scene(hosts=3, serial=[1, 1, 1])
    assert shop.apply("v1").code == 0
    before = Before(shop)
    # Something of web3's own is in the way: a port check there can never pass.
    shop.checks.append(
        {"command": {"argv": ["sh", "-c", "test $(hostname) != web3"], "deadline": "2s"}}
    )
    failed = shop.apply("v2")
    assert failed.code == 3, failed
    before.assert_back()
    assert {host["state"] for host in failed.outcome["hosts"]} == {"restored"}
    assert_one_issue(github, failed, "web3")


def test_unreachable_at_the_start(scene: MakeScene, github: GitHubServer) -> None:
    """Nothing is touched anywhere, the host is named, exit 3."""
    shop = scene(hosts=3)
    assert shop.apply("v1").code == 0
    before = Before(shop)
    shop.hosts[2].power_cut()
    failed = shop.apply("v2")
    assert failed.code == 3, failed
    before.assert_back(*shop.hosts[:2])
    assert failed.host("web3")["state"] == "unreachable"
    assert "web3" in failed.text
    assert_one_issue(github, failed, "web3", "unreachable")


def test_unreachable_within_the_allowance(scene: MakeScene) -> None:
    """With `max_fail_percentage: 40` two of three hosts commit; the third is named, exit 3."""
    shop = scene(hosts=3, max_fail_percentage=40)
    assert shop.apply("v1").code == 0
    shop.hosts[2].power_cut()
    done = shop.apply("v2")
    assert done.code == 3, done
    assert [shop.served(host)["version"] for host in shop.hosts[:2]] == ["v2", "v2"]
    assert done.host("web3")["state"] == "unreachable"


def test_lost_after_the_switch(scene: MakeScene, github: GitHubServer) -> None:
    """A host that vanishes mid-trial is named, exit 4; it restores itself; the others are back."""
    shop = scene(hosts=3, lease="5s")
    assert shop.apply("v1").code == 0
    before = Before(shop)
    shop.checks[0]["process"].update(min_healthy_time="4s")
    shop.release("v2", fault="none")
    shop.artifact("v2")
    shop.write_plan("v2")
    lost = shop.hosts[2]
    result = _cut_when(shop, lost, phase="switch", status="done")
    assert result.code == 4, result
    before.assert_back(*shop.hosts[:2])
    assert result.host("web3")["state"] == "lost"
    assert "web3" in result.outcome["summary"]
    assert_one_issue(github, result, "web3", "NOT restored")
    lost.heal_network()
    settled = shop.command("recover", "plan.yaml", "--json")
    assert settled.code == 0, settled
    before.assert_back(lost)


def _cut_when(shop: Scene, victim: Host, *, phase: str, status: str) -> Result:
    """Deploy, and pull the cable of one host at the moment it reports a phase."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deployguard", "apply", "plan.yaml", "--json"],
        cwd=shop.directory,
        env={**os.environ, **shop.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        event: dict[str, Any] = json.loads(line)
        if (event.get("host"), event.get("phase"), event.get("status")) == (
            victim.name,
            phase,
            status,
        ):
            victim.cut_network()
    text = process.stderr.read()
    code = process.wait(timeout=120)
    return Result(subprocess.CompletedProcess([], code, "".join(lines), text))


def test_second_failure_comments(scene: MakeScene, github: GitHubServer) -> None:
    """The same deploy failing again is one issue with a comment, not two issues."""
    shop = scene(hosts=1)
    assert shop.apply("v1").code == 0
    assert shop.apply("v2", fault="exit").code == 3
    again = shop.apply("v2")
    assert again.code == 3
    assert len(github.repository.issues) == 1
    comments = [call for call in github.calls if call.method == "post" and "comments" in call.path]
    assert len(comments) == 1


def test_github_down_then_up(scene: MakeScene, github: GitHubServer) -> None:
    """The exit code stays the deploy's; the next command sends what was kept."""
    shop = scene(hosts=1)
    assert shop.apply("v1").code == 0
    github.stop()
    failed = shop.apply("v2", fault="exit")
    assert failed.code == 3
    assert failed.outcome["incident_url"] is None
    assert any("next command" in error for error in failed.outcome["report_errors"])
    github.start()
    assert shop.apply("v1").code == 0
    assert len(github.repository.issues) == 1


def test_locked_by_another(scene: MakeScene) -> None:
    """A second transaction on the same path is told who holds it, exit 6, and changes nothing."""
    shop = scene(hosts=1)
    assert shop.apply("v1").code == 0
    shop.checks[0]["process"].update(min_healthy_time="4s")
    shop.release("v2")
    shop.artifact("v2")
    shop.write_plan("v2")
    first = subprocess.Popen(
        [sys.executable, "-m", "deployguard", "apply", "plan.yaml", "--json"],
        cwd=shop.directory,
        env={**os.environ, **shop.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert first.stdout is not None
    for line in first.stdout:
        if json.loads(line).get("phase") == "switch":
            break
    second = shop.command("apply", "plan.yaml", "--json")
    assert second.code == 6, second
    assert "locked by transaction" in second.text and " since " in second.text
    first.stdout.read()
    assert first.wait(timeout=60) == 0
    assert shop.served(shop.hosts[0])["version"] == "v2"


def test_the_issue_has_what_the_service_said_last(scene: MakeScene, github: GitHubServer) -> None:
    """The reason stands in the service's own log: it is in the issue, without the secret in it."""
    shop = scene(hosts=1)
    assert shop.apply("v1").code == 0
    failed = shop.apply("v2", fault="exit")
    assert failed.code == 3, failed
    assert "telemetry module is missing" in failed.text
    assert_one_issue(github, failed, "telemetry module is missing")
    everything = json.dumps(failed.lines) + failed.text + json.dumps(github.repository.issues[1])
    assert "hunter2secret" not in everything
