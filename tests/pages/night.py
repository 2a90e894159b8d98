"""A night to draw: three hosts, the second fails, all are restored; a log says HTML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deployguard.errors import ExitCode
from deployguard.evidence.layout import Folder
from deployguard.evidence.redact import Redactor
from deployguard.rollout.outcome import Event, Finding, HostOutcome, Outcome, Override

__all__ = ["HOSTS", "HOSTILE", "START", "TRANSACTION", "evidence", "outcome"]

START = 1795262400.0 - 3 * 3600
TRANSACTION = "20261121T090000-shop-7f3a1c"
HOSTS = ("web1", "web2", "web3")
#: What a log may say; no page may do it.
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def _events() -> list[Event]:
    found: list[Event] = []

    def spell(
        host: str,
        phase: Any,
        begun: float,
        over: float,
        status: Any = "done",
        message: str = "",
        **rest: Any,
    ) -> None:
        found.append(Event(START + begun, phase, "started", host))
        found.append(Event(START + over, phase, status, host, message, rest))

    for number, host in enumerate(HOSTS):
        late = number / 10
        spell(host, "connect", 0.0, 0.4 + late)
        spell(host, "inspect", 0.5 + late, 0.9 + late)
        spell(host, "stage", 1.0 + late, 3.0 + late)
        spell(host, "switch", 3.5 + late, 4.5 + late)
        looks = [[START + 4.7, "backend/process", "healthy", True]]
        if host == "web2":
            looks += [
                [START + 4.8, "backend/http", "unknown", False],
                [START + 5.5, "backend/http", "unhealthy", True],
            ]
            spell(
                host, "check", 4.6, 7.0, "failed", message=f"answered 503: {HOSTILE}", health=looks
            )
        else:
            looks.append([START + 5.0, "backend/http", "healthy", True])
            spell(host, "check", 4.6, 6.0 + late, health=looks)
        back = [[START + 9.5, f"backend/{name}", "healthy", True] for name in ("process", "http")]
        spell(
            host, "restore", 7.2 + late, 9.5 + late,
            message="restored and verified in 2.30 s", healthy_at=START + 9.0 + late, health=back,
        )  # fmt: skip
    return sorted(found, key=lambda event: event.at)


def outcome(**changes: Any) -> Outcome:
    """How it ended."""
    values: dict[str, Any] = {
        "transaction": TRANSACTION,
        "plan": "shop",
        "version": "v2",
        "environment": "production",
        "exit_code": ExitCode.ROLLED_BACK,
        "status": "rolled_back",
        "summary": "v2 failed on web2; 3 hosts restored, files verified, healthy",
        "started_at": START,
        "ended_at": START + 10,
        "hosts": tuple(
            HostOutcome(
                host,
                "restored",
                verified=True,
                healthy=True,
                versions_before={"backend": "v1"},
                versions_after={"backend": "v1"},
                seconds={"restore": 2.3},
                error=f"answered 503: {HOSTILE}" if host == "web2" else "",
            )
            for host in HOSTS
        ),
        "findings": (
            Finding("web2", "backend", "http", "http", f"answered 503: {HOSTILE}", True, HOSTILE),
        ),
        "timeline": tuple(_events()),
        "overrides": (Override("window", "it is Friday", "ann", ("after 16:00",)),),
        "incident_url": "javascript:alert(1)",
        "source": "plan.yaml",
    }
    return Outcome(**{**values, **changes})


def evidence(directory: Path) -> Path:
    """The sealed folder of it."""
    directory.mkdir(parents=True, exist_ok=True)
    folder = Folder.create(directory, "v2", int(START), list(HOSTS), Redactor())
    new = {"shape": "ERROR pool <*> exhausted", "count": 7, "first": f"ERROR pool main {HOSTILE}"}
    for host in HOSTS:
        folder.add_text(host, "backend-service.log", f"ERROR pool main exhausted {HOSTILE}\n")
        check = {"id": "backend/logs", "observed": {"new": [new] if host == "web2" else []}}
        folder.add_json(host, "checks.json", {"checks": [check]})
        tree = folder.host(host) / "backend"
        tree.mkdir()
        changes = {"added": ["app/pool.py"], "changed": ["settings.json"], "removed": []}
        (tree / "CHANGES.json").write_text(json.dumps(changes))
    folder.finish(outcome().as_dict())
    return folder.path
