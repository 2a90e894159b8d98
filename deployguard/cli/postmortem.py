"""``deployguard postmortem``: draft, check and render what was learnt from an incident."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common

if TYPE_CHECKING:
    from deployguard.report.postmortems import Judged

__all__ = ["check_command", "command", "draft_command", "render_command"]


@click.group("postmortem")
def command() -> None:
    """Draft, check and render post-mortems.

    A deploy that was rolled back leaves a draft by itself, with everything in it that the journals
    know; what only people know is asked for.
    """


@command.command("draft")
@click.argument("incident", metavar="[INC]", required=False)
@click.option(
    "--plan",
    "plan_path",
    metavar="PLAN",
    type=click.Path(exists=True, dir_okay=False),
    help="The plan of the service: where its drafts go, and its secrets.",
)
@click.option(
    "--directory", metavar="DIR", help="Where the draft goes, instead of where the plan says."
)
@common
def draft_command(
    console: Console, incident: str | None, plan_path: str | None, directory: str | None
) -> int:
    """Draft the post-mortem of an incident, or bring a draft up to date.

    What the journals know is written anew; what people wrote stays to the letter.
    """
    from deployguard.cli.incident import who
    from deployguard.report.incidents import book_of
    from deployguard.report.postmortem.files import DIRECTORY
    from deployguard.report.postmortems import draft, of_incident
    from deployguard.report.redaction import Redaction
    from deployguard.store.opening import open_journal

    plan = None
    folder = Path(directory or DIRECTORY)
    if plan_path is not None:
        from deployguard import api

        plan = api.load(plan_path, local_files=False)
        console.know(plan)
        if directory is None:
            folder = Path(plan.source).resolve().parent / plan.rescue.postmortem.directory
    journal, redaction = open_journal(), Redaction(plan)
    book = book_of(journal, redaction, who(None))
    found = book.lookup.get(incident) if incident else book.lookup.only()
    try:
        path = draft(found.id, book, journal, folder.resolve(), redaction)
    except OSError as error:
        raise click.ClickException(f"the draft cannot be written: {error}") from None
    judged = of_incident(found, book.lookup)
    console.say(f"{path}")
    _tell(console, judged, time.time())
    return 0


@command.command("check")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--overdue", is_flag=True, help="Fail only for those that are overdue.")
@common
def check_command(console: Console, paths: tuple[Path, ...], overdue: bool) -> int:
    """Say which post-mortems are not finished; for CI or a scheduler.

    PATH is a post-mortem, or a folder of them; then nothing but the files is read. Without it,
    those of every incident of this machine that needs one and is not closed. Ends with 8 when one
    is not finished, with --overdue when one is overdue, and with 0 otherwise.
    """
    from deployguard.errors import ExitCode
    from deployguard.report.postmortems import of_files, wanted

    if paths:
        for path in paths:
            if not path.exists():
                raise click.BadParameter(f"{path} is not there", param_hint="PATH")
        found = of_files(paths)
    else:
        from deployguard.incidents.lookup import Lookup
        from deployguard.store.opening import open_journal

        found = wanted(Lookup(open_journal()))
    now = time.time()
    for judged in found:
        _tell(console, judged, now)
    if not found:
        console.say("there is no post-mortem to check")
    states = [judged.verdict.state(now) for judged in found]
    bad = [state for state in states if state == "overdue" or (state == "open" and not overdue)]
    return int(ExitCode.OVERDUE if bad else ExitCode.COMMITTED)


def _tell(console: Console, judged: Judged, now: float) -> None:
    from deployguard.cli.moments import relative

    verdict = judged.verdict
    state = verdict.state(now)
    console.emit(
        "postmortem",
        {
            "path": judged.path,
            "incident": verdict.incident,
            "state": state,
            "due_at": verdict.due_at,
            "completed": verdict.completed,
            "open": list(verdict.open),
            "wrong": list(verdict.wrong),
        },
    )
    due = f", due {relative(verdict.due_at, now)}" if verdict.due_at and state != "finished" else ""
    name = judged.path or "no file"
    color = {"finished": "green", "open": "yellow", "overdue": "red"}[state]
    console.say(f"{verdict.incident or 'no incident'} {state}{due}: {name}", fg=color)
    for text in (*verdict.wrong, *verdict.open):
        console.say(f"  {text}")
    if not judged.path:
        console.say(f"hint: `deployguard postmortem draft {verdict.incident}`")


@command.command("render")
@click.argument(
    "path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the page to FILE instead of stdout.",
)
@common
def render_command(console: Console, path: Path, output: Path | None) -> int:
    """Make one page of HTML that needs no network."""
    from deployguard.report.postmortem.files import read, write
    from deployguard.report.postmortem.judge import judge
    from deployguard.report.postmortem.page import page

    text = console.redact(read(path))
    made = page(text, judge(text), time.time())
    if output is None:
        console.document(made)
        return 0
    try:
        write(output, made)
    except OSError as error:
        raise click.ClickException(f"the page cannot be written: {error}") from None
    console.say(f"{output}")
    console.emit("page", {"path": str(output)})
    return 0
