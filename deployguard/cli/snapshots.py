"""``deployguard snapshots``: those that a store has, whether they are whole, and one of now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, plan_file, variables

if TYPE_CHECKING:
    from deployguard.rollout.taken import Taken

__all__ = ["command"]


@click.group("snapshots")
def command() -> None:
    """List, verify and take snapshots that are kept off the hosts."""


def _source(given: click.decorators.FC) -> click.decorators.FC:
    option = click.option(
        "--from",
        "source",
        metavar="STORE[@ID]",
        help="Store, and one snapshot of it; all of the plan's store if not.",
    )
    return option(given)


@command.command("list")
@plan_file()
@variables
@_source
@common
def list_command(
    console: Console,
    plan_path: str,
    variables: dict[str, str],
    release: str | None,
    source: str | None,
) -> int:
    """List the snapshots of a plan, newest first."""
    return _tell(console, plan_path, variables, release, source, verify=False)


@command.command("verify")
@plan_file()
@variables
@_source
@common
def verify_command(
    console: Console,
    plan_path: str,
    variables: dict[str, str],
    release: str | None,
    source: str | None,
) -> int:
    """Read every object of the snapshots, and compare it.

    Ends with 1 where one is damaged or not whole.
    """
    return _tell(console, plan_path, variables, release, source, verify=True)


@command.command("take")
@plan_file()
@variables
@common
def take_command(
    console: Console, plan_path: str, variables: dict[str, str], release: str | None
) -> int:
    """Send what is live to the store now.

    No deploy and no lock: it changes nothing on the hosts. What is the same as the newest snapshot
    adds nothing.
    """
    from deployguard import api

    plan = api.load(plan_path, version=release, variables=variables, local_files=False)
    console.know(plan)
    _show(console, api.take_snapshot(plan))
    return 0


def _tell(
    console: Console,
    plan_path: str,
    variables: dict[str, str],
    release: str | None,
    source: str | None,
    *,
    verify: bool,
) -> int:
    from deployguard import api
    from deployguard.errors import ExitCode

    plan = api.load(plan_path, version=release, variables=variables, local_files=False)
    console.know(plan)
    found = api.snapshots(plan, source, verify=verify)
    for one in found:
        _show(console, one)
    if not found:
        console.say("there are no snapshots yet: a deploy takes one")
    return int(ExitCode.INTERNAL if any(one.error for one in found) else ExitCode.COMMITTED)


def _show(console: Console, one: Taken) -> None:
    console.emit("snapshot", one.as_dict())
    for line, color in _lines(one):
        console.say(line, fg=color)


def _lines(one: Taken) -> Iterator[tuple[str, str | None]]:
    if one.error:
        yield f"{one.id}: {one.error}", "red"
        if one.hint:
            yield f"  hint: {one.hint}", None
        return
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.taken_at or 0))
    sealed = f"key {one.key}" if one.key else "not encrypted"
    whole = ", whole" if one.verified else ""
    size = f"{one.entries} entries, {one.bytes / 1e6:.1f} MB"
    yield f"{one.id}: taken {at}, {size}, {sealed}{whole}", None
    for host, components in (one.hosts or {}).items():
        words = ", ".join(f"{name} {version}" for name, version in components.items())
        yield f"  {host}: {words}", None
    if one.hint:
        yield f"  hint: {one.hint}", None
