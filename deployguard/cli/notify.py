"""``deployguard notify``: test the channels, send what waits, and show what was sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, plan_file

__all__ = ["command", "flush_command", "list_command", "say_told", "telling", "test_command"]

#: How often a long command looks whether there is something to send, in seconds.
_LOOK = 1.0

_COLORS = {"delivered": "green", "rejected": "red", "pending": "yellow"}


@click.group("notify")
def command() -> None:
    """Test channels, send what waits, show what was sent.

    Commands send what they make by themselves. What did not arrive waits, and the next command, or
    `notify flush` from a scheduler, sends it.
    """


@command.command("test")
@plan_file()
@click.argument("channels", metavar="[CHANNEL]...", nargs=-1)
@common
def test_command(console: Console, plan_path: str, channels: tuple[str, ...]) -> int:
    """Send a test message to the channels of a plan, or to those that are named.

    PagerDuty gets an alert of the severity info that is resolved at once; of a status page only the
    key is tried, and nothing is published. Ends with 1 when one did not arrive.
    """
    from deployguard import api
    from deployguard.errors import UsageError
    from deployguard.notify.settings import settings_of
    from deployguard.notify.trial import try_out
    from deployguard.plan.suggestion import did_you_mean

    plan = api.load(plan_path, local_files=False)
    console.know(plan)
    settings = settings_of(plan)
    names = [channel.name for channel in settings.channels]
    if not names:
        raise UsageError("the plan names no channels", hint="add them below notify: channels:")
    for name in channels:
        if name not in names:
            raise UsageError(f'there is no channel "{name}"', hint=did_you_mean(name, names))
    bad = 0
    for name in channels or names:
        channel = settings.channel(name)
        assert channel is not None
        problem = try_out(settings, channel)
        bad += bool(problem)
        state = "failed" if problem else "delivered"
        console.emit("notification", {"channel": name, "state": state, "said": problem})
        words = problem or "arrived"
        console.say(f"{name} ({channel.kind}): {words}", fg="red" if problem else "green")
    return 1 if bad else 0


@command.command("flush")
@click.option("--rejected", is_flag=True, help="Those that were refused, too.")
@common
def flush_command(console: Console, rejected: bool) -> int:
    """Send what waits, without waiting for its next try; for a scheduler, every few minutes.

    Ends with 1 when something is left.
    """
    from deployguard.notify.announce import KIND
    from deployguard.notify.delivery import flush
    from deployguard.report.incidents import book_of
    from deployguard.report.redaction import Redaction
    from deployguard.report.reporting import send_issues
    from deployguard.store.opening import open_journal
    from deployguard.store.outbox import Outbox

    journal = open_journal()
    if rejected:
        outbox = Outbox(journal, clock=time.time)
        for entry in outbox.rejected():
            if entry.kind == KIND:
                outbox.reopen(entry.key)
    found = flush(journal, retry=True)
    for one in found:
        console.emit("notification", one.as_dict())
        _say(console, one.state, one.channel, one.kind, one.subject, one.said)
    issues = send_issues(journal, book_of(journal, Redaction(None)))
    for entry in issues:
        said = entry.last_error or ""
        transaction = str(entry.payload["transaction"])
        record = {"channel": "github", "kind": "issue", "subject": transaction}
        console.emit("notification", {**record, "state": entry.state, "said": said})
        _say(console, entry.state, "github", "issue", transaction, said)
    if not found and not issues:
        console.say("nothing waits to be sent")
    done = ("delivered", "skipped")
    states = [one.state for one in found] + [entry.state for entry in issues]
    return int(any(state not in done for state in states))


@command.command("list")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest."
)
@common
def list_command(console: Console, limit: int) -> int:
    """Show the newest messages and what became of them, newest first."""
    from deployguard.notify.announce import KIND
    from deployguard.notify.delivery import told
    from deployguard.store.opening import open_journal
    from deployguard.store.outbox import Outbox

    found = [told(e) for e in Outbox(open_journal(), clock=time.time).newest(KIND, limit)]
    for one in found:
        console.emit("notification", one.as_dict())
        _say(console, one.state, one.channel, one.kind, one.subject, one.said)
    if not found:
        console.say("nobody was told of anything yet")
    return 0


@contextmanager
def telling(console: Console) -> Iterator[None]:
    """Send what a long command makes while it goes on, and say at its end who was told.

    To people only: the last line for programs is the command's own.
    """
    from deployguard.errors import DeployguardError
    from deployguard.notify.delivery import Told, flush
    from deployguard.store.opening import open_journal

    over = threading.Event()
    found: list[Told] = []

    def send() -> None:
        with suppress(DeployguardError):
            journal = open_journal()
            try:
                while not over.wait(_LOOK):
                    found.extend(one for one in flush(journal) if one.state != "pending")
            finally:
                journal.close()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for one in found:
            _say(console, one.state, one.channel, one.kind, one.subject, one.said)
        say_told(console, emit=False)


def say_told(console: Console, *, emit: bool = True) -> None:
    """Send what a command has made, and say who was told. What goes wrong is said, and changes
    nothing: what was written down stands."""
    from deployguard.errors import DeployguardError
    from deployguard.notify.delivery import flush
    from deployguard.store.opening import open_journal

    try:
        for one in flush(open_journal()):
            if emit:
                console.emit("notification", one.as_dict())
            _say(console, one.state, one.channel, one.kind, one.subject, one.said)
    except DeployguardError as error:
        console.say(f"notifications were not sent: {error.message}", fg="yellow")


def _say(console: Console, state: str, channel: str, kind: str, subject: str, said: str) -> None:
    words = {
        "delivered": f"told {channel}: {kind} {subject}",
        "skipped": f"did not tell {channel}: {kind} {subject}: {said}",
        "rejected": f"{channel} refused it: {kind} {subject}: {said}",
    }
    waits = f"{channel} waits: {kind} {subject}: {said or 'not tried yet'}"
    console.say(words.get(state, waits), fg=_COLORS.get(state))
