"""``deployguard incident ack`` and the other words that change one incident."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deployguard.cli.console import Console
from deployguard.cli.incident import LINKED, open_book, parts, tell, who
from deployguard.cli.moments import read_moment
from deployguard.cli.options import common

if TYPE_CHECKING:
    from deployguard.incidents.book import Book
    from deployguard.incidents.machine import Event
    from deployguard.incidents.record import Incident

__all__ = [
    "ack_command",
    "assign_command",
    "cancel_command",
    "close_command",
    "mitigate_command",
    "note_command",
    "reopen_command",
    "resolve_command",
    "severity_command",
    "update_command",
]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_WORDS = click.argument("words", metavar="[INC] [TEXT]", nargs=-1)
_AT = click.option(
    "--at", metavar="TIME", callback=read_moment, help="When that was; now when left out."
)
_BY = click.option("--by", metavar="NAME", help="Who you are; USER@MACHINE when left out.")


def _moving(command: Decorated) -> Decorated:
    for option in (_BY, _AT, _WORDS):
        command = option(command)
    return command


def _move(
    console: Console,
    event: Event,
    words: tuple[str, ...],
    at: float | None,
    by: str | None,
    *,
    cause: str = "",
    fix: str = "",
) -> int:
    book = open_book(who(by))
    incident, text = parts(book, words)
    incident = book.move(incident.id, event, text, at=at, cause=cause, fix=fix)
    tell(console, incident)
    if event in ("resolve", "close", "cancel"):
        _remind(console, book, incident)
    return 0


def _remind(console: Console, book: Book, incident: Incident) -> None:
    """What limits the damage of something that is over limits only what is well."""
    entries = book.lookup.timeline(incident.id)
    if not any(entry.kind == "containing" for entry in entries):
        return
    from deployguard.response.containment import in_force

    left = ", ".join(one.step for one in in_force(entries) if one.undo)
    if left:
        undo = f"`deployguard incident respond PLAN {incident.id} --undo`"
        console.say(f"still in force: {left}; {undo} takes it back", fg="yellow")


@click.command("ack")
@_moving
@common
def ack_command(console: Console, words: tuple[str, ...], at: float | None, by: str | None) -> int:
    """Say that you are at it. The clock for that stops."""
    return _move(console, "acknowledge", words, at, by)


@click.command("mitigate")
@_moving
@common
def mitigate_command(
    console: Console, words: tuple[str, ...], at: float | None, by: str | None
) -> int:
    """Say that users are served again; TEXT says how. A verified restore does so by itself."""
    return _move(console, "mitigate", words, at, by)


@click.command("resolve")
@_moving
@click.option("--cause", metavar="TEXT", default="", help="What it was; counted in `metrics`.")
@click.option("--fix", metavar="TEXT", default="", help="What mended it; shown when it comes back.")
@common
def resolve_command(
    console: Console,
    words: tuple[str, ...],
    at: float | None,
    by: str | None,
    cause: str,
    fix: str,
) -> int:
    """Say that the cause is gone. All clocks stop."""
    return _move(console, "resolve", words, at, by, cause=cause, fix=fix)


@click.command("close")
@_moving
@click.option("--anyway", is_flag=True, help="Without a finished post-mortem; TEXT says why.")
@common
def close_command(
    console: Console, words: tuple[str, ...], at: float | None, by: str | None, anyway: bool
) -> int:
    """Say that what there was to learn is written down.

    One that needs a post-mortem is not closed before that is finished: exit code 5.
    """
    from deployguard.errors import Refused, UsageError
    from deployguard.report.postmortems import of_incident

    book = open_book(who(by))
    incident, text = parts(book, words, "resolved")
    if anyway and not text:
        raise UsageError("--anyway needs a reason", hint="TEXT says why it is closed anyway")
    if incident.postmortem_by is not None and incident.state == "resolved" and not anyway:
        verdict = of_incident(incident, book.lookup).verdict
        if not verdict.finished:
            left = (*verdict.wrong, *verdict.open)
            raise Refused(
                f"the post-mortem of {incident.id} is not finished: {left[0]}"
                + (f", and {len(left) - 1} more" if len(left) > 1 else ""),
                hint="`deployguard postmortem check` says what is left; `--anyway` closes it all "
                "the same",
            )
    tell(console, book.move(incident.id, "close", text, at=at))
    return 0


@click.command("reopen")
@_moving
@common
def reopen_command(
    console: Console, words: tuple[str, ...], at: float | None, by: str | None
) -> int:
    """Open it again; TEXT says why. Its clocks start anew."""
    return _move(console, "reopen", words, at, by)


@click.command("cancel")
@_moving
@common
def cancel_command(
    console: Console, words: tuple[str, ...], at: float | None, by: str | None
) -> int:
    """Say that it was none; TEXT says why. It does not count in `metrics`."""
    return _move(console, "cancel", words, at, by)


@click.command("note")
@_moving
@click.option("--transaction", metavar="TXN", help="Link a deploy, the one that did it.")
@click.option("--issue", metavar="URL", help="Link an issue.")
@click.option("--ticket", metavar="ID", help="Link a ticket.")
@click.option("--forensics", metavar="DIR", help="Link a folder of evidence.")
@click.option("--cause", metavar="TEXT", default="", help="What it was, as of `resolve`.")
@click.option("--fix", metavar="TEXT", default="", help="What mended it, as of `resolve`.")
@common
def note_command(
    console: Console,
    words: tuple[str, ...],
    at: float | None,
    by: str | None,
    cause: str,
    fix: str,
    **links: str | None,
) -> int:
    """Write something down, or link it, whatever the state."""
    from deployguard.errors import UsageError

    book = open_book(who(by))
    incident, text = parts(book, words)
    if links["transaction"]:
        from deployguard import api

        links["transaction"] = str(api.transaction(links["transaction"])["id"])
    given = [(kind, str(links[kind])) for kind in LINKED if links[kind]]
    if not text and not given and not cause and not fix:
        raise UsageError("there is nothing to write down", hint="TEXT, or something to link")
    tell(console, book.note(incident.id, text, at=at, links=given, cause=cause, fix=fix))
    return 0


@click.command("update")
@_moving
@common
def update_command(
    console: Console, words: tuple[str, ...], at: float | None, by: str | None
) -> int:
    """Tell everybody who was told of it how it goes, the status page included.

    TEXT is published as it stands.
    """
    from deployguard.errors import UsageError

    book = open_book(who(by))
    incident, text = parts(book, words)
    if not text:
        raise UsageError("there is nothing to tell", hint='as in "a fix is on its way"')
    tell(console, book.note(incident.id, text, at=at, kind="update"))
    return 0


@click.command("assign")
@click.argument("words", metavar="[INC] ROLE NAME", nargs=-1)
@_BY
@common
def assign_command(console: Console, words: tuple[str, ...], by: str | None) -> int:
    """Say who is in command, or who owns the follow-up.

    ROLE is commander or owner.
    """
    from deployguard.errors import UsageError

    book = open_book(who(by))
    incident, rest = parts(book, words)
    role, _, name = rest.partition(" ")
    if role not in ("commander", "owner") or not name:
        raise UsageError(
            "assign takes a role and a name",
            hint=f"as in `deployguard incident assign {incident.id} commander ann`; the other "
            "role is owner",
        )
    tell(console, book.assign(incident.id, **{role: name}))
    return 0


@click.command("severity")
@click.argument("words", metavar="[INC] SEVERITY [TEXT]", nargs=-1)
@_BY
@common
def severity_command(console: Console, words: tuple[str, ...], by: str | None) -> int:
    """Say how bad it is; TEXT says why. Its targets count from the same moment as before."""
    from deployguard.incidents.severity import level_named

    book = open_book(who(by))
    incident, rest = parts(book, words)
    level, _, text = rest.partition(" ")
    tell(console, book.regrade(incident.id, level_named(level), text))
    return 0
