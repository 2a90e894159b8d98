"""Files that somebody changed by hand since the last deploy. Asked always."""

from __future__ import annotations

from collections.abc import Iterator

from deployguard.guards.base import HostView, Known, Verdict, some
from deployguard.guards.revision import lost

__all__ = ["judge", "saved"]


def judge(known: Known) -> Iterator[Verdict]:
    """One verdict for each component on each host."""
    for host in known.hosts:
        for name in host.components:
            yield _component(known, host, name)


def saved(known: Known, host: HostView, name: str) -> bool:
    """Whether hand-made changes are kept as a bundle instead of refused."""
    return (known.drift or host.components[name].drift) == "save"


def _component(known: Known, host: HostView, name: str) -> Verdict:
    if saved(known, host, name):
        return Verdict("drift", True, f"{name}: hand-made changes will be saved", host.name)
    if "git" in host.looked["components"][name]:
        return _checkout(host, name)
    drift = host.looked["components"][name]["drift"]
    words = [
        f"{kind} {some(drift[kind])}" for kind in ("changed", "added", "removed") if drift[kind]
    ]
    if words:
        message = (
            f"{host.components[name].path} was changed by hand since the last deploy: "
            f"{'; '.join(words)} (keep or ignore them in the plan, or deploy with --drift save)"
        )
        return Verdict("drift", False, message, host.name)
    return Verdict("drift", True, f"{name}: as it was deployed", host.name)


def _checkout(host: HostView, name: str) -> Verdict:
    words, path = lost(host, name), host.components[name].path
    if not words:
        return Verdict("drift", True, f"{name}: nothing in {path} but its commit", host.name)
    message = (
        f"{path} has what would be gone: {'; '.join(words)} (commit and push it, name files under "
        "`keep` or `ignore`, or deploy with --drift save)"
    )
    return Verdict("drift", False, message, host.name)
