"""Which paths on a host a plan may manage, and that no two components claim the same one.

A managed path is exchanged whole. So ``/etc`` or a home directory cannot be one, and two trees
cannot lie in one another: restoring the outer would undo the inner.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployguard.plan.document import Finding, Path
from deployguard.plan.order import hosts_named

if TYPE_CHECKING:
    from deployguard.plan.model import Component, Plan

__all__ = ["path_fault", "territory_findings", "tree_entry_fault"]

# Directories that belong to the system as a whole; what lies below them may be managed.
_SYSTEM = frozenset(
    (
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/etc/cron.d",
        "/etc/default",
        "/etc/nginx",
        "/etc/ssh",
        "/etc/ssl",
        "/etc/systemd",
        "/etc/systemd/system",
        "/etc/systemd/user",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",  # noqa: S108 - refused here, not used
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/usr/lib/systemd",
        "/usr/lib/systemd/system",
        "/usr/local",
        "/usr/local/bin",
        "/usr/local/etc",
        "/usr/local/lib",
        "/usr/local/sbin",
        "/usr/local/share",
        "/usr/sbin",
        "/usr/share",
        "/var",
        "/var/cache",
        "/var/lib",
        "/var/log",
        "/var/opt",
        "/var/run",
        "/var/spool",
        "/var/tmp",  # noqa: S108 - as above
    )
)
# Not on a disk: nothing there is whole after a power cut.
_VOLATILE = ("/dev", "/proc", "/run", "/sys", "/var/run")
STATE_DIRECTORY = "/var/lib/deployguard"


def path_fault(path: str) -> tuple[str, str] | None:
    """What is wrong with a path on a host, and how to mend it; of any managed path."""
    if not path.startswith("/"):
        return f'"{path}" is not an absolute path', "start it with /, as in /srv/app"
    normal = posixpath.normpath(path)
    if path != normal or path.startswith("//"):
        clean = "/" + normal.lstrip("/")
        return f'"{path}" is not written plainly', f"write {clean}, without //, . , .. or a last /"
    for directory in _VOLATILE:
        if path.startswith(f"{directory}/"):
            return f"{directory} does not survive a restart", "choose a path on a disk"
    if path == STATE_DIRECTORY or path.startswith(f"{STATE_DIRECTORY}/"):
        return f"{STATE_DIRECTORY} holds deployguard's own journals", "choose another path"
    return None


def tree_fault(path: str) -> tuple[str, str] | None:
    """As :func:`path_fault`, for a whole tree."""
    fault = path_fault(path)
    if fault is not None:
        return fault
    if path in _SYSTEM:
        return (
            f"{path} belongs to the system and would be replaced as a whole",
            "choose a directory of the component's own, as in /srv/app",
        )
    if posixpath.dirname(path) == "/home":
        return (
            f"{path} is a home directory and would be replaced as a whole, keys and all",
            f"choose a directory in it, as in {path}/app",
        )
    return None


def tree_entry_fault(entry: str) -> tuple[str, str] | None:
    """What is wrong with a path that must lie inside the tree (``keep``, ``shared``)."""
    if entry.startswith("/"):
        return f'"{entry}" is not relative', "write it relative to the component's path"
    # A slash at the end says that it is a directory, as in rsync and .gitignore.
    parts = entry.removesuffix("/").split("/")
    if ".." in parts:
        return f'"{entry}" climbs out of the tree', "name a path inside the component's path"
    if not entry or entry in (".", "./"):
        return "is the whole tree", "name a path inside it"
    if "" in parts or "." in parts:
        return f'"{entry}" is not written plainly', f"write {posixpath.normpath(entry)}"
    return None


@dataclass(frozen=True)
class _Claim:
    """One path that a component manages on some hosts."""

    component: str
    path: str
    what: str
    hosts: frozenset[str]
    where: Path


def territory_findings(plan: Plan) -> Iterator[Finding]:
    """Faulty managed paths, then claims of two components (or of one, twice) that meet."""
    claims: list[_Claim] = []
    for name, component in plan.components.items():
        where: Path = ("components", name)
        fault = tree_fault(component.path)
        if fault is not None:
            yield Finding((*where, "path"), *fault)
        for path in component.files:
            fault = path_fault(path)
            if fault is None and path in _SYSTEM:
                fault = f"{path} is a directory of the system, not a file", "name a file"
            if fault is not None:
                yield Finding((*where, "files", path), *fault, on_key=True)
        claims += (claim for claim in _claims(plan, name, component) if _plain(claim.path))
    yield from _state_findings(plan, claims)
    yield from _meeting(claims)


def _claims(plan: Plan, name: str, component: Component) -> Iterator[_Claim]:
    hosts = frozenset(hosts_named(plan.hosts, component.hosts))
    where: Path = ("components", name)
    yield _Claim(name, component.path, "tree", hosts, (*where, "path"))
    for path in component.files:
        yield _Claim(name, path, "file", hosts, (*where, "files", path))
    pm2 = component.service.pm2 if component.service else None
    if pm2 is not None:
        # No path, but a name that two cannot have: of one user's daemon, or of one PM2_HOME.
        for process in dict.fromkeys(pm2.names):
            claimed = f"~pm2{pm2.home or ''}/{pm2.user or ''}/{process}"
            yield _Claim(name, claimed, "process", hosts, (*where, "service", "pm2", "name"))
    kubernetes = component.service.kubernetes if component.service else None
    for index, workload in enumerate(kubernetes.workloads if kubernetes else ()):
        assert kubernetes is not None
        # No path, but a name that two cannot have, from whatever host they reach the cluster.
        claimed = f"~kubernetes/{kubernetes.context}/{kubernetes.namespace}/{workload}"
        at = (*where, "service", "kubernetes", "workloads", index)
        yield _Claim(name, claimed, "workload", frozenset(plan.hosts), at)
    systemd = component.service.systemd if component.service else None
    if systemd is None:
        return
    # The user manager's directory depends on the user; a root of its own keeps the two apart.
    root = "/etc/systemd/system" if systemd.scope == "system" else "~/.config/systemd/user"
    service: Path = (*where, "service", "systemd")
    yield _Claim(name, f"{root}/{systemd.unit}", "unit", hosts, (*service, "unit"))
    for drop_in in systemd.drop_ins:
        path = f"{root}/{systemd.unit}.d/{drop_in}"
        yield _Claim(name, path, "file", hosts, (*service, "drop_ins", drop_in))


def _state_findings(plan: Plan, claims: list[_Claim]) -> Iterator[Finding]:
    """A tree around the journals would carry them away with it."""
    directories: dict[str, list[str]] = {}
    for host_name, host in plan.hosts.items():
        if host.state_directory is not None:
            directories.setdefault(host.state_directory, []).append(host_name)
    directories.setdefault(STATE_DIRECTORY, list(plan.hosts))
    for directory, names in directories.items():
        for claim in claims:
            inside = _within(claim.path, directory) and directory != STATE_DIRECTORY
            if (inside or _within(directory, claim.path)) and not claim.hosts.isdisjoint(names):
                yield Finding(
                    claim.where,
                    f"{claim.path} and the state directory {directory} lie in one another",
                    "journals must outlive the tree; keep them apart",
                )


def _plain(path: str) -> bool:
    """Whether a path is worth comparing; a faulty one was reported, once."""
    return path.startswith("~") or (path != "/" and path_fault(path) is None)


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _meeting(claims: list[_Claim]) -> Iterator[Finding]:
    by_path: dict[str, list[_Claim]] = {}
    for claim in claims:
        by_path.setdefault(posixpath.normpath(claim.path), []).append(claim)
    for path, same in by_path.items():
        for index, claim in enumerate(same):
            for other in same[:index]:
                if not claim.hosts.isdisjoint(other.hosts):
                    yield _same_path(claim, other)
                    break
        above = posixpath.dirname(path)
        while above not in ("/", ""):
            for outer in by_path.get(above, ()):
                for claim in same:
                    # A unit is a file, and lies in nothing but a tree.
                    if outer.what == "tree" and not claim.hosts.isdisjoint(outer.hosts):
                        yield _nested(claim, outer)
            above = posixpath.dirname(above)


def _same_path(claim: _Claim, other: _Claim) -> Finding:
    if claim.what == other.what and claim.what in ("unit", "process", "workload"):
        shared = posixpath.basename(claim.path)
        return Finding(
            claim.where,
            f"the {claim.what} {shared} is also the service of {other.component} on the same hosts",
            "give the service to one of them, and let it need the other",
        )
    if claim.component == other.component:
        return Finding(claim.where, f"{claim.path} is managed twice", "keep one")
    return Finding(
        claim.where,
        f"{claim.path} is also managed by {other.component} on the same hosts",
        "give each component a path of its own, or other hosts",
    )


def _nested(claim: _Claim, outer: _Claim) -> Finding:
    if claim.component == outer.component:
        return Finding(
            claim.where,
            f"{claim.path} lies inside the component's own tree {outer.path}",
            "put it into the artifact, or choose a path outside",
        )
    return Finding(
        claim.where,
        f"{claim.path} lies inside {outer.path}, which {outer.component} manages on the same hosts",
        "one restore would undo the other; move one of them",
    )
