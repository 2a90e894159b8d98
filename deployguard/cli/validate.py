"""``deployguard validate``: every mistake of a plan at once, without contacting a host."""

from __future__ import annotations

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, plan_file, variables

__all__ = ["command"]


@click.command("validate")
@plan_file()
@variables
@common
def command(
    console: Console, plan_path: str, variables: dict[str, str], release: str | None
) -> int:
    """Check a plan file; contact no host.

    Every mistake is shown with its file, line, column and a hint.
    """
    # Not through the API module, which brings the whole rollout with it.
    from deployguard.plan.load import load

    plan = load(plan_path, version=release, variables=variables)
    hosts, parts = len(plan.hosts), len(plan.components)
    console.say(
        f"{plan_path}: {plan.name} {plan.version}, {parts} component{'s' if parts != 1 else ''} "
        f"on {hosts} host{'s' if hosts != 1 else ''}: no mistakes",
        fg="green",
    )
    console.emit("validation", {"valid": True, "plan": plan.name, "version": plan.version})
    return 0
