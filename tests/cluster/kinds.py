"""Which kinds of objects there are."""

from __future__ import annotations

from typing import Any, NamedTuple

Json = dict[str, Any]


class Kind(NamedTuple):
    """One resource of the API."""

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool = True
    short: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """As objects say it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """Where its group begins in the URL space."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


KINDS = (
    Kind("", "v1", "namespaces", "Namespace", False, ("ns",)),
    Kind("", "v1", "configmaps", "ConfigMap", True, ("cm",)),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "services", "Service", True, ("svc",)),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",)),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",)),
    Kind("", "v1", "pods", "Pod", True, ("po",)),
    Kind("", "v1", "events", "Event", True, ("ev",)),
    Kind("apps", "v1", "deployments", "Deployment", True, ("deploy",)),
    Kind("apps", "v1", "replicasets", "ReplicaSet", True, ("rs",)),
    Kind("apps", "v1", "statefulsets", "StatefulSet", True, ("sts",)),
    Kind("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",)),
    Kind("batch", "v1", "jobs", "Job"),
    Kind("batch", "v1", "cronjobs", "CronJob", True, ("cj",)),
    Kind(
        "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, ("hpa",)
    ),
    Kind("networking.k8s.io", "v1", "ingresses", "Ingress", True, ("ing",)),
    Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False),
)

BY_PLURAL = {(kind.root, kind.plural): kind for kind in KINDS}
BY_NAME = {kind.name: kind for kind in KINDS}

#: What the API server knows of the fields of a kind, for strict validation: names below a path,
#: ``*`` for any. Enough to find what a person mistypes.
_META = ("apiVersion", "kind", "metadata")
FIELDS: dict[str, dict[str, set[str]]] = {
    "Deployment": {
        "": {*_META, "spec", "status"},
        "spec": {
            *("replicas", "selector", "template", "strategy", "minReadySeconds", "paused"),
            *("revisionHistoryLimit", "progressDeadlineSeconds"),
        },
        "spec.template": {"metadata", "spec"},
        "spec.template.spec": {
            *("containers", "initContainers", "volumes", "serviceAccountName", "imagePullSecrets"),
            *("terminationGracePeriodSeconds", "restartPolicy", "nodeSelector", "securityContext"),
            *("dnsPolicy", "schedulerName"),
        },
    },
    "ConfigMap": {"": {*_META, "data", "binaryData", "immutable"}},
    "Secret": {"": {*_META, "data", "stringData", "type", "immutable"}},
    "Service": {"": {*_META, "spec", "status"}},
}


def unknown_fields(obj: Json) -> list[str]:
    """Fields that the kind does not have, as the API server names them."""
    found = []
    for path, known in FIELDS.get(str(obj.get("kind")), {}).items():
        part: Any = obj
        for step in path.split(".") if path else []:
            part = part.get(step, {}) if isinstance(part, dict) else {}
        if isinstance(part, dict):
            prefix = f"{path}." if path else ""
            found += [f'unknown field "{prefix}{name}"' for name in part if name not in known]
    return sorted(found)
