"""Options that several commands share, so that they are spelt and explained once."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable
from typing import Any, TypeVar

import click

from deployguard.cli.console import Console

__all__ = ["common", "engine", "going_over", "plan_file", "variables"]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _set(field: str, value_of: Callable[[Any], Any] = lambda value: value) -> Callable[..., None]:
    """A callback that puts an option into the console's field of that name when it is given."""

    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(Console), field, value_of(value))

    return callback


def _journal(_: click.Context, __: click.Parameter, url: str | None) -> None:
    """For whatever opens the journal in this process."""
    if not url:
        return
    from deployguard.store.opening import VARIABLE

    if ":" in url.partition("://")[2].rpartition("@")[0]:
        raise click.BadParameter(
            "a password here is for everybody to read in `ps`; use PGPASSWORD, ~/.pgpass or "
            f"{VARIABLE}"
        )
    os.environ[VARIABLE] = url


def common(command: Callable[..., int]) -> Callable[..., int]:
    """What every command understands. The command is given the console and returns its code."""

    @click.pass_obj
    @functools.wraps(command)
    def prepared(console: Console, /, **arguments: Any) -> int:
        from deployguard.cli import logs

        logs.configure(console)
        return command(console, **arguments)

    decorated: Callable[..., int] = prepared
    for option in reversed(
        (
            click.option(
                "--json",
                is_flag=True,
                expose_value=False,
                callback=_set("json"),
                is_eager=True,
                help="JSON Lines on stdout; the text for people stays on stderr.",
            ),
            click.option(
                "--no-color",
                is_flag=True,
                expose_value=False,
                callback=_set("color", lambda _: False),
                help="No colours; NO_COLOR=1 does the same.",
            ),
            click.option(
                "-v",
                "--verbose",
                count=True,
                expose_value=False,
                callback=_set("verbosity"),
                help="Log on stderr; -vv with the SSH library's own log.",
            ),
            click.option(
                "--log-file",
                metavar="FILE",
                type=click.Path(dir_okay=False, writable=True),
                expose_value=False,
                callback=_set("log_file"),
                help="Append the log to FILE as JSON Lines.",
            ),
            click.option(
                "--journal",
                metavar="URL",
                expose_value=False,
                callback=_journal,
                help="Share a journal: postgresql://USER@HOST/DATABASE, or DEPLOYGUARD_JOURNAL.",
            ),
            click.option(
                "--debug",
                is_flag=True,
                expose_value=False,
                callback=_set("debug"),
                help="Show the traceback of an error.",
            ),
        )
    ):
        decorated = option(decorated)
    return decorated


def _pairs(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    metavar = parameter.metavar if isinstance(parameter, click.Option) else "NAME=VALUE"
    pairs = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is not {metavar}")
        pairs[name] = text
    return pairs


def variables(command: Decorated) -> Decorated:
    """What fills the plan's templates."""
    command = click.option(
        "--var",
        "variables",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_pairs,
        help="A variable of the plan's templates; repeat it for more.",
    )(command)
    return click.option(
        "--release", metavar="VERSION", help="Deploy this version instead of the plan's."
    )(command)


def going_over(fix: bool = True) -> Callable[[Decorated], Decorated]:
    """What a person may say to guards that would refuse."""

    def decorate(command: Decorated) -> Decorated:
        if fix:
            command = click.option(
                "--fix",
                is_flag=True,
                help="This deploy mends what is not healthy now: `baseline` lets it pass.",
            )(command)
        command = click.option(
            "--override",
            "overrides",
            metavar="GUARD=REASON",
            multiple=True,
            callback=_pairs,
            help="Go over a guard that refuses; the reason goes on record. Repeat it for more.",
        )(command)
        return click.option(
            "--drift",
            type=click.Choice(["save"]),
            help="Keep files that were changed by hand as a bundle and go on, instead of refusing.",
        )(command)

    return decorate


def engine(command: Decorated) -> Decorated:
    """Who runs the hosts' transactions."""
    return click.option(
        "--engine",
        metavar="URL",
        help="Let the workers of a Dask scheduler deploy: dask://HOST:PORT, or tls://HOST:PORT. "
        "Needs a journal in PostgreSQL.",
    )(command)


def plan_file(required: bool = True) -> Callable[[Decorated], Decorated]:
    """The plan, first on the command line."""

    def callback(ctx: click.Context, _: click.Parameter, value: str | None) -> str | None:
        if value is not None:
            ctx.ensure_object(Console).plan = shlex.quote(value)
        return value

    return click.argument(
        "plan_path",
        metavar="PLAN" if required else "[PLAN]",
        required=required,
        type=click.Path(exists=True, dir_okay=False, readable=True),
        callback=callback,
    )
