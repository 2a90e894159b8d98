"""``deployguard status``: what is live where, from the hosts' own records."""

from __future__ import annotations

import time
from typing import Any

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, plan_file, variables
from deployguard.errors import with_plan

__all__ = ["command"]


@click.command("status")
@plan_file()
@variables
@common
def command(
    console: Console, plan_path: str, variables: dict[str, str], release: str | None
) -> int:
    """Show what is live where, and what is unfinished.

    Asks every host of the plan and changes nothing. Ends with 7 where a transaction is unfinished
    and with 1 where a host does not answer.
    """
    from deployguard import api
    from deployguard.errors import ExitCode

    plan = api.load(plan_path, version=release, variables=variables, local_files=False)
    console.know(plan)
    rows = api.status(plan)
    for row in rows:
        console.emit("host", row)
        for line, color in _lines(row, plan.arguments):
            console.say(line, fg=color)
    if any(transaction for row in rows for transaction in row["unfinished"]):
        console.say(f"hint: `deployguard recover {plan.arguments}` finishes what is unfinished")
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.INTERNAL if any(row["error"] for row in rows) else ExitCode.COMMITTED)


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
        lines.append((f"{host}: {name} {live.get('version')}{when}{back}", None))
    for unfinished in row["unfinished"]:
        alive = "its run is gone"
        if unfinished.get("attended"):
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
        words = f"has not heard how {debt['transaction']} ended ({debt['reason']})"
        lines.append((f"{host}: {words}", "yellow"))
    return lines or [(f"{host}: nothing was deployed here yet", None)]


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
