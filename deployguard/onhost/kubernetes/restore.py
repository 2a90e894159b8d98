"""Objects as they were, from what was kept before the first of them was changed.

What the new version brought along goes first, but for what its dying pods still read and for what
holds data. Then what pods read comes back, then the workloads: their template by ``rollout undo``
to the very revision that ran, and whatever is not as it was after that by a patch.
A pod that was started in between has read the new configuration, whatever its template says, and is
replaced. In the end all of it is read once more and compared.

May be repeated, also where nothing was done. An API server that does not answer is asked again for
as long as the plan says.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Callable, Dict, List

from deployguard.onhost.kubernetes import actions as kubeactions
from deployguard.onhost.kubernetes import component as kubernetes
from deployguard.onhost.kubernetes import objects as kubeobjects
from deployguard.onhost.kubernetes.kubectl import Kubectl, KubectlFailed
from deployguard.onhost.kubernetes.objects import Object
from deployguard.onhost.places import KEPT_STATE, read_json, write_json

_PAUSE = 2.0


def restore(cluster: Kubectl, action: Dict[str, Any], kept: Dict[str, Any], folder: str) -> None:
    """See the module. Raises :class:`KubectlFailed`."""
    gives_up = None
    while True:
        try:
            _Restore(cluster, action, kept, folder).run()
            return
        except KubectlFailed as error:
            now = cluster.system.monotonic()
            # Counted from the first answer that did not come: rollouts may have taken long before.
            gives_up = now + action["patience"] if gives_up is None else gives_up
            if not error.away or now >= gives_up:
                raise
        cluster.system.sleep(_PAUSE)


class _Restore:
    """One attempt."""

    def __init__(
        self, cluster: Kubectl, action: Dict[str, Any], kept: Dict[str, Any], folder: str
    ) -> None:
        self._cluster = cluster
        self._action = action
        self._kept = kept
        self._troubles: List[str] = []
        self._old: Dict[str, Object] = {
            kubeobjects.identity(obj): obj for obj in kubeobjects.in_order(kept["objects"])
        }
        name = "%s%s-pods.json" % (KEPT_STATE, action["component"])
        self._noted = os.path.join(folder, name)

    def run(self) -> None:
        """All of it; what cannot be done keeps nothing else from being done."""
        new = {kubeobjects.identity(obj): obj for obj in self._live(self._kept["absent"])}
        acting = [name for name, obj in new.items() if not _stays(obj) and not _read(obj)]
        self._attempt(lambda: kubeactions.delete(self._cluster, acting))
        changed = self._changed()
        if any(_read(self._old[name]) for name in changed):
            self._note_pods()
        for name in changed:
            self._attempt(functools.partial(self._bring_back, name, changed[name]))
        seconds = self._action["rollout_timeout"]
        whole = self._kept["rolled_out"]
        self._attempt(lambda: kubeactions.await_rollouts(self._cluster, whole, seconds))
        self._attempt(lambda: self._replace_pods(seconds))
        read = [name for name, obj in new.items() if not _stays(obj) and _read(obj)]
        self._attempt(lambda: kubeactions.delete(self._cluster, read))
        self._attempt(self._prove)
        if self._troubles:
            raise KubectlFailed("; ".join(self._troubles))

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except KubectlFailed as error:
            if error.away:
                raise
            self._troubles.append(str(error))

    def _live(self, names: List[str]) -> List[Object]:
        return kubernetes.get(self._cluster, names)

    def _changed(self) -> Dict[str, Object]:
        """The objects that are not as they were, in order, with what they are now."""
        live = {kubeobjects.identity(obj): obj for obj in self._live(list(self._old))}
        found: Dict[str, Object] = {}
        for name, old in self._old.items():
            if name not in live or self._differences(old, live[name]):
                found[name] = live.get(name, {})
        return found

    def _differences(self, old: Object, new: Object) -> List[str]:
        elastic = kubeobjects.short(old) in self._kept["elastic"]
        return kubeobjects.differences(old, new, elastic=elastic)

    def _bring_back(self, name: str, live: Object) -> None:
        old = self._old[name]
        if live and old["kind"] == "Deployment":
            live = self._undo_rollout(name, live)
        if live and not self._patched(name, live):
            # Somebody deleted it and made another one of its name, or what cannot be changed was.
            kubeactions.delete(self._cluster, [name])
            live = {}
        if not live:
            self._cluster.text(["create", "-f", "-"], documents=[kubeobjects.as_new(old)])
            for made in self._live([name]):
                self._patched(name, made)

    def _patched(self, name: str, live: Object) -> bool:
        """Whether the object could be made what it was; raises where that is not the reason."""
        old = self._old[name]
        elastic = kubeobjects.short(old) in self._kept["elastic"]
        patch = kubeobjects.way_back(old, live, elastic=elastic)
        if not patch:
            return True
        words = ["patch", name, "--type=json", "--patch-file=/dev/stdin"]
        done = self._cluster.run(words, documents=[patch])
        if done.ok:
            return True
        error = self._cluster.failure(done)
        if "immutable" in str(error) and old["kind"] not in kubeobjects.DATA:
            return False
        raise error

    def _undo_rollout(self, name: str, live: Object) -> Object:
        """The template of the very revision that ran, from the server's own record of it."""
        old = self._old[name]
        revision = (old["metadata"].get("annotations") or {}).get(kubeobjects.REVISION)
        same = kubeobjects.template_of(old) == kubeobjects.template_of(live)
        if same or not revision:
            return live
        # The record may be gone (revisionHistoryLimit): then the patch brings the template, too.
        self._cluster.run(["rollout", "undo", name, "--to-revision=%s" % revision])
        return next(iter(self._live([name])), {})

    # -- pods that have read what is gone ----------------------------------------------------

    def _pods(self) -> List[Object]:
        found: Dict[str, Object] = {}
        for obj in self._live(
            [n for n, o in self._old.items() if o["kind"] in kubeobjects.WORKLOADS]
        ):
            for pod in kubeactions.pods_of(self._cluster, obj):
                found[pod["metadata"]["uid"]] = pod
        return list(found.values())

    def _note_pods(self) -> None:
        """Which pods were started since: noted before what they read is changed back."""
        noted = (read_json(self._noted) or {}).get("uids", [])
        since = [
            pod["metadata"]["uid"]
            for pod in self._pods()
            if self._kept["pods"].get(pod["metadata"]["uid"]) != kubeactions.restarts_of(pod)
        ]
        write_json(self._noted, {"uids": sorted({*noted, *since})})

    def _replace_pods(self, seconds: float) -> None:
        noted = (read_json(self._noted) or {}).get("uids", [])
        if not noted:
            return
        for pod in self._pods():
            meta = pod["metadata"]
            if meta["uid"] in noted and "deletionTimestamp" not in meta:
                kubeactions.delete(self._cluster, ["pod/%s" % meta["name"]])
                kubeactions.await_rollouts(self._cluster, self._kept["rolled_out"], seconds)

    # -- the proof ---------------------------------------------------------------------------

    def _prove(self) -> None:
        found = []
        for name, live in self._changed().items():
            fields = self._differences(self._old[name], live) if live else []
            found.append("%s: %s" % (name, ", ".join(fields[:5]) if live else "is not there"))
        left = [obj for obj in self._live(self._kept["absent"]) if not _stays(obj)]
        found += ["%s was not there" % kubeobjects.identity(obj) for obj in left]
        if found:
            raise KubectlFailed("not as it was: %s" % "; ".join(found[:10]))


def _read(obj: Object) -> bool:
    return kubeobjects.is_read(obj)


def _stays(obj: Object) -> bool:
    """What holds data is left, even where the new version brought it."""
    return obj["kind"] in kubeobjects.DATA
