"""``deployguard drill``: the plan is deployed with faults; what becomes of the hosts is shown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common, plan_file, variables

if TYPE_CHECKING:
    from deployguard.drills.drill import Drill, Step
    from deployguard.drills.report import DrillReport, ScenarioDrilled

__all__ = ["command", "rows"]

_HEAD = ("scenario", "host", "ended", "by", "took", "left behind")


def _list(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """``--list`` needs no plan."""
    if not value:
        return
    from deployguard.drills.scenarios import SCENARIOS

    console = ctx.ensure_object(Console)
    width = max(len(scenario.name) for scenario in SCENARIOS)
    for scenario in SCENARIOS:
        console.say(f"{scenario.name:<{width}}  {scenario.what}")
        console.emit("scenario", {"scenario": scenario.name, "what": scenario.what})
    ctx.exit()


@click.command("drill")
@plan_file()
@variables
@click.option(
    "--only",
    metavar="NAME",
    multiple=True,
    help="Only this scenario, or this group of them; repeat it for more.",
)
@click.option(
    "--list",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_list,
    help="Show the scenarios and exit.",
)
@click.option("-y", "--yes", is_flag=True, help="Begin without asking.")
@common
def command(
    console: Console,
    plan_path: str,
    variables: dict[str, str],
    release: str | None,
    only: tuple[str, ...],
    yes: bool,
) -> int:
    """Deploy with faults, and show what becomes of the hosts.

    Every host must be marked `drill: true`; otherwise the exit code is 5 and nothing is touched.
    Needs a version that is live and another to deploy, and ends with the one that was live. Ends
    with 4 when a scenario broke the promise: a host was neither wholly old nor wholly new, hosts
    did not agree, one was not healthy, or something was left behind.
    """
    from deployguard import api
    from deployguard.cli.ending import quitting
    from deployguard.cli.interrupt import handing_over
    from deployguard.drills.drill import prepare
    from deployguard.errors import Refused

    plan = api.load(plan_path, version=release, variables=variables)
    console.know(plan)
    found = prepare(plan, only=only, variables=variables)
    _announce(console, found)
    if not yes and sys.stdin.isatty() and not click.confirm("Begin?", err=True):
        raise Refused("not begun; nothing was touched")
    with handing_over(quitting(console), plan.arguments) as stop:
        report = found.run(listen=lambda step: _show(console, step), stop=stop)
    return _end(console, report)


def _announce(console: Console, drill: Drill) -> None:
    plan, count = drill.plan, len(drill.scenarios)
    console.say(
        f"drilling {plan.name} in {plan.environment}, {drill.old} is live: "
        f"{_counted(count, 'scenario')}, each a deploy of {plan.version} to "
        f"{', '.join(drill.hosts)}; the faults befall {drill.victim}"
    )
    console.say(f"it takes about {_duration(drill.estimate())}; services stop and start meanwhile")


def _show(console: Console, step: Step) -> None:
    if step.result is None:
        console.say(f"{step.scenario}: {step.message}")
        return
    console.say(f"{step.scenario}: {step.message}", fg="green" if step.result.kept else "red")
    result = {**step.result.__dict__}
    for host in result.pop("hosts"):
        both = {**result, **host.__dict__}
        # Of the scenario and of the host: a line has both.
        both["problems"] = (*step.result.problems, *host.problems)
        both["scenario_seconds"] = round(step.result.seconds, 1)
        console.emit("drilled", both)


def _end(console: Console, report: DrillReport) -> int:
    console.say()
    table = [_HEAD, *rows(report)] if report.scenarios else []
    widths = [max((len(row[n]) for row in table), default=0) for n in range(len(_HEAD))]
    for number, row in enumerate(table):
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        console.say("  ".join(cells).rstrip(), **({"bold": True} if number == 0 else {}))
    if table:
        console.say()
    for result in report.scenarios:
        for line in _trouble(result):
            console.say(line, fg="red")
    missed = [result.scenario for result in report.scenarios if not result.happened]
    if missed:
        words = "the deploy ended before it came to the fault of"
        console.say(f"not shown: {words} {', '.join(missed)}", fg="yellow")
    if report.not_run:
        console.say(f"not run: {', '.join(report.not_run)}", fg="yellow")
    console.say(report.summary, fg="green" if report else "red", bold=True)
    took = _duration(report.ended_at - report.started_at)
    console.say(
        f"  {report.plan} {report.old} → {report.new} in {report.environment}, {took}, "
        f"exit code {int(report.exit_code)}"
    )
    record = report.as_dict()
    record["scenarios"] = [
        {"scenario": r.scenario, "kept": r.kept, "happened": r.happened} for r in report.scenarios
    ]
    console.emit("drill", record)
    if console.workflow is not None and not report:
        console.workflow.annotate("error", console.redact(report.summary), title="deployguard")
    return int(report.exit_code)


def rows(report: DrillReport) -> list[tuple[str, ...]]:
    """The cells of the table, a row for each scenario and host."""
    found: list[tuple[str, ...]] = []
    for result in report.scenarios:
        for number, host in enumerate(result.hosts):
            ended = {"old": report.old, "new": report.new}.get(host.ended)
            name = "" if number else result.scenario + ("" if result.happened else " (not shown)")
            found.append(
                (
                    name,
                    host.host,
                    f"{host.ended} ({ended})" if ended else host.ended.upper(),
                    host.by,
                    f"{host.seconds:.1f} s",
                    _counted(len(host.left), "thing") if host.left else "nothing",
                )
            )
    return found


def _trouble(result: ScenarioDrilled) -> list[str]:
    if result.kept:
        return []
    lines = [f"{result.scenario}: {problem}" for problem in result.problems]
    lines += [
        f"{result.scenario}: {h.host}: {problem}" for h in result.hosts for problem in h.problems
    ]
    return [*lines, *(f"  look at {place}" for place in result.look_at)]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
