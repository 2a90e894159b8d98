"""The two channels of a command: text for people on stderr, JSON Lines for programs on stdout.

Nothing leaves here that was not redacted, and a reader that went away never stops a deploy.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TextIO

import click

from deployguard.errors import DeployguardError, ExitCode, PlanInvalid, with_plan

if TYPE_CHECKING:
    from deployguard.cli.actions import Workflow
    from deployguard.evidence.redact import Redactor
    from deployguard.plan.model import Plan

__all__ = ["Console"]

#: The outcome a job is told when a command ends with an error instead of an outcome.
_WORDS = {
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.LOCKED: "locked",
    ExitCode.REFUSED: "refused",
}


class Console:
    """Where a command writes. One a run; the options of the command line set its fields."""

    def __init__(self) -> None:
        self.json = False
        self.color: bool | None = False if os.environ.get("NO_COLOR") else None
        self.verbosity = 0
        self.debug = bool(os.environ.get("DEPLOYGUARD_DEBUG"))
        self.log_file: str | None = None
        #: The plan as this command line names it, once that is known.
        self.plan = ""
        self._redactor: Redactor | None = None
        self._workflow: Workflow | None = None
        self._broken: list[TextIO] = []
        self._at_close: list[Callable[[], None]] = []
        #: What keeps a display that redraws itself still for a while, while there is one.
        self.paused: Callable[[], AbstractContextManager[None]] = nullcontext

    # --- what is written ------------------------------------------------------------------------

    def say(self, text: str = "", **style: Any) -> None:
        """A line for people."""
        style = {name: value for name, value in style.items() if value is not None}
        text = self.redact(text)
        self._write(sys.stderr, (click.style(text, **style) if style else text) + "\n")

    def emit(self, kind: str, record: dict[str, Any]) -> None:
        """A line for programs, when ``--json`` asked for them."""
        if self.json:
            data = self.redactor.data(record)
            # ASCII: names of files on hosts may hold bytes that are no UTF-8.
            self._write(sys.stdout, json.dumps({"type": kind, **data}, default=str) + "\n")

    def document(self, text: str) -> None:
        """A whole document that was asked for, such as the schema, on stdout."""
        self._write(sys.stdout, text if text.endswith("\n") else text + "\n")

    def failed(
        self, code: ExitCode, message: str, hint: str = "", error: BaseException | None = None
    ) -> int:
        """Say why a command ended without a result; returns the exit code."""
        message, hint = with_plan(message, self.plan), with_plan(hint, self.plan)
        self.say(f"error: {message}", fg="red")
        if hint:
            self.say(f"hint: {hint}")
        if error is not None and self.debug:
            self.say("".join(traceback.format_exception(error)))
        self.emit("error", {"exit_code": int(code), "message": message, "hint": hint})
        if self.workflow is not None:
            self.workflow.annotate("error", self.redact(f"{message}\n{hint}".strip()))
            self.workflow.output(outcome=_WORDS.get(code, "failed"), exit_code=str(int(code)))
        return int(code)

    def refused(self, error: DeployguardError) -> int:
        """The same for an error of ours, which carries its code and its hint."""
        if not isinstance(error, PlanInvalid):
            return self.failed(error.exit_code, error.message, error.hint, error)
        count = len(error.mistakes)
        for mistake in error.mistakes:
            self.say(str(mistake))
            self.emit("mistake", dict(mistake.__dict__))
            if self.workflow is not None:
                text = self.redact("; ".join(filter(None, (mistake.message, mistake.hint))))
                self.workflow.annotate(
                    "error", text, file=mistake.file, line=mistake.line, column=mistake.column
                )
        message = f"{count} mistake{'s' if count != 1 else ''} in {error.subject}"
        self.say(f"error: {message}", fg="red")
        record = {"exit_code": int(error.exit_code), "message": message, "hint": ""}
        self.emit("error", record)
        if self.workflow is not None:
            self.workflow.output(outcome="failed", exit_code=str(int(error.exit_code)))
        return int(error.exit_code)

    def _write(self, stream: TextIO, text: str) -> None:
        if stream in self._broken:
            return
        try:
            click.echo(text, file=stream, nl=False, color=self.color)
        except (BrokenPipeError, ValueError):
            # `deployguard apply | head`: the deploy goes on, and so does its exit code.
            self._broken.append(stream)

    def at_close(self, action: Callable[[], None]) -> None:
        """Have something undone when the command is over."""
        self._at_close.append(action)

    def close(self) -> None:
        """Flush; a reader that is gone must not change the exit code at interpreter exit."""
        for action in self._at_close:
            action()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (BrokenPipeError, ValueError):
                self._broken.append(stream)
        if sys.stdout in self._broken:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    # --- what it knows --------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether a display that redraws itself makes sense."""
        return (
            sys.stderr.isatty()
            and not self.json
            and self.verbosity == 0
            and self.workflow is None
            and os.environ.get("TERM") != "dumb"
        )

    @property
    def workflow(self) -> Workflow | None:
        """The GitHub Actions job this runs in, if it runs in one."""
        if self._workflow is None and os.environ.get("GITHUB_ACTIONS") == "true":
            from deployguard.cli.actions import Workflow

            self._workflow = Workflow(os.environ, sys.stderr)
        return self._workflow

    @property
    def redactor(self) -> Redactor:
        """Takes out what looks like a secret, and once a plan is known, the secrets it names."""
        if self._redactor is None:
            from deployguard.evidence.redact import Redactor

            self._redactor = Redactor()
        return self._redactor

    def redact(self, text: str) -> str:
        """The text without secrets."""
        return self.redactor.text(text) if text else text

    def know(self, plan: Plan) -> None:
        """Learn the secrets that a plan names: nothing shows them from here on."""
        from deployguard.evidence.redact import Redactor
        from deployguard.report.redaction import secrets_of

        self.plan = plan.arguments
        secrets = secrets_of(plan)
        self._redactor = Redactor(secrets)
        if self.workflow is not None:
            for secret in secrets:
                self.workflow.mask(secret)
