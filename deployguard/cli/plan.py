"""``deployguard plan``: what a deploy would change, from the hosts' real state."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, going_over, plan_file, variables

if TYPE_CHECKING:
    from deployguard.rollout.preview import ComponentPreview, GuardPreview, HostPreview

__all__ = ["command", "size"]

#: Paths shown of each kind of change; all of them are in `--json`.
SHOWN_PATHS = 12


@click.command("plan")
@plan_file()
@variables
@click.option(
    "--detailed-exitcode", is_flag=True, help="End with 10 when there are changes, 0 when none."
)
@going_over()
@common
def command(
    console: Console,
    plan_path: str,
    variables: dict[str, str],
    release: str | None,
    detailed_exitcode: bool,
    drift: str | None,
    overrides: dict[str, str],
    fix: bool,
) -> int:
    """Show what a deploy would change; change nothing.

    Connects to the hosts and looks with the same code that a deploy begins with. Ends with 5 when
    a guard would refuse the deploy; with the same `--override` it shows what would be gone over.
    """
    from deployguard import api
    from deployguard.cli.asking import asking
    from deployguard.cli.progress import showing
    from deployguard.errors import ExitCode

    plan = api.load(plan_path, version=release, variables=variables)
    console.know(plan)
    title = f"comparing {plan.name} {plan.version} with {plan.environment}"
    with showing(console, title, list(plan.hosts)) as show:
        preview = api.preview(
            plan,
            listen=show,
            drift=drift,
            overrides=overrides,
            fix=fix,
            ask=asking(console, threading.Event()),
        )
    console.say()
    for line, color in _guards(preview.guards, indent=""):
        console.say(line, fg=color)
    for host in preview.hosts:
        for line, color in _host(host):
            console.say(line, fg=color)
    if not preview.changes and not preview.failed:
        console.say("no changes", fg="green")
    console.emit("preview", preview.as_dict())
    if preview.failed:
        console.say(
            f"hint: `deployguard doctor {console.plan}` says what a host lacks, and the mend"
        )
        return int(ExitCode.INTERNAL)
    if preview.refused:
        return int(ExitCode.REFUSED)
    return int(ExitCode.CHANGES if detailed_exitcode and preview.changes else ExitCode.COMMITTED)


def _host(host: HostPreview) -> Iterator[tuple[str, str | None]]:
    yield host.host, None
    if host.error:
        yield f"  {host.error}", "red"
        if host.hint:
            yield f"  hint: {host.hint}", None
    yield from _guards(host.guards, indent="  ")
    for component in host.components:
        yield from _component(component)


def _guards(guards: Iterable[GuardPreview], indent: str) -> Iterator[tuple[str, str | None]]:
    """What refuses, and what the guards of the plan found that do not."""
    from deployguard.guards.registry import GUARDS

    for name, passed, message in guards:
        if not passed:
            yield f"{indent}would refuse: {name}: {message}", "red"
        elif name in GUARDS or message.startswith("overridden"):
            yield f"{indent}passes: {name}: {message}", None


def _component(preview: ComponentPreview) -> Iterator[tuple[str, str | None]]:
    from deployguard.cli.summary import version_words

    live = version_words(preview.version_live)
    counts = (len(preview.added), len(preview.changed), len(preview.removed))
    if not preview.changes:
        yield f"  {preview.component}: {live}, no changes", None
    else:
        yield (
            (
                f"  {preview.component}: {live} → {preview.version_new}; {counts[0]} files added, "
                f"{counts[1]} changed, {counts[2]} removed; {size(preview.bytes_to_send)} to send"
            ),
            None,
        )
    if preview.revision:
        yield f"    commit {preview.revision}", None
    kinds = (("+", preview.added, "green"), ("~", preview.changed, "yellow"))
    for mark, paths, color in (*kinds, ("-", preview.removed, "red")):
        for path, length in paths[:SHOWN_PATHS]:
            yield f"    {mark} {path} ({size(length)})", color
        if len(paths) > SHOWN_PATHS:
            yield f"    {mark} … {len(paths) - SHOWN_PATHS} more", color
    for path, change in preview.files:
        if change != "same":
            yield f"    {'+' if change == 'added' else '~'} {path}", "yellow"
    for path in preview.drift:
        yield f"    ! {path} was changed by hand", "red"
    if preview.restarts:
        yield f"    restarts {', '.join(preview.restarts)}", None


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
