"""Manifests as people write them."""

from __future__ import annotations

from typing import Any

import yaml


def deployment(
    name: str, image: str, *, replicas: int = 1, deadline: int = 600, **pod: Any
) -> dict[str, Any]:
    """A Deployment with one container of its name; ``pod`` adds to the pod's spec.

    ``deadline`` is after how many seconds without progress the cluster gives its rollout up.
    """
    container: dict[str, Any] = {"name": name, "image": image}
    container.update(pod.pop("container", {}))
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": deadline,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container], **pod},
            },
        },
    }


def service(name: str) -> dict[str, Any]:
    """A Service before the pods of that name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    }


def config_map(name: str, **data: str) -> dict[str, Any]:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: str) -> dict[str, Any]:
    """A Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def text(*objects: dict[str, Any]) -> str:
    """Objects as one file."""
    return str(yaml.safe_dump_all(objects, sort_keys=False))
