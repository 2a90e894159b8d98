"""Nothing is left in between: whatever dies or goes away, the cluster is the old one or the new."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster import manifests
from tests.kubernetes.scene import Scene


def _host_program(scene: Scene) -> int:
    """The pid of the host program at work on this scene's transaction: it has the journal open."""
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            held = [os.readlink(entry) for entry in folder.iterdir()]
        except OSError:
            continue
        if any(path.startswith(str(scene.state)) and path.endswith("/journal") for path in held):
            return int(folder.parent.name)
    raise AssertionError("there is no host program")


def _half_way(scene: Scene) -> subprocess.Popen[str]:
    """A deploy that waits for a rollout which will not end, with a new object applied."""
    scene.release("v2", manifests.config_map("more", key="value"), replicas=2)
    scene.plan("v2")
    process = scene.start("apply", "plan.yaml", "--json")
    cluster = scene.cluster
    cluster.wait(lambda: len(cluster.pods("app")) == 3, "no new pod was started")
    assert cluster.get("ConfigMap", "more") is not None
    return process


def _until(process: subprocess.Popen[str], phase: str, status: str) -> None:
    """Return when the deploy says that it has got so far."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("phase") == phase and event.get("status") == status:
            return
    raise AssertionError("it ended before that")


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_the_controller_is_killed(scene: Scene) -> None:
    """The host brings the cluster back by itself, when the lease has ended."""
    scene.live("v1")
    before, pods = scene.cluster.objects(), scene.uids()
    process = _half_way(scene)
    process.kill()
    process.communicate()
    scene.cluster.wait(lambda: scene.cluster.objects() == before, "nobody restored it")
    scene.cluster.wait(lambda: scene.leftovers() == [], "something is left on the host")
    assert scene.uids() == pods
    # Whoever comes next finds nothing to do for it.
    scene.image("v2")
    result = scene.apply("v2")
    assert result.code == 0, result
    assert scene.served() == {"version": "v2", "greeting": "hello from v2"}


@pytest.mark.slow
def test_the_host_program_is_killed(scene: Scene) -> None:
    """Its dead-man finds the kept objects in the transaction's folder."""
    scene.live("v1")
    before = scene.cluster.objects()
    process = _half_way(scene)
    _kill(_host_program(scene))
    process.communicate(timeout=120)
    scene.cluster.wait(lambda: scene.cluster.objects() == before, "nobody restored it")
    scene.cluster.wait(lambda: scene.leftovers() == [], "something is left on the host")


@pytest.mark.slow
@pytest.mark.parametrize("at", ["PATCH", "DELETE", "GET"])
def test_killed_in_the_middle_of_a_restore(scene: Scene, at: str) -> None:
    """It is begun anew, from the same kept objects."""
    scene.live("v1")
    before = scene.cluster.objects()
    scene.image("v2", status=503)
    scene.release("v2", manifests.config_map("more", key="value"), manifests.service("more"))
    scene.plan("v2")
    process = scene.start("apply", "plan.yaml", "--json")
    _until(process, "restore", "started")
    with scene.cluster.gate(at, "/chat/") as gate:
        assert gate.reached.wait(60)
        _kill(_host_program(scene))
    process.communicate(timeout=120)
    scene.cluster.wait(lambda: scene.cluster.objects() == before, "nobody restored it")
    scene.cluster.wait(lambda: scene.leftovers() == [], "something is left on the host")
    assert scene.served() == {"version": "v1", "greeting": "hello from v1"}


@pytest.mark.slow
def test_the_api_is_away_for_a_while(scene: Scene) -> None:
    """A restore asks again until it is back."""
    scene.live("v1")
    before = scene.cluster.objects()
    scene.image("v2", status=503)
    scene.release("v2")
    scene.service["patience"] = "60s"
    scene.plan("v2")
    process = scene.start("apply", "plan.yaml", "--json")
    _until(process, "check", "started")
    scene.cluster.down()
    _until(process, "restore", "started")
    scene.cluster.up()
    _, text = process.communicate(timeout=120)
    assert process.returncode == 3, text
    assert scene.cluster.objects() == before


def test_the_api_stays_away(scene: Scene) -> None:
    """A person is needed, and told why; once it is back, `recover` brings the old version back."""
    scene.live("v1")
    before = scene.cluster.objects()
    scene.image("v2", status=503)
    scene.release("v2")
    scene.plan("v2")
    process = scene.start("apply", "plan.yaml", "--json")
    _until(process, "check", "started")
    scene.cluster.down()
    _, text = process.communicate(timeout=120)
    assert process.returncode == 4, text
    assert "the API of context production: " in text and "was refused" in text
    scene.cluster.up()
    result = scene.command("recover", "plan.yaml", "--json")
    assert result.code == 0, result
    assert scene.cluster.objects() == before
    assert scene.served() == {"version": "v1", "greeting": "hello from v1"}
    assert scene.leftovers() == []


@pytest.mark.slow
def test_what_may_not_be_restored(scene: Scene) -> None:
    """The right to write Secrets is gone: all the rest is brought back, and that one is named."""
    scene.live("v1")
    before = scene.cluster.objects()
    scene.image("v2", status=503)
    scene.release("v2", manifests.config_map("more", key="value"))
    scene.plan("v2")
    process = scene.start("apply", "plan.yaml", "--json")
    _until(process, "check", "started")
    with scene.cluster.refusing("PATCH", "/secrets/"):
        _, text = process.communicate(timeout=120)
    assert process.returncode == 4, text
    assert "cannot PATCH" in text and "not as it was: secret/database: data.password" in text
    after = scene.cluster.objects()
    assert [name for name in before if after[name] != before[name]] == ["Secret/database"]
    assert set(after) == set(before)
    result = scene.command("recover", "plan.yaml", "--json")
    assert result.code == 0, result
    assert scene.cluster.objects() == before
