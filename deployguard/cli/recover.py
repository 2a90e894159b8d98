"""``deployguard recover``: finish what an interrupted run left."""

from __future__ import annotations

from typing import Literal

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, plan_file, variables

__all__ = ["command"]


@click.command("recover")
@plan_file(required=False)
@variables
@click.option("--transaction", metavar="ID", help="Only this one, instead of all unfinished.")
@click.option(
    "--hosts",
    "inventory",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="An inventory, where there is no plan: all transactions on its hosts.",
)
@click.option("--force", is_flag=True, help="Take over from a run that is still at work.")
@click.option(
    "--held",
    type=click.Choice(["old", "new"]),
    help="Which version stays where hosts are held behind a point of no return.",
)
@common
def command(
    console: Console,
    plan_path: str | None,
    variables: dict[str, str],
    release: str | None,
    transaction: str | None,
    inventory: str | None,
    force: bool,
    held: Literal["old", "new"] | None,
) -> int:
    """Finish what an interrupted run left.

    Reads the hosts' own journals, takes the decision that was recorded or follows from them, and
    carries it out; it may be run from any machine, and twice. Where nothing is unfinished it does
    nothing and ends with 0. A transaction whose run is still heard from is left alone, and the
    exit code is 6. Hosts that are held behind a migration without return are left as they are, with
    exit code 4, until --held says which version is to stay.
    """
    from deployguard import api
    from deployguard.cli.ending import end
    from deployguard.cli.progress import showing
    from deployguard.errors import UsageError

    plan = None
    if plan_path is not None and inventory is not None:
        raise UsageError("a plan names its hosts itself", hint="leave --hosts out")
    if inventory is not None:
        plan = api.load_hosts(inventory)
        console.know(plan)
    elif plan_path is not None:
        plan = api.load(plan_path, version=release, variables=variables, local_files=False)
        console.know(plan)
    title = f"recovering {plan.name} in {plan.environment}" if plan and plan.name else "recovering"
    with showing(console, title, list(plan.hosts) if plan else []) as show:
        outcome = api.recover(plan, transaction=transaction, listen=show, force=force, held=held)
    return end(console, outcome)
