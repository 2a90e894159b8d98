"""A deploy to a cluster ends with the new version, or with every object as it was."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.cluster import manifests
from tests.kubernetes.scene import SECRET, Scene


def test_a_good_version_is_rolled_out(scene: Scene) -> None:
    """It is served, its objects are as the manifests say, and nothing is left on the host."""
    scene.live("v1")
    scene.image("v2")
    scene.release("v2", manifests.config_map("more", key="value"), replicas=3)
    result = scene.apply("v2")
    assert result.code == 0, result
    assert scene.served() == {"version": "v2", "greeting": "hello from v2"}
    assert len(scene.cluster.pods("app")) == 3
    assert scene.cluster.get("ConfigMap", "more") is not None
    assert scene.leftovers() == []
    again = scene.apply("v2")
    assert again.code == 0 and again.outcome["status"] == "unchanged", again


@pytest.mark.slow
def test_changed_by_hand_is_not_unchanged(scene: Scene) -> None:
    """The tree is as deployed, but the cluster is not: it is deployed once more."""
    scene.live("v1")
    scene.cluster.kubectl("-n", "chat", "scale", "deployment/app", "--replicas=1")
    scene.cluster.kubectl("-n", "chat", "rollout", "status", "deployment/app")
    result = scene.apply("v1")
    assert result.code == 0 and result.outcome["status"] == "committed", result
    assert len(scene.cluster.pods("app")) == 2


def test_an_image_that_is_not_there(scene: Scene) -> None:
    """The rollout does not become ready: all is as before, and the old pods never stopped."""
    scene.live("v1")
    before, pods = scene.cluster.objects(), scene.uids()
    scene.release("v2", manifests.config_map("more", key="value"), replicas=2, deadline=1)
    result = scene.apply("v2")
    assert result.code == 3, result
    assert "ImagePullBackOff" in result.text
    assert 'registry.example.com/app:v2": not found' in result.text
    assert scene.cluster.objects() == before
    # They have not read the new configuration, and need not be replaced.
    assert scene.uids() == pods
    assert scene.served() == {"version": "v1", "greeting": "hello from v1"}
    assert scene.leftovers() == []


def test_a_version_that_is_not_healthy(scene: Scene) -> None:
    """All its pods are ready and its endpoint says no: the old one serves again, as it was."""
    scene.live("v1")
    before = scene.cluster.objects()
    scene.image("v2", status=503)
    scene.release("v2", replicas=3)
    result = scene.apply("v2")
    assert result.code == 3, result
    assert "answered 503" in result.text
    assert "the cluster says deployment/app 3/3, but HTTP answers 503" in result.text
    assert scene.cluster.objects() == before
    assert scene.served() == {"version": "v1", "greeting": "hello from v1"}
    # The way that people take leaves the record of the last apply, and with it the next deploy,
    # on the failed version.
    applied = before["Deployment/app"]["metadata"]["annotations"]
    assert "app:v1" in applied["kubectl.kubernetes.io/last-applied-configuration"]


def test_a_first_deploy_that_fails(scene: Scene) -> None:
    """There was nothing, and there is nothing."""
    scene.release("v1", replicas=2, deadline=1)
    result = scene.apply("v1")
    assert result.code == 3, result
    assert scene.cluster.objects() == {}
    scene.cluster.wait(lambda: not scene.cluster.pods("app"), "a pod is left")


def test_what_pods_have_read_in_between_is_forgotten(scene: Scene) -> None:
    """A container of the old version that restarted meanwhile holds the new configuration."""
    scene.live("v1")
    old = scene.cluster.pods("app")[0]["metadata"]["name"]
    scene.release("v2", replicas=2, deadline=600)
    scene.plan("v2")
    process = scene.start("apply", "plan.yaml", "--json")
    cluster = scene.cluster
    cluster.wait(lambda: _greeting(scene) == "hello from v2", "v2 was not applied")
    cluster.wait(lambda: len(cluster.pods("app")) == 3, "no new pod was started")
    cluster.controllers.restart("chat", old)
    assert scene.greetings() == {"hello from v1", "hello from v2"}
    # Nobody waits for the whole time: the cluster gives it up.
    cluster.kubectl(
        *("-n", "chat", "patch", "deployment/app", "--type=merge"),
        *("-p", '{"spec": {"progressDeadlineSeconds": 1}}'),
    )
    _, text = process.communicate(timeout=300)
    assert process.returncode == 3, text
    assert scene.greetings() == {"hello from v1"}
    assert old not in {pod["metadata"]["name"] for pod in scene.cluster.pods("app")}


@pytest.mark.slow
def test_what_is_pruned_comes_back(scene: Scene) -> None:
    """With `prune` the new version's absence of an object counts, and so does the way back."""
    extra = [manifests.config_map("old", key="value"), manifests.secret("token", key=SECRET)]
    scene.image("v1")
    scene.release("v1", *extra)
    assert scene.apply("v1").code == 0
    before = scene.cluster.objects()
    scene.service["prune"] = True
    scene.image("v2", status=503)
    scene.release("v2")
    assert scene.apply("v2").code == 3
    assert scene.cluster.objects() == before
    scene.image("v3")
    scene.release("v3")
    result = scene.apply("v3")
    assert result.code == 0, result
    assert scene.cluster.get("ConfigMap", "old") is None
    assert scene.cluster.get("Secret", "token") is None


def test_images_alone(scene: Scene) -> None:
    """`set image` on a workload that somebody else made, and the old image back."""
    cluster = scene.cluster
    for name in ("settings", "database"):
        cluster.apply(manifests.config_map(name), manifests.secret(name))
    cluster.apply(scene.app("v1", replicas=2), manifests.service("app"))
    scene.image("v1")
    cluster.kubectl("-n", "chat", "rollout", "status", "deployment/app")
    scene.service["manifests"] = []
    scene.service["images"] = {"app": {"app": "registry.example.com/app:{{ version }}"}}
    steps = (("v2", 200, 0, "v2"), ("v3", 503, 3, "v2"), ("v4", 200, 0, "v4"))
    for version, status, code, served in steps:
        scene.image(version, status=status)
        scene.write(version, manifests.config_map("never-applied"))
        result = scene.apply(version)
        assert result.code == code, result
        assert (scene.served() or {})["version"] == served
    # Somebody sets another image by hand, which no tree shows.
    cluster.kubectl(
        "-n", "chat", "set", "image", "deployment/app", "app=registry.example.com/app:v1"
    )
    result = scene.apply("v4")
    assert result.code == 0 and result.outcome["status"] == "committed", result
    # A rollback is a deploy of the version that the host has kept.
    result = scene.command("rollback", "plan.yaml", "--json")
    assert result.code == 0, result
    assert (scene.served() or {})["version"] == "v2"
    assert cluster.get("ConfigMap", "never-applied") is None


def test_secrets_are_nowhere(scene: Scene, tmp_path: Path) -> None:
    """Not in what is printed, not in a journal, not in the evidence; and pods do print them."""
    scene.live("v1")
    # Made by hand, and read by none but the new version.
    token = f"{SECRET}/+é"
    scene.cluster.apply(manifests.secret("signing", token=token))
    before = scene.cluster.objects()
    made = scene.app("v2", deadline=1)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    source = {"secretKeyRef": {"name": "signing", "key": "token"}}
    container["env"].append({"name": "TOKEN", "valueFrom": source})
    scene.image("v2", fault="crash", logs="cannot connect with {PASSWORD} and {TOKEN}")
    scene.write(
        "v2",
        made,
        manifests.service("app"),
        manifests.config_map("settings", greeting="hello"),
        manifests.secret("database", password=f"{SECRET}-v2"),
    )
    result = scene.apply("v2")
    assert result.code == 3, result
    assert scene.cluster.objects() == before
    values = [f"{SECRET}-v1".encode(), f"{SECRET}-v2".encode(), token.encode()]
    forms = [form for value in values for form in (value, base64.b64encode(value))]
    shown = [(result.text + str(result.lines)).encode()]
    apart = {scene.directory / "releases", scene.directory / "srv"}
    for path in tmp_path.rglob("*"):
        if path.is_file() and not apart & set(path.parents):
            shown.append(path.read_bytes())
    assert not [form for form in forms if any(form in data for data in shown)]
    logs = (scene.forensics() / "app-pods.log").read_text()
    assert "cannot connect with [secret database/password] and [secret signing/token]" in logs


def test_evidence(scene: Scene) -> None:
    """What the cluster knew of the failed version, before the restore took it away."""
    scene.live("v1")
    scene.release("v2", manifests.config_map("more", key="value"), deadline=1)
    assert scene.apply("v2").code == 3
    folder = scene.forensics()
    assert "Back-off pulling image" in (folder / "app-events.txt").read_text()
    pods = (folder / "app-pods.txt").read_text()
    assert "ImagePullBackOff" in pods and "registry.example.com/app:v2" in pods
    objects = (folder / "app-objects.txt").read_text()
    assert "configmap/more: new" in objects
    assert "deployment.apps/app: " in objects and "containers[0].image" in objects
    assert "app" in (folder / "app-history.txt").read_text()


def _greeting(scene: Scene) -> str:
    found = scene.cluster.get("ConfigMap", "settings") or {}
    return str(found.get("data", {}).get("greeting"))
