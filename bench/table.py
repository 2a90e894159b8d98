"""What was measured, as text: a line while it runs, tables at the end, and the document."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.deploy import Results, Row
    from bench.measure import Run

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN = "<!-- bench: begin -->"
END = "<!-- bench: end -->"


def short(run: Run) -> str:
    """One run in one line."""
    hosts = "-" if run.hosts_cpu is None else f"{run.hosts_cpu:.1f}"
    total = "-" if run.peak_total is None else f"{run.peak_total:.0f}"
    return (
        f"{run.wall:.2f} s wall, controller {run.cpu:.2f} s, hosts {hosts} s, "
        f"elsewhere {run.elsewhere:.2f} s, {run.peak_process:.0f} MiB a process, {total} MiB all"
    )


def progress(row: Row) -> str:
    """A contender's figures as soon as they are there."""
    name = f"{row.hosts:>3} hosts, {row.contender}"
    if row.wrong:
        return f"{name}: WRONG, no figures: {row.wrong}"
    return f"{name}: {_wall(row)}"


def markdown(results: Results) -> str:
    """All tables."""
    counts = sorted({row.hosts for row in results.rows})
    parts = [
        _provenance(results),
        "### The deploy",
        _deploys(results, counts),
        _ratios(results, counts),
        "### When the new version is not healthy",
        _failures(results, counts),
    ]
    if results.cold:
        parts += ["### Small things", _small(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(results: Results, document: Path) -> None:
    """Replace what stands between the document's markers; everything else in it stays."""
    text = document.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{document} has no {BEGIN} … {END} to write between")
    document.write_text(f"{before}{BEGIN}\n{markdown(results)}{END}{after}")


def _provenance(results: Results) -> str:
    versions = "; ".join(f"{_plain(title)}: {said}" for title, said in results.versions.items())
    return (
        f"Measured on {results.date} with `{results.command}` on {results.machine}. "
        f"The release: {results.job}. Disks: {results.disks}. Versions: {versions}."
    )


def _deploys(results: Results, counts: Iterable[int]) -> str:
    head = [
        "hosts",
        "",
        "wall, min",
        "median",
        "controller CPU",
        "CPU of all hosts",
        "largest process",
        "all processes",
    ]
    rows = [
        [
            str(row.hosts),
            row.title,
            f"{min(r.wall for r in row.runs):.2f} s",
            f"{statistics.median(r.wall for r in row.runs):.2f} s",
            _median(row.runs, lambda r: r.cpu, "{:.2f} s"),
            _median(row.runs, lambda r: r.hosts_cpu, "{:.1f} s"),
            _median(row.runs, lambda r: r.peak_process, "{:.0f} MiB"),
            _median(row.runs, lambda r: r.peak_total, "{:.0f} MiB"),
        ]
        for count in counts
        for row in results.rows
        if row.hosts == count and row.runs and not row.wrong
    ]
    return _table(head, rows)


def _ratios(results: Results, counts: Iterable[int]) -> str:
    """How deployguard's time compares, by everybody's fastest run: to tools, and to scripts."""
    rows = []
    for count in counts:
        ours = results.row("deployguard", count)
        tools = [results.row(name, count) for name in ("ansible", "mitogen", "pyinfra")]
        times = [_time(row) for row in tools if row is not None and row.runs]
        scripts = [results.row(name, count) for name in ("rsync", "rsync-checksum")]
        if ours is None or not ours.runs or not times:
            continue
        mine = _time(ours)
        against = [
            f"{mine / _time(row):.2f}" if row is not None and row.runs else "–" for row in scripts
        ]
        rows.append([str(count), f"{mine / min(times):.2f}", *against])
    head = [
        "hosts",
        "deployguard / the fastest of the three tools",
        "deployguard / rsync -a",
        "deployguard / rsync --checksum",
    ]
    return _table(head, rows, words=1) if rows else ""


def _failures(results: Results, counts: Iterable[int]) -> str:
    head = ["hosts", "", "verdict → restored, min", "median", "whole run, median"]
    rows = [
        [
            str(row.hosts),
            row.title,
            f"{min(row.restored):.2f} s",
            f"{statistics.median(row.restored):.2f} s",
            f"{statistics.median(r.wall for r in row.failing):.1f} s",
        ]
        for count in counts
        for row in results.rows
        if row.hosts == count and row.restored and not row.wrong
    ]
    return _table(head, rows) if rows else ""


def _small(results: Results) -> str:
    rows = [
        [f"`{name}`", f"{min(times) * 1000:.0f} ms", f"{statistics.median(times) * 1000:.0f} ms"]
        for name, times in results.cold.items()
    ]
    lines = "\n".join(f"* Plan of {line}" for line in results.plans)
    return f"{_table(['', 'min', 'median'], rows, words=1)}\n\n{lines}"


def _time(row: Row) -> float:
    return min(run.wall for run in row.runs)


def _wall(row: Row) -> str:
    if not row.runs:
        return "no good deploys asked for"
    times = [run.wall for run in row.runs]
    return f"{min(times):.2f} s min, {statistics.median(times):.2f} s median of {len(times)}"


def _median(runs: Sequence[Run], of: Callable[[Run], float | None], form: str) -> str:
    values = [value for run in runs if (value := of(run)) is not None]
    return form.format(statistics.median(values)) if values else "–"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 2) -> str:
    """A table whose first columns, as many as ``words``, hold text and the others numbers."""
    lines = [head, ["---" if column < words else "---:" for column in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(title: str) -> str:
    return title.replace("*", "")
