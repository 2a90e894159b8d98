"""The entry point: finds the command, runs it, and turns however it ended into an exit code.

Commands are imported when they run. ``--help`` and completion read the table below instead, so
that they do not pay for pydantic and paramiko; a test holds the table to the commands.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from deployguard import __version__
from deployguard.cli.console import Console
from deployguard.errors import DeployguardError, ExitCode

__all__ = ["COMMANDS", "cli", "main", "run"]

#: Every command with its line in ``--help``, in the order a new user meets them.
COMMANDS = {
    "validate": "Check a plan file; contact no host.",
    "doctor": "Check this machine and the hosts before the first deploy.",
    "plan": "Show what a deploy would change; change nothing.",
    "apply": "Deploy: the new version healthy, or the old one back.",
    "status": "Show what is live where, and what is unfinished.",
    "history": "List the transactions of this machine, or show one.",
    "rollback": "Go back to a version the hosts have kept.",
    "restore": "Bring a snapshot back to its hosts, or to new ones.",
    "snapshots": "List, verify and take snapshots that are kept off the hosts.",
    "recover": "Finish what an interrupted run left.",
    "watch": "Look at the checks after the deploy; tell of what fails.",
    "incident": "Open, show and close incidents.",
    "notify": "Test channels, send what waits, show what was sent.",
    "postmortem": "Draft, check and render post-mortems.",
    "metrics": "Count deploys and incidents, by week, month or quarter.",
    "report": "Draw a transaction as one page to look at.",
    "serve": "Show history, incidents and metrics in a browser, on localhost.",
    "drill": "Deploy with faults, and show what becomes of the hosts.",
    "explain": "Say what an exit code means and what to do.",
    "schema": "Print the JSON Schema of the plan file.",
}

_BUG = (
    "this is a bug. Hosts in the middle of a deploy restore themselves when their lease ends: run "
    "`deployguard status PLAN`, then `deployguard recover PLAN`; `--debug` shows the traceback"
)


class LazyGroup(click.Group):
    """Commands from :data:`COMMANDS`, each the ``command`` of the module with its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that is asked for."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"deployguard.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A slip of the pen is answered with the command that was meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from deployguard.plan.suggestion import did_you_mean

            mend = did_you_mean(args[0], COMMANDS, among="there are")
            ctx.fail(f'there is no command "{args[0]}"; {mend}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: `deployguard explain`.",
)
@click.version_option(__version__, prog_name="deployguard", message="%(prog)s %(version)s")
def cli() -> None:
    """Deploys over SSH as transactions.

    A deploy ends with the new version healthy, or with the old one back, byte for byte, and
    healthy again.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code. Raises nothing."""
    console = Console()
    try:
        code = _invoke(arguments, console)
    except Exception as error:  # noqa: BLE001 - the last line of defence: whatever it is has a code
        code = console.failed(ExitCode.INTERNAL, f"{type(error).__name__}: {error}", _BUG, error)
    console.close()
    return code


def _invoke(arguments: Sequence[str] | None, console: Console) -> int:
    try:
        result: Any = cli.main(
            None if arguments is None else list(arguments),
            prog_name="deployguard",
            standalone_mode=False,
            obj=console,
        )
        return int(result or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return int(ExitCode.USAGE)
    except click.NoSuchOption as error:
        return console.failed(ExitCode.USAGE, *_unknown_option(error))
    except click.UsageError as error:
        hint = f"{error.ctx.command_path} --help" if error.ctx is not None else ""
        return console.failed(ExitCode.USAGE, error.format_message(), hint)
    except click.ClickException as error:
        return console.failed(ExitCode.USAGE, error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return console.failed(ExitCode.INTERRUPTED, "interrupted", "run `deployguard recover PLAN`")
    except DeployguardError as error:
        return console.refused(error)


def _unknown_option(error: click.NoSuchOption) -> tuple[str, str]:
    """Message and hint; what templates call ``version`` is chosen with ``--release``."""
    if error.option_name == "--version":
        hint = "--release VERSION deploys another version; `deployguard --version` shows our own"
        return "there is no option --version here", hint
    return error.format_message(), f"{error.ctx.command_path} --help" if error.ctx else ""


def main() -> NoReturn:
    """What the ``deployguard`` script calls."""
    # Imports make many objects that stay: looking for garbage among them takes 20 ms.
    gc.set_threshold(50_000)
    code = run()
    # Nor is there any point in collecting all of it at the exit, for 40 ms more.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
