"""Asks the hosts, all at the same time and none for longer than it is worth.

A host that does not answer in time is unknown; its thread ends with its own deadline and nobody
waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from deployguard.drivers.registry import driver_of
from deployguard.errors import DeployguardError, HostFailure
from deployguard.onhost.probes.base import CheckData
from deployguard.plan.check import LogsCheck
from deployguard.plan.credentials import token_of
from deployguard.plan.model import Plan
from deployguard.plan.order import components_on, hosts_in_order
from deployguard.response.assessment import (
    Assessment,
    CheckSeen,
    Deploy,
    ErrorKind,
    HostSeen,
    LogSeen,
    Metric,
    Note,
    resource_notes,
)
from deployguard.response.history import History
from deployguard.rollout import transaction
from deployguard.rollout.member import Connect

__all__ = ["assess", "bounded", "live_version", "records"]

#: Ids of what Prometheus is asked; the components' own ids have a component in front.
_UP, _RATE, _RATE_BEFORE = "prometheus/up", "prometheus/error_rate", "prometheus/error_rate before"
#: The host answers within its own deadline; this is for the way there and back.
_WAY = 5.0

Answer = TypeVar("Answer")


def bounded(
    names: Sequence[str], ask: Callable[[str], Answer], seconds: float
) -> dict[str, Answer | DeployguardError | None]:
    """What ``ask`` answers for each name; its error, or ``None`` where none came in time."""
    answers: SimpleQueue[tuple[str, Answer | DeployguardError]] = SimpleQueue()

    def body(name: str) -> None:
        try:
            answers.put((name, ask(name)))
        except DeployguardError as error:
            answers.put((name, error))

    for name in names:
        threading.Thread(target=body, args=(name,), name=f"ask {name}", daemon=True).start()
    found: dict[str, Answer | DeployguardError | None] = dict.fromkeys(names)
    ends = time.monotonic() + seconds
    for _ in names:
        try:
            name, answer = answers.get(timeout=max(ends - time.monotonic(), 0.0))
        except Empty:
            break
        found[name] = answer
    return found


def assess(
    plan: Plan,
    connect: Connect,
    history: History,
    *,
    since: float | None = None,
    otherwise: float | None = None,
    now: Callable[[], float] = time.time,
) -> Assessment:
    """Ask every host of a plan. ``since`` is the moment that divides what is new from what was
    there; by default the last deploy of each host, if it is not a day ago, and ``otherwise`` if
    it is.

    Changes nothing. A host that cannot be asked is in the answer, with the reason.
    """
    began, at = time.monotonic(), now()
    names = hosts_in_order(plan)
    seconds = plan.respond.deadline
    asked = plan.respond.prometheus
    metrics_from = "" if asked is None else asked.host or names[0]

    def ask(name: str) -> dict[str, Any]:
        with connect(name, plan.hosts[name]) as session:
            status = session.call("status", timeout=seconds)
            moment = since if since is not None else _divide(plan, status, at, otherwise)
            components = {c: plan.components[c] for c in components_on(plan, name)}
            versions = {c: live_version(plan, c, status) for c in components}
            checks = transaction.checks_of(components, versions, session.hello)
            if name == metrics_from:
                checks += _metrics(plan, moment)
            args = {
                "checks": checks,
                "logs": _logs(plan, components, session.hello),
                "since": moment,
                "disks": sorted({"/", *(component.path for component in components.values())}),
                "seconds": seconds,
            }
            answer = session.call("assess", args, timeout=seconds + _WAY)
            return {"status": status, "since": moment, "answer": answer, "checks": checks}

    answers = bounded(names, ask, seconds + 2 * _WAY)
    hosts, checks, metrics, logs, notes = [], [], [], [], []
    for name in names:
        answer = answers[name]
        if not isinstance(answer, dict):
            hosts.append(_silent(name, answer, seconds))
            continue
        hosts.append(_host(plan, name, answer))
        found = answer["answer"]
        for entry in _checks(name, answer):
            if isinstance(entry, Metric):
                metrics.append(entry)
            else:
                checks.append(entry)
        logs += [_log(name, entry) for entry in found["logs"]]
        notes += list(resource_notes(name, found["resources"]))
    moments = [answer["since"] for answer in answers.values() if isinstance(answer, dict)]
    return Assessment(
        at=at,
        seconds=time.monotonic() - began,
        since=since if since is not None else min(moments, default=at),
        hosts=tuple(hosts),
        checks=tuple(checks),
        metrics=tuple(_joined(metrics)),
        logs=tuple(logs),
        recent=history.since(at - 24 * 3600.0),
        notes=(*notes, *_bound(plan, metrics)),
    )


# --- what is asked ------------------------------------------------------------------------------


def records(plan: Plan, status: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """What is live at the plan's paths, by component, of a host's ``status``."""
    paths = {component.path: name for name, component in plan.components.items()}
    return [(paths[r["path"]], r) for r in status["live"] if r["path"] in paths]


def _begun(record: Mapping[str, Any]) -> float:
    """When the transaction of a live tree began: its id says it, and its first errors count."""
    stamp = str(record.get("transaction", "")).partition("-")[0]
    try:
        import calendar

        return float(calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%S")))
    except ValueError:
        return float(record["committed_at"])


def _divide(plan: Plan, status: Mapping[str, Any], at: float, otherwise: float | None) -> float:
    recent = [_begun(record) for _, record in records(plan, status)]
    recent = [moment for moment in recent if at - moment < 24 * 3600.0]
    return max(recent, default=at - 3600.0 if otherwise is None else otherwise)


def live_version(plan: Plan, component: str, status: Mapping[str, Any]) -> str:
    """The version of a component on a host; the plan's where nothing was deployed yet."""
    live = dict(records(plan, status)).get(component)
    return plan.version if live is None else str(live["version"])


def _metrics(plan: Plan, since: float) -> list[CheckData]:
    asked = plan.respond.prometheus
    assert asked is not None
    token = token_of(asked.token_env)

    def query(name: str, text: str, **bounds: float) -> CheckData:
        check: dict[str, Any] = {
            "id": name,
            "component": "",
            "kind": "prometheus",
            "name": name.partition("/")[2],
            "critical": False,
            "timeout": plan.respond.deadline / 2,
            "interval": 1.0,
            "deadline": plan.respond.deadline / 2,
            "min_healthy_time": 0.0,
            "url": asked.url,
            "query": text,
            "verify_tls": asked.verify_tls,
            **bounds,
        }
        if token is not None:
            check["secret"] = {"token": token.reveal()}
        return check  # type: ignore[return-value]  # as compile_checks makes it

    found = [query(_UP, asked.up, min=1)]
    if asked.error_rate is not None:
        most = {} if asked.max is None else {"max": asked.max}
        found.append(query(_RATE, asked.error_rate, **most))
        found.append(query(_RATE_BEFORE, asked.error_rate, time=since - 1))
    return found


def _logs(
    plan: Plan, components: Mapping[str, Any], hello: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Where the components of a host log: what their drivers know, and their `logs` checks."""
    found: dict[str, dict[str, Any]] = {}
    for name, component in components.items():
        site = transaction.site_of_nowhere(name, component, hello)
        probe = driver_of(component).process_probe(component, site)
        source = _source(probe)
        if source is not None:
            found[name] = {"id": name, "component": name, "log": source}
        for number, check in enumerate(component.checks):
            if isinstance(check.spec, LogsCheck) and check.spec.file is not None:
                one = {"id": f"{name}/{number}", "component": name}
                found[one["id"]] = {**one, "log": {"path": check.spec.file}}
    return list(found.values())


def _source(probe: Mapping[str, Any]) -> dict[str, Any] | None:
    driver = probe.get("driver")
    if driver == "systemd":
        unit = {"unit": probe["unit"], "scope": probe.get("scope", "system")}
        return unit | ({"env": dict(probe["env"])} if probe.get("env") else {})
    if driver == "pm2":
        return {"pm2": dict(probe)}
    if driver == "compose":
        return {"containers": dict(probe)}
    if driver == "kubernetes":
        return {"kubernetes": dict(probe["service"])}
    return {"path": str(probe["log"])} if probe.get("log") else None


# --- what they answered -------------------------------------------------------------------------


def _silent(name: str, answer: DeployguardError | None, seconds: float) -> HostSeen:
    if isinstance(answer, HostFailure):
        return HostSeen(name, answer.reason, answer.hint)
    if answer is not None:
        return HostSeen(name, answer.message, answer.hint)
    return HostSeen(name, f"no answer within {seconds + 2 * _WAY:.0f} s")


def _host(plan: Plan, name: str, answer: Mapping[str, Any]) -> HostSeen:
    status = answer["status"]
    live = [
        Deploy(
            name,
            component,
            str(record["version"]),
            str(record["transaction"]),
            _begun(record),
            tuple(str(older["version"]) for older in record["previous"]),
        )
        for component, record in records(plan, status)
    ]
    unfinished = [
        f"transaction {one['transaction']} is unfinished ({'held' if one['held'] else one['state']}"
        f"): run `deployguard recover {plan.arguments}` first"
        for one in status["unfinished"]
    ]
    return HostSeen(
        name,
        live=tuple(live),
        unfinished=tuple(unfinished),
        resources=answer["answer"]["resources"],
    )


def _checks(name: str, answer: Mapping[str, Any]) -> Iterable[CheckSeen | Metric]:
    seen = answer["answer"]["checks"]
    if seen is None:
        # None of them came back: each is unknown, under its own name.
        seen = [
            {
                "id": check["id"],
                "component": check["component"],
                "layer": check["kind"],
                "name": check["name"],
                "critical": check["critical"],
                "state": "unknown",
                "message": "no answer in time",
                "observed": {},
            }
            for check in answer["checks"]
            if check["kind"] != "logs"
        ]
    for entry in seen:
        if not entry["component"]:
            value = (entry.get("observed") or {}).get("value")
            number = float(value) if isinstance(value, int | float) else None
            yield Metric(entry["id"], entry["state"], entry["message"], number)
            continue
        yield CheckSeen(
            name,
            entry["component"],
            entry["layer"],
            entry["name"],
            entry["critical"],
            entry["state"],
            entry["message"],
        )


def _joined(metrics: Iterable[Metric]) -> Iterable[Metric]:
    """The rate as it was goes with the rate as it is."""
    by_id = {metric.name: metric for metric in metrics}
    before = by_id.pop(_RATE_BEFORE, None)
    for name, metric in by_id.items():
        was = before.now if before is not None and name == _RATE else None
        yield Metric(name.partition("/")[2], metric.state, metric.message, metric.now, was)


def _bound(plan: Plan, metrics: Iterable[Metric]) -> Iterable[Note]:
    return [
        Note("", f"Prometheus: {metric.message}")
        for metric in metrics
        if metric.name != _RATE_BEFORE and metric.state != "healthy"
    ]


def _log(name: str, entry: Mapping[str, Any]) -> LogSeen:
    if entry.get("unknown"):
        return LogSeen(
            name, entry["component"], entry.get("name", entry["id"]), unknown=entry["unknown"]
        )
    before, since = entry["before"], entry["since"]
    return LogSeen(
        name,
        entry["component"],
        entry["name"],
        before["lines"],
        before["errors"],
        since["lines"],
        since["errors"],
        tuple(ErrorKind(**kind) for kind in since["kinds"]),
        entry["timed"],
    )
