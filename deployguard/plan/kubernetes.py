"""A component that runs in a Kubernetes cluster, and what can be wrong with it in a plan."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from deployguard.plan.block import Block
from deployguard.plan.document import Finding, Path
from deployguard.plan.quantity import AbsolutePath, Duration

__all__ = ["KubernetesService", "kubernetes_findings"]


def _whole_name(value: object) -> object:
    """``api`` is short for ``deployment/api``."""
    return f"deployment/{value}" if isinstance(value, str) and "/" not in value else value


def _whole_names(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return {_whole_name(name): images for name, images in value.items()}


Workload = Annotated[
    str,
    BeforeValidator(_whole_name),
    Field(pattern=r"^(deployment|statefulset|daemonset)/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"),
]


class KubernetesService(Block):
    """Workloads in a cluster, deployed by the ``kubectl`` of the component's host."""

    context: str = Field(
        pattern=r"^[^-\s]\S*$", description="Context of the kubeconfig; never the current one."
    )
    namespace: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="Namespace of all its objects."
    )
    workloads: tuple[Workload, ...] = Field(
        min_length=1, description="What runs it: `deployment/api`, or `api` for short."
    )
    manifests: tuple[str, ...] = Field(
        (".",),
        description="Files and directories of the tree to apply; a kustomization is one, too.",
    )
    images: Annotated[
        dict[Workload, dict[str, str]],
        BeforeValidator(_whole_names, json_schema_input_type=dict[str, dict[str, str]]),
    ] = Field(default_factory=dict, description="Images by workload and container.")
    prune: bool = Field(False, description="Delete what only the old manifests have.")
    dry_run: bool = Field(True, description="Have the API server try it before anything is done.")
    rollout_timeout: Duration = Field(300.0, description="How long all rollouts together may take.")
    patience: Duration = Field(
        120.0, description="How long a restore waits for an API server that does not answer."
    )
    timeout: Duration = Field(30.0, description="How long each other kubectl command may take.")
    kubeconfig: AbsolutePath | None = Field(
        None, description="On the host; ~/.kube/config of the user the host program runs as."
    )
    program: str = Field("kubectl", description="On the host's PATH, or its path.")
    env: dict[str, str] = Field(
        default_factory=dict,
        description="Added environment, for programs that sign in; no passwords.",
    )


def kubernetes_findings(service: KubernetesService, where: Path, hosts: int) -> Iterator[Finding]:
    """What single values do not show. ``hosts`` is how many the component runs on."""
    if hosts > 1:
        yield Finding(
            where,
            f"{hosts} hosts would deploy to one cluster",
            "name the one with kubectl in `hosts` of the component",
            on_key=True,
        )
    for index, name in enumerate(service.manifests):
        if name.startswith("/") or ".." in name.split("/"):
            message = f'"{name}" is not in the release'
            yield Finding((*where, "manifests", index), message, "write a path within the tree")
    for workload in service.images:
        if workload not in service.workloads:
            yield Finding(
                (*where, "images"),
                f"{workload} is not among the workloads",
                "add it there, so that it is watched and restored",
                on_key=True,
            )
    if not service.manifests and not service.images:
        message = "there is nothing to deploy: neither manifests nor images"
        yield Finding((*where, "manifests"), message, "name manifests, or images")
    if service.program != "kubectl" and not re.fullmatch(r"/\S+|[\w.-]+", service.program):
        message = f'"{service.program}" is not a program'
        yield Finding((*where, "program"), message, "write its name, or its path")
