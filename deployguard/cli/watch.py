"""``deployguard watch``: looks at the checks after the deploy, and tells of what fails once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, plan_file, variables

if TYPE_CHECKING:
    from deployguard.monitor.grouping import Notice
    from deployguard.plan.model import Plan

__all__ = ["command"]


def _span(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    from deployguard.plan.quantity import parse_duration

    if value is None:
        return None
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is {error}") from None
    assert isinstance(seconds, int | float)
    return float(seconds)


@click.command("watch")
@plan_file()
@click.option("--for", "window", metavar="TIME", callback=_span, help="How long, as in 10m.")
@click.option("--forever", is_flag=True, help="Until it is interrupted, for a service of its own.")
@click.option("--interval", metavar="TIME", callback=_span, help="From one look to the next.")
@click.option("--no-incident", is_flag=True, help="Open no incident; only say it here.")
@variables
@common
def command(
    console: Console,
    plan_path: str,
    variables: dict[str, str],
    release: str | None,
    window: float | None,
    forever: bool,
    interval: float | None,
    no_incident: bool,
) -> int:
    """Look at the checks after the deploy; tell of what fails.

    What fails together is told together, and repeated seldom; what is critical opens an incident,
    or joins one. While a deploy is at work on a host its checks are left to that. Ends with 9 when
    a check that matters fails at the end, with 0 otherwise.
    """
    from deployguard import api
    from deployguard.cli.incident import open_book
    from deployguard.cli.notify import telling
    from deployguard.errors import ExitCode
    from deployguard.incidents.entries import AUTOMATIC
    from deployguard.monitor.filing import Filing
    from deployguard.monitor.grouping import Receiver, Rules
    from deployguard.monitor.looking import Eyes
    from deployguard.monitor.watching import Memory, watch
    from deployguard.store.journal import default_path

    plan = api.load(plan_path, version=release, variables=variables, local_files=False)
    console.know(plan)
    asked = plan.watch
    rules = Rules(asked.failures, asked.group_wait, asked.group_interval, asked.repeat_interval)
    seconds = None if forever else window or asked.window
    memory = Memory(default_path().parent / "watch" / f"{plan.name}-{_safe(plan.environment)}.json")
    state, known = memory.read()
    filing = Filing(plan, open_book(AUTOMATIC, plan), known)
    receivers = [Receiver("terminal")]
    if not no_incident:
        receivers.append(Receiver("incident", critical_only=True))
    long = "until it is interrupted" if seconds is None else f"for {seconds:g} s"
    console.say(f"watching {plan.name} in {plan.environment} {long}")
    began = time.monotonic()

    def tell(notice: Notice) -> None:
        if notice.receiver == "terminal":
            _say(console, notice)
            return
        incident = filing.told(notice)
        if incident is not None:
            console.emit("incident", incident.as_dict())
            console.say(f"{incident.id} is {incident.state}")

    with telling(console), _stopping() as stop, Eyes(plan, api.connect) as eyes:
        ended = watch(
            eyes.look,
            tell,
            rules,
            receivers,
            state=state,
            interval=interval or asked.interval,
            seconds=seconds,
            now=time.time,
            wait=stop.wait,
            save=lambda state: memory.write(state, filing.incidents.items()),
        )
    console.emit(
        "watch",
        {
            "healthy": ended.healthy,
            "looks": ended.looks,
            "seconds": round(time.monotonic() - began, 3),
            "failing": [" ".join(filter(None, one.key)) for one in ended.failing],
        },
    )
    if console.workflow is not None:
        outcome = "healthy" if ended.healthy else "unhealthy"
        console.workflow.output(outcome=outcome, exit_code="0" if ended.healthy else "9")
        for one in ended.failing:
            words = console.redact(f"{' '.join(filter(None, one.key))}: {one.message}")
            console.workflow.annotate("error" if one.critical else "warning", words)
    looks = f"{ended.looks} look{'' if ended.looks == 1 else 's'}"
    if ended.healthy:
        console.say(f"{looks}; every check that matters is healthy", fg="green")
        return 0
    for one in ended.failing:
        console.say(f"  {' '.join(filter(None, one.key))}: {one.message}", fg="red")
    console.say(f"{looks}; not healthy at the end", fg="red", bold=True)
    console.say(_next(plan, no_incident))
    return int(ExitCode.UNHEALTHY)


def _next(plan: Plan, alone: bool) -> str:
    opening = ' --open auto "it fails"' if alone else ""
    return f"next: `deployguard incident respond {plan.arguments}{opening}` has the ways out"


def _say(console: Console, notice: Notice) -> None:
    service, environment, transaction = notice.group
    console.emit(
        "notice",
        {
            "service": service,
            "environment": environment,
            "transaction": transaction,
            "again": notice.again,
            "fires": [
                {
                    "host": alert.key[0],
                    "component": alert.key[1],
                    "name": alert.key[2],
                    "critical": alert.critical,
                    "message": alert.message,
                    "since": alert.since,
                }
                for alert in notice.fires
            ],
            "over": [
                {"host": host, "component": component, "name": name}
                for host, component, name in notice.over
            ],
        },
    )
    clock = time.strftime("%H:%M:%S")
    for alert in notice.fires:
        weight = "critical" if alert.critical else "not critical"
        word = "still fails" if notice.again else "fails"
        name = " ".join(filter(None, alert.key))
        console.say(
            f"{clock} {name} {word} ({weight}): {alert.message}",
            fg="red" if alert.critical else "yellow",
        )
    if not notice.fires:
        names = "; ".join(" ".join(filter(None, key)) for key in notice.over)
        console.say(f"{clock} over: {names}", fg="green")


def _safe(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that a signal sets: the last look is told, and the end is said."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
