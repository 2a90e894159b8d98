"""What is done to the objects of a component in a deploy, and what is kept for the way back.

Before the first of it every object that the deploy can change is kept in the transaction's folder
as it is in the cluster: those of the new manifests and of the old ones, the workloads, and the
ConfigMaps and Secrets that their pods read, which ``rollout undo`` knows nothing of. The file holds
values of Secrets: 0600, and gone when the transaction is.

Actions, all with ``service`` (:mod:`deployguard.onhost.kubernetes.kubectl`) and ``component``:

``apply``
    The manifests in ``tree``, with ``images``; then each rollout has ``rollout_timeout`` seconds to
    end. With ``prune`` what only the old manifests had is deleted.
``restore``
    Everything as it was kept; :mod:`deployguard.onhost.kubernetes.restore`. ``trees`` (the live one
    and the one beside it), ``replicas`` (of workloads that ran when they were looked at),
    ``rollout_timeout``, and ``patience``: for how long an API server that is away is waited for.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

from deployguard.onhost.kubernetes import component as kubernetes
from deployguard.onhost.kubernetes import objects as kubeobjects
from deployguard.onhost.kubernetes.kubectl import Kubectl, KubectlFailed
from deployguard.onhost.kubernetes.objects import Object
from deployguard.onhost.places import KEPT_STATE, read_json, write_json
from deployguard.onhost.system import System

Action = Dict[str, Any]
#: What :func:`keep` keeps, by name; see there.
Kept = Dict[str, Any]


#: How long one watch of a rollout lasts; then it is seen whether anybody still wants to know.
_SLICE = 3.0


class Failed(Exception):
    """The cluster did not do what was asked."""


def kept_file(folder: str, component: str) -> str:
    """Where a transaction keeps the objects of a component."""
    return os.path.join(folder, KEPT_STATE + component + ".json")


def keep(action: Action, folder: str, system: System) -> Dict[str, Any]:
    """Keep what a restore needs, durably; the answer is for the journal. Raises :class:`Failed`.

    ``objects`` as they are, ``absent`` (those of the manifests that there are not yet),
    ``rolled_out`` (workloads that were whole), ``elastic`` (whose replicas are not ours to say) and
    ``pods`` (their restarts, by uid).
    """
    cluster = Kubectl(action["service"], system)
    try:
        kept = _keep(cluster, action)
    except KubectlFailed as error:
        raise Failed(str(error)) from error
    write_json(kept_file(folder, action["component"]), kept)
    return {"objects": len(kept["objects"]), "absent": kept["absent"]}


def _keep(cluster: Kubectl, action: Action) -> Kept:
    coming = [obj for tree in action["trees"] for obj in _described(cluster, tree)]
    names = list(dict.fromkeys(kubeobjects.identity(obj) for obj in coming))
    found = kubernetes.get(cluster, _distinct([*names, *cluster.service["workloads"]]))
    # Those that only the new pods read are not changed, but their values are to be hidden, too.
    read = sorted({pair for obj in [*found, *coming] for pair in kubeobjects.references(obj)})
    there = {kubeobjects.identity(obj): obj for obj in found}
    further = ["%s/%s" % (kind.lower(), name) for kind, name in read]
    for obj in kubernetes.get(cluster, [name for name in further if name not in there]):
        there[kubeobjects.identity(obj)] = obj
    whole = [
        kubeobjects.short(obj)
        for obj in there.values()
        if obj["kind"] in kubeobjects.WORKLOADS and kubernetes.is_rolled_out(obj)
    ]
    for obj in there.values():
        _ran(obj, action["replicas"])
    elastic = kubernetes.scaled_by_others(cluster)
    pods = [pod for obj in there.values() for pod in pods_of(cluster, obj)]
    return {
        "objects": list(there.values()),
        "absent": [name for name in names if name not in there],
        "rolled_out": whole,
        "elastic": sorted(elastic),
        "pods": {pod["metadata"]["uid"]: restarts_of(pod) for pod in pods},
    }


def _described(cluster: Kubectl, tree: str) -> List[Object]:
    """The objects of one tree's manifests; none where it has none, as before the first deploy."""
    if not os.path.isdir(tree):
        return []
    try:
        return kubernetes.render(cluster, tree, {})
    except KubectlFailed as error:
        if error.away:
            raise
        return []  # the old tree may be anything; the new one was rehearsed


def _distinct(names: Iterable[str]) -> List[str]:
    """Each object once: a plan says ``deployment/api``, a manifest ``deployment.apps/api``."""
    found: Dict[str, str] = {}
    for name in names:
        kind, _, rest = name.partition("/")
        found.setdefault("%s/%s" % (kind.partition(".")[0], rest), name)
    return list(found.values())


def _ran(obj: Object, replicas: Dict[str, int]) -> None:
    """It ran when it was looked at: what was stopped since is to run again after a restore."""
    before = replicas.get(kubeobjects.short(obj), 0)
    if obj["kind"] in kubeobjects.WORKLOADS and before and obj["spec"].get("replicas") == 0:
        obj["spec"]["replicas"] = before


def pods_of(cluster: Kubectl, obj: Object) -> List[Object]:
    """The pods of a workload."""
    if obj["kind"] not in kubeobjects.WORKLOADS:
        return []
    selector = ",".join(
        "%s=%s" % pair
        for pair in sorted((obj["spec"]["selector"].get("matchLabels") or {}).items())
    )
    return cluster.objects(["get", "pods", "--selector=" + selector]) if selector else []


def restarts_of(pod: Object) -> int:
    """How often containers of a pod were started again."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return sum(int(status.get("restartCount", 0)) for status in statuses)


def perform(
    action: Action,
    folder: str,
    facts: Optional[Dict[str, Any]],
    system: System,
    stop: Optional[Callable[[], bool]] = None,
) -> None:
    """Do one action. ``stop`` says when a rollout need not be awaited any more.

    Raises :class:`Failed`.
    """
    from deployguard.onhost.kubernetes import restore as kuberestore

    cluster = Kubectl(action["service"], system)
    kept = read_json(kept_file(folder, action["component"])) or {}
    cluster.hide(kubeobjects.secret_values(kept.get("objects", [])))
    try:
        if action["verb"] == "apply":
            _apply(cluster, action, stop)
        elif kept:
            kuberestore.restore(cluster, action, kept, folder)
        elif facts is not None and "objects" in facts:
            raise Failed("%s is gone" % kept_file(folder, action["component"]))
    except KubectlFailed as error:
        raise Failed(str(error)) from error


def _apply(cluster: Kubectl, action: Action, stop: Optional[Callable[[], bool]]) -> None:
    images = action["images"]
    coming = kubernetes.render(cluster, action["tree"], images)
    if coming:
        cluster.text(["apply", "-f", "-"], documents=coming)
    names = [kubeobjects.short(o) for o in coming if o["kind"] in kubeobjects.WORKLOADS]
    for name in images:
        if name not in names:
            cluster.text(kubernetes.set_image(name, images[name]))
    wanted = list(dict.fromkeys([*names, *images, *cluster.service["workloads"]]))
    await_rollouts(cluster, wanted, action["rollout_timeout"], stop)
    if action["prune"]:
        there = {kubeobjects.identity(obj) for obj in coming}
        old = [
            obj
            for obj in _described(cluster, action["old"])
            if kubeobjects.identity(obj) not in there
        ]
        delete(cluster, [kubeobjects.identity(o) for o in old if o["kind"] not in kubeobjects.DATA])


def delete(cluster: Kubectl, names: Sequence[str]) -> None:
    """Delete objects, and return when they are gone."""
    if names:
        seconds = cluster.service["timeout"]
        words = ["delete", *names, "--ignore-not-found", "--wait", "--timeout=%ds" % seconds]
        cluster.text(words, timeout=seconds + 10.0)


def await_rollouts(
    cluster: Kubectl,
    names: Sequence[str],
    seconds: float,
    stop: Optional[Callable[[], bool]] = None,
) -> None:
    """Return when each rollout has ended well; :class:`KubectlFailed` says what its pods say."""
    ends = cluster.system.monotonic() + seconds
    for name in names:
        while not _rolled_out(cluster, name, min(ends - cluster.system.monotonic(), _SLICE)):
            if stop is not None and stop():
                raise KubectlFailed("the controller is gone; %s is not awaited any more" % name)
            if cluster.system.monotonic() >= ends:
                words = "%s was not rolled out within %g s" % (name, seconds)
                raise KubectlFailed(_trouble(cluster, name, words))


def _rolled_out(cluster: Kubectl, name: str, seconds: float) -> bool:
    """Watch a rollout for so long; whether it has ended well. Raises where it never will."""
    seconds = max(seconds, 0.1)
    words = ["rollout", "status", name, "--timeout=%dms" % int(seconds * 1000)]
    done = cluster.run(words, timeout=seconds + 10.0)
    said = done.stderr.decode("utf-8", "replace")
    if done.ok or "only available for RollingUpdate" in said:
        return True
    if done.timed_out or "timed out waiting for the condition" in said:
        return False
    error = cluster.failure(done)
    if error.away:
        raise error
    raise KubectlFailed(_trouble(cluster, name, "%s: %s" % (name, error)))


def _trouble(cluster: Kubectl, name: str, words: str) -> str:
    """Why a rollout did not end, with what the kubelet says of its pods."""
    try:
        found = kubernetes.workloads(cluster, [name])
        pods = [pod for obj in found.values() for pod in pods_of(cluster, obj)]
    except KubectlFailed:
        return words
    reasons = list(dict.fromkeys(filter(None, map(pod_trouble, pods))))
    return cluster.clean("; ".join([words, *reasons[:3]]))


def pod_trouble(pod: Object) -> str:
    """What keeps a pod from answering, or an empty text."""
    status = pod.get("status") or {}
    name = pod["metadata"]["name"]
    for container in [*(status.get("initContainerStatuses") or ()), *_containers(pod)]:
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        last = (container.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            code = ", last exit code %s" % last["exitCode"] if "exitCode" in last else ""
            message = ": %s" % waiting["message"] if waiting.get("message") else ""
            return "pod %s: %s%s%s" % (name, waiting["reason"], code, message)
        if ended and ended.get("exitCode"):
            return "pod %s ended with exit code %s" % (name, ended["exitCode"])
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return "pod %s is not scheduled: %s" % (name, condition.get("message", ""))
    if any(not container.get("ready") for container in _containers(pod)):
        return "pod %s is not ready" % name
    return ""


def _containers(pod: Object) -> List[Object]:
    return list((pod.get("status") or {}).get("containerStatuses") or ())
