"""``deployguard metrics``: how often deploys are made, and fail, and how soon that is mended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deployguard.cli.console import Console
from deployguard.cli.moments import span
from deployguard.cli.options import common

if TYPE_CHECKING:
    from deployguard.incidents.metrics import Metrics
    from deployguard.incidents.periods import Kind
    from deployguard.incidents.tally import Tally
    from deployguard.store.work import Store

__all__ = ["command"]

#: A name, and a value for each column.
Row = tuple[str, list[str]]


@click.command("metrics")
@click.option(
    "--by",
    type=click.Choice(["week", "month", "quarter"]),
    default="month",
    show_default=True,
    help="How long a period is; all are in UTC.",
)
@click.option(
    "-n",
    "--periods",
    "count",
    type=click.IntRange(min=1, max=400),
    default=6,
    show_default=True,
    help="How many, with the one that is not over.",
)
@click.option("--service", metavar="NAME", help="Only this one: the name of its plan.")
@click.option("--environment", metavar="NAME", help="Only this one, such as production.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "openmetrics"]),
    default="table",
    show_default=True,
    help="CSV and OpenMetrics go to stdout; --json gives JSON.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write CSV or OpenMetrics to FILE, whole at every moment, instead of stdout.",
)
@common
def command(
    console: Console,
    by: Kind,
    count: int,
    service: str | None,
    environment: str | None,
    form: str,
    output: Path | None,
) -> int:
    """Count deploys and incidents, by week, month or quarter.

    DORA's deployment frequency, lead time, change failure rate and failed deployment recovery
    time; time to detect, acknowledge, mitigate and resolve, each with mean, median and p90 and how
    many there were; what it was most often about. docs/metrics.md says what each of them is.
    """
    from deployguard.incidents.metrics import measure
    from deployguard.store.opening import open_journal

    if output is not None and form == "table":
        raise click.UsageError("--output is for --format csv or openmetrics")
    journal, now = open_journal(), time.time()
    found = measure(journal, now, by=by, count=count, service=service, environment=environment)
    if form == "table":
        if console.json:
            from deployguard.report.metrics import as_dict

            console.emit("metrics", as_dict(found))
        for line, heading in _table(found):
            console.say(line, **({"bold": True} if heading else {}))
        for line in _unknown(journal, service, environment):
            console.say(f"hint: {line}", fg="yellow")
        return 0
    from deployguard.report import metrics as written

    if form == "csv":
        text = written.as_csv(found)
    else:
        from deployguard.incidents.lookup import Lookup

        ongoing = Lookup(journal).ongoing(service, environment)
        text = written.openmetrics(found, ongoing, now)
    text = console.redact(text)
    if output is None:
        console.document(text)
        return 0
    from deployguard.report.postmortem.files import write

    try:
        # What collects them runs as somebody else.
        write(output, text, 0o644)
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error}") from None
    console.say(f"{output}")
    return 0


def _unknown(store: Store, service: str | None, environment: str | None) -> Iterator[str]:
    """What is chosen and was never heard of: zeros would be taken for good news."""
    for what, name, column in (
        ("service", service, "plan"),
        ("environment", environment, "environment"),
    ):
        if name is None:
            continue
        other = "service" if column == "plan" else column
        rows = store.read(
            f"SELECT DISTINCT {column} AS name FROM @transactions UNION "  # noqa: S608
            f"SELECT DISTINCT {other} AS name FROM @incidents"
        )
        known = sorted(str(row["name"]) for row in rows if row["name"])
        if name not in known:
            from deployguard.plan.suggestion import did_you_mean

            mend = did_you_mean(name, known, among="there are") if known else "there is none yet"
            yield f"nothing is on record of the {what} {name}; {mend}"


def _table(metrics: Metrics) -> Iterator[tuple[str, bool]]:
    from deployguard.incidents.tally import DURATIONS

    where = " in ".join(part for part in (metrics.service, metrics.environment) if part)
    yield f"{where or 'all services'}, by {metrics.kind}, UTC", True
    columns = [*(period.name for period in metrics.periods), "all"]
    tallies = [*metrics.tallies, metrics.whole]
    yield from _aligned("", columns, _counted(tallies, DURATIONS))
    yield f"the {metrics.kind} {metrics.periods[-1].name} is not over; times are medians", False
    yield "over all of it", True
    summed = [
        (words, [str(one.n), *map(_span, (one.mean, one.median, one.p90))])
        for words, one in ((words, metrics.whole.durations[k]) for k, words in DURATIONS.items())
    ]
    yield from _aligned("", ["n", "mean", "median", "p90"], summed)
    if metrics.compared:
        yield f"{metrics.compared[0]} and {metrics.compared[1]}", True
        rows = [
            (one.measure, [_shown(one.measure, v) for v in (one.before, one.after)] + [one.verdict])
            for one in metrics.trends
        ]
        yield from _aligned("", [*metrics.compared, ""], rows)
    if metrics.causes:
        yield "what it was about", True
    for cause in metrics.causes:
        yield f"  {cause.incidents:>4}  {cause.share:>4.0%}  {cause.cause}", False


def _counted(tallies: Sequence[Tally], durations: dict[str, str]) -> list[Row]:
    rows: list[Row] = [
        ("deployments", [str(one.deployments) for one in tallies]),
        ("  of them failed", [str(one.failed_deployments) for one in tallies]),
        ("deployment frequency", [_shown("frequency", one.frequency) for one in tallies]),
        ("change failure rate", [_shown("rate", one.change_failure_rate) for one in tallies]),
        ("incidents", [str(one.incidents) for one in tallies]),
    ]
    for name, words in durations.items():
        rows.append((words, [_span(one.durations[name].median) for one in tallies]))
    return rows


def _aligned(corner: str, head: list[str], rows: list[Row]) -> Iterator[tuple[str, bool]]:
    first = max(len(name) for name, _ in [(corner, head), *rows])
    widths = [
        max(len(cells[at]) for _, cells in [(corner, head), *rows]) for at in range(len(head))
    ]
    for name, cells in [(corner, head), *rows]:
        line = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        yield f"  {name:<{first}}  {line}".rstrip(), False


def _shown(measure: str, value: float | None) -> str:
    if value is None:
        return "-"
    if "frequency" in measure:
        return f"{value:.1f} a day" if value >= 1 else f"{value * 7:.1f} a week"
    return f"{value:.0%}" if "rate" in measure else _span(value)


def _span(value: float | None) -> str:
    return "-" if value is None else span(value)
