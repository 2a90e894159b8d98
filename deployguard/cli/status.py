"""``deployguard status``: what is live where, from the hosts' own records."""

from __future__ import annotations

import time
from typing import Any

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, plan_file, variables

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
        for line, color in _lines(row):
            console.say(line, fg=color)
    if any(transaction for row in rows for transaction in row["unfinished"]):
        console.say("hint: `deployguard recover` finishes what is unfinished")
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.INTERNAL if any(row["error"] for row in rows) else ExitCode.COMMITTED)


def _lines(row: dict[str, Any]) -> list[tuple[str, str | None]]:
    host = row["host"]
    if row["error"]:
        return [(f"{host}: {row['error']}", "red")]
    lines: list[tuple[str, str | None]] = []
    for live in row["live"]:
        since = live.get("committed_at")
        when = f" since {_local(since)}" if isinstance(since, (int, float)) else ""
        kept = dict.fromkeys(str(older["version"]) for older in live.get("previous", []))
        kept.pop(str(live.get("version")), None)
        back = f"; can go back to {', '.join(kept)}" if kept else ""
        name = live.get("component", live["path"])
        lines.append((f"{host}: {name} {live.get('version')}{when}{back}", None))
    for unfinished in row["unfinished"]:
        alive = "still running" if unfinished.get("alive") else "its run is gone"
        lines.append(
            (
                f"{host}: transaction {unfinished['transaction']} is {unfinished['state']}, {alive}"
                + (f" ({unfinished['owner']})" if unfinished.get("owner") else ""),
                "yellow",
            )
        )
    return lines or [(f"{host}: nothing was deployed here yet", None)]


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
