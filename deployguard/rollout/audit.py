"""Asks hosts to prove what is live: every file hashed anew and compared with its manifest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deployguard.drivers.registry import driver_of
from deployguard.errors import HostFailure
from deployguard.plan.model import Plan
from deployguard.plan.order import components_on, hosts_in_order
from deployguard.rollout.member import Connect
from deployguard.transport.session import Session

__all__ = ["ask", "verify"]

_THREADS = 20


def ask(session: Session, plan: Plan, host: str) -> dict[str, Any]:
    """One host's answer: ``components`` by name with their ``differences``, and what is ``left``.

    Raises :class:`HostFailure`.
    """
    components = []
    for name in components_on(plan, host):
        component = plan.components[name]
        components.append(
            {
                "name": name,
                "path": component.path,
                "layout": component.layout,
                "keep": list(component.keep),
                "ignore": list(component.ignore),
                "files": list({**driver_of(component).files(component), **component.files}),
            }
        )
    return session.call("verify", {"components": components})


def verify(plan: Plan, connect: Connect) -> dict[str, dict[str, Any]]:
    """The answer of each host of a plan; with ``error`` alone where there is none."""

    def one(name: str) -> dict[str, Any]:
        try:
            with connect(name, plan.hosts[name]) as session:
                return ask(session, plan, name)
        except HostFailure as error:
            return {"error": error.reason}

    names = hosts_in_order(plan)
    with ThreadPoolExecutor(min(_THREADS, max(len(names), 1))) as threads:
        return dict(zip(names, threads.map(one, names), strict=True))
