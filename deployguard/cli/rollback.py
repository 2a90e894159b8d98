"""``deployguard rollback``: back to a version the hosts have kept."""

from __future__ import annotations

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, engine, going_over, plan_file, variables

__all__ = ["command"]


@click.command("rollback")
@plan_file()
@variables
@click.option("--to", metavar="VERSION", help="The version; the one before the live one if not.")
@going_over(fix=False)
@engine
@common
def command(
    console: Console,
    plan_path: str,
    variables: dict[str, str],
    release: str | None,
    to: str | None,
    drift: str | None,
    overrides: dict[str, str],
    engine: str | None,
) -> int:
    """Go back to a version the hosts have kept.

    A rollback is a transaction like any deploy: checked, and undone if it fails. Guards that
    protect the host are asked; those that judge a new release, such as `ci`, are not.
    """
    from deployguard import api
    from deployguard.cli.ending import end, quitting
    from deployguard.cli.interrupt import handing_over
    from deployguard.cli.progress import showing

    plan = api.load(plan_path, version=release, variables=variables, local_files=False)
    console.know(plan)
    title = f"rolling {plan.name} in {plan.environment} back to {to or 'the version before'}"
    with (
        handing_over(quitting(console), plan.arguments) as stop,
        showing(console, title, list(plan.hosts)) as show,
    ):
        outcome = api.rollback(
            plan,
            to=to,
            variables=variables,
            listen=show,
            drift=drift,
            overrides=overrides,
            stop=stop,
            engine=engine,
        )
    return end(console, outcome)
