"""``deployguard restore``: a snapshot from off the hosts, onto hosts that may be empty."""

from __future__ import annotations

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, going_over, plan_file, variables

__all__ = ["command"]


@click.command("restore")
@plan_file()
@variables
@click.option(
    "--from",
    "source",
    metavar="STORE[@ID]",
    help="Store and snapshot; the newest of the plan's store if not. @ID alone is of that store.",
)
@click.option("--host", "hosts", metavar="HOST", multiple=True, help="This host; repeat for more.")
@click.option("--of", metavar="HOST", help="What that host ran, for a host of another name.")
@going_over(fix=False)
@common
def command(
    console: Console,
    plan_path: str,
    variables: dict[str, str],
    release: str | None,
    source: str | None,
    hosts: tuple[str, ...],
    of: str | None,
    drift: str | None,
    overrides: dict[str, str],
) -> int:
    """Bring a snapshot back to its hosts, or to new ones.

    A restore is a transaction like any deploy: staged, verified, checked, and undone if it fails.
    Every file is as it was, by hash, mode, owner, time and link target. `--release` says what the
    version is called, where the snapshot does not know.
    """
    from deployguard import api
    from deployguard.cli.ending import end, quitting
    from deployguard.cli.interrupt import handing_over
    from deployguard.cli.progress import showing

    plan = api.load(plan_path, version=release, variables=variables, local_files=False)
    console.know(plan)
    title = f"restoring {plan.name} in {plan.environment} from {source or 'its newest snapshot'}"
    with (
        handing_over(quitting(console), plan.arguments) as stop,
        showing(console, title, list(hosts or plan.hosts)) as show,
    ):
        outcome = api.restore(
            plan,
            source=source,
            hosts=hosts,
            of=of,
            release=release,
            variables=variables,
            listen=show,
            drift=drift,
            overrides=overrides,
            stop=stop,
        )
    return end(console, outcome)
