"""One host's transaction, step by step. Each step is one or two requests to the host program.

Nothing here decides anything: a step succeeds, or raises a :class:`~deployguard.errors.HostFailure`
for the fleet to judge. What happened is always read from the host's own answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deployguard import faults
from deployguard.drivers import procedure
from deployguard.drivers.base import Site
from deployguard.drivers.registry import driver_of
from deployguard.errors import ActionFailed, DeployguardError, Locked, Refused
from deployguard.evidence import collect
from deployguard.guards import registry as guards
from deployguard.health import checks, findings
from deployguard.onhost.probes.base import CheckData
from deployguard.plan.model import Component, Plan
from deployguard.rollout import migrations, revisions
from deployguard.rollout.member import Context, Member
from deployguard.rollout.outcome import Finding
from deployguard.rollout.targets import site_of, target_of
from deployguard.snapshots.base import SnapshotError

__all__ = [
    "begin",
    "check",
    "check_again",
    "checks_of",
    "commit",
    "connect",
    "inspect",
    "site_of_nowhere",
    "stage",
    "switch",
]


def connect(context: Context, member: Member) -> None:
    """Reach the host and start the host program there."""
    with _Phase(context, member, "connect"):
        member.session = context.connect(member.name, member.host)
        member.session.keep_alive(max(context.plan.lease / 4, 1.0))


def begin(context: Context, member: Member) -> None:
    """Take the lock of every path. Raises :class:`Locked`.

    What an earlier run still owes to this host is settled first, if its decision is known here.
    """
    args = {
        "transaction": context.transaction,
        "epoch": context.epoch,
        "lease": context.plan.lease,
        "owner": context.owner,
        "plan": context.plan.name,
        "all_or_nothing": _all_or_nothing(context.plan),
        "paths": [component.path for component in member.components.values()],
        "faults": faults.for_host(member.name),
    }
    for _ in range(SETTLEMENTS):
        try:
            member.call("begin", args)
        except ActionFailed as error:
            if error.kind != "locked":
                raise
            holder = error.detail if isinstance(error.detail, dict) else {}
            earlier = str(holder.get("transaction", ""))
            ended = context.settle(member.name, member.wire(), earlier)
            if not ended:
                raise _locked(member.name, holder) from error
            owner = holder.get("owner")
            words = f"finished transaction {earlier} of {owner} first: {ended}"
            context.record("connect", "note", member.name, words)
        else:
            member.begun = True
            return
    raise ActionFailed(member.name, "its paths are locked by one transaction after the other")


def _locked(host: str, holder: dict[str, Any]) -> Locked:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(holder.get("since", 0))))
    return Locked(
        f"{host}: {holder.get('path')} is locked by transaction {holder.get('transaction')} "
        f"of {holder.get('owner')} since {since}",
        hint="wait for it, or run `deployguard recover PLAN` if that run is dead",
    )


def _all_or_nothing(plan: Plan) -> bool:
    """Whether one host that went back is proof that no other may have been told to commit."""
    return plan.max_fail_percentage == 0 and plan.on_failure != "restore_batch"


def inspect(context: Context, member: Member) -> None:
    """Compare what is live with what is to come; the same request serves ``plan``."""
    with _Phase(context, member, "inspect"):
        session = member.wire()
        if context.restoring is not None:
            member.sources = context.restoring.sources(member.name, member.components, session)
        targets = []
        sent: dict[str, int] = {}
        for name, component in member.components.items():
            source = member.source(context, name)
            if source.manifest is not None:
                session.call("manifest", {"digest": source.digest}, stream=_pieces(source.encoded))
            target = target_of(context.plan, name, component, source, session.hello)
            if source.git is not None:
                more = revisions.obtain(context, member, name, source, target)
                target["source"]["known"], sent[name] = more["known"], more["sent"]
            targets.append(target)
        versions = {name: context.sources[name].version for name in member.order}
        environ = context.world.environ
        member.checks = checks_of(member.components, versions, session.hello, environ)
        disks = [g.disk.path for g in context.plan.guards if g.disk is not None]
        asked = guards.questions(context.plan, member.name, rollback=context.rollback)
        try:
            member.looked = member.call(
                "look",
                {
                    "transaction": context.transaction,
                    "components": targets,
                    "checks": member.checks,
                    "disks": disks,
                    "questions": asked,
                },
            )
        except ActionFailed as error:
            if error.kind == "refused":
                raise Refused(f"{member.name}: {error.reason}", hint=error.hint) from error
            raise
        member.looked["new_versions"] = {n: context.sources[n].version for n in member.order}
        for name, component in member.components.items():
            looked = member.looked["components"][name]
            looked["missing_bytes"] += sent.get(name, 0)
            member.sites[name] = site_of(name, component.layout, looked, session.hello)


def checks_of(
    components: Mapping[str, Component],
    versions: Mapping[str, str],
    hello: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
) -> list[CheckData]:
    """The checks of components, as the host makes them; their secrets are those of ``environ``."""
    found: list[CheckData] = []
    for name, component in components.items():
        site = site_of_nowhere(name, component, hello)
        probe = driver_of(component).process_probe(component, site)
        found += checks.compile_checks(name, component, versions[name], probe, environ)
    return found


def site_of_nowhere(name: str, component: Component, hello: Mapping[str, Any]) -> Site:
    """The site of a component before the look: the probes ask the service, and what they need does
    not depend on where the trees stand."""
    return site_of(name, component.layout, _NOWHERE, hello)


#: As many transactions of earlier runs may have left paths of one plan locked on one host.
SETTLEMENTS = 20

#: How often files that changed on the host while it copied them are sent instead.
REPAIRS = 3

#: Before the look there are no places yet.
_NOWHERE: dict[str, Any] = {
    "placement": {"live": "", "tree": "", "beside": "", "root": None},
    "files": [],
}


def stage(context: Context, member: Member) -> None:
    """Send what the host lacks; it builds the new trees beside the live ones and verifies them."""
    with _Phase(context, member, "stage"):
        _send_missing(context, member)
        answer = _build(context, member)
        for name, bundle in answer.get("saved", {}).items():
            words = f"hand-made changes of {name} are kept in {bundle} on {member.name}"
            context.record("stage", "note", member.name, words, bundle=bundle)
        _demand_imports(context, member, answer.get("imports", []))


def _demand_imports(context: Context, member: Member, looked: Iterable[Mapping[str, Any]]) -> None:
    """Raise :class:`Refused` where a release lacks a module: nothing has been touched yet."""
    found = findings.from_imports(member.name, looked)
    member.findings += [finding for finding in found if not finding.critical]
    missing = [f"{member.name}: {f.name}: {f.component}: {f.message}" for f in found if f.critical]
    if missing:
        raise Refused(
            "\n".join(missing),
            hint="nothing was touched; add what is missing to the release, or `keep` it",
        )
    for finding in found:
        context.record("stage", "note", member.name, f"{finding.component}: {finding.message}")


def _build(context: Context, member: Member) -> dict[str, Any]:
    save = context.saves_handmade or any(c.drift == "save" for c in member.components.values())
    args = {
        "components": member.order,
        "save": save,
        # What was live once is not asked again: going back must not be refused.
        "imports": [
            check
            for name, component in member.components.items()
            if not context.sources[name].history and not context.rollback
            for check in checks.compile_imports(name, component)
        ],
        # A snapshot comes back exactly, or not at all.
        "verify": context.restoring is not None,
    }
    for _ in range(REPAIRS):
        try:
            return member.call("stage", args)
        except ActionFailed as error:
            if error.kind == "refused":
                raise Refused(f"{member.name}: {error.reason}", hint=error.hint) from error
            if error.kind != "mismatch" or not isinstance(error.detail, dict):
                raise
            _send(context, member, error.detail["component"], error.detail["missing"])
    return member.call("stage", args)


def _send_missing(context: Context, member: Member) -> None:
    """Each blob travels once, whatever number of components has it."""
    wanted: dict[str, None] = {}
    for name in member.order:
        missing = [
            digest
            for digest in member.looked["components"][name]["missing"]
            if digest not in wanted
        ]
        wanted.update(dict.fromkeys(missing))
        if missing:
            _send(context, member, name, missing)


def _send(context: Context, member: Member, name: str, missing: Sequence[str]) -> None:
    source = member.source(context, name)
    if source.blobs is None:
        raise Refused(
            f"{member.name}: {len(missing)} files of {source.version} are damaged there",
            hint="deploy that version from its artifact",
        )
    try:
        member.call("blobs", {"component": name}, stream=source.blobs.blob_stream(missing))
    except SnapshotError as error:
        raise Refused(error.message, hint=f"nothing was touched; {error.hint}") from error


def _arm(context: Context, member: Member) -> None:
    """Make the undo durable on the host, with everything a restore without us would need."""
    looked = member.looked["components"]
    hello = member.wire().hello
    member.procedure = procedure.build(
        member.components,
        member.order,
        member.sites,
        {name: looked[name]["observed"] for name in member.order},
        migrations.tasks_of(context, member),
        down={one.task for one in context.migrations if one.direction == "down"},
        dumps=f"{hello['state']}/dumps/{context.transaction}",
    )
    member.call(
        "arm",
        {
            "procedure": member.procedure,
            "collectors": collect.collectors_for(context.plan, member.components, member.sites),
            "checks": member.checks,
            "baseline": member.looked["baseline"],
            "observe": {
                name: target_of(context.plan, name, component, member.source(context, name), hello)[
                    "observe"
                ]
                for name, component in member.components.items()
            },
            "observed": {name: looked[name]["observed"] for name in member.order},
            "migrations": [
                {"task": one.task, "kind": one.kind, "direction": one.direction}
                for one in context.migrations
            ],
            "crossed": context.crossed,
        },
    )


def switch(context: Context, member: Member) -> None:
    """Run the procedure: stop, swap, start. From here on there is something to undo."""
    with _Phase(context, member, "switch"):
        _arm(context, member)
        for name, site in member.sites.items():
            if site.commit:
                words = f"{name}: {site.commit[:12]}, which is live, is tagged {site.tag}"
                context.record("switch", "note", member.name, words, tag=site.tag)
        member.touched = True
        try:
            member.call("switch", on_event=lambda event: _progress(context, member, event))
        except ActionFailed as error:
            detail = error.detail if isinstance(error.detail, dict) else {}
            member.findings.append(
                findings.step_failed(
                    member.name, str(detail.get("operation", "")), error.reason, error.hint
                )
            )
            raise


def check(context: Context, member: Member) -> None:
    """Watch the checks until the new version is healthy; then the host votes.

    Raises :class:`ActionFailed` with the findings in words.
    """
    with _Phase(context, member, "check") as phase:
        _judge(context, member, phase)
        member.call("prepare")


def check_again(context: Context, member: Member) -> None:
    """A host of an earlier batch must still be healthy."""
    with _Phase(context, member, "check") as phase:
        _judge(context, member, phase)


def _judge(context: Context, member: Member, phase: _Phase) -> None:
    # Progress is not kept, so the end of the phase has how each check went.
    health: list[list[Any]] = phase.detail.setdefault("health", [])

    def heard(event: dict[str, Any]) -> None:
        _progress(context, member, event)
        if "check" in event:
            health.append([time.time(), event["check"], event["state"], event["settled"]])

    result = member.call("check", {"checks": member.checks}, on_event=heard)
    member.check_results = result
    found = findings.from_results(member.name, result, context.sources)
    if faults.unhealthy(member.name):
        words = "a drill has the new version count as unhealthy"
        found.append(Finding(member.name, "", "step", "drill", words))
        result = {**result, "healthy": False}
    member.findings += found
    if not result["healthy"]:
        words = "; ".join(f.message for f in found if f.critical) or "not healthy in time"
        raise ActionFailed(member.name, words, kind="unhealthy")


def commit(context: Context, member: Member) -> None:
    """Tell the host the decision."""
    with _Phase(context, member, "commit"):
        member.call("commit")


def _progress(context: Context, member: Member, event: dict[str, Any]) -> None:
    if "operation" in event:
        context.record("switch", "progress", member.name, str(event["operation"]))
    elif "check" in event:
        text = f"{event.get('check')}: {event.get('state')}"
        context.record("check", "progress", member.name, text)


def _pieces(data: bytes) -> Iterable[bytes]:
    return (data[start : start + 65536] for start in range(0, len(data), 65536))


class _Phase:
    """Reports a phase's start and end, and keeps its duration."""

    def __init__(self, context: Context, member: Member, phase: str) -> None:
        self._context, self._member, self._phase = context, member, phase
        #: What goes on record with its end.
        self.detail: dict[str, Any] = {}

    def __enter__(self) -> _Phase:
        self._began = time.monotonic()
        self._context.record(self._phase, "started", self._member.name)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        seconds = time.monotonic() - self._began
        total = self._member.seconds.get(self._phase, 0.0) + seconds
        self._member.seconds[self._phase] = total
        status = "done" if error is None else "failed"
        message = self._member.said(error) if isinstance(error, DeployguardError) else ""
        self._context.record(self._phase, status, self._member.name, message, **self.detail)
