"""Objects of a cluster: what of them is the deploy's, and what the server and controllers write.

Pure. An object is named as kubectl takes it, ``deployment.apps/api``; a Secret's value is in
nothing that comes out of here but :func:`secret_values` and the two
that make a patch or a new object of a kept one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Sequence, Set, Tuple
from urllib.parse import quote, quote_plus

Object = Dict[str, Any]

#: Kinds that run pods and can be waited for.
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
#: Never deleted: what is in them is data, and would not come back.
DATA = ("PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition")
#: What pods read: it has to be there before they start.
_FIRST = ("ServiceAccount", "Role", "RoleBinding", "Secret", "ConfigMap", "PersistentVolumeClaim")

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
REVISION = "deployment.kubernetes.io/revision"
#: Annotations that controllers write.
_CONTROLLERS = ("deployment.kubernetes.io/", "deprecated.daemonset.", "autoscaling.alpha.")
#: Metadata that a person may write; the rest is the server's.
_META = ("labels", "annotations", "finalizers")
_SECRET_FIELDS = ("data", "stringData")


def identity(obj: Object) -> str:
    """``kind.group/name``, as an argument of kubectl."""
    group = str(obj["apiVersion"]).rpartition("/")[0]
    kind = str(obj["kind"]).lower()
    return "%s/%s" % ("%s.%s" % (kind, group) if group else kind, obj["metadata"]["name"])


def short(obj: Object) -> str:
    """``deployment/api``: as plans name workloads."""
    return "%s/%s" % (str(obj["kind"]).lower(), obj["metadata"]["name"])


def in_order(objects: Iterable[Object]) -> List[Object]:
    """What pods read before what runs them; otherwise as they came."""
    place = {kind: number for number, kind in enumerate(_FIRST)}
    ranks = {kind: len(_FIRST) + 1 for kind in WORKLOADS}
    return sorted(objects, key=lambda one: {**place, **ranks}.get(one["kind"], len(_FIRST)))


def is_read(obj: Object) -> bool:
    """Whether it is something that pods read, and not something that acts."""
    return obj["kind"] in _FIRST


def essence(obj: Object, *, elastic: bool = False) -> Object:
    """All of an object that has to be the same again. ``elastic``: an autoscaler sets replicas."""
    kept = {name: obj[name] for name in obj if name not in ("metadata", "status", "apiVersion")}
    meta = obj["metadata"]
    found = {name: meta[name] for name in _META if meta.get(name)}
    found["annotations"] = _but_controllers(found.get("annotations", {}))
    if not found["annotations"]:
        del found["annotations"]
    kept["metadata"] = found
    if elastic and isinstance(kept.get("spec"), dict):
        kept["spec"] = {name: kept["spec"][name] for name in kept["spec"] if name != "replicas"}
    return kept


def digest(obj: Object, *, elastic: bool = False) -> str:
    """A short name for the spec of an object that holds no secret."""
    text = json.dumps(essence(obj, elastic=elastic).get("spec"), sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def as_new(obj: Object) -> Object:
    """The object as one can be made of it again: without what the server and other owners decide.

    Without the record of the last `kubectl apply` as well, which `kubectl create` would write anew.
    """
    meta = obj["metadata"]
    kept = {name: meta[name] for name in ("name", "namespace", *_META) if name in meta}
    if "annotations" in kept:
        kept["annotations"] = _but_controllers(kept["annotations"])
        kept["annotations"].pop(LAST_APPLIED, None)
    body = {name: obj[name] for name in obj if name not in ("metadata", "status")}
    return dict(body, metadata=kept)


def way_back(old: Object, live: Object, *, elastic: bool = False) -> List[Dict[str, Any]]:
    """The JSON patch that makes of ``live`` what ``old`` was, and leaves alone what is not ours.

    A patch and no `kubectl replace`, which would write the record of the last apply anew: the next
    apply would then take away what it never put there.
    """
    patch = []
    for name in sorted((set(old) | set(live)) - {"apiVersion", "kind", "metadata", "status"}):
        value = old.get(name)
        if name == "spec" and elastic and isinstance(value, dict):
            value = dict(value, replicas=live.get("spec", {}).get("replicas"))
        if live.get(name) != value:
            patch.append(_step("/" + name, value))
    before, now = old["metadata"], live["metadata"]
    for name in _META:
        value = before.get(name)
        if name == "annotations":
            marks = _but_controllers(before.get(name) or {})
            value = {**marks, **_of_controllers(now.get(name) or {})} or None
        if (now.get(name) or None) != (value or None):
            patch.append(_step("/metadata/" + name, value or None))
    return patch


def _step(path: str, value: Any) -> Dict[str, Any]:
    if value is None:
        return {"op": "remove", "path": path}
    return {"op": "add", "path": path, "value": value}


def _but_controllers(marks: Mapping[str, str]) -> Dict[str, str]:
    return {name: marks[name] for name in marks if not name.startswith(_CONTROLLERS)}


def _of_controllers(marks: Mapping[str, str]) -> Dict[str, str]:
    return {name: marks[name] for name in marks if name.startswith(_CONTROLLERS)}


def differences(old: Object, new: Object, *, elastic: bool = False) -> List[str]:
    """Paths of the fields that are not the same; never a value."""
    before, after = essence(old, elastic=elastic), essence(new, elastic=elastic)
    return sorted(set(_paths(before, after, "")))


def _paths(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(set(old) | set(new)):
            below = "%s.%s" % (path, name) if path else name
            if name not in old or name not in new:
                yield below
            else:
                yield from _paths(old[name], new[name], below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new)):
            yield from _paths(one, other, "%s[%d]" % (path, number))
    elif old != new:
        yield path


def template_of(obj: Object) -> Object:
    """The pod template of a workload; empty for other objects."""
    template = obj.get("spec", {}).get("template") if isinstance(obj.get("spec"), dict) else None
    return template if isinstance(template, dict) else {}


def references(obj: Object) -> Set[Tuple[str, str]]:
    """Kind and name of each ConfigMap and Secret that the pods of a workload read."""
    found: Set[Tuple[str, str]] = set()
    spec = template_of(obj).get("spec") or {}
    for reference in spec.get("imagePullSecrets") or ():
        found.add(("Secret", reference.get("name", "")))
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        for source in container.get("envFrom") or ():
            found.add(("ConfigMap", (source.get("configMapRef") or {}).get("name", "")))
            found.add(("Secret", (source.get("secretRef") or {}).get("name", "")))
        for entry in container.get("env") or ():
            origin = entry.get("valueFrom") or {}
            found.add(("ConfigMap", (origin.get("configMapKeyRef") or {}).get("name", "")))
            found.add(("Secret", (origin.get("secretKeyRef") or {}).get("name", "")))
    for volume in spec.get("volumes") or ():
        found |= set(_of_volume(volume))
    return {pair for pair in found if pair[1]}


def _of_volume(volume: Mapping[str, Any]) -> Iterator[Tuple[str, str]]:
    for source in [volume, *((volume.get("projected") or {}).get("sources") or ())]:
        yield "ConfigMap", (source.get("configMap") or {}).get("name", "")
        secret = source.get("secret") or {}
        yield "Secret", secret.get("secretName") or secret.get("name", "")


def with_images(obj: Object, images: Mapping[str, Mapping[str, str]]) -> Object:
    """The workload with its containers' images set, where ``images`` names it."""
    wanted = images.get(short(obj), {}) if obj["kind"] in WORKLOADS else {}
    if not wanted:
        return obj
    changed: Object = json.loads(json.dumps(obj))
    for container in containers_of(changed):
        if container.get("name") in wanted:
            container["image"] = wanted[container["name"]]
    return changed


def containers_of(obj: Object) -> List[Object]:
    """The containers of a workload, those that run first included."""
    spec = template_of(obj).get("spec") or {}
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def masked(obj: Object) -> Object:
    """The object for people to read: no value of a Secret, nothing that is in it twice."""
    meta = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    marks = dict(meta.get("annotations") or {})
    marks.pop(LAST_APPLIED, None)
    if "annotations" in meta:
        meta["annotations"] = marks
    shown = dict(obj, metadata=meta)
    if obj["kind"] == "Secret":
        for field in _SECRET_FIELDS:
            if obj.get(field):
                shown[field] = {name: "[%d characters]" % len(v) for name, v in obj[field].items()}
    return shown


def secret_values(objects: Sequence[Object]) -> Dict[str, str]:
    """Every value of the Secrets among the objects, in each form, to what is shown instead."""
    found: Dict[str, str] = {}
    for obj in objects:
        if obj.get("kind") != "Secret":
            continue
        name = obj["metadata"].get("name", "")
        for key, value in (obj.get("data") or {}).items():
            shown = "[secret %s/%s]" % (name, key)
            found[value] = shown
            try:
                found[base64.b64decode(value).decode("utf-8")] = shown
            except (binascii.Error, ValueError):
                continue
        for key, value in (obj.get("stringData") or {}).items():
            shown = "[secret %s/%s]" % (name, key)
            found[value] = shown
            found[base64.b64encode(value.encode("utf-8")).decode("ascii")] = shown
    for value, shown in list(found.items()):
        # As it stands in a JSON text, and line by line, as logs print it.
        found[json.dumps(value)[1:-1]] = shown
        # In the URL of a database, say.
        found.update((quoted, shown) for quoted in (quote(value, safe=""), quote_plus(value)))
        lines = [line.strip() for line in value.splitlines()]
        found.update((line, shown) for line in lines if len(lines) > 1 and len(line) > 7)
    return {value: shown for value, shown in found.items() if value}
