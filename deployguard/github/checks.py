"""What GitHub knows of a commit: its check runs and its commit statuses, as one list of reports.

GitHub has two ways in which a CI tells how it went. Actions and other apps make *check runs*, older
ones set a *commit status*; branch protection asks for both, and so do we.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from deployguard.delivery import Undelivered
from deployguard.github.session import HINTS, Session, session

__all__ = ["Commit", "Report", "commit_reports"]

State = Literal["green", "running", "red"]

#: As GitHub's own branch protection counts them.
_GREEN = ("success", "neutral", "skipped")

_MENDS = {
    **HINTS,
    403: "the token needs checks: read and statuses: read on this repository",
    404: "was it pushed? what the token cannot see is answered like this too",
    422: "name a commit, tag or branch that was pushed",
}


@dataclass(frozen=True)
class Report:
    """What one check run or status context says. ``words`` is GitHub's own word for it; ``url``
    leads to the log."""

    name: str
    state: State
    words: str
    url: str = ""


@dataclass(frozen=True)
class Commit:
    """A commit and all that was reported on it."""

    sha: str
    reports: tuple[Report, ...]


def commit_reports(
    base_url: str,
    repo: str,
    ref: str,
    token: Callable[[], str],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    deadline: float,
    tries: int = 3,
) -> Commit:
    """The latest report of each name on the commit that ``ref`` leads to.

    Tried again after 1 and 2 seconds, or when GitHub says, while that is before ``deadline``.
    Raises :class:`~deployguard.delivery.Rejected` and :class:`~deployguard.delivery.Undelivered`.
    """
    connection = session(
        f"{base_url.rstrip('/')}/repos/{repo}",
        token,
        clock=clock,
        timeout=min(10.0, deadline),
        deadline=deadline,
        hints=_MENDS,
    )
    with connection as api:
        tried = 0
        while True:
            tried += 1
            try:
                return _read(api, ref)
            except Undelivered as failure:
                pause = float(tried) if failure.retry_after is None else failure.retry_after
                if tried >= tries or clock() + pause > api.give_up:
                    raise
            sleep(pause)


def _read(api: Session, ref: str) -> Commit:
    status = api.request("GET", f"/commits/{_part(ref)}/status", query={"per_page": 1})
    sha = str(status.json(dict).get("sha", ""))
    # From here on by the commit itself: a branch may move between two requests.
    reports = [*_statuses(api, sha), *_runs(api, sha)]
    return Commit(sha, tuple(reports))


def _statuses(api: Session, sha: str) -> Iterator[Report]:
    for status in api.pages(f"/commits/{_part(sha)}/status", {}, within="statuses"):
        word = str(status.get("state"))
        state: State = "red"
        if word in ("success", "pending"):
            state = "green" if word == "success" else "running"
        yield Report(str(status.get("context")), state, word, _url(status, "target_url"))


def _runs(api: Session, sha: str) -> Iterator[Report]:
    query = {"filter": "latest"}
    for run in api.pages(f"/commits/{_part(sha)}/check-runs", query, within="check_runs"):
        name, url = str(run.get("name")), _url(run, "details_url", "html_url")
        if run.get("status") != "completed":
            yield Report(name, "running", str(run.get("status")), url)
        else:
            word = str(run.get("conclusion"))
            yield Report(name, "green" if word in _GREEN else "red", word, url)


def _url(member: Mapping[str, Any], *names: str) -> str:
    return next((str(member[name]) for name in names if member.get(name)), "")


def _part(text: str) -> str:
    """``text`` as one part of a path: a branch may have slashes."""
    return quote(text, safe="")
