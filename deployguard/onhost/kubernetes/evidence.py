"""What the cluster tells of a failed deploy: events, pods, their logs, the objects.

No value of a Secret gets into any of it: neither from a Secret itself nor, as far as the values are
known, from the log of a program that prints one.
"""

from __future__ import annotations

import json
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping

from deployguard.onhost.kubernetes import actions as kubeactions
from deployguard.onhost.kubernetes import component as kubernetes
from deployguard.onhost.kubernetes import objects as kubeobjects
from deployguard.onhost.kubernetes.kubectl import Kubectl, KubectlFailed
from deployguard.onhost.kubernetes.objects import Object
from deployguard.onhost.places import read_json
from deployguard.onhost.share import Share
from deployguard.onhost.system import System

#: Pods whose logs are read, those in trouble first.
_PODS = 12


def gather(
    collector: Mapping[str, Any], folder: str, share: Share, since: float, system: System
) -> bytes:
    """The text of one collector; ``folder`` is the transaction's. Raises :class:`KubectlFailed`."""
    service = dict(collector["manager"]["service"])
    service["timeout"] = min(service["timeout"], max(share.seconds(), 0.1))
    cluster = Kubectl(service, system)
    kept = read_json(kubeactions.kept_file(folder, collector["component"])) or {"objects": []}
    _hide(cluster, kept)
    lines = _WHAT[collector["what"]](cluster, kept, share, since)
    return cluster.clean("\n".join(lines) + "\n").encode("utf-8", "replace")


def _hide(cluster: Kubectl, kept: Dict[str, Any]) -> None:
    """The old values and those that the new version brought."""
    names = [kubeobjects.identity(obj) for obj in kept["objects"] if obj["kind"] == "Secret"]
    names += [name for name in kept.get("absent", []) if name.startswith("secret/")]
    cluster.hide(kubeobjects.secret_values(kept["objects"]))
    cluster.hide(kubeobjects.secret_values(kubernetes.get(cluster, names)))


def recent_logs(service: Dict[str, Any], lines: int, seconds: float, system: System) -> List[str]:
    """The last lines of the pods of a service's workloads, each with its time; no values of the
    namespace's Secrets. Raises :class:`KubectlFailed`, also where these may not be read."""
    ends = system.monotonic() + seconds
    cluster = Kubectl(dict(service, timeout=min(service["timeout"], seconds)), system)
    cluster.hide(kubeobjects.secret_values(cluster.objects(["get", "secrets"])))
    found: List[str] = []
    for pod in _pods(cluster)[:_PODS]:
        if system.monotonic() > ends:
            raise KubectlFailed("kubectl did not give all logs within %g s" % seconds)
        options = ["--all-containers", "--timestamps", "--tail=%d" % lines]
        text = cluster.text(["logs", "pod/" + pod["metadata"]["name"], *options])
        found += cluster.clean(text).splitlines()
    return found


def _events(cluster: Kubectl, kept: Dict[str, Any], share: Share, since: float) -> Iterator[str]:
    found = cluster.objects(["get", "events"])
    found.sort(key=_time_of)
    for event in found:
        about = event.get("involvedObject") or {}
        yield "%s  %-8s %-22s %s/%s  %s" % (
            _time_of(event),
            event.get("type", ""),
            event.get("reason", ""),
            str(about.get("kind", "")).lower(),
            about.get("name", ""),
            str(event.get("message", "")).strip(),
        )


def _time_of(event: Object) -> str:
    stamp = event.get("lastTimestamp") or event.get("eventTime")
    return str(stamp or event["metadata"].get("creationTimestamp") or "")


def _pods(cluster: Kubectl) -> List[Object]:
    found: Dict[str, Object] = {}
    for obj in kubernetes.get(cluster, cluster.service["workloads"]):
        for pod in kubeactions.pods_of(cluster, obj):
            found[pod["metadata"]["name"]] = pod
    troubled = {name: not kubeactions.pod_trouble(pod) for name, pod in found.items()}
    return sorted(found.values(), key=lambda pod: troubled[pod["metadata"]["name"]])


def _states(cluster: Kubectl, kept: Dict[str, Any], share: Share, since: float) -> Iterator[str]:
    pods = _pods(cluster)
    for pod in pods:
        trouble = kubeactions.pod_trouble(pod) or "pod %s is ready" % pod["metadata"]["name"]
        yield "%s, %d restarts" % (trouble, kubeactions.restarts_of(pod))
    for pod in pods:
        yield json.dumps(kubeobjects.masked(pod), indent=1, sort_keys=True)


def _logs(cluster: Kubectl, kept: Dict[str, Any], share: Share, since: float) -> Iterator[str]:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
    options = ["--all-containers", "--timestamps", "--since-time=" + stamp]
    options.append("--limit-bytes=%d" % max(share.max_bytes // _PODS, 1024))
    for pod in _pods(cluster)[:_PODS]:
        name = pod["metadata"]["name"]
        again = [["--previous"]] if kubeactions.restarts_of(pod) else []
        for more in [*again, []]:
            if share.seconds() <= 0:
                return
            done = cluster.run(["logs", "pod/" + name, *options, *more])
            yield "==> pod %s%s <==" % (name, ", before its restart" if more else "")
            yield (done.text if done.ok else str(cluster.failure(done))).rstrip("\n")


def _objects(cluster: Kubectl, kept: Dict[str, Any], share: Share, since: float) -> Iterator[str]:
    """The failed objects beside the kept ones, in words and whole."""
    old = {kubeobjects.identity(obj): obj for obj in kept["objects"]}
    live = kubernetes.get(cluster, [*old, *kept.get("absent", [])])
    for obj in live:
        name = kubeobjects.identity(obj)
        fields = kubeobjects.differences(old[name], obj) if name in old else []
        yield "%s: %s" % (name, ", ".join(fields) or ("as before" if name in old else "new"))
    for obj in live:
        yield json.dumps(kubeobjects.masked(obj), indent=1, sort_keys=True)


def _history(cluster: Kubectl, kept: Dict[str, Any], share: Share, since: float) -> Iterator[str]:
    for name in cluster.service["workloads"]:
        done = cluster.run(["rollout", "history", name])
        yield (done.text if done.ok else str(cluster.failure(done))).strip()


_WHAT: Dict[str, Callable[[Kubectl, Dict[str, Any], Share, float], Iterator[str]]] = {
    "events": _events,
    "pods": _states,
    "logs": _logs,
    "objects": _objects,
    "history": _history,
}
__all__ = ["KubectlFailed", "gather", "recent_logs"]
