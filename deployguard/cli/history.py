"""``deployguard history``: the transactions of this machine, or one of them whole."""

from __future__ import annotations

import shlex
import time
from typing import Any

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common

__all__ = ["command"]


@click.command("history")
@click.argument("transaction", metavar="[TXN]", required=False)
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True)
@common
def command(console: Console, transaction: str | None, limit: int) -> int:
    """List the transactions of this machine, or show one.

    Newest first. With TXN, the id of a transaction or the beginning of one, it is shown whole: how
    it ended, its hosts, what failed, every step. Deploys from other machines are in their history;
    `deployguard status PLAN` asks the hosts themselves.
    """
    from deployguard import api

    if transaction is not None:
        _show(console, api.transaction(transaction))
        return 0
    rows = api.history(limit=limit)
    for row in rows:
        console.emit("transaction", row)
        took = f"{row['ended_at'] - row['started_at']:.1f} s" if row["ended_at"] else "unfinished"
        count = len(row["hosts"])
        hosts = f"{count} host{'s' if count != 1 else ''}"
        failed = row["exit_code"] not in (0, None)
        console.say(
            f"{_local(row['started_at'])}  {row['status']:<12} {_what(row)}, {hosts}, {took}  "
            f"{row['id']}",
            fg="red" if failed else None,
        )
        if failed:
            console.say(f"    {row['summary']}")
        for each in row["overrides"]:
            console.say(f"    overrode {each['guard']}: {each['reason']}")
    if not rows:
        console.say("no transaction was run from this machine yet")
    return 0


def _show(console: Console, row: dict[str, Any]) -> None:
    from deployguard.cli import summary
    from deployguard.cli.progress import event_text
    from deployguard.rollout.outcome import Outcome

    console.emit("transaction", row)
    begun = f"begun {_local(row['started_at'])} by {row['owner']} with {row['source']}"
    if row["outcome"] is None:
        plan = shlex.quote(row["source"])
        console.say(f"{row['id']} has no end here: it is at work, or was killed", bold=True)
        console.say(f"  {_what(row)} on {', '.join(row['hosts'])}")
        console.say(f"  {begun}")
        for each in row["overrides"]:
            console.say(f"  overrode {each['guard']}: {each['reason']} (by {each['by']})")
        console.say(f"  decision: {row['decision'] or 'none was recorded, which means abort'}")
        console.say(f"hint: `deployguard status {plan}` asks the hosts how they stand")
        return
    outcome = Outcome.from_dict(row["outcome"])
    color = summary.color_of(outcome)
    for line, heading in summary.lines(outcome):
        console.say(line, **({"fg": color, "bold": True} if heading else {}))
    console.say(begun)
    console.say("timeline", fg=color, bold=True)
    for event in outcome.timeline:
        for line in event_text(event).splitlines():
            console.say(f"  {line}", fg="red" if event.status == "failed" else None)


def _what(row: dict[str, Any]) -> str:
    return f"{row['plan']} {row['version']} in {row['environment']}"


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
