"""What acts on the objects: the Deployment and ReplicaSet controllers, a kubelet, and the collector
of what has lost its owner. One loop does all of it, every few milliseconds.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import math
import threading
import time
from collections.abc import Mapping
from typing import Any

from tests.cluster.images import Image
from tests.cluster.kinds import Json
from tests.cluster.store import ApiError, Store

REVISION = "deployment.kubernetes.io/revision"
_TICK = 0.02
#: How long a program takes to start, to stop at SIGTERM, and to be restarted after a crash.
_START, _STOP, _BACKOFF = 0.05, 0.05, 0.2


class Controllers:
    """The loop. ``images`` maps names of images to what they do."""

    def __init__(self, store: Store, images: Mapping[str, Image]) -> None:
        self._store = store
        self._images = images
        self._ends = threading.Event()
        self._pods: dict[str, Json] = {}
        self._thread = threading.Thread(target=self._run, name="controllers", daemon=True)
        self.logs: dict[str, str] = {}
        self.environments: dict[str, dict[str, str]] = {}

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Return when the loop has ended."""
        self._ends.set()
        self._thread.join()

    def image_of(self, pod: Json) -> Image | None:
        """What runs in a pod."""
        return self._images.get(pod["spec"]["containers"][0]["image"])

    def _run(self) -> None:
        seen = 0
        while not self._ends.wait(_TICK):
            with self._store.changed:
                if seen == self._store.version and not self._transitional():
                    continue
                seen = self._store.version
                try:
                    self._collect()
                    for deployment in self._store.list("Deployment"):
                        self._deployment(deployment)
                    for replica_set in self._store.list("ReplicaSet"):
                        self._replica_set(replica_set)
                    for pod in self._store.list("Pod"):
                        self._pod(pod)
                except ApiError:
                    continue  # somebody was faster; the next round sees it

    def _transitional(self) -> bool:
        """Whether time alone will change something."""
        if any(not _is_ready(pod) for pod in self._store.list("Pod")):
            return True
        return any(
            condition["reason"] == "ReplicaSetUpdated"
            for deployment in self._store.list("Deployment")
            for condition in deployment.get("status", {}).get("conditions", [])
        )

    # -- ownership ---------------------------------------------------------------------------

    def _collect(self) -> None:
        uids = set()
        owned = []
        for kind in ("Deployment", "ReplicaSet", "Pod", "StatefulSet", "DaemonSet", "Job"):
            for obj in self._store.list(kind):
                uids.add(obj["metadata"]["uid"])
                owned.append(obj)
        for obj in owned:
            owners = obj["metadata"].get("ownerReferences", [])
            meta = obj["metadata"]
            gone = owners and all(owner["uid"] not in uids for owner in owners)
            if gone and "deletionTimestamp" not in meta:
                self._store.delete(obj["kind"], meta["namespace"], meta["name"])

    def _owned(self, kind: str, owner: Json) -> list[Json]:
        uid = owner["metadata"]["uid"]
        return [
            obj
            for obj in self._store.list(kind, owner["metadata"]["namespace"])
            if any(ref["uid"] == uid for ref in obj["metadata"].get("ownerReferences", []))
        ]

    # -- deployments -------------------------------------------------------------------------

    def _deployment(self, deployment: Json) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        sets = self._owned("ReplicaSet", deployment)
        template = spec["template"]
        name = f"{meta['name']}-{_hash(template)}"
        new = next((one for one in sets if one["metadata"]["name"] == name), None)
        revisions = [int(one["metadata"]["annotations"][REVISION]) for one in sets]
        if new is None and not spec.get("paused"):
            new = self._new_set(deployment, name, max(revisions, default=0) + 1)
        elif new is not None and int(new["metadata"]["annotations"][REVISION]) < max(revisions):
            self._annotate("ReplicaSet", new, str(max(revisions) + 1))
        if new is not None:
            new = self._store.get("ReplicaSet", meta["namespace"], name)
            self._annotate("Deployment", deployment, new["metadata"]["annotations"][REVISION])
            self._roll(deployment, new, [one for one in sets if one["metadata"]["name"] != name])
        self._deployment_status(deployment, name)
        self._forget(deployment, sets, name)

    def _new_set(self, deployment: Json, name: str, revision: int) -> Json:
        meta, spec = deployment["metadata"], deployment["spec"]
        template = copy.deepcopy(spec["template"])
        marked = {"pod-template-hash": name.rpartition("-")[2]}
        labels = {**template["metadata"].get("labels", {}), **marked}
        template["metadata"]["labels"] = labels
        selector = {"matchLabels": {**spec["selector"]["matchLabels"], **marked}}
        return self._store.create(
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": name,
                    "namespace": meta["namespace"],
                    "labels": labels,
                    "annotations": {REVISION: str(revision)},
                    "ownerReferences": [_owner(deployment)],
                },
                "spec": {"replicas": 0, "selector": selector, "template": template},
                "status": {"replicas": 0},
            }
        )

    def _annotate(self, kind: str, obj: Json, revision: str) -> None:
        def change(one: Json) -> None:
            one["metadata"].setdefault("annotations", {})[REVISION] = revision

        self._store.change(kind, obj["metadata"]["namespace"], obj["metadata"]["name"], change)

    def _roll(self, deployment: Json, new: Json, old: list[Json]) -> None:
        """A rolling update: not more than ``maxSurge`` above, ``maxUnavailable`` below."""
        wanted = deployment["spec"]["replicas"]
        if deployment["spec"]["strategy"]["type"] == "Recreate":
            for one in old:
                self._scale(one, 0)
            if not any(self._owned("Pod", one) for one in old):
                self._scale(new, wanted)
            return
        rolling = deployment["spec"]["strategy"].get("rollingUpdate", {})
        surge = _share(rolling.get("maxSurge", "25%"), wanted, math.ceil)
        down = _share(rolling.get("maxUnavailable", "25%"), wanted, math.floor)
        surge = max(surge, 0 if down else 1)
        there = sum(one["spec"]["replicas"] for one in old)
        self._scale(new, min(wanted, max(wanted + surge - there, new["spec"]["replicas"])))
        if new["spec"]["replicas"] > wanted:
            self._scale(new, wanted)
        ready = sum(_is_ready(pod) for one in [new, *old] for pod in self._owned("Pod", one))
        spare = ready - (wanted - down)
        for one in old:
            # Those that never became ready go first: they cost nothing.
            broken = one["spec"]["replicas"] - sum(_is_ready(p) for p in self._owned("Pod", one))
            less = min(one["spec"]["replicas"], max(broken, 0) + max(spare, 0))
            if less > 0:
                self._scale(one, one["spec"]["replicas"] - less)
                spare -= max(less - max(broken, 0), 0)

    def _scale(self, replica_set: Json, count: int) -> None:
        def change(one: Json) -> None:
            one["spec"]["replicas"] = count

        meta = replica_set["metadata"]
        if replica_set["spec"]["replicas"] != count:
            self._event(replica_set, "Normal", "ScalingReplicaSet", f"scaled to {count}")
        self._store.change("ReplicaSet", meta["namespace"], meta["name"], change)

    def _deployment_status(self, deployment: Json, name: str) -> None:
        meta = deployment["metadata"]
        pods = [
            pod
            for one in self._owned("ReplicaSet", deployment)
            for pod in self._owned("Pod", one)
            if "deletionTimestamp" not in pod["metadata"]
        ]
        mine = [pod for pod in pods if pod["metadata"]["name"].startswith(f"{name}-")]
        wanted = deployment["spec"]["replicas"]
        ready = sum(_is_ready(pod) for pod in pods)
        done = len(mine) == wanted == ready == len(pods)
        status: Json = {
            "observedGeneration": meta["generation"],
            "replicas": len(pods),
            "updatedReplicas": len(mine),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(wanted - ready, 0),
        }
        old = deployment.get("status", {})
        status["conditions"] = _conditions(deployment, done, ready >= wanted, old)
        if {k: v for k, v in old.items() if v} != {k: v for k, v in status.items() if v}:

            def change(one: Json) -> None:
                one["status"] = {k: v for k, v in status.items() if v != 0}
                one["status"].setdefault("observedGeneration", meta["generation"])

            self._store.change("Deployment", meta["namespace"], meta["name"], change)

    def _forget(self, deployment: Json, sets: list[Json], name: str) -> None:
        """Old ReplicaSets beyond ``revisionHistoryLimit``."""
        idle = [
            one
            for one in sets
            if one["spec"]["replicas"] == 0
            and one["metadata"]["name"] != name
            and not self._owned("Pod", one)
        ]
        idle.sort(key=lambda one: int(one["metadata"]["annotations"][REVISION]))
        for one in idle[: max(len(idle) - deployment["spec"]["revisionHistoryLimit"], 0)]:
            meta = one["metadata"]
            self._store.delete("ReplicaSet", meta["namespace"], meta["name"])

    # -- replica sets ------------------------------------------------------------------------

    def _replica_set(self, replica_set: Json) -> None:
        meta, spec = replica_set["metadata"], replica_set["spec"]
        pods = [p for p in self._owned("Pod", replica_set) if _stays(p)]
        for _ in range(spec["replicas"] - len(pods)):
            self._store.create(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "generateName": f"{meta['name']}-",
                        "namespace": meta["namespace"],
                        "labels": dict(spec["template"]["metadata"]["labels"]),
                        "annotations": dict(spec["template"]["metadata"].get("annotations", {})),
                        "ownerReferences": [_owner(replica_set)],
                    },
                    "spec": copy.deepcopy(spec["template"]["spec"]),
                    "status": {"phase": "Pending", "conditions": [], "containerStatuses": []},
                }
            )
        surplus = sorted(pods, key=_is_ready)[: max(len(pods) - spec["replicas"], 0)]
        for pod in surplus:
            self._store.delete("Pod", meta["namespace"], pod["metadata"]["name"])

    # -- the kubelet -------------------------------------------------------------------------

    def _pod(self, pod: Json) -> None:
        uid, now = pod["metadata"]["uid"], time.monotonic()
        known = self._pods.setdefault(uid, {"since": now, "restarts": 0, "next": now + _START})
        image = self.image_of(pod)
        if "deletionTimestamp" in pod["metadata"]:
            self._stop_pod(pod, known, image, now)
            return
        if now < known["next"]:
            return
        trouble = self._trouble(pod, image)
        if trouble is not None:
            self._waiting(pod, known, *trouble)
            return
        assert image is not None
        if image.fault == "crash":
            known["restarts"] += bool(known.get("ran"))
            known.update(ran=True, next=now + _BACKOFF)
            self._begin_program(pod, image)
            self._waiting(pod, known, "CrashLoopBackOff", "back-off restarting failed container")
            return
        if not known.get("ran"):
            known["ran"] = True
            self._begin_program(pod, image)
        self._running(pod, known, ready=image.fault != "unready")

    def restart(self, namespace: str, name: str) -> None:
        """A container ends and is started again in its pod, with what its references hold now."""
        pod = self._store.get("Pod", namespace, name)
        image = self.image_of(pod)
        assert image is not None
        with self._store.changed:
            known = self._pods[pod["metadata"]["uid"]]
            known["restarts"] += 1
            self._begin_program(pod, image)
            self._running(pod, known, ready=image.fault != "unready")

    def _stop_pod(self, pod: Json, known: Json, image: Image | None, now: float) -> None:
        known.setdefault("stops", now)
        stubborn = image is not None and image.fault == "stubborn"
        grace = pod["spec"]["terminationGracePeriodSeconds"] if stubborn else _STOP
        if now >= known["stops"] + grace:
            self._store.remove("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
            self._pods.pop(pod["metadata"]["uid"], None)

    def _trouble(self, pod: Json, image: Image | None) -> tuple[str, str] | None:
        container = pod["spec"]["containers"][0]
        if image is None:
            name = container["image"]
            return "ImagePullBackOff", f'Back-off pulling image "{name}": not found'
        for kind, name in references(pod["spec"]):
            if self._store.find(kind, pod["metadata"]["namespace"], name) is None:
                word = kind.lower()
                return "CreateContainerConfigError", f'{word} "{name}" not found'
        return None

    def _begin_program(self, pod: Json, image: Image) -> None:
        env = self._environment(pod)
        self.environments[pod["metadata"]["uid"]] = env
        line = image.logs
        for name, value in env.items():
            line = line.replace("{" + name + "}", value)
        self.logs[pod["metadata"]["uid"]] = self.logs.get(pod["metadata"]["uid"], "") + line + "\n"

    def _environment(self, pod: Json) -> dict[str, str]:
        found: dict[str, str] = {}
        namespace = pod["metadata"]["namespace"]
        for container in pod["spec"]["containers"]:
            for source in container.get("envFrom", []):
                for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                    if key in source:
                        found.update(self._values(kind, namespace, source[key]["name"]))
            for entry in container.get("env", []):
                found[entry["name"]] = entry.get("value", "")
                for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                    ref = entry.get("valueFrom", {}).get(key)
                    if ref:
                        values = self._values(kind, namespace, ref["name"])
                        found[entry["name"]] = values.get(ref["key"], "")
        return found

    def _values(self, kind: str, namespace: str, name: str) -> dict[str, str]:
        data = (self._store.find(kind, namespace, name) or {}).get("data", {})
        if kind == "ConfigMap":
            return dict(data)
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def _waiting(self, pod: Json, known: Json, reason: str, message: str) -> None:
        state = {"waiting": {"reason": reason, "message": message}}
        if known.get("reason") != reason:
            known["reason"] = reason
            self._event(pod, "Warning", "Failed", message)
        self._pod_status(pod, "Pending", state, known["restarts"], ready=False)

    def _running(self, pod: Json, known: Json, *, ready: bool) -> None:
        state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        if not ready and known.get("reason") != "Unhealthy":
            known["reason"] = "Unhealthy"
            self._event(pod, "Warning", "Unhealthy", "Readiness probe failed: HTTP probe: 503")
        self._pod_status(pod, "Running", state, known["restarts"], ready=ready)

    def _pod_status(
        self, pod: Json, phase: str, state: Json, restarts: int, *, ready: bool
    ) -> None:
        def change(one: Json) -> None:
            one["status"] = {
                "phase": phase,
                "podIP": "192.0.2.1",
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                "containerStatuses": [
                    {
                        "name": container["name"],
                        "image": container["image"],
                        "ready": ready,
                        "restartCount": restarts,
                        "state": state,
                    }
                    for container in one["spec"]["containers"]
                ],
            }

        meta = pod["metadata"]
        self._store.change("Pod", meta["namespace"], meta["name"], change)

    def _event(self, obj: Json, kind: str, reason: str, message: str) -> None:
        meta = obj["metadata"]
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._store.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
                "involvedObject": {
                    "kind": obj["kind"],
                    "name": meta["name"],
                    "namespace": meta["namespace"],
                    "uid": meta["uid"],
                },
                "type": kind,
                "reason": reason,
                "message": message,
                "count": 1,
                "firstTimestamp": stamp,
                "lastTimestamp": stamp,
            }
        )


def references(spec: Json) -> list[tuple[str, str]]:
    """The ConfigMaps and Secrets that a pod cannot start without."""
    found = []
    for container in spec["containers"]:
        for source in container.get("envFrom", []):
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source:
                    found.append((kind, source[key]["name"]))
        for entry in container.get("env", []):
            for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if key in entry.get("valueFrom", {}):
                    found.append((kind, entry["valueFrom"][key]["name"]))
    return found


def _conditions(deployment: Json, done: bool, available: bool, old: Json) -> list[Json]:
    generation = deployment["metadata"]["generation"]
    last = next((c for c in old.get("conditions", []) if c["type"] == "Progressing"), {})
    since = last.get("since", time.time())
    if last.get("generation") != generation or done:
        since = time.time()
    if done:
        # The true one keeps the time of the change; nobody here asks for it.
        since = (
            last.get("since", since) if last.get("reason") == "NewReplicaSetAvailable" else since
        )
    late = not done and time.time() - since > deployment["spec"]["progressDeadlineSeconds"]
    reason = "ReplicaSetUpdated"
    if done:
        reason = "NewReplicaSetAvailable"
    elif late:
        reason = "ProgressDeadlineExceeded"
    return [
        {
            "type": "Available",
            "status": "True" if available else "False",
            "reason": "MinimumReplicasAvailable" if available else "MinimumReplicasUnavailable",
        },
        {
            "type": "Progressing",
            "status": "False" if late else "True",
            "reason": reason,
            "generation": generation,
            "since": since,
        },
    ]


def _hash(template: Json) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:9]


def _owner(obj: Json) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "controller": True,
    }


def _share(value: Any, whole: int, rounded: Any) -> int:
    if isinstance(value, str):
        return int(rounded(int(value.rstrip("%")) * whole / 100))
    return int(value)


def _stays(pod: Json) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def _is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return _stays(pod) and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
