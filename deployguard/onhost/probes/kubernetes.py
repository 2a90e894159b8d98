"""The state of workloads, as the cluster sees them: what a process check asks.

"Available" says that so many pods answer their readiness probe; the restarts tell of one that dies
and is started again between two looks. They are counted over the pods of the newest template, so
that a node that is drained, or an autoscaler at work, is no restart.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Tuple

from deployguard.onhost.kubernetes import actions as kubeactions
from deployguard.onhost.kubernetes import component as kubernetes
from deployguard.onhost.kubernetes import objects as kubeobjects
from deployguard.onhost.kubernetes.kubectl import Kubectl, KubectlFailed
from deployguard.onhost.kubernetes.objects import Object
from deployguard.onhost.probes.base import HEALTHY, UNHEALTHY, UNKNOWN, Finding, finding
from deployguard.onhost.system import System

_HASH = "pod-template-hash"
_CONTROLLER_HASH = "controller-revision-hash"


def sample(manager: Mapping[str, Any], timeout: float, system: System) -> Finding:
    """One look at all workloads of a component."""
    service = dict(manager["service"], timeout=timeout)
    cluster = Kubectl(service, system)
    try:
        found = kubernetes.workloads(cluster, service["workloads"])
        pods = {name: _newest(cluster, obj) for name, obj in found.items()}
    except KubectlFailed as error:
        return finding(UNKNOWN, str(error))
    missing = [name for name in service["workloads"] if name not in found]
    if missing:
        words = "there is no %s in namespace %s" % (missing[0], service["namespace"])
        return finding(UNHEALTHY, words)
    return _judge(found, pods)


def _newest(cluster: Kubectl, obj: Object) -> Tuple[str, List[Object]]:
    """The mark of the newest template, and the pods that are made from it."""
    if obj["kind"] != "Deployment":
        mark = str((obj.get("status") or {}).get("updateRevision", ""))
        pods = kubeactions.pods_of(cluster, obj)
        key = _CONTROLLER_HASH
    else:
        labels = sorted((obj["spec"]["selector"].get("matchLabels") or {}).items())
        selector = "--selector=" + ",".join("%s=%s" % pair for pair in labels)
        both = cluster.objects(["get", "replicasets,pods", selector])
        pods = [one for one in both if one["kind"] == "Pod"]
        mark, key = _current_set(obj, both), _HASH
    if not mark:
        return "", pods
    return mark, [pod for pod in pods if pod["metadata"].get("labels", {}).get(key) == mark]


def _current_set(deployment: Object, found: List[Object]) -> str:
    revision = (deployment["metadata"].get("annotations") or {}).get(kubeobjects.REVISION)
    for one in found:
        marks = one["metadata"].get("annotations") or {}
        if one["kind"] == "ReplicaSet" and marks.get(kubeobjects.REVISION) == revision:
            return str(one["metadata"].get("labels", {}).get(_HASH, ""))
    return ""


def _judge(found: Mapping[str, Object], pods: Mapping[str, Tuple[str, List[Object]]]) -> Finding:
    counts = {name: kubernetes.strength(obj) for name, obj in found.items()}
    shown = ", ".join(
        "%s %d/%d" % (name, count["available"], count["replicas"]) for name, count in counts.items()
    )
    observed: Dict[str, Any] = {
        "kubernetes": shown,
        "restarts": sum(kubeactions.restarts_of(pod) for _, some in pods.values() for pod in some),
        "instance": " ".join(
            "%s:%s" % (found[name]["metadata"]["uid"], mark) for name, (mark, _) in pods.items()
        ),
    }
    for name, obj in found.items():
        if counts[name]["replicas"] == 0:
            return finding(UNHEALTHY, "%s is scaled to 0" % name, observed=observed)
        if not kubernetes.is_rolled_out(obj):
            words = "%s has %d of %d pods available" % (
                name,
                counts[name]["available"],
                counts[name]["replicas"],
            )
            troubles = [kubeactions.pod_trouble(pod) for pod in pods[name][1]]
            reason = next(filter(None, troubles), "")
            return finding(UNHEALTHY, "; ".join(filter(None, [words, reason])), observed=observed)
    return finding(HEALTHY, "available: %s" % shown, observed=observed)
