"""What a plan asks for and the host or the cluster does not have: said, and nothing is touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster import manifests
from tests.kubernetes.scene import SECRET, Scene

Change = Callable[[Scene], object]


def _replaced(scene: Scene, text: str) -> None:
    (scene.directory / "releases" / "v2" / "app.yaml").write_text(text)


def _misspelt(scene: Scene) -> None:
    made = scene.app("v2")
    made["spec"]["templte"] = {}
    scene.write("v2", made)


def _unreadable(scene: Scene) -> None:
    made = manifests.secret("database")
    # What somebody writes who has not read that it is base64.
    made.update(stringData={}, data={"password": f"{SECRET}!"})
    scene.write("v2", scene.app("v2"), made)


def _paused(scene: Scene) -> None:
    scene.cluster.kubectl("-n", "chat", "rollout", "pause", "deployment/app")


NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}

CASES: dict[str, tuple[Change, str]] = {
    "no kubectl": (
        lambda scene: scene.service.update(program="/opt/kubectl"),
        "/opt/kubectl is not there, or no program",
    ),
    "no kubeconfig": (
        lambda scene: scene.service.update(kubeconfig="/etc/nobody/kubeconfig"),
        "there is no kubeconfig /etc/nobody/kubeconfig on this host",
    ),
    "unknown context": (
        lambda scene: scene.service.update(context="staging"),
        "has no context staging",
    ),
    "unknown namespace": (
        lambda scene: scene.service.update(namespace="chats"),
        "context production has no namespace chats",
    ),
    "unknown workload": (
        lambda scene: scene.service.update(workloads=["app", "ap"]),
        "there is no deployment/ap in namespace chat, nor in the manifests",
    ),
    "unknown workload for an image": (
        lambda scene: scene.service.update(
            workloads=["ap"], manifests=[], images={"ap": {"app": "registry.example.com/app:v2"}}
        ),
        "there is no deployment/ap in namespace chat",
    ),
    "unknown container": (
        lambda scene: scene.service.update(images={"app": {"web": "registry.example.com/app:v2"}}),
        "deployment/app has no container web",
    ),
    "unknown directory": (
        lambda scene: scene.service.update(manifests=["k8s"]),
        "k8s is not in the release",
    ),
    "no YAML": (
        lambda scene: _replaced(scene, "kind: Deployment: no\n"),
        "error parsing app.yaml: ",
    ),
    "unknown field": (_misspelt, 'unknown field "spec.templte"'),
    "a Secret that is no base64": (_unreadable, "base64 data at input byte 4"),
    "somebody else's namespace": (
        lambda scene: scene.write(
            "v2", {**scene.app("v2"), "metadata": {"name": "app", "namespace": "default"}}
        ),
        "does not match the namespace",
    ),
    "an object of the whole cluster": (
        lambda scene: scene.write(
            "v2",
            scene.app("v2"),
            NAMESPACE,
        ),
        "namespace/x is not in namespace chat",
    ),
    "a paused rollout": (_paused, "deployment/app is paused: its rollout would never end"),
    "no API server": (lambda scene: scene.cluster.down(), "the API of context production: "),
}


#: Much like another one of the cases.
ALIKE = (
    "unknown namespace",
    "unknown workload for an image",
    "unknown container",
    "unknown directory",
    "no YAML",
    "somebody else's namespace",
    "an object of the whole cluster",
)


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in CASES],
)
def test_refused(scene: Scene, case: str) -> None:
    """One message, exit code 5, and no request has changed anything."""
    change, words = CASES[case]
    scene.cluster.apply(
        scene.app("v1"),
        manifests.service("app"),
        manifests.config_map("settings", greeting="hello"),
        manifests.secret("database", password=SECRET),
    )
    scene.image("v1")
    scene.image("v2")
    scene.release("v2")
    change(scene)
    before, asked = scene.cluster.objects(), len(scene.cluster.api.requests)
    result = scene.apply("v2")
    assert result.code == 5, result
    assert words in result.text, result
    assert SECRET not in result.text
    assert scene.cluster.objects() == before
    writes = [
        f"{method} {path}"
        for method, path in scene.cluster.api.requests[asked:]
        if method != "GET" and "dryRun=All" not in path
    ]
    assert not writes
    assert not (scene.directory / "srv").exists()
    assert scene.leftovers() == []


def test_mistakes_of_the_plan(scene: Scene) -> None:
    """What can be seen without a host is seen without one, at its place in the file."""
    scene.release("v1")
    scene.service.update(
        workloads=["pod/app"], images={"api": {"api": "x"}}, manifests=["../k8s"], namespace="Chat"
    )
    scene.plan("v1")
    text = (scene.directory / "plan.yaml").read_text()
    result = scene.command("validate", "plan.yaml")
    assert result.code == 2
    assert "pod/app" in result.text and "is not a workload" in result.text
    assert "is not a namespace" in result.text
    scene.service.update(workloads=["app"], namespace="chat")
    scene.extra = {
        "hosts": {
            name: {"transport": "local", "state_directory": str(scene.state / name)}
            for name in ("one", "two")
        }
    }
    scene.plan("v1")
    result = scene.command("validate", "plan.yaml")
    assert result.code == 2, text
    assert "2 hosts would deploy to one cluster" in result.text
    assert "deployment/api is not among the workloads" in result.text
    assert '"../k8s" is not in the release' in result.text
