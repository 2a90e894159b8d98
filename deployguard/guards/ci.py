"""The commit is green on GitHub: every check run and every status that counts has succeeded.

What runs still is not green, and neither is a commit on which nothing was reported, or one of which
GitHub does not answer. When the deploy is itself a job on that commit, this job is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from deployguard.github.checks import Commit, Report
from deployguard.guards.base import Answers, Known, Unknown, Verdict, some
from deployguard.plan.model import CiGuard

__all__ = ["judge", "verdict"]


def judge(spec: CiGuard, known: Known, answers: Answers) -> Iterator[Verdict]:
    """One verdict for all hosts."""
    ref = spec.commit or known.version
    try:
        commit = known.world.commit(spec, ref)
    except Unknown as unknown:
        mend = f" ({unknown.mend})" if unknown.mend else ""
        words = f"whether {spec.repo} at {ref} is green is not known: {unknown}{mend}"
        yield Verdict("ci", False, words)
        return
    yield verdict(spec, ref, commit, known.world.environ)


def verdict(spec: CiGuard, ref: str, commit: Commit, environ: Mapping[str, str]) -> Verdict:
    """What the reports of a commit add up to. Pure."""
    sha = commit.sha[:7]
    where = f"{spec.repo} at {ref}" + ("" if commit.sha.startswith(ref) else f" ({sha})")
    counted = [report for report in commit.reports if _counts(spec, report, environ)]
    missing = [name for name in spec.required if all(name != each.name for each in counted)]
    red = [f"{each.name} ({each.words})" for each in counted if each.state == "red"]
    running = [f"{each.name} ({each.words})" for each in counted if each.state == "running"]
    wrong = [f"failed: {some(red)}"] if red else []
    wrong += [f"not finished: {some(running)}"] if running else []
    wrong += [f"not reported: {some(missing)}"] if missing else []
    if not counted and not missing:
        wrong.append("no check has reported on it")
    if not wrong:
        return Verdict("ci", True, f"{where} is green: {_checks(len(counted))}")
    mend = "mend what failed and deploy what is green"
    if not red:
        mend = "wait for it" if running else "was it pushed, and does its CI run?"
    links = [each.url for each in counted if each.state == "red" and each.url]
    look = f"; look at {links[0]}" if links else ""
    return Verdict("ci", False, f"{where} is not green: {'; '.join(wrong)} ({mend}{look})")


def _counts(spec: CiGuard, report: Report, environ: Mapping[str, str]) -> bool:
    if spec.required:
        return report.name in spec.required
    if any(fnmatchcase(report.name, pattern) for pattern in spec.ignore):
        return False
    return not _is_this_job(report, environ)


def _is_this_job(report: Report, environ: Mapping[str, str]) -> bool:
    """Whether the report is of the job that runs this, which cannot have ended.

    GitHub names the run in the address of each of its jobs. A job goes by its id unless the
    workflow gives it another name; then the plan has to name it under ``ignore``.
    """
    run, job = environ.get("GITHUB_RUN_ID"), environ.get("GITHUB_JOB")
    own = bool(run) and f"/actions/runs/{run}/" in f"{report.url}/"
    return own and report.state == "running" and report.name == job


def _checks(count: int) -> str:
    return "1 check" if count == 1 else f"{count} checks"
