"""The new trees of a transaction: looked at, sent, built beside the live ones, and verified."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterable, List, Sequence

from deployguard.onhost import durable
from deployguard.onhost.places import NotManageable, State
from deployguard.onhost.queries.services import demand_usable, observe, rehearse
from deployguard.onhost.request import RequestError
from deployguard.onhost.state.journal import Journal
from deployguard.onhost.system import System
from deployguard.onhost.transaction import assembly, settlement
from deployguard.onhost.trees import handmade, staging
from deployguard.onhost.trees.blobs import receive
from deployguard.onhost.trees.inspection import (
    View,
    look,
    skip_patterns,
)
from deployguard.onhost.trees.scan import Manifest, scan


class NewTrees:
    """What this process knows of them; nothing of it outlives the process."""

    def __init__(self, state: State, system: System) -> None:
        self._state = state
        self._system = system
        self._manifests: Dict[str, Manifest] = {}
        self._preparing: Any = None
        self.views: Dict[str, View] = {}

    def close(self) -> None:
        """Let go of what was prepared, and of what was made for it."""
        if self._preparing is not None:
            self._preparing.close()

    # -- looking -----------------------------------------------------------------------------

    def describe(self, digest: str, pieces: Iterable[bytes]) -> int:
        """Take the manifest of one; how many entries it has."""
        manifest = Manifest.from_bytes(b"".join(pieces))
        if manifest.digest() != digest:
            raise RequestError("usage", "the manifest is not the one with that digest")
        self._manifests[digest] = manifest
        return manifest.count()

    @property
    def checkouts(self) -> Any:
        """Those that come from git; see :mod:`deployguard.onhost.transaction.preparing`."""
        if self._preparing is None:
            from deployguard.onhost.transaction.preparing import Preparing

            self._preparing = Preparing(self._state, self._system)
        return self._preparing

    def compare(self, target: Dict[str, Any], transaction: str) -> Dict[str, Any]:
        """What is live of one component beside what is to come; changes nothing."""
        source = target["source"]
        wanted = self._manifests[source["digest"]] if source["kind"] == "manifest" else None
        checkout = None
        # A snapshot has the repository itself among its files.
        if target["layout"] == "git" and source["kind"] != "manifest":
            checkout = self.checkouts.checkout(target, transaction)
        view, result = look(self._state, target, wanted, transaction, checkout)
        result["observed"] = observe(self._system, target["observe"])
        demand_usable(result["observed"])
        self.views[target["name"]] = view
        return result

    # -- building ----------------------------------------------------------------------------

    def receive(self, folder: str, component: str, pieces: Iterable[bytes]) -> int:
        """Take contents that :meth:`compare` found missing; how many came."""
        return len(receive(pieces, _store(folder), self.views[component].missing))

    def announce(self, folder: str, views: Sequence[View], journal: Journal) -> List[Any]:
        """Record what is going to be made, and make the directories; the managed files."""
        files = assembly.files_of(views, os.path.basename(folder))
        shared = [path + "/." for view in views for path in assembly.shared_directories(view)]
        directories = settlement.missing_directories(
            _beside(views, files) + shared + [f["path"] for f in files]
        )
        journal.append(
            "staging",
            targets=[_journalled(view.target) for view in views],
            placements=[view.placement._asdict() for view in views],
            files=[{k: v for k, v in f.items() if k != "content"} for f in files],
            directories=directories,
        )
        for directory in directories:
            durable.make_directory(directory, 0o755)
        for view in views:
            assembly.own_shared(view, directories)
        return files

    def save_handmade(self, folder: str, views: Sequence[View]) -> Dict[str, str]:
        """Bundle what people changed by hand, before it goes."""
        changes = [
            (view.target["name"], view.placement.root, view.handmade)
            for view in views
            if view.placement.root is not None
        ]
        return handmade.save(self._state, os.path.basename(folder), changes)

    def build(self, folder: str, views: Sequence[View], files: Sequence[Any], save: bool) -> None:
        """Every tree and file beside the live one, verified and synced."""
        for view in views:
            assembly.exchange_or_refuse(view)
            _build(folder, view, save)
            rehearse(self._system, view.target["observe"], view.placement.tree)
        if self._preparing is not None:
            self._preparing.clear()
        for file in files:
            assembly.stage_file(file)
        durable.sync_trees([folder, *(os.path.dirname(path) for path in _beside(views, files))])
        for view in views:
            assembly.vouch_for(folder, view)

    def look_at_imports(self, checks: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """Whether what was staged would find its modules; the controller judges."""
        if not checks:
            return []
        from deployguard.onhost.imports import check as imports

        return [
            imports.look(check, self.views[check["component"]], self._system) for check in checks
        ]

    # -- the switch --------------------------------------------------------------------------

    def with_manifests(
        self, folder: str, collectors: Sequence[Dict[str, Any]]
    ) -> List[Dict[str, Any]]:
        """A failed tree is compared with what was live before it."""
        found = []
        skip = {name: skip_patterns(view.target).globs for name, view in self.views.items()}
        for collector in collectors:
            if collector["kind"] == "tree":
                component = collector["component"]
                name = "before-%s.manifest" % component
                collector = dict(
                    collector,
                    manifest=os.path.join(folder, name),
                    staged=os.path.join(folder, "after-%s.manifest" % component),
                    # What the host keeps is no part of the failure, and may be large or secret;
                    # a .git is the history of it, and large too.
                    ignore=[*collector.get("ignore", []), *skip.get(component, ()), ".git"],
                )
            found.append(collector)
        return found

    def record_live(self, folder: str, component: str) -> None:
        """Record the live tree once more, now that nobody writes there."""
        view = self.views.get(component)
        if view is None or view.placement.root is None or view.before is None:
            return
        now = scan(view.placement.root, skip=view.skip, cache=view.cache)
        if now != view.before:
            view.before = now
            assembly.save_manifest(folder, "before-%s" % component, now)
            assembly.save_index(folder, view)


def demand_exact(views: Sequence[View]) -> None:
    """Every new tree read back and compared with its manifest, in all that one says."""
    for view in views:
        assert view.after is not None
        paths = staging.verify(view.placement.tree, view.after).paths()
        if paths:
            shown = ", ".join(paths[:5])
            raise RequestError(
                "failed",
                "%s was not built as it was: %d differ: %s"
                % (view.target["name"], len(paths), shown),
                "does the file system keep owners, times and extended attributes?",
            )


def _build(folder: str, view: View, save: bool) -> None:
    missing = assembly.build_tree(folder, view, _store(folder), save)
    if missing and view.checkout is not None:
        raise NotManageable(
            "the repository of %s changed while it was copied" % view.placement.live,
            "deploy again, while no git is at work there",
        )
    if missing:
        # The live program wrote to files that were to be copied: they have to be sent.
        view.missing = missing
        name = view.target["name"]
        raise RequestError(
            "mismatch",
            "%d files of %s changed on the host while they were copied" % (len(missing), name),
            "deploy again, while nothing writes to %s" % view.placement.live,
            detail={"component": name, "missing": sorted(missing)},
        )


def _store(folder: str) -> str:
    store = os.path.join(folder, "blobs")
    if not os.path.isdir(store):
        os.mkdir(store, 0o700)
    return store


def _beside(views: Sequence[View], files: Sequence[Any]) -> List[str]:
    return [view.placement.tree for view in views] + [file["beside"] for file in files]


def _journalled(target: Dict[str, Any]) -> Dict[str, Any]:
    """A target as the journal keeps it: no file contents, they may be secrets."""
    return {name: value for name, value in target.items() if name != "files"}
