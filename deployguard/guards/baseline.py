"""What is live is healthy before the deploy, or the deploy is the fix.

A deploy onto a system that is down already cannot be judged: nobody can tell what the new version
broke from what was broken before. Of a component that is not there yet nothing is asked.
"""

from __future__ import annotations

from collections.abc import Iterator

from deployguard.guards.base import Answers, HostView, Known, Verdict
from deployguard.health import findings
from deployguard.plan.model import BaselineGuard

__all__ = ["judge", "unhealthy"]

FIX = "this deploy is the fix"


def judge(spec: BaselineGuard, known: Known, answers: Answers) -> Iterator[Verdict]:
    """One verdict for each host."""
    for host in known.hosts:
        sick = unhealthy(host, spec.allow)
        if not sick:
            yield Verdict("baseline", True, "healthy before the deploy", host.name)
            continue
        mend = (
            "" if spec.fix or known.fix else " (mend it first, or say that this is the fix: --fix)"
        )
        yield Verdict(
            "baseline",
            False,
            f"not healthy before the deploy: {'; '.join(sick)}{mend}",
            host.name,
            overridden=FIX if spec.fix or known.fix else "",
        )


def unhealthy(host: HostView, allow: tuple[str, ...] = ()) -> list[str]:
    """What is not healthy of what is live, one line each, and the layers that disagree on it.

    ``allow`` names components, or checks as ``component/name``, that do not count.
    """
    live = {name for name in host.components if host.live(name).get("state") != "absent"}
    checks = [
        check
        for check in (host.looked.get("baseline") or {}).get("checks", [])
        if check["component"] in live and check["component"] not in allow
        if check["id"] not in allow
    ]
    sick = {
        check["component"] for check in checks if check["required"] and check["state"] != "healthy"
    }
    found = findings.from_results(host.name, {"checks": checks}, {})
    return [
        f"{finding.component} {finding.name}: {finding.message}"
        for finding in found
        if finding.component in sick and (finding.critical or finding.layer == "disagreement")
    ]
