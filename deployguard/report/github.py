"""Files an incident as a GitHub issue: once, whatever is retried.

GitHub has no idempotency key, and a request whose answer was lost may have been carried out. So
every issue and comment carries a hidden marker naming its transaction, and the markers already
there are read before anything is written and again before anything is repeated. They are read
from the list of issues, because search lags behind writes by up to minutes.

A deploy that fails again (same project, version and environment: the ``fingerprint``) while its
issue is still open gets a comment on that issue instead of a second one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import quote

from deployguard.delivery import Rejected, Undelivered
from deployguard.github.session import HINTS, Missing, Reply, Session, session

__all__ = ["GitHubIssues", "IncidentReport", "IssueRef"]

_MENDS = {
    **HINTS,
    403: "the token needs the permission issues: write on this repository",
    410: "issues are disabled in this repository",
    422: "GitHub refused the content of the report",
}

MOST_BODY = 65_536
MOST_TITLE = 256
BETWEEN_WRITES = 1.0

_MARKER = re.compile(r"^<!-- deployguard:(incident|transaction) (\S+) -->\s*$", re.MULTILINE)


Action = Literal["created", "commented", "found"]


@dataclass(frozen=True)
class IncidentReport:
    """An issue already rendered; :attr:`comment` is used if the incident has one open already."""

    repo: str
    title: str
    body: str
    labels: tuple[str, ...]
    fingerprint: str
    transaction: str
    comment: str

    def __post_init__(self) -> None:
        if not self.fingerprint or not self.transaction:
            raise ValueError("without a fingerprint and a transaction nothing can be filed once")

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> IncidentReport:
        """The report as the outbox kept it."""
        try:
            return cls(
                repo=str(payload["repo"]),
                title=str(payload["title"]),
                body=str(payload["body"]),
                labels=tuple(str(label) for label in payload["labels"]),
                fingerprint=str(payload["fingerprint"]),
                transaction=str(payload["transaction"]),
                comment=str(payload["comment"]),
            )
        except KeyError as missing:
            hint = "another version of deployguard wrote it"
            raise Rejected(f"the kept report has no {missing}", hint) from None

    def to_payload(self) -> dict[str, Any]:
        """The report as the outbox keeps it."""
        return {**asdict(self), "labels": list(self.labels)}


@dataclass(frozen=True)
class IssueRef:
    """Where a report ended up. ``found`` means that an earlier try had filed it already."""

    repo: str
    number: int
    url: str
    action: Action


class GitHubIssues:
    """Files reports in one repository, one at a time.

    ``token`` is called for every request and its result is kept nowhere. ``clock`` (seconds that
    only go forward) and ``sleep`` come from the caller. ``timeout`` bounds each wait for the
    network, ``deadline`` a whole :meth:`file`, its pauses included. A rate limit is waited out as
    long as GitHub asks, if that ends before the deadline; other failures are tried again after
    2, 4 and 8 seconds.
    """

    def __init__(
        self,
        base_url: str,
        repo: str,
        token: Callable[[], str],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        timeout: float = 10.0,
        deadline: float = 180.0,
        tries: int = 4,
    ) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII):
            raise ValueError(f"a GitHub repository is written owner/name, not {repo!r}")
        self.base_url = base_url.rstrip("/")
        self.repo = repo
        self._token = token
        self._clock = clock
        self._sleep = sleep
        self._timeout = timeout
        self._deadline = deadline
        self._tries = tries
        self._next_write = float("-inf")
        self._serial = threading.Lock()

    def __repr__(self) -> str:
        return f"GitHubIssues({self.base_url!r}, {self.repo!r})"

    def send(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """:meth:`file` in the shape of an outbox sender."""
        return asdict(self.file(IncidentReport.from_payload(payload)))

    def file(self, report: IncidentReport) -> IssueRef:
        """See to it that ``report`` is in the repository exactly once, and say where.

        :raises Undelivered: the network or GitHub failed, or the rate limit outlasts the deadline.
        :raises Rejected: GitHub refused.
        """
        if report.repo.lower() != self.repo.lower():
            raise ValueError(f"a report for {report.repo} was given to the client of {self.repo}")
        connection = session(
            f"{self.base_url}/repos/{self.repo}",
            self._token,
            clock=self._clock,
            timeout=self._timeout,
            deadline=self._deadline,
            hints=_MENDS,
        )
        with self._serial, connection as api:
            tried = 0
            while True:
                tried += 1
                try:
                    return self._file_once(api, report)
                except Undelivered as failure:
                    pause = 2.0**tried if failure.retry_after is None else failure.retry_after
                    if tried >= self._tries or self._clock() + pause > api.give_up:
                        raise
                self._sleep(pause)

    def _file_once(self, api: Session, report: IncidentReport) -> IssueRef:
        """Look, then write what is missing: one pass, safe to begin again at any point."""
        filed, same = self._look_up(api, report)
        if filed is not None:
            return self._ref(filed, "found")
        mark = f"<!-- deployguard:transaction {_name(report.transaction)} -->"
        if same is not None:
            path = f"/issues/{int(same['number'])}/comments"
            try:
                self._write(api, path, {"body": _fit(mark, report.comment)})
            except Missing as deleted:  # it was listed a moment ago: look again
                raise Undelivered(deleted.reason) from None
            return self._ref(same, "commented")
        marks = f"<!-- deployguard:incident {_name(report.fingerprint)} -->\n{mark}"
        title = _short(" ".join(_clean(report.title).split()), MOST_TITLE)
        issue = {"title": title, "body": _fit(marks, report.body), "labels": list(report.labels)}
        made = self._write(api, "/issues", issue)
        return self._ref(made.json(dict), "created")

    def _look_up(
        self, api: Session, report: IncidentReport
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The issue that holds this very report, and the open one of the same incident.

        All open issues with the report's label are read, oldest first. Then the hundred issues
        changed last, of any state and label: an earlier try's issue may have been closed since,
        and GitHub drops labels without a word when the token may not set them. Those count for
        this very transaction only: without the label, anyone could have planted a fingerprint.
        """
        incident = ("incident", _name(report.fingerprint))
        transaction = ("transaction", _name(report.transaction))
        query = {"state": "open", "sort": "created", "direction": "asc"}
        if report.labels and "," not in report.labels[0]:  # a comma would make it two labels
            query["labels"] = report.labels[0]
        same: dict[str, Any] | None = None
        for issue in api.pages("/issues", query):
            marks = _marks(issue)
            if transaction in marks:
                return issue, None
            if same is None and incident in marks:
                same = issue
        if same is not None and self._commented(api, same, transaction):
            return same, None
        query = {"state": "all", "sort": "updated", "direction": "desc"}
        for issue in api.pages("/issues", query, most=1):
            marks = _marks(issue)
            if transaction in marks or (
                incident in marks
                and issue.get("state") == "closed"
                and self._commented(api, issue, transaction)
            ):
                return issue, None
        return None, same

    def _commented(
        self, api: Session, issue: Mapping[str, Any], transaction: tuple[str, str]
    ) -> bool:
        comments = api.pages(f"/issues/{int(issue['number'])}/comments", {})
        return any(transaction in _marks(comment) for comment in comments)

    def _write(self, api: Session, path: str, content: dict[str, Any]) -> Reply:
        """POST, at least a second after the write before it, as GitHub asks."""
        early = self._next_write - self._clock()
        if early > 0:
            self._sleep(early)
        try:
            return api.request("POST", path, content=content)
        finally:
            self._next_write = self._clock() + BETWEEN_WRITES

    def _ref(self, issue: Mapping[str, Any], action: Action) -> IssueRef:
        try:
            return IssueRef(self.repo, int(issue["number"]), str(issue["html_url"]), action)
        except (KeyError, TypeError, ValueError):
            raise Undelivered("GitHub answered with something else than an issue") from None


def _name(text: str) -> str:
    """``text`` as one word that cannot end an HTML comment."""
    return quote(text, safe="._/@:+-", errors="replace")


def _marks(written: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The markers in an issue or comment: whole lines only, so that a quoted one is none."""
    return set(_MARKER.findall(str(written.get("body") or "")))


def _clean(text: str) -> str:
    """``text`` as GitHub can take it, and without markers: logs may hold someone else's."""
    text = text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    return text.replace("<!-- deployguard:", "<!- - deployguard:")


def _short(text: str, most: int) -> str:
    """``text`` in ``most`` UTF-16 units at the most, the strictest way to count characters."""
    units = text.encode("utf-16-le")
    return units[: 2 * most].decode("utf-16-le", "ignore")


def _fit(marks: str, text: str) -> str:
    """A body GitHub takes: the markers, and as much of ``text`` as there is room for.

    Markers and note come first, where no unclosed code block in a cut text can show or hide them.
    """
    text = _clean(text)
    whole = f"{marks}\n\n{text}"
    if _short(whole, MOST_BODY) == whole:
        return whole
    note = (
        f"> **Shortened.** The report has {len(text):,} characters and GitHub takes {MOST_BODY:,}; "
        "its end is missing here."
    )
    return _short(f"{marks}\n\n{note}\n\n{text}", MOST_BODY)
