"""Where the logs of a component end when its service has stopped: what is new begins there."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

from deployguard.onhost.system import System


def marks(armed: Mapping[str, Any], component: str, system: System) -> Dict[str, Any]:
    """The ends of the logs that the checks of a component read, by check."""
    baseline = (armed.get("baseline") or {}).get("checks", [])
    observed = {entry["id"]: entry["observed"] for entry in baseline}
    found: Dict[str, Any] = {}
    for check in armed.get("checks", []):
        if check["kind"] == "logs" and check["component"] == component:
            from deployguard.onhost.probes import logs as probe_logs

            found[check["id"]] = probe_logs.mark(check, observed.get(check["id"]), system)
    return found


def with_marks(
    checks: Sequence[Mapping[str, Any]], known: Mapping[str, Any]
) -> List[Mapping[str, Any]]:
    """The checks, each with the end of its log where that is known."""
    return [
        dict(check, mark=known[check["id"]]) if check["id"] in known else check for check in checks
    ]
