"""``deployguard incident``: open, find and move incidents, from the store of this machine."""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Any

import click

from deployguard.cli.console import Console
from deployguard.cli.notify import say_told
from deployguard.cli.options import common

if TYPE_CHECKING:
    from deployguard.incidents.book import Book
    from deployguard.incidents.machine import State
    from deployguard.incidents.record import Incident
    from deployguard.plan.model import Plan

__all__ = ["LINKED", "command", "open_book", "parts", "tell", "who"]

#: Every word with its line in ``--help``, in the order in which a night goes, and its module.
WORDS = {
    "open": ("Open an incident.", "incident_open"),
    "list": ("List the incidents that are not over, or all.", "incident"),
    "show": ("Show an incident with its timeline.", "incident"),
    "respond": ("Assess, contain, choose a way out, and go it.", "incident_respond"),
    "ack": ("Say that you are at it.", "incident_moves"),
    "mitigate": ("Say that users are served again.", "incident_moves"),
    "resolve": ("Say that the cause is gone.", "incident_moves"),
    "close": ("Say that what there was to learn is written down.", "incident_moves"),
    "reopen": ("Open it again.", "incident_moves"),
    "cancel": ("Say that it was none.", "incident_moves"),
    "note": ("Write something down, or link it.", "incident_moves"),
    "update": ("Tell everybody who was told how it goes.", "incident_moves"),
    "assign": ("Say who is in command, or who owns the follow-up.", "incident_moves"),
    "severity": ("Say how bad it is.", "incident_moves"),
    "check": ("Escalate what is overdue; for a scheduler.", "incident"),
}

#: The options that link something to an incident, and the kind of the link.
LINKED = ("transaction", "issue", "ticket", "forensics")


class Words(click.Group):
    """The words below ``incident``; a module is imported when its word is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The table's order."""
        return list(WORDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one that is asked for."""
        if cmd_name not in WORDS:
            return None
        module = importlib.import_module(f"deployguard.cli.{WORDS[cmd_name][1]}")
        found = getattr(module, f"{cmd_name}_command")
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A slip of the pen is answered with the word that was meant."""
        if args and args[0] not in WORDS and not args[0].startswith("-"):
            from deployguard.plan.suggestion import did_you_mean

            mend = did_you_mean(args[0], WORDS, among="there are")
            ctx.fail(f'there is no word "{args[0]}" for incidents; {mend}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl([(word, text) for word, (text, _) in WORDS.items()])


@click.group("incident", cls=Words)
def command() -> None:
    """Open, show and close incidents.

    A failed deploy opens one by itself, and a verified restore mitigates it. Where only one is
    ongoing its id may be left out.
    """


def who(by: str | None) -> str:
    """Whose name stands in the timeline."""
    from deployguard.rollout.owner import owner_name

    return by or owner_name()


def open_book(actor: str, plan: Plan | None = None) -> Book:
    """The incidents of this machine's store; it learns what the plan says about notifications."""
    from deployguard.notify.settings import remember
    from deployguard.report.incidents import book_of
    from deployguard.report.redaction import Redaction
    from deployguard.store.opening import open_journal

    journal = open_journal()
    if plan is not None and plan.name:
        remember(journal, plan)
    return book_of(journal, Redaction(plan), actor)


def parts(book: Book, words: tuple[str, ...], state: State | None = None) -> tuple[Incident, str]:
    """``[INC] [TEXT]``: the incident, and the text. Where no incident is named it is the only one
    that is ongoing, or that is in ``state``."""
    from deployguard.incidents.lookup import is_id

    # What was meant for an id is never taken for a text about another incident.
    if words and (is_id(words[0]) or words[0].upper().startswith("INC-")):
        return book.lookup.get(words[0]), " ".join(words[1:])
    return book.lookup.only(state), " ".join(words)


def tell(console: Console, incident: Incident) -> None:
    """How an incident stands after something was done to it."""
    from deployguard.cli import incident_text

    console.emit("incident", incident.as_dict())
    console.say(incident_text.heading(incident), fg=incident_text.color_of(incident))
    say_told(console)
    console.say(f"next: {incident_text.next_step(incident)}")


@click.command("list")
@click.option("-a", "--all", "everything", is_flag=True, help="Those that are over as well.")
@click.option("--service", metavar="NAME", help="Only those of this service.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="With --all: the newest.",
)
@common
def list_command(console: Console, everything: bool, service: str | None, limit: int) -> int:
    """List the incidents that are not over, the worst first; or all, newest first."""
    from deployguard.cli import incident_text

    lookup = open_book("").lookup
    found = lookup.newest(limit, service) if everything else lookup.ongoing(service)
    now = time.time()
    for incident in found:
        console.emit("incident", incident.as_dict())
        console.say(incident_text.listed(incident, now), fg=incident_text.color_of(incident))
    if not found:
        console.say("there was no incident yet" if everything else "no incident is ongoing")
    return 0


@click.command("show")
@click.argument("incident", metavar="[INC]", required=False)
@click.option("--report", is_flag=True, help="Write the short report in Markdown to stdout.")
@common
def show_command(console: Console, incident: str | None, report: bool) -> int:
    """Show an incident: how it stands, its links, who was told, its timeline, and what was like it
    before."""
    from deployguard.cli import incident_text
    from deployguard.notify.delivery import told_of
    from deployguard.store.opening import open_journal

    lookup = open_book("").lookup
    found = lookup.get(incident) if incident else lookup.only()
    if report:
        return _report(console, found)
    entries, links = lookup.timeline(found.id), lookup.links(found.id)
    similar = lookup.similar(found)
    told = told_of(open_journal(), found.id)
    record: dict[str, Any] = {
        **found.as_dict(),
        "timeline": [entry.as_dict() for entry in entries],
        "links": [dict(link.__dict__) for link in links],
        "similar": [
            {
                "id": one.incident.id,
                "title": one.incident.title,
                "state": one.incident.state,
                "likeness": round(one.likeness, 3),
                "fixed_by": one.fixed_by,
            }
            for one in similar
        ],
        "told": [one.as_dict() for one in told],
    }
    console.emit("incident", record)
    for line, color in incident_text.shown(found, entries, links, similar, time.time(), told):
        console.say(line, fg=color)
    return 0


def _report(console: Console, incident: Incident) -> int:
    from deployguard.incidents.lookup import Lookup
    from deployguard.report import short
    from deployguard.report.postmortems import facts_of
    from deployguard.store.opening import open_journal

    journal = open_journal()
    facts = facts_of(incident.id, Lookup(journal), journal)
    console.document(short.report(facts, console.redact))
    return 0


@click.command("check")
@common
def check_command(console: Console) -> int:
    """Escalate what is overdue; for a scheduler, every few minutes.

    Ends with 8 while something is overdue, with 0 otherwise. One that stays overdue is escalated
    again after a while, as its targets say.
    """
    from deployguard.cli import incident_text
    from deployguard.errors import ExitCode
    from deployguard.incidents.entries import AUTOMATIC

    found = open_book(AUTOMATIC).check()
    now = time.time()
    for one in found:
        record = {**one.incident.as_dict(), "missed": one.missed, "escalated": one.escalated}
        console.emit("incident", record)
        level = one.incident.escalations
        words = f"; escalated to level {level}" if one.escalated else f"; at level {level} already"
        console.say(incident_text.listed(one.incident, now) + words, fg="red")
    say_told(console)
    if not found:
        console.say("nothing is overdue")
        return 0
    console.say(f"next: {incident_text.next_step(found[0].incident)}")
    return int(ExitCode.OVERDUE)
