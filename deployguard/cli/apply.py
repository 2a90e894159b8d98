"""``deployguard apply``: one deploy, one transaction."""

from __future__ import annotations

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, engine, going_over, plan_file, variables

__all__ = ["command"]


@click.command("apply")
@plan_file()
@variables
@going_over()
@engine
@common
def command(
    console: Console,
    plan_path: str,
    variables: dict[str, str],
    release: str | None,
    drift: str | None,
    overrides: dict[str, str],
    fix: bool,
    engine: str | None,
) -> int:
    """Deploy: the new version healthy, or the old one back.

    A failed deploy is rolled back, verified and reported; the exit code says how it ended. An
    interrupt hands over to the hosts, which restore themselves; `deployguard recover PLAN` finishes
    the rest.
    """
    from deployguard import api
    from deployguard.cli.asking import asking
    from deployguard.cli.ending import end, quitting
    from deployguard.cli.interrupt import handing_over
    from deployguard.cli.progress import showing

    plan = api.load(plan_path, version=release, variables=variables)
    console.know(plan)
    title = f"deploying {plan.name} {plan.version} to {plan.environment}"
    with (
        handing_over(quitting(console), plan.arguments) as stop,
        showing(console, title, list(plan.hosts)) as show,
    ):
        outcome = api.apply(
            plan,
            listen=show,
            drift=drift,
            overrides=overrides,
            fix=fix,
            ask=asking(console, stop),
            stop=stop,
            engine=engine,
        )
    return end(console, outcome)
