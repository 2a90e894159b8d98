"""``deployguard status``: what is live where, from the hosts' own records."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from typing import Any

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, plan_file, variables
from deployguard.errors import with_plan

__all__ = ["command"]

#: More differences of a component than this are in ``--json`` only.
SHOWN = 20


@click.command("status")
@plan_file(required=False)
@variables
@click.option(
    "--verify",
    is_flag=True,
    help="Hash every live file anew; compare with what was deployed, and look for remains.",
)
@common
def command(
    console: Console,
    plan_path: str | None,
    variables: dict[str, str],
    release: str | None,
    verify: bool,
) -> int:
    """Show what is live where, and what is unfinished.

    Asks every host of the plan and changes nothing. Ends with 7 where a transaction is unfinished,
    with 1 where a host does not answer, and with 10 where --verify found that something differs.

    Without PLAN no host is asked: it shows how the last deploy of every service ended that was made
    from this machine, what has no end, and the incidents that are not over.
    """
    if plan_path is None:
        if verify or release is not None or variables:
            raise click.UsageError("--verify, --release and --var are for a PLAN")
        return _known(console)
    from deployguard import api
    from deployguard.errors import ExitCode

    plan = api.load(plan_path, version=release, variables=variables, local_files=False)
    console.know(plan)
    rows = api.status(plan, verify=verify)
    for row in rows:
        console.emit("host", row)
        for line, color in _lines(row, plan.arguments):
            console.say(line, fg=color)
    _say_incidents(console, api.ongoing(plan))
    if any(transaction for row in rows for transaction in row["unfinished"]):
        console.say(f"hint: `deployguard recover {plan.arguments}` finishes what is unfinished")
        return int(ExitCode.INTERRUPTED)
    if any(row["error"] for row in rows):
        return int(ExitCode.INTERNAL)
    return int(ExitCode.CHANGES if any(map(_differs, rows)) else ExitCode.COMMITTED)


def _known(console: Console) -> int:
    """What this machine's journal says; nothing that knows plans or hosts is loaded for it."""
    from deployguard.errors import ExitCode
    from deployguard.incidents.lookup import Lookup
    from deployguard.store.opening import open_journal
    from deployguard.store.overview import newest_of_each, without_end

    journal = open_journal()
    services, open_ended, debts = newest_of_each(journal), without_end(journal), journal.debts()
    for row in services:
        console.emit("service", row)
        console.say(
            f"{row['plan']} in {row['environment']}: {row['summary']}",
            fg="red" if row["exit_code"] else None,
        )
        console.say(f"  {_local(row['ended_at'])}, {row['id']}, from {row['source']}")
    for row in open_ended:
        console.emit("unfinished", row)
        what = f"{row['plan']} {row['version']} in {row['environment']}"
        since = f"since {_local(row['started_at'])}"
        console.say(f"{what} is at work {since}, or was killed: {row['id']}", fg="yellow")
        console.say(f"hint: `deployguard status {shlex.quote(row['source'])}` asks the hosts")
    for debt in debts:
        console.emit("debt", debt)
        console.say(f"{debt['host']}: {_owed(debt)}", fg="yellow")
    _say_incidents(console, Lookup(journal).ongoing())
    if not (services or open_ended):
        console.say("no transaction was run from this machine yet")
    return int(ExitCode.INTERRUPTED if open_ended or debts else ExitCode.COMMITTED)


def _say_incidents(console: Console, incidents: list[Any]) -> None:
    if not incidents:
        return
    from deployguard.cli import incident_text

    for incident in incidents:
        console.emit("incident", incident.as_dict())
        text = incident_text.listed(incident, time.time())
        console.say(f"incident {text}", fg=incident_text.color_of(incident))


def _owed(debt: dict[str, Any]) -> str:
    return f"has not heard how {debt['transaction']} ended ({debt['reason']})"


def _differs(row: dict[str, Any]) -> bool:
    found = row.get("verification", {})
    components = found.get("components", {}).values()
    return bool(found.get("left") or any(one["differences"] for one in components))


def _lines(row: dict[str, Any], plan: str) -> list[tuple[str, str | None]]:
    host = row["host"]
    lines: list[tuple[str, str | None]] = []
    if row["error"]:
        lines.append((f"{host}: {row['error']}", "red"))
        if row["hint"]:
            lines.append((f"{host}: hint: {with_plan(row['hint'], plan)}", None))
    for live in row["live"]:
        since = live.get("committed_at")
        when = f" since {_local(since)}" if isinstance(since, (int, float)) else ""
        kept = dict.fromkeys(str(older["version"]) for older in live.get("previous", []))
        kept.pop(str(live.get("version")), None)
        back = f"; can go back to {', '.join(kept)}" if kept else ""
        name = live.get("component", live["path"])
        stands = _standing(live.get("git") or {})
        lines.append((f"{host}: {name} {live.get('version')}{stands}{when}{back}", None))
    for unfinished in row["unfinished"]:
        alive = "its run is gone"
        if unfinished.get("held"):
            alive = f"held behind {unfinished['held']['task']}, for a person to choose"
        elif unfinished.get("attended"):
            alive = "still running"
        elif unfinished.get("alive"):
            alive = "its run is gone, the host finishes it by itself"
        lines.append(
            (
                f"{host}: transaction {unfinished['transaction']} is {unfinished['state']}, {alive}"
                + (f" ({unfinished['owner']})" if unfinished.get("owner") else ""),
                "yellow",
            )
        )
    for debt in row["debts"]:
        lines.append((f"{host}: {_owed(debt)}", "yellow"))
    lines += [(f"{host}: {text}", color) for text, color in _verified(row.get("verification", {}))]
    return lines or [(f"{host}: nothing was deployed here yet", None)]


def _standing(git: dict[str, Any]) -> str:
    """Where a git checkout stands."""
    if not git:
        return ""
    return f" ({git['commit'][:12]}{' on ' + git['branch'] if git['branch'] else ''})"


def _verified(found: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    for name, component in found.get("components", {}).items():
        if component["version"] is None:
            continue
        differences = component["differences"]
        if not differences:
            yield f"{name}: every file is as {component['version']} was deployed", None
        for difference in differences[:SHOWN]:
            yield f"{name}: {difference}", "red"
        if len(differences) > SHOWN:
            yield f"{name}: … and {len(differences) - SHOWN} more", "red"
    for remains in found.get("left", []):
        yield f"left behind: {remains}", "yellow"


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
