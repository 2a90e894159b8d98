"""An assessment and its options in words, for the terminal: plain functions to lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from deployguard.cli.incident_text import Line
from deployguard.cli.moments import relative, span
from deployguard.evidence.timeline import iso
from deployguard.incidents.severity import word
from deployguard.plan.model import Containment
from deployguard.response.assessment import Assessment, LogSeen, suggested_severity
from deployguard.response.history import Estimate
from deployguard.response.options import Option, suggested

__all__ = ["assessed", "contained", "offered", "summary"]

#: Of the kinds of errors in one log, and of the healthy checks that are named.
_KINDS = 3


def assessed(assessment: Assessment) -> Iterator[Line]:
    """What was found out."""
    yield f"assessment, {assessment.seconds:.1f} s", None
    for host in assessment.hosts:
        if host.error:
            yield f"  {host.host}: {host.error}", "red"
            continue
        for one in host.live:
            when = relative(one.at, assessment.at)
            yield f"  {host.host}: {one.component} {one.version}, deployed {when}", None
        if not host.live:
            yield f"  {host.host}: nothing was deployed here", None
        yield from ((f"  {host.host}: {text}", "red") for text in host.unfinished)
    yield from _checks(assessment)
    for metric in assessment.metrics:
        before = "" if metric.before is None else f"; {metric.before:.6g} before"
        color = None if metric.state == "healthy" else "red"
        yield f"  Prometheus {metric.name}: {metric.message}{before}", color
    for log in assessment.logs:
        yield from _log(log, assessment.since)
    for note in assessment.notes:
        if not note.text.startswith("Prometheus"):
            yield f"  {f'{note.host}: ' if note.host else ''}{note.text}", "yellow"
    yield from _recent(assessment)
    level, why = suggested_severity(assessment)
    yield f"  it looks {word(level)}: {why}", None


def _checks(assessment: Assessment) -> Iterator[Line]:
    for one in assessment.failing:
        weight = "critical" if one.critical else "not critical"
        what = "dependency " if one.dependency else ""
        text = f"  {one.host}: {one.component} {what}{one.name} ({weight}): {one.message}"
        yield text, "red" if one.critical else "yellow"
    good = len(assessment.checks) - len(assessment.failing)
    if assessment.checks:
        yield f"  {good} of {len(assessment.checks)} checks are healthy", None


def _log(log: LogSeen, since: float) -> Iterator[Line]:
    where = f"  {log.host}: {log.name}: "
    if log.unknown:
        yield where + log.unknown, "yellow"
        return
    text = f"{log.errors} of {log.lines} lines since {iso(since)} are errors"
    if not log.timed:
        text = f"{log.errors} of the last {log.lines} lines are errors; they have no times"
    elif log.lines_before:
        text += f", {log.errors_before} of {log.lines_before} before"
    else:
        text += "; there is nothing from before to compare with"
    yield where + text, None
    for kind in log.kinds[:_KINDS]:
        times = f" ({kind.count} times)" if kind.count > 1 else ""
        mark = "new: " if kind in log.news else ""
        yield f"    {mark}{kind.first}{times}", "red" if mark else None


def _recent(assessment: Assessment) -> Iterator[Line]:
    for one in reversed(assessment.recent):
        when = relative(one.ended_at, assessment.at)
        yield f"  {one.version} {one.status.replace('_', ' ')} {when}, {one.transaction}", None
    if not assessment.recent:
        yield "  no deploy from here in the last 24 hours", None


def summary(assessment: Assessment) -> str:
    """The assessment in a sentence, for the timeline."""
    bad = assessment.failing
    good = len(assessment.checks) - len(bad)
    parts = [f"{good} of {len(assessment.checks)} checks healthy"]
    parts += [f"{one.host} {one.component} {one.name}: {one.message}" for one in bad[:_KINDS]]
    parts += [f"{one.host}: {one.error}" for one in assessment.unreachable[:_KINDS]]
    news = sum(len(log.news) for log in assessment.logs)
    if news:
        parts.append(f"{news} new kinds of errors in the logs")
    return "; ".join(parts)


def contained(steps: Iterable[Containment]) -> Iterator[Line]:
    """Steps that would be done."""
    for step in steps:
        back = f"undo: {' '.join(step.undo)}" if step.undo else f"no undo: {step.undo_less}"
        yield f"  {step.name}: {' '.join(step.run)}  ({back})", None


def offered(options: Sequence[Option]) -> Iterator[Line]:
    """The options, numbered; those that are not possible with the reason."""
    best = suggested(options)
    for number, option in enumerate(options, 1):
        if not option.possible:
            first, *rest = option.impossible
            yield f"  {number}. {option.kind}: not possible: {first}", "yellow"
            yield from ((f"     and: {reason}", "yellow") for reason in rest)
            continue
        mark = "  (suggested)" if option is best else ""
        yield f"  {number}. {option.kind}: {option.title}{mark}", "green" if mark else None
        yield f"     downtime: {_downtime(option.downtime, option.downtime_words)}", None
        yield from ((f"     data: {text}", None) for text in option.data)
        yield f"     confidence: {option.confidence}", None
        yield from ((f"       + {text}", None) for text in option.pro)
        yield from ((f"       - {text}", None) for text in option.contra)


def _downtime(estimate: Estimate, words: str) -> str:
    if estimate.median is None or estimate.high is None:
        return words if estimate.what == "mitigation" else f"not known: {words}"
    many = f"{estimate.n} {estimate.what}{'' if estimate.n == 1 else 's'}"
    if estimate.n == 1:
        return f"{span(estimate.median)}, as the one {estimate.what} took; {words}"
    return (
        f"{span(estimate.median)} (median of {many}, {estimate.high_is} {span(estimate.high)}); "
        f"{words}"
    )
