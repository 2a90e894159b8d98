"""An incident of what runs in a cluster: the pods' logs, and the way back."""

from __future__ import annotations

from tests.kubernetes.scene import SECRET, Scene


def test_pods_are_asked_and_rolled_back(scene: Scene) -> None:
    """What a pod logs is among what is found out, without the values of Secrets."""
    scene.live("v1")
    said = f"ERROR cannot log in as app with {SECRET}-v2"
    scene.image("v2", logs=said)
    scene.release("v2")
    assert scene.apply("v2").code == 0
    seen = scene.command("incident", "respond", "plan.yaml", "--assess", "--json")
    assert seen.code == 0, seen
    assessment, offered = seen.lines
    (log,) = assessment["logs"]
    assert log["unknown"] == "", log
    (kind,) = log["kinds"]
    assert "ERROR cannot log in as app with" in kind["first"]
    assert SECRET not in str(seen.lines) + seen.text
    rollback = offered["options"][0]
    assert (rollback["possible"], rollback["version"]) == (True, "v1")
    done = scene.command(
        *("incident", "respond", "plan.yaml", "--open", "high", "nobody can log in"),
        *("--choose", "rollback", "--yes", "--json"),
    )
    assert done.code == 0, done
    assert scene.served() == {"version": "v1", "greeting": "hello from v1"}
