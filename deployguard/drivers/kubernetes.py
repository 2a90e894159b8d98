"""Workloads in a Kubernetes cluster, by the ``kubectl`` of a host that has one.

There is nothing to stop: a rollout replaces pods as the workload says. So the whole of a deploy is
one operation, after the tree of manifests was exchanged: apply, set images, wait for the rollouts.
Its undo brings every object back as it was, from what the host kept before the first of them was
changed (:mod:`deployguard.onhost.kubernetes.actions`), by the same kubectl and with nobody's help.
With several components the undos run in the opposite order, so that no two versions meet on the way
back that have not met on the way there.
"""

from __future__ import annotations

from typing import Any

from deployguard.drivers.base import Action, Observation, Site, Steps, operation
from deployguard.plan.model import Component, KubernetesService, ManagedFile


class KubernetesDriver:
    """See the module."""

    name = "kubernetes"

    def observe(self, component: Component, site: Site) -> list[dict[str, Any]]:
        service = _service(component)
        live = f"{component.path}/current" if component.layout == "releases" else component.path
        return [
            {
                "field": "cluster",
                "kind": "kubernetes",
                "service": _whose(service, site),
                # For the rehearsal, and to see whether anybody changed the objects by hand.
                "images": _images(service),
                "live": live,
                "same": ["specs"],
            }
        ]

    def files(self, component: Component) -> dict[str, ManagedFile]:
        return {}

    def steps(self, name: str, component: Component, site: Site, observed: Observation) -> Steps:
        service = _service(component)
        seen = observed.get("cluster", {}).get("workloads", {})
        common = {"component": name, "rollout_timeout": service.rollout_timeout}
        apply = _act(
            service,
            site,
            "apply",
            **common,
            tree=site.live,
            old=site.beside,
            images=_images(service),
            prune=service.prune,
        )
        restore = _act(
            service,
            site,
            "restore",
            **common,
            trees=[site.live, site.beside],
            replicas={workload: known["replicas"] for workload, known in seen.items()},
            patience=service.patience,
        )
        title = f"roll out {' and '.join(service.workloads)}"
        return Steps(start=[operation(name, "rollout", title, [apply], [restore])])

    def process_probe(self, component: Component, site: Site) -> dict[str, Any]:
        return {"driver": "kubernetes", "service": _whose(_service(component), site)}

    def running(self, observed: Observation) -> bool:
        return bool(observed.get("cluster", {}).get("running"))

    def titles(self, component: Component) -> list[str]:
        return list(_service(component).workloads)


def _service(component: Component) -> KubernetesService:
    assert component.service is not None and component.service.kubernetes is not None
    return component.service.kubernetes


def _whose(service: KubernetesService, site: Site) -> dict[str, Any]:
    """What the host has to know to ask the cluster."""
    return {
        "program": service.program,
        "kubeconfig": service.kubeconfig,
        "context": service.context,
        "namespace": service.namespace,
        "workloads": list(service.workloads),
        "manifests": list(service.manifests),
        "dry_run": service.dry_run,
        "timeout": service.timeout,
        "env": dict(service.env),
        "cache": f"{site.state}/kubectl",
    }


def _images(service: KubernetesService) -> dict[str, dict[str, str]]:
    return {workload: dict(images) for workload, images in service.images.items()}


def _act(service: KubernetesService, site: Site, verb: str, **more: Any) -> Action:
    return {"act": "kubernetes", "verb": verb, "service": _whose(service, site), **more}
