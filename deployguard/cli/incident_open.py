"""``deployguard incident open``: what a person does who sees that something is wrong."""

from __future__ import annotations

import time

import click

from deployguard.cli.console import Console
from deployguard.cli.incident import LINKED, open_book, who
from deployguard.cli.moments import read_moment, relative
from deployguard.cli.notify import say_told
from deployguard.cli.options import common

__all__ = ["open_command"]


@click.command("open")
@click.argument("severity", metavar="SEVERITY")
@click.argument("title", metavar="TITLE")
@click.option(
    "--plan",
    "plan_path",
    metavar="PLAN",
    type=click.Path(exists=True, dir_okay=False),
    help="The plan of the service: its name, environment, targets and secrets.",
)
@click.option("--service", metavar="NAME", help="What is wrong; the plan's name when left out.")
@click.option("--environment", metavar="NAME", help="Where; the plan's when left out.")
@click.option("--since", metavar="TIME", callback=read_moment, help="When users were hit first.")
@click.option("--commander", metavar="NAME", help="Who is in command.")
@click.option("--owner", metavar="NAME", help="Who owns what has to be done afterwards.")
@click.option("--transaction", metavar="TXN", help="The deploy that did it.")
@click.option("--issue", metavar="URL", help="Where it is discussed.")
@click.option("--ticket", metavar="ID", help="Where it is tracked.")
@click.option("--forensics", metavar="DIR", help="Where the evidence is.")
@click.option("--by", metavar="NAME", help="Who you are; USER@MACHINE when left out.")
@click.option("--new", is_flag=True, help="Open another one, though one with this title is open.")
@common
def open_command(
    console: Console,
    severity: str,
    title: str,
    plan_path: str | None,
    service: str | None,
    environment: str | None,
    since: float | None,
    commander: str | None,
    owner: str | None,
    by: str | None,
    new: bool,
    **links: str | None,
) -> int:
    """Open an incident.

    SEVERITY is critical, high, medium or low, or 1 to 4. Where an incident with the same title is
    ongoing, you join it.
    """
    from deployguard.cli import incident_text
    from deployguard.errors import UsageError
    from deployguard.incidents.entries import Draft, Opening
    from deployguard.incidents.fingerprint import shape
    from deployguard.incidents.record import Incident
    from deployguard.incidents.severity import level_named, name_of
    from deployguard.notify.announce import silence
    from deployguard.report.incidents import targets_of
    from deployguard.store.opening import open_journal

    level = level_named(severity)
    if not title.strip():
        raise UsageError("an incident needs a title", hint='as in "API down"')
    plan = None
    if plan_path is not None:
        from deployguard import api

        plan = api.load(plan_path, local_files=False)
        console.know(plan)
    now = time.time()
    if since is not None and since > now:
        raise UsageError("--since has not come yet")
    book = open_book(who(by), plan)
    if links["transaction"]:
        from deployguard import api

        links["transaction"] = str(api.transaction(links["transaction"])["id"])
    opening = Opening(
        title=title,
        severity=level,
        service=service or (plan.name if plan is not None else ""),
        environment=environment or (plan.environment if plan is not None else ""),
        signature=(shape(title.lower()),),
        targets=targets_of(plan),
        impact_at=since,
        commander=commander or "",
        owner=owner or "",
        links=tuple((kind, str(links[kind])) for kind in LINKED if links[kind]),
    )

    def join(_: Incident) -> tuple[dict[str, object], list[Draft]]:
        return {}, [Draft("joined", f"seen again, as {name_of(level)}: {title}")]

    if new:
        incident, opened = book.open(opening), True
    else:
        incident, opened = book.open_or_join(opening, join=join)
    console.emit("incident", {**incident.as_dict(), "joined": not opened})
    if not opened:
        console.say(f"you joined one that is ongoing since {relative(incident.opened_at, now)}")
    console.say(incident_text.heading(incident), fg=incident_text.color_of(incident))
    if incident.acknowledged_at is None:
        console.say(f"  to be acknowledged by {relative(incident.acknowledge_by, now)}")
    console.say(f"  to be resolved by {relative(incident.resolve_by, now)}")
    say_told(console)
    why = silence(open_journal(), incident)
    if why:
        console.say(f"nobody is told: {why}", fg="yellow")
    for line, color in incident_text.similar_lines(book.lookup.similar(incident)):
        console.say(f"  {line}", fg=color)
    console.say(f"next: {incident_text.next_step(incident)}")
    return 0
