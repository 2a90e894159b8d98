"""``deployguard history``: the transactions of this machine."""

from __future__ import annotations

import time

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common

__all__ = ["command"]


@click.command("history")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True)
@common
def command(console: Console, limit: int) -> int:
    """List the transactions of this machine.

    Newest first. Deploys from other machines are in their history; `deployguard status PLAN`
    asks the hosts themselves.
    """
    from deployguard import api

    rows = api.history(limit=limit)
    for row in rows:
        console.emit("transaction", row)
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["started_at"]))
        took = f"{row['ended_at'] - row['started_at']:.1f} s" if row["ended_at"] else "unfinished"
        count = len(row["hosts"])
        hosts = f"{count} host{'s' if count != 1 else ''}"
        failed = row["exit_code"] not in (0, None)
        console.say(
            f"{began}  {row['status']:<12} {row['plan']} {row['version']} in {row['environment']}, "
            f"{hosts}, {took}  {row['id']}",
            fg="red" if failed else None,
        )
        if failed:
            console.say(f"    {row['summary']}")
    if not rows:
        console.say("no transaction was run from this machine yet")
    return 0
