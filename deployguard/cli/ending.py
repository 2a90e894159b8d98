"""How ``apply``, ``rollback`` and ``recover`` end: the summary, the last JSON line, the outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deployguard.cli import summary
from deployguard.errors import ExitCode

if TYPE_CHECKING:
    from deployguard.cli.console import Console
    from deployguard.rollout.outcome import Outcome

__all__ = ["end", "quitting"]


def end(console: Console, outcome: Outcome) -> int:
    """Say how it ended, everywhere it is read; returns the exit code."""
    color = summary.color_of(outcome)
    console.say()
    for line, heading in summary.lines(outcome):
        console.say(line, **({"fg": color, "bold": True} if heading else {}))
    console.emit("outcome", outcome.as_dict())
    if console.workflow is not None:
        _tell_workflow(console, outcome)
    return int(outcome.exit_code)


def _tell_workflow(console: Console, outcome: Outcome) -> None:
    workflow = console.workflow
    assert workflow is not None
    if not outcome:
        workflow.annotate("error", console.redact(outcome.summary), title="deployguard")
    for finding in outcome.findings:
        workflow.annotate(
            "error" if finding.critical and not outcome else "warning",
            console.redact(summary.finding_text(finding)),
            title=f"deployguard: {finding.layer}",
        )
    for each in outcome.overrides:
        workflow.annotate(
            "warning",
            console.redact(f"{each.guard} was overridden: {each.reason}"),
            title="deployguard",
        )
    workflow.output(
        outcome=outcome.status,
        transaction=outcome.transaction,
        exit_code=str(int(outcome.exit_code)),
        incident_url=outcome.incident_url or "",
        # Absolute: the next step may run in another directory.
        forensics_path=str(Path(outcome.forensics).absolute()) if outcome.forensics else "",
    )
    workflow.summary(console.redact(summary.markdown(outcome)))


def quitting(console: Console) -> Callable[[], None]:
    """For a run that is killed in the middle: the outputs that a later step still needs."""

    def last_words() -> None:
        if console.workflow is not None:
            console.workflow.output(outcome="interrupted", exit_code=str(int(ExitCode.INTERRUPTED)))

    return last_words
