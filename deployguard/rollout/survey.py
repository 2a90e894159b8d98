"""What the hosts of a plan say of themselves: live, unfinished, locked. Changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deployguard.errors import HostFailure, UsageError
from deployguard.plan.model import Host, Plan
from deployguard.plan.order import hosts_in_order
from deployguard.rollout.member import Connect
from deployguard.transport.session import Session

__all__ = ["THREADS", "Reached", "previous_version", "reach", "status"]

#: How many hosts are talked to at once.
THREADS = 20


class Reached:
    """One host that answered, or why it did not."""

    def __init__(self, name: str, host: Host, connect: Connect) -> None:
        self.name = name
        self.session: Session | None = None
        self.report: dict[str, Any] = {
            "live": [],
            "unfinished": [],
            "ended": [],
            "locks": [],
        }
        self.error = ""
        self.hint = ""
        try:
            self.session = connect(name, host)
            self.report = self.session.call("status")
        except HostFailure as error:
            self.error = error.reason
            self.hint = error.hint

    def close(self) -> None:
        if self.session is not None:
            self.session.close()


def reach(plan: Plan, connect: Connect) -> list[Reached]:
    """Every host of the plan, in its order, connected or with the reason why not."""
    names = hosts_in_order(plan)
    with ThreadPoolExecutor(min(THREADS, max(len(names), 1))) as threads:
        return list(threads.map(lambda n: Reached(n, plan.hosts[n], connect), names))


def status(plan: Plan, connect: Connect) -> list[dict[str, Any]]:
    """One row a host: what is live at the plan's paths, what is unfinished, what is locked."""
    paths = {component.path: name for name, component in plan.components.items()}
    rows = []
    for reached in reach(plan, connect):
        live = [record for record in reached.report["live"] if record["path"] in paths]
        rows.append(
            {
                "host": reached.name,
                "error": reached.error,
                "hint": reached.hint,
                "live": [{**record, "component": paths[record["path"]]} for record in live],
                "unfinished": reached.report["unfinished"],
                "locks": reached.report["locks"],
            }
        )
        reached.close()
    return rows


def previous_version(plan: Plan, connect: Connect) -> str:
    """The version before the live one, from the hosts' own records.

    Raises :class:`UsageError` when a host has none, cannot be reached, or they differ.
    """
    found: dict[str, list[str]] = {}
    for row in status(plan, connect):
        if row["error"]:
            raise UsageError(
                f"{row['host']}: {row['error']}", hint=row["hint"] or "name the version with --to"
            )
        for record in row["live"]:
            # The same version may have been deployed again, over a change by hand.
            kept = [older["version"] for older in record["previous"]]
            older = next((version for version in kept if version != record["version"]), None)
            if older is None:
                raise UsageError(f"{row['host']} has no earlier version of {record['component']}")
            found.setdefault(older, []).append(row["host"])
    if not found:
        raise UsageError("nothing was deployed to these hosts yet, so there is no way back")
    if len(found) > 1:
        words = "; ".join(f"{v} on {', '.join(hosts)}" for v, hosts in sorted(found.items()))
        raise UsageError(f"the previous version differs: {words}", hint="name one with --to")
    return next(iter(found))
