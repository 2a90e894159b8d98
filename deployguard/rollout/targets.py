"""Plan and release to what the host program is told: the same for ``plan`` and ``apply``."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from deployguard.artifact.repository import GitRevision
from deployguard.drivers.base import Site
from deployguard.drivers.registry import driver_of
from deployguard.errors import UsageError
from deployguard.onhost.trees.scan import Entry, Manifest
from deployguard.plan.model import Component, Git, ManagedFile, Plan

__all__ = [
    "Blobs",
    "Source",
    "local_files",
    "site_early",
    "site_of",
    "source_of_release",
    "target_of",
    "with_shared_links",
]


#: A file that somebody reads a setting from is smaller than this.
SMALL = 1024 * 1024


class Blobs(Protocol):
    """Where the bytes of a release come from."""

    @property
    def manifest(self) -> Manifest: ...

    def read(self, digest: str) -> bytes: ...

    def blob_stream(self, digests: Any) -> Any: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Source:
    """Where a new tree comes from: an artifact, a git revision, or the hosts' own history.

    ``git`` is the plan's block; ``revision`` what it leads to where it is sent from here.
    """

    version: str
    manifest: Manifest | None = None
    blobs: Blobs | None = None
    digest: str = ""
    encoded: bytes = b""
    #: The managed files as the host gets them, where they are not those of the plan.
    managed: tuple[Mapping[str, Any], ...] | None = None
    git: Git | None = None
    revision: GitRevision | None = None
    #: Local files of the plan that came along, by their name there; the others are read.
    carried: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def history(self) -> bool:
        """Whether the hosts go back to what they have kept."""
        return self.manifest is None and self.git is None

    @property
    def is_here(self) -> bool:
        """Whether the files of the new tree can be looked at on this machine."""
        return self.manifest is not None or self.revision is not None

    def kind(self, path: str) -> str:
        """What is at a path of a new tree that is here: ``f``, ``d``, ``l``, or empty."""
        if self.revision is not None:
            return (self.revision.entry(path) or ("", 0))[0]
        entry = self.manifest.get(path) if self.manifest is not None else None
        return str(entry.kind) if entry is not None else ""

    def files(self) -> list[str]:
        """The paths of a new tree that is here, directories apart."""
        if self.revision is not None:
            return self.revision.files()
        return [entry.path for entry in self.manifest or () if entry.kind != "d"]

    def has(self, path: str) -> bool:
        """Whether the new tree has something at a path.

        Of the hosts' history, and of what they fetch themselves, that is not known.
        """
        return not self.is_here or bool(self.kind(path))

    def read(self, path: str) -> bytes | None:
        """The content of a small file of the new tree; ``None`` where it has none."""
        if self.revision is not None:
            kind, size = self.revision.entry(path) or ("", 0)
            return self.revision.read(path) if kind == "f" and size <= SMALL else None
        entry = self.manifest.get(path) if self.manifest is not None else None
        if entry is None or entry.kind != "f" or self.blobs is None or entry.size > SMALL:
            return None
        return self.blobs.read(str(entry.digest))

    def as_data(self) -> dict[str, Any]:
        """The ``source`` of a target on the wire."""
        if self.manifest is not None:
            return {"kind": "manifest", "digest": self.digest}
        if self.git is None:
            return {"kind": "history", "version": self.version}
        found = {
            "kind": "git",
            "revision": self.git.revision or self.version,
            "branch": self.git.branch,
            "timeout": self.git.timeout,
        }
        if self.revision is None:
            return {**found, "from": "remote", "remote": self.git.remote, "url": self.git.url}
        return {
            **found,
            "from": "bundle",
            "commit": self.revision.commit,
            "tip": self.revision.tip,
            "ref": self.revision.ref,
            "format": self.revision.format,
        }


def source_of_release(plan: Plan, component: Component, release: Blobs) -> Source:
    """The source of a component whose bytes come from an opened artifact."""
    manifest = with_shared_links(release.manifest, component)
    return Source(plan.version, manifest, release, manifest.digest(), manifest.to_bytes())


def with_shared_links(manifest: Manifest, component: Component) -> Manifest:
    """The release with its shared paths as links to ``shared/``, whatever the artifact has there.

    Raises :class:`UsageError` when a directory above a shared path is something else.
    """
    shared = [path.rstrip("/") for path in component.shared]
    if not shared:
        return manifest
    entries = [
        entry
        for entry in manifest
        if not any(entry.path == path or entry.path.startswith(path + "/") for path in shared)
    ]
    present = {entry.path: entry for entry in entries}
    root = present["."]
    for path in shared:
        # releases/<version>/<path> → ../../shared/<path>, one level up more for each directory.
        climb = "../" * (len(path.split("/")) + 1)
        there = manifest.get(path)
        if there is not None and (there.kind, there.digest) == ("l", f"{climb}shared/{path}"):
            present[path] = there
            continue
        parts = path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent not in present:
                present[parent] = Entry(parent, "d", mode=0o755, mtime_ns=root.mtime_ns)
            elif present[parent].kind != "d":
                raise UsageError(f"{parent} in the artifact is in the way of shared path {path}")
        present[path] = Entry(
            path, "l", mode=0o777, mtime_ns=root.mtime_ns, digest=f"{climb}shared/{path}"
        )
    return Manifest(present.values())


def target_of(
    plan: Plan, name: str, component: Component, source: Source, hello: Mapping[str, Any]
) -> dict[str, Any]:
    """What the host program must know of one component."""
    driver = driver_of(component)
    files = {**driver.files(component), **component.files}
    early = site_early(name, component, hello)
    return {
        "name": name,
        "layout": component.layout,
        "path": component.path,
        "version": source.version,
        "keep": list(component.keep),
        "shared": list(component.shared),
        "ignore": list(component.ignore),
        "retain": component.retain,
        # A snapshot says whose each file was.
        "owner": component.owner if source.managed is None else "artifact",
        "group": component.group,
        "source": source.as_data(),
        "files": [dict(file) for file in source.managed]
        if source.managed is not None
        else [
            # A rollback takes the files from the host's history, like the tree.
            _file_name(path, file) if source.history else _file_data(plan, source, path, file)
            for path, file in files.items()
        ],
        "observe": [_asked(plan, question) for question in driver.observe(component, early)],
    }


def _asked(plan: Plan, question: dict[str, Any]) -> dict[str, Any]:
    """The question of a driver, which sees its own component only: a unit may come with others."""
    if question.get("comes") is not False:
        return question
    others = [path for component in plan.components.values() for path in _beside(component)]
    makes = any(task.at != "after_start" for task in plan.tasks)
    return {**question, "comes": makes or any("/systemd/" in path for path in others)}


def _beside(component: Component) -> list[str]:
    return [*driver_of(component).files(component), *component.files]


def local_files(plan: Plan, component: Component) -> dict[str, bytes]:
    """The files beside the plan that go with a component, by their name in the plan."""
    files = {**driver_of(component).files(component), **component.files}
    names = [file.source for file in files.values() if file.source is not None]
    return {name: (Path(plan.source).parent / name).read_bytes() for name in names}


def _file_data(plan: Plan, source: Source, path: str, file: ManagedFile) -> dict[str, Any]:
    if file.content is not None:
        data = file.content.encode()
    else:
        assert file.source is not None
        known = source.carried.get(file.source)
        data = known if known is not None else (Path(plan.source).parent / file.source).read_bytes()
    return {
        "path": path,
        "mode": file.mode,
        "owner": file.owner,
        "group": file.group,
        "digest": hashlib.sha256(data).hexdigest(),
        "content": base64.b64encode(data).decode("ascii"),
    }


def _file_name(path: str, file: ManagedFile) -> dict[str, Any]:
    return {
        "path": path,
        "mode": file.mode,
        "owner": file.owner,
        "group": file.group,
        "digest": "",
        "content": "",
    }


def site_early(name: str, component: Component, hello: Mapping[str, Any]) -> Site:
    """All that is known of a site before the host has looked."""
    state, uid = str(hello["state"]), int(hello["uid"])
    return Site(name, component.layout, "", "", "", state=state, uid=uid)


def site_of(
    component: str, layout: str, looked: Mapping[str, Any], hello: Mapping[str, Any]
) -> Site:
    """Where the parts stand, from what the host program answered."""
    place = looked["placement"]
    return Site(
        component=component,
        layout=layout,
        live=place["live"],
        tree=place["tree"],
        beside=place["beside"],
        files={f["path"]: f["beside"] for f in looked["files"]},
        exists=place["root"] is not None,
        state=str(hello["state"]),
        uid=int(hello["uid"]),
        commit=(looked.get("git") or {}).get("head") or "",
        tag=(looked.get("git") or {}).get("tag") or "",
    )
