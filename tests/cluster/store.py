"""The objects, their versions, and who waits for changes."""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from tests.cluster.kinds import BY_NAME, Json, Kind

Key = tuple[str, str, str]


class ApiError(Exception):
    """An answer that is not 2xx, with the reason that clients look at."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message

    def status(self) -> Json:
        """The body."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


class Store:
    """Everything that etcd and the registry do, in memory, under one lock."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._objects: dict[Key, Json] = {}
        self._history: list[tuple[int, str, Json]] = []
        self.version = 1

    # -- reading -----------------------------------------------------------------------------

    def find(self, kind: str, namespace: str, name: str) -> Json | None:
        """A copy of the object, or ``None``."""
        with self.changed:
            found = self._objects.get((kind, namespace, name))
            return copy.deepcopy(found)

    def get(self, kind: str, namespace: str, name: str) -> Json:
        """A copy of the object. Raises :class:`ApiError`."""
        found = self.find(kind, namespace, name)
        if found is None:
            raise missing(kind, name)
        return found

    def list(self, kind: str, namespace: str = "") -> list[Json]:
        """Copies of all objects of a kind, by name."""
        with self.changed:
            return [
                copy.deepcopy(obj)
                for (k, ns, _), obj in sorted(self._objects.items())
                if k == kind and namespace in ("", ns)
            ]

    def since(self, version: int, kind: str, namespace: str) -> Iterator[tuple[int, str, Json]]:
        """Changes after ``version``, oldest first."""
        with self.changed:
            found = [entry for entry in self._history if entry[0] > version]
        for number, event, obj in found:
            if obj["kind"] == kind and namespace in ("", obj["metadata"].get("namespace", "")):
                yield number, event, copy.deepcopy(obj)

    # -- writing -----------------------------------------------------------------------------

    def create(self, obj: Json, *, dry: bool = False) -> Json:
        """Add an object. Raises :class:`ApiError`."""
        obj = copy.deepcopy(obj)
        kind = BY_NAME[obj["kind"]]
        meta = obj.setdefault("metadata", {})
        with self.changed:
            name = meta.get("name") or meta.get("generateName", "") + uuid.uuid4().hex[:5]
            meta["name"] = name
            self._demand_namespace(kind, meta)
            if self._key(obj) in self._objects:
                plural = kind.plural
                raise ApiError(409, "AlreadyExists", f'{plural} "{name}" already exists')
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            meta.update(uid=str(uuid.uuid4()), creationTimestamp=stamp)
            for field in ("deletionTimestamp", "selfLink", "resourceVersion"):
                meta.pop(field, None)
            if "spec" in obj:
                meta["generation"] = 1
            default(obj)
            return obj if dry else self._put("ADDED", obj)

    def update(self, obj: Json, *, dry: bool = False, status: bool = False) -> Json:
        """Replace an object, or its status alone. Raises :class:`ApiError`."""
        obj = copy.deepcopy(obj)
        with self.changed:
            old = self._objects.get(self._key(obj))
            if old is None:
                raise missing(obj["kind"], obj["metadata"]["name"])
            given = obj["metadata"].get("resourceVersion")
            if given not in (None, "", old["metadata"]["resourceVersion"]):
                raise ApiError(
                    409,
                    "Conflict",
                    f"Operation cannot be fulfilled on {BY_NAME[obj['kind']].plural} "
                    f'"{obj["metadata"]["name"]}": the object has been modified',
                )
            if status:
                obj = {**copy.deepcopy(old), "status": obj.get("status", {})}
            elif "status" in old:
                obj["status"] = copy.deepcopy(old["status"])
            for field in ("uid", "creationTimestamp", "generation", "deletionTimestamp"):
                if field in old["metadata"]:
                    obj["metadata"][field] = old["metadata"][field]
            default(obj)
            demand_unchanged(old, obj)
            if obj.get("spec") != old.get("spec") and "generation" in old["metadata"]:
                obj["metadata"]["generation"] = old["metadata"]["generation"] + 1
            obj["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            if dry or obj == old:
                return copy.deepcopy(obj)
            return self._put("MODIFIED", obj)

    def delete(self, kind: str, namespace: str, name: str, *, dry: bool = False) -> Json:
        """Remove an object and, later, what it owns; a pod is only marked: it has to stop."""
        with self.changed:
            obj = self.get(kind, namespace, name)
            if dry:
                return obj
            if kind == "Pod" and "deletionTimestamp" not in obj["metadata"]:
                obj["metadata"]["deletionTimestamp"] = _stamp()
                return self._put("MODIFIED", obj)
            return self.remove(kind, namespace, name)

    def remove(self, kind: str, namespace: str, name: str) -> Json:
        """Take it away for good."""
        with self.changed:
            obj = self._objects.pop((kind, namespace, name))
            return self._put("DELETED", obj)

    def change(self, kind: str, namespace: str, name: str, what: Callable[[Json], None]) -> None:
        """Change an object in place, status included; nothing where it is gone."""
        with self.changed:
            old = self._objects.get((kind, namespace, name))
            if old is None:
                return
            new = copy.deepcopy(old)
            what(new)
            if new != old:
                if new.get("spec") != old.get("spec"):
                    new["metadata"]["generation"] += 1
                self._put("MODIFIED", new)

    def _put(self, event: str, obj: Json) -> Json:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        if event != "DELETED":
            self._objects[self._key(obj)] = obj
        self._history.append((self.version, event, copy.deepcopy(obj)))
        self.changed.notify_all()
        return copy.deepcopy(obj)

    def _key(self, obj: Json) -> Key:
        return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]

    def _demand_namespace(self, kind: Kind, meta: Json) -> None:
        if kind.namespaced and ("Namespace", "", meta["namespace"]) not in self._objects:
            raise missing("Namespace", meta["namespace"])


def missing(kind: str, name: str) -> ApiError:
    """There is none."""
    resource = BY_NAME[kind]
    plural = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    return ApiError(404, "NotFound", f'{plural} "{name}" not found')


def _stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def default(obj: Json) -> None:
    """Fill in what the API server fills in, as far as anybody here looks at it."""
    spec: Any = obj.get("spec")
    kind = obj["kind"]
    if kind == "Secret":
        import base64

        for name, text in obj.pop("stringData", {}).items():
            obj.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()
        obj.setdefault("type", "Opaque")
    if kind == "Service":
        spec.setdefault("clusterIP", f"10.96.0.{int(obj['metadata']['uid'][:2], 16)}")
        spec.setdefault("type", "ClusterIP")
    if kind == "Deployment":
        spec.setdefault("replicas", 1)
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)
        rolling = {"maxSurge": "25%", "maxUnavailable": "25%"}
        spec.setdefault("strategy", {"type": "RollingUpdate", "rollingUpdate": rolling})
    if kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"):
        pod = spec["template"].setdefault("spec", {})
        pod.setdefault("terminationGracePeriodSeconds", 30)
        pod.setdefault("restartPolicy", "Always")
        for container in pod.get("containers", []):
            container.setdefault("terminationMessagePath", "/dev/termination-log")
            container.setdefault("resources", {})
        meta = spec["template"].setdefault("metadata", {})
        if meta.get("creationTimestamp", "") is None:
            # Some clients write it out; it says nothing.
            del meta["creationTimestamp"]


def demand_unchanged(old: Json, new: Json) -> None:
    """Raise :class:`ApiError` for a change of what cannot be changed."""
    kind, name = new["kind"], new["metadata"]["name"]
    changed = kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet") and (
        old["spec"]["selector"] != new["spec"]["selector"]
    )
    if kind == "Job":
        changed = old["spec"].get("template") != new["spec"].get("template")
    frozen = old.get("immutable") and any(
        old.get(field) != new.get(field) for field in ("data", "binaryData", "immutable")
    )
    if changed or frozen:
        field = "data" if frozen else "spec"
        raise ApiError(
            422, "Invalid", f'{kind} "{name}" is invalid: {field}: Forbidden: field is immutable'
        )
