"""A component in a Kubernetes cluster, asked for through kubectl: what there is before a deploy.

The question ``kubernetes`` answers (see :func:`observe`)

``running``
    Whether a pod of the component's workloads is available.
``workloads``
    By name (``deployment/api``) of those there are: ``replicas`` wanted and ``available``.
``specs``
    By name a digest of each workload's spec, which must be the same after a restore.
``drift``
    Objects that applying the live manifests once more would change: somebody did so by hand.
``refused``
    Instead of that, message and hint where the plan cannot be met.

:func:`rehearse` looks at the new manifests while they still stand beside the live tree, and has the
API server try them without keeping anything.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set

from deployguard.onhost.kubernetes import kubectl
from deployguard.onhost.kubernetes import objects as kubeobjects
from deployguard.onhost.kubernetes.kubectl import Kubectl, KubectlFailed
from deployguard.onhost.kubernetes.objects import Object
from deployguard.onhost.system import System

_KUSTOMIZATION = ("kustomization.yaml", "kustomization.yml", "Kustomization")


# -- what there is ---------------------------------------------------------------------------------


def observe(question: Mapping[str, Any], system: System) -> Dict[str, Any]:
    """The answer to the driver's question; see the top of the module. Never raises."""
    cluster = Kubectl(question["service"], system)
    try:
        return _observe(cluster, question)
    except KubectlFailed as error:
        return {"refused": {"message": str(error), "hint": error.hint}}


def _observe(cluster: Kubectl, question: Mapping[str, Any]) -> Dict[str, Any]:
    service = cluster.service
    demand_context(cluster)
    demand_namespace(cluster)
    found = workloads(cluster, service["workloads"])
    missing = [name for name in service["workloads"] if name not in found]
    if missing and not service["manifests"]:
        raise unknown(cluster, missing)
    paused = sorted(name for name, obj in found.items() if obj["spec"].get("paused"))
    if paused:
        raise KubectlFailed(
            "%s is paused: its rollout would never end" % paused[0],
            "kubectl -n %s rollout resume %s" % (service["namespace"], paused[0]),
        )
    elastic = scaled_by_others(cluster)
    shown = {name: strength(obj) for name, obj in found.items()}
    return {
        "running": any(one["available"] for one in shown.values()),
        "workloads": shown,
        "specs": {
            name: kubeobjects.digest(obj, elastic=name in elastic) for name, obj in found.items()
        },
        "drift": _other_images(found, question["images"]) or _drift(cluster, question, elastic),
    }


def _other_images(
    found: Mapping[str, Object], images: Mapping[str, Mapping[str, str]]
) -> List[str]:
    return [name for name, obj in found.items() if kubeobjects.with_images(obj, images) != obj]


def _drift(cluster: Kubectl, question: Mapping[str, Any], elastic: Set[str]) -> List[str]:
    if not os.path.isdir(question["live"]) or not cluster.service["dry_run"]:
        return []
    try:
        meant = render(cluster, question["live"], question["images"])
        if meant:
            words = ["apply", "--dry-run=server", "-f", "-"]
            meant = cluster.objects(words, documents=meant)
        live = {
            o["metadata"]["uid"]: o for o in get(cluster, list(map(kubeobjects.identity, meant)))
        }
    except KubectlFailed as error:
        if error.away:
            raise
        return []  # what is live may be anything; what is to come is rehearsed
    found = []
    for obj in meant:
        name = kubeobjects.short(obj)
        there = live.get(obj["metadata"].get("uid", ""), obj)
        if kubeobjects.differences(obj, there, elastic=name in elastic):
            found.append(name)
    return found


def strength(obj: Object) -> Dict[str, int]:
    """How many pods a workload wants, and how many are there to answer."""
    status = obj.get("status") or {}
    if obj["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        return {"replicas": wanted, "available": status.get("numberAvailable", 0)}
    available = status.get("availableReplicas", status.get("readyReplicas", 0))
    return {"replicas": obj["spec"].get("replicas", 1), "available": available}


def is_rolled_out(obj: Object) -> bool:
    """Whether all that a workload wants is of its newest template, and available."""
    status, spec = obj.get("status") or {}, obj["spec"]
    if status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0):
        return False
    if obj["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        return bool(
            wanted == status.get("updatedNumberScheduled", 0) == status.get("numberAvailable", 0)
        )
    wanted = spec.get("replicas", 1)
    updated, there = status.get("updatedReplicas", 0), status.get("replicas", 0)
    if obj["kind"] == "StatefulSet" and status.get("updateRevision") == status.get(
        "currentRevision"
    ):
        updated = there
    return bool(wanted == updated == there == strength(obj)["available"])


def workloads(cluster: Kubectl, names: Sequence[str]) -> Dict[str, Object]:
    """The workloads that there are, by the names asked for."""
    return {kubeobjects.short(obj): obj for obj in get(cluster, names)}


def get(cluster: Kubectl, names: Sequence[str]) -> List[Object]:
    """Those of the named objects that there are."""
    if not names:
        return []
    return cluster.objects(["get", *names, "--ignore-not-found"])


def scaled_by_others(cluster: Kubectl) -> Set[str]:
    """Workloads whose number of replicas an autoscaler decides."""
    try:
        found = cluster.objects(["get", "horizontalpodautoscalers"])
    except KubectlFailed as error:
        if error.away:
            raise
        return set()  # there is no such kind, or it is none of our business
    targets = (obj["spec"].get("scaleTargetRef") or {} for obj in found)
    return {"%s/%s" % (str(t.get("kind", "")).lower(), t.get("name", "")) for t in targets}


def demand_context(cluster: Kubectl) -> None:
    """The kubeconfig is there and has the context. Raises :class:`KubectlFailed`."""
    service = cluster.service
    path = kubectl.kubeconfig(service)
    if not os.path.isfile(path):
        raise KubectlFailed(
            "there is no kubeconfig %s on this host" % path, "put it there, or name its path"
        )
    known = cluster.text(["config", "get-contexts", "--output=name"]).split()
    if service["context"] not in known:
        raise KubectlFailed(
            "%s has no context %s" % (path, service["context"]),
            "it has: %s" % (", ".join(known) or "none"),
        )


def demand_namespace(cluster: Kubectl) -> None:
    """The namespace is there, as far as we may know. Raises :class:`KubectlFailed`."""
    service = cluster.service
    done = cluster.run(["get", "namespace", service["namespace"], "--output=name"])
    said = done.stderr.decode("utf-8", "replace")
    if done.ok or "(Forbidden)" in said:
        return  # one who may see nothing but its own namespace is told when it is used
    if "(NotFound)" not in said:
        raise cluster.failure(done)
    there = cluster.run(["get", "namespaces", "--output=name"])
    names = [line.rpartition("/")[2] for line in there.text.split()] if there.ok else []
    raise KubectlFailed(
        "context %s has no namespace %s" % (service["context"], service["namespace"]),
        "it has: %s" % ", ".join(names) if names else "make it, or mend the name",
    )


def unknown(cluster: Kubectl, missing: Sequence[str]) -> KubectlFailed:
    """Workloads that are neither in the cluster nor in the manifests."""
    kind = missing[0].partition("/")[0]
    there = cluster.run(["get", kind, "--output=name"])
    names = [line.rpartition("/")[2] for line in there.text.split()] if there.ok else []
    return KubectlFailed(
        "there is no %s in namespace %s, nor in the manifests"
        % (" and no ".join(missing), cluster.service["namespace"]),
        "%ss there: %s" % (kind, ", ".join(sorted(names)) or "none"),
    )


# -- what is to come -------------------------------------------------------------------------------


def render(cluster: Kubectl, tree: str, images: Mapping[str, Mapping[str, str]]) -> List[Object]:
    """The objects that the manifests of a tree describe, with the images of the plan.

    Nothing is sent to the cluster. Raises :class:`KubectlFailed` with the file that is no good.
    """
    found: List[Object] = []
    tree = os.path.realpath(tree)  # kubectl does not look through a link
    for name in cluster.service["manifests"]:
        path = os.path.normpath(os.path.join(tree, name))
        if not os.path.exists(path):
            raise KubectlFailed("%s is not in the release" % name, "mend `manifests` of the plan")
        flag = "-k" if _is_kustomization(path) else "-f"
        words = ["create", "--dry-run=client", "--validate=false", flag, path]
        try:
            found += cluster.objects(words, cwd=tree)
        except KubectlFailed as error:
            inside = tree + os.sep
            raise KubectlFailed(
                str(error).replace(inside, ""), error.hint, away=error.away
            ) from error
    cluster.hide(kubeobjects.secret_values(found))
    return [kubeobjects.with_images(obj, images) for obj in kubeobjects.in_order(found)]


def _is_kustomization(path: str) -> bool:
    return os.path.isdir(path) and any(
        os.path.isfile(os.path.join(path, name)) for name in _KUSTOMIZATION
    )


def rehearse(question: Mapping[str, Any], tree: str, system: System) -> Optional[Dict[str, str]]:
    """What speaks against the manifests in ``tree``, as message and hint; ``None``: nothing."""
    cluster = Kubectl(question["service"], system)
    try:
        _rehearse(cluster, tree, question["images"])
    except KubectlFailed as error:
        return {"message": str(error), "hint": error.hint}
    return None


def _rehearse(cluster: Kubectl, tree: str, images: Mapping[str, Mapping[str, str]]) -> None:
    service = cluster.service
    coming = render(cluster, tree, images)
    if service["manifests"] and not coming:
        raise KubectlFailed(
            "there are no objects in %s of the release" % ", ".join(service["manifests"]),
            "name the directory of the manifests; kubectl does not look below it",
        )
    for obj in coming:
        _demand_ours(obj, service["namespace"])
    known = {kubeobjects.short(obj): obj for obj in coming}
    others = [
        name for name in {**dict.fromkeys(service["workloads"]), **images} if name not in known
    ]
    known.update(workloads(cluster, others))
    missing = [name for name in others if name not in known]
    if missing:
        raise unknown(cluster, missing)
    for name, wanted in images.items():
        _demand_containers(name, known[name], wanted)
    if not service["dry_run"]:
        return
    if coming:
        cluster.text(["apply", "--dry-run=server", "-f", "-"], documents=coming)
    for name in others:
        if name in images:
            cluster.text([*set_image(name, images[name]), "--dry-run=server"])


def _demand_ours(obj: Object, namespace: str) -> None:
    name = obj["metadata"].get("name")
    if not name:
        raise KubectlFailed(
            "a %s of the manifests has no name" % obj["kind"],
            "with `generateName` every deploy makes another one, and none can be restored",
        )
    if obj["metadata"].get("namespace") != namespace:
        raise KubectlFailed(
            "%s is not in namespace %s" % (kubeobjects.short(obj), namespace),
            "what belongs to the whole cluster is not restored with a deploy: apply it by itself",
        )


def _demand_containers(name: str, obj: Object, wanted: Mapping[str, str]) -> None:
    there = [str(container.get("name")) for container in kubeobjects.containers_of(obj)]
    for container in wanted:
        if container not in there:
            raise KubectlFailed(
                "%s has no container %s" % (name, container), "it has: %s" % ", ".join(there)
            )


def set_image(name: str, images: Mapping[str, str]) -> List[str]:
    """The command that gives containers of a workload other images."""
    return ["set", "image", name, *("%s=%s" % pair for pair in sorted(images.items()))]
