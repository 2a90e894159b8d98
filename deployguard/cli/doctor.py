"""``deployguard doctor``: is everything there that a deploy needs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, plan_file, variables

if TYPE_CHECKING:
    from deployguard.cli.diagnosis import Answer
    from deployguard.plan.model import Plan

__all__ = ["command"]

_MARKS = {"ok": ("ok  ", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "red")}


@click.command("doctor")
@plan_file(required=False)
@variables
@click.option("--here", is_flag=True, help="This machine only; contact no host.")
@common
def command(
    console: Console,
    plan_path: str | None,
    variables: dict[str, str],
    release: str | None,
    here: bool,
) -> int:
    """Check this machine and the hosts before the first deploy.

    Changes nothing but that the host program is put into its state directory. Ends with 1 when a
    check failed; warnings alone are 0.
    """
    from deployguard.cli import diagnosis

    plan = None
    if plan_path is not None:
        from deployguard.plan.load import load

        plan = load(plan_path, version=release, variables=variables)
        console.know(plan)
    counts = {"ok": 0, "warning": 0, "failed": 0}
    for answer in _answers(diagnosis.local(plan), None if here else plan):
        counts[answer.status] += 1
        mark, color = _MARKS[answer.status]
        console.say(f"{mark}  {answer.where:<12} {answer.subject:<16} {answer.message}", fg=color)
        if answer.mend and answer.status != "ok":
            console.say(f"      {'':<12} {'':<16} mend: {answer.mend}")
        console.emit("check", asdict(answer))
    console.say(", ".join(f"{number} {status}" for status, number in counts.items()))
    console.emit("doctor", counts)
    return 1 if counts["failed"] else 0


def _answers(local: Iterator[Answer], plan: Plan | None) -> Iterator[Answer]:
    from deployguard.cli import diagnosis

    yield from local
    if plan is None:
        return

    def ask(name: str) -> list[Answer]:
        return list(diagnosis.host(name, plan.hosts[name], plan))

    with ThreadPoolExecutor(max(1, min(plan.concurrency, len(plan.hosts)))) as threads:
        for answers in threads.map(ask, plan.hosts):
            yield from answers
