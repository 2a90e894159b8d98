"""``deployguard explain``: what an exit code means and what to do."""

from __future__ import annotations

import inspect
import re

import click

from deployguard import errors
from deployguard.cli.console import Console
from deployguard.cli.options import common
from deployguard.errors import EXPLANATIONS, DeployguardError, ExitCode, UsageError

__all__ = ["codes_by_name", "command", "errors_of", "markdown"]

#: The words of an outcome's ``status`` that are not names of codes.
_STATUSES = {"unchanged": ExitCode.COMMITTED, "failed": ExitCode.INTERNAL}


@click.command("explain")
@click.argument("code", required=False)
@click.option("--markdown", "as_markdown", is_flag=True, help="All codes, as docs/exit-codes.md.")
@common
def command(console: Console, code: str | None, as_markdown: bool) -> int:
    """Say what an exit code means and what to do.

    CODE is a number, an outcome such as `rolled_back`, or an error such as `PlanInvalid`; without
    it all codes are listed.
    """
    if as_markdown:
        console.document(markdown())
        return 0
    for found in [_find(code)] if code is not None else ExitCode:
        explanation = EXPLANATIONS[found]
        console.say(f"{int(found)}: {explanation.meaning}", bold=True)
        console.say(f"  {explanation.detail}")
        console.say(f"  do: {explanation.act}")
        console.emit("explanation", {"exit_code": int(found), **explanation.__dict__})
    return 0


def _find(code: str) -> ExitCode:
    if code.isdigit() and int(code) in list(ExitCode):
        return ExitCode(int(code))
    found = codes_by_name().get(_plain(code))
    if found is None:
        raise UsageError(
            f"there is no exit code {code}", hint="`deployguard explain` lists them all"
        )
    return found


def codes_by_name() -> dict[str, ExitCode]:
    """Every name a code goes by: its own, the outcome's status, the classes of errors."""
    names = {_plain(code.name): code for code in ExitCode} | _STATUSES
    for error in _errors():
        names[_plain(error.__name__)] = error.exit_code
    return names


def errors_of(code: ExitCode) -> list[type[DeployguardError]]:
    """The errors that end with a code."""
    return [error for error in _errors() if error.exit_code == code]


def _errors() -> list[type[DeployguardError]]:
    return [
        value
        for _, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, DeployguardError)
    ]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def markdown() -> str:
    """``docs/exit-codes.md``."""
    lines = [
        "# Exit codes",
        "",
        "The exit code of a command is part of the stable interface. This page is made from",
        "`deployguard/errors.py` by `deployguard explain --markdown`; a test holds them together.",
        "",
        "| code | meaning | what to do |",
        "|---|---|---|",
    ]
    for code, explanation in EXPLANATIONS.items():
        lines.append(f"| {int(code)} | {explanation.meaning} | {explanation.act} |")
    for code, explanation in EXPLANATIONS.items():
        lines += ["", f"## {int(code)}: {explanation.meaning}", "", explanation.detail]
        classes = errors_of(code)
        if classes:
            lines += ["", "Errors of the library that end with it:", ""]
            for error in classes:
                summary = (inspect.getdoc(error) or "").partition("\n")[0].replace("``", "`")
                lines.append(f"- `{error.__name__}`: {summary}")
    return "\n".join(lines) + "\n"
