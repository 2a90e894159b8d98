"""An incident is filed once, whatever fails on the way, and the token shows nowhere."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from deployguard.delivery import Rejected, Undelivered
from deployguard.report.github import GitHubIssues, IncidentReport
from tests.github.contract import Answer
from tests.github.server import TOKEN, Fault, GitHubServer, checked

FIRST = IncidentReport(
    repo="acme/shop",
    title="shop v1.2.4: rolled back in production",
    body="The new version failed.",
    labels=("incident", "rollback"),
    fingerprint="shop/v1.2.4/production",
    transaction="t-0001",
    comment="It failed again.",
)
SECOND = replace(FIRST, transaction="t-0002")

Break = Callable[[GitHubServer, str], None]
FAULTS: dict[str, Break] = {
    "500 before": lambda github, method: github.fail(500, "before", method=method),
    "500 after": lambda github, method: github.fail(500, "after", method=method),
    "502 before": lambda github, method: github.fail(502, "before", method=method),
    "502 after": lambda github, method: github.fail(502, "after", method=method),
    "503 before": lambda github, method: github.fail(503, "before", method=method),
    "503 after": lambda github, method: github.fail(503, "after", method=method),
    "dropped before": lambda github, method: github.drop("before", method=method),
    "dropped after": lambda github, method: github.drop("after", method=method),
    "429": lambda github, method: github.limit(429, retry_after=7, method=method),
    "403 secondary": lambda github, method: github.limit(403, retry_after=7, method=method),
    "403 secondary, no time": lambda github, method: github.limit(403, method=method),
    "403 primary": lambda github, method: github.limit(403, reset_in=30, method=method),
    "timeout": lambda github, method: github.stall(method=method),
}


@dataclass
class Time:
    """A clock that moves when someone sleeps, and by ``tick`` whenever it is read."""

    now: float = 1000.0
    tick: float = 0.0
    sleeps: list[float] = field(default_factory=list)

    def clock(self) -> float:
        """Seconds that only go forward."""
        self.now += self.tick
        return self.now

    def sleep(self, seconds: float) -> None:
        """Over at once."""
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    """A GitHub that nothing may be wrong with at the end."""
    with checked() as server:
        yield server


@pytest.fixture
def time() -> Time:
    """Nothing in these tests waits for a real clock."""
    return Time()


def _client(github: GitHubServer, time: Time, **other: Any) -> GitHubIssues:
    # Short only where the timeout is what the test is about; a slow machine must not meet it.
    timeout = 0.3 if any(fault.kind == "stall" for fault in github.faults) else 30.0
    given: dict[str, Any] = {"token": lambda: TOKEN, "timeout": timeout, "base_url": github.url}
    given |= {"repo": github.name, "clock": time.clock, "sleep": time.sleep} | other
    return GitHubIssues(**given)


def _bodies(github: GitHubServer) -> list[str]:
    return [issue["body"] for issue in github.repository.issues.values()]


def _writes(github: GitHubServer) -> int:
    return sum(call.method == "post" for call in github.calls)


@pytest.mark.parametrize("style", ["url", "enterprise_url"])
def test_an_incident_becomes_an_issue(github: GitHubServer, time: Time, style: str) -> None:
    """With its labels and both markers, on github.com and on Enterprise alike."""
    ref = _client(github, time, base_url=f"{getattr(github, style)}/").file(FIRST)
    issue = github.repository.issues[1]
    assert (ref.number, ref.action, ref.url) == (1, "created", issue["html_url"])
    assert issue["title"] == FIRST.title
    assert issue["body"] == (
        "<!-- deployguard:incident shop/v1.2.4/production -->\n"
        "<!-- deployguard:transaction t-0001 -->\n\nThe new version failed."
    )
    assert [label["name"] for label in issue["labels"]] == ["incident", "rollback"]


def test_filing_again_finds_what_is_there(github: GitHubServer, time: Time) -> None:
    """Another process, another client, the same transaction: nothing is written."""
    _client(github, time).file(FIRST)
    ref = _client(github, time).file(FIRST)
    assert (ref.number, ref.action, _writes(github)) == (1, "found", 1)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_issue_is_created_once_under_each_fault(
    github: GitHubServer, time: Time, fault: str, method: str
) -> None:
    """One failure of any kind, while looking or while writing, is ridden out."""
    FAULTS[fault](github, method)
    assert _client(github, time).file(FIRST).number == 1
    assert len(github.repository.issues) == 1
    assert not github.faults
    assert time.sleeps


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_comment_is_made_once_under_each_fault(
    github: GitHubServer, time: Time, fault: str, method: str
) -> None:
    """The same for the second failure of a deploy, which comments."""
    _client(github, time).file(FIRST)
    FAULTS[fault](github, method)
    assert _client(github, time).file(SECOND).number == 1
    assert len(github.repository.issues) == 1
    assert [comment["body"] for comment in github.repository.comments[1]] == [
        "<!-- deployguard:transaction t-0002 -->\n\nIt failed again."
    ]


@pytest.mark.parametrize("report", [FIRST, SECOND])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_later_run_takes_up_where_one_gave_up(
    github: GitHubServer, time: Time, fault: str, report: IncidentReport
) -> None:
    """Without any try left the fault shows as Undelivered, and the next run writes no double."""
    if report is SECOND:
        _client(github, time).file(FIRST)
    FAULTS[fault](github, "post")
    with pytest.raises(Undelivered):
        _client(github, time, tries=1).file(report)
    assert _client(github, time).file(report).number == 1
    assert len(github.repository.issues) == 1
    assert len(github.repository.comments[1]) == (report is SECOND)


def test_many_faults_in_a_row(github: GitHubServer, time: Time) -> None:
    """Each repeat looks again first, so three lost answers still leave one issue."""
    github.drop("after", times=1, method="post")
    github.fail(500, "before", times=2, method="get")
    assert _client(github, time).file(FIRST).action == "found"
    assert time.sleeps == [2.0, 4.0, 8.0]
    assert len(github.repository.issues) == 1


def test_github_down(github: GitHubServer, time: Time) -> None:
    """A closed port is Undelivered once the tries are used up, and works when it is back."""
    client = _client(github, time)
    github.stop()
    with pytest.raises(Undelivered, match="ConnectError"):
        client.file(FIRST)
    assert time.sleeps == [2.0, 4.0, 8.0]
    github.start()
    assert client.file(FIRST).action == "created"


@pytest.mark.parametrize("change", ["closed", "unlabelled", "labels dropped"])
def test_what_people_do_to_the_issue_meanwhile(
    github: GitHubServer, time: Time, change: str
) -> None:
    """The answer is lost, the issue is closed or loses its label, and still it is found."""
    if change == "labels dropped":
        github.repository.may_push = False
    _client(github, time).file(FIRST)
    if change == "closed":
        github.repository.issues[1]["state"] = "closed"
    else:
        github.repository.issues[1]["labels"] = []
    assert _client(github, time).file(FIRST).action == "found"
    assert len(github.repository.issues) == 1


def test_a_comment_is_found_on_an_issue_closed_meanwhile(github: GitHubServer, time: Time) -> None:
    """The second failure was reported already, so closing the issue brings no new one."""
    _client(github, time).file(FIRST)
    _client(github, time).file(SECOND)
    github.repository.issues[1]["state"] = "closed"
    assert _client(github, time).file(SECOND).action == "found"
    assert len(github.repository.issues) == 1


def test_a_new_failure_after_the_issue_was_closed_is_a_new_issue(
    github: GitHubServer, time: Time
) -> None:
    """Someone thought it solved, and it is not."""
    _client(github, time).file(FIRST)
    github.repository.issues[1]["state"] = "closed"
    assert _client(github, time).file(SECOND) == replace(
        _client(github, time).file(SECOND), action="created"
    )
    assert len(github.repository.issues) == 2


def test_an_issue_deleted_between_look_and_comment(github: GitHubServer, time: Time) -> None:
    """The 404 is no refusal then: look again."""
    _client(github, time).file(FIRST)
    github.refuse(404, "Not Found", method="post")
    assert _client(github, time).file(SECOND).action == "commented"
    assert len(github.repository.comments[1]) == 1


def test_other_incidents_get_issues_of_their_own(github: GitHubServer, time: Time) -> None:
    """Another version or environment is another incident."""
    client = _client(github, time)
    client.file(FIRST)
    client.file(replace(SECOND, fingerprint="shop/v1.2.5/production"))
    assert len(github.repository.issues) == 2


def test_the_issue_is_found_on_any_page(github: GitHubServer, time: Time) -> None:
    """Past 100 open incidents and pull requests, and the comment past 100 others."""
    for number in range(130):
        github.repository.add_issue(f"old {number}", "text", ("incident",), pull=number % 2 == 0)
    client = _client(github, time)
    client.file(FIRST)
    client.file(SECOND)
    (ours,) = github.repository.comments[131]
    others = [{**ours, "body": f"comment {number}"} for number in range(120)]
    github.repository.comments[131] = [*others, ours]
    assert client.file(SECOND).action == "found"
    assert client.file(replace(FIRST, transaction="t-0003")).number == 131
    for number in range(120):
        github.repository.add_issue(f"newer {number}", "text")
    assert client.file(FIRST).action == "found"
    assert len(github.repository.issues) == 251


def test_the_oldest_of_two_issues_gets_the_comment(github: GitHubServer, time: Time) -> None:
    """Two controllers may have raced once; from then on all goes to one place."""
    for _ in range(2):
        github.repository.add_issue(
            "raced", "<!-- deployguard:incident shop/v1.2.4/production -->", ("incident",)
        )
    assert _client(github, time).file(FIRST).number == 1


@pytest.mark.parametrize("labels", [(), ("a,b",)])
def test_without_a_label_to_list_by(
    github: GitHubServer, time: Time, labels: tuple[str, ...]
) -> None:
    """All open issues are read then; a comma in a label would ask GitHub for two."""
    client = _client(github, time)
    client.file(replace(FIRST, labels=labels))
    assert client.file(replace(SECOND, labels=labels)).action == "commented"


def test_a_pull_request_is_never_commented_on(github: GitHubServer, time: Time) -> None:
    """GitHub lists pull requests among the issues, and one may quote a marker."""
    marker = "<!-- deployguard:incident shop/v1.2.4/production -->"
    github.repository.add_issue("pull", marker, ("incident",), pull=True)
    assert _client(github, time).file(FIRST).action == "created"


def test_markers_are_only_our_own(github: GitHubServer, time: Time) -> None:
    """Quoted by a person, planted without the label, or held in a log: none of them counts."""
    mark = "<!-- deployguard:incident shop/v1.2.4/production -->"
    github.repository.add_issue("quoted", f"> {mark}\n\nsee {mark}", ("incident",))
    github.repository.add_issue("planted", mark)
    other = replace(FIRST, fingerprint="other", transaction="t-9", body=f"log:\n{mark}\n")
    client = _client(github, time)
    assert client.file(other).number == 3
    assert client.file(FIRST).number == 4


def test_a_fingerprint_cannot_end_its_marker(github: GitHubServer, time: Time) -> None:
    """Versions are other people's text, and the marker is one word in a comment."""
    odd = replace(FIRST, fingerprint="shop/1.0-->\n<b>ü/prod env", transaction="t 1 -->")
    client = _client(github, time)
    client.file(odd)
    assert client.file(odd).action == "found"
    assert client.file(replace(odd, transaction="t 2")).action == "commented"
    assert "<b>" not in _bodies(github)[0]


@pytest.mark.parametrize("text", ["x" * 70_000, "\U0001f4a5" * 40_000, "é" * 65_536])
def test_a_body_is_cut_to_what_github_takes(github: GitHubServer, time: Time, text: str) -> None:
    """Marker and note survive at the top; the test server refuses one character more."""
    client = _client(github, time)
    client.file(replace(FIRST, body=text, title="t" * 300))
    client.file(replace(SECOND, comment=text))
    comment = github.repository.comments[1][0]["body"]
    for body in (_bodies(github)[0], comment):
        assert 65_534 <= len(body.encode("utf-16-le")) // 2 <= 65_536
        assert f"The report has {len(text):,} characters" in body
    assert client.file(FIRST).action == client.file(SECOND).action == "found"


def test_a_body_that_fits_is_left_whole(github: GitHubServer, time: Time) -> None:
    """Up to the last character."""
    client = _client(github, time)
    client.file(FIRST)
    room = 65_536 - len(_bodies(github)[0]) + len(FIRST.body)
    client.file(replace(SECOND, fingerprint="shop/v1.2.5/production", body="x" * room))
    assert _bodies(github)[1].endswith("\n" + "x" * room)


def test_text_no_encoder_takes(github: GitHubServer, time: Time) -> None:
    """Host logs bring lone surrogates and NULs; they must not cost the report."""
    _client(github, time).file(replace(FIRST, title="a\nb\udcff", body="log \udcff\0 end"))
    assert github.repository.issues[1]["title"] == "a b?"
    assert _bodies(github)[0].endswith("log ?\ufffd end")


def test_writes_are_a_second_apart(github: GitHubServer, time: Time) -> None:
    """GitHub asks for that; a client whose clock moved on by itself need not wait."""
    client = _client(github, time)
    for version in "123":
        client.file(replace(FIRST, fingerprint=version, transaction=version))
    assert time.sleeps == [1.0, 1.0]
    time.now += 5
    client.file(replace(FIRST, fingerprint="4", transaction="4"))
    assert time.sleeps == [1.0, 1.0]


@pytest.mark.parametrize(
    ("limit", "waited"),
    [
        ({"status": 429, "retry_after": 7}, 7.0),
        ({"status": 403, "retry_after": 7, "reset_in": 90}, 7.0),
        ({"status": 403, "reset_in": 90}, 90.0),
        ({"status": 429, "retry_after": 0}, 1.0),
        ({"status": 403}, 60.0),
    ],
)
def test_rate_limits_are_waited_out(
    github: GitHubServer, time: Time, limit: dict[str, Any], waited: float
) -> None:
    """``retry-after`` first, then the reset on GitHub's own clock, else a minute."""
    github.limit(**limit, method="post")
    assert _client(github, time).file(FIRST).action == "created"
    assert time.sleeps[0] == waited


@pytest.mark.parametrize(
    ("date", "waited"),
    [("Thu, 01 Jan 2026 00:00:00 GMT", 40.0), ("yesterday", 60.0)],
)
def test_a_rate_limit_without_the_words(
    github: GitHubServer, time: Time, date: str, waited: float
) -> None:
    """The headers alone tell it from a missing permission; without a date there is no reset."""
    answer = Answer(403, {"message": "no"}, {"X-RateLimit-Remaining": "0", "Date": date})
    answer.headers["X-RateLimit-Reset"] = "1767225640"
    github.faults.append(Fault("answer", "before", "get", answer))
    assert _client(github, time).file(FIRST).action == "created"
    assert time.sleeps == [waited]


def test_a_rate_limit_past_the_deadline_is_not_waited_for(github: GitHubServer, time: Time) -> None:
    """The report stays in the outbox instead, with the time GitHub named."""
    github.limit(403, reset_in=3000)
    with pytest.raises(Undelivered, match="rate limit") as caught:
        _client(github, time).file(FIRST)
    assert caught.value.retry_after == 3000
    assert time.sleeps == []


def test_the_deadline_counts_all_pauses(github: GitHubServer, time: Time) -> None:
    """A limit that comes back each time ends at the deadline too."""
    github.limit(429, times=10)
    with pytest.raises(Undelivered, match="429"):
        _client(github, time, deadline=130.0, tries=99).file(FIRST)
    assert time.sleeps == [60.0, 60.0]


def test_an_answer_that_trickles_is_given_up(github: GitHubServer) -> None:
    """Each byte comes within the timeout, so only the deadline can end it."""
    time = Time(tick=1.0)
    github.drip(method="post")
    with pytest.raises(Undelivered, match="does not end"):
        _client(github, time).file(FIRST)
    assert _client(github, Time()).file(FIRST).action == "found"


def test_nothing_is_asked_after_the_deadline(github: GitHubServer) -> None:
    """Many slow answers in a row end it as well as one that never ends."""
    with pytest.raises(Undelivered, match="deadline"):
        _client(github, Time(tick=70.0)).file(FIRST)
    assert not github.repository.issues


@pytest.mark.parametrize(
    "page",
    [
        Answer(203, "<html>Sign in</html>", {}, "text/html"),
        Answer(203, {"message": "Sign in"}),
    ],
)
def test_a_page_of_someone_elses_is_no_answer(
    github: GitHubServer, time: Time, page: Answer
) -> None:
    """A proxy's sign-in page comes with a status of success."""
    for method in ("get", "post"):
        github.faults.append(Fault("answer", "after", method, page))
    assert _client(github, time).file(FIRST).action == "found"
    assert len(github.repository.issues) == 1


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (401, "Bad credentials", "expired"),
        (403, "Resource not accessible by integration", "issues: write"),
        (404, "Not Found", "check the name"),
        (410, "Issues has been disabled in this repository.", "disabled"),
        (422, "Validation Failed", "content"),
        (301, "Moved Permanently", "owner/name"),
    ],
)
@pytest.mark.parametrize("method", ["get", "post"])
def test_refusals_are_final_and_say_what_to_do(
    github: GitHubServer, time: Time, status: int, message: str, hint: str, method: str
) -> None:
    """No repeat, nothing written, GitHub's words and ours."""
    answer = Answer(status, {"message": message, "documentation_url": "https://docs.github.com"})
    github.faults.append(Fault("answer", "before", method, answer))
    with pytest.raises(Rejected) as caught:
        _client(github, time).file(FIRST)
    assert message in caught.value.reason
    assert hint in caught.value.hint
    assert hint in str(caught.value)
    assert time.sleeps == []
    assert not github.repository.issues


def test_a_refused_field_is_named(github: GitHubServer, time: Time) -> None:
    """The 422 of a report without a title says so."""
    with pytest.raises(Rejected, match="missing_field"):
        _client(github, time).file(replace(FIRST, title=" "))


def test_the_wrong_repository(github: GitHubServer, time: Time) -> None:
    """One GitHub does not know is refused; one of another client is a bug; so is a bad name."""
    other = replace(FIRST, repo="acme/other")
    with pytest.raises(Rejected, match="404"):
        _client(github, time, repo="acme/other").file(other)
    with pytest.raises(ValueError, match="acme/other"):
        _client(github, time).file(other)
    for name in ("shop", "acme/shop/issues", "acme/../x", "a b/c", "acme/shop?x"):
        with pytest.raises(ValueError, match="owner/name"):
            _client(github, time, repo=name)


def test_a_report_keeps_well(github: GitHubServer, time: Time) -> None:
    """As JSON in the outbox and back; one that lacks a field is refused, not lost in a bug."""
    payload = FIRST.to_payload()
    assert IncidentReport.from_payload(payload) == FIRST
    sent = _client(github, time).send(payload)
    assert sent == {
        "repo": "acme/shop",
        "number": 1,
        "url": "https://github.com/acme/shop/issues/1",
        "action": "created",
    }
    del payload["comment"]
    with pytest.raises(Rejected, match="comment"):
        _client(github, time).send(payload)
    with pytest.raises(ValueError, match="once"):
        replace(FIRST, transaction="")


def _break_writing(name: str, github: GitHubServer) -> None:
    FAULTS[name](github, "post")


def _echo(github: GitHubServer, status: int) -> None:
    said = {"message": f"I saw Authorization: Bearer {TOKEN}"}
    github.faults.append(Fault("answer", "before", None, Answer(status, said)))


FAILURES: dict[str, Callable[[GitHubServer], Any]] = {
    **{name: partial(_break_writing, name) for name in FAULTS},
    "down": lambda github: github.stop(),
    "echo of a refusal": lambda github: _echo(github, 403),
    "echo of a failure": lambda github: _echo(github, 500),
    "unauthorised": lambda github: setattr(github, "token", "ghp_another"),
    "no JSON": lambda github: github.faults.append(
        Fault("answer", "after", "post", Answer(203, TOKEN, {}, "text/html"))
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_the_token_shows_nowhere(
    github: GitHubServer, time: Time, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a text, a repr, a cause, a log line, nor a traceback that prints local variables."""
    caplog.set_level(1)
    FAILURES[failure](github)
    client = _client(github, time, tries=1)
    with pytest.raises((Undelivered, Rejected)) as caught:
        client.file(FIRST)
    problem = caught.value
    shown = traceback.TracebackException.from_exception(problem, capture_locals=True)
    frames = [f"{frame.locals}" for frame in shown.stack[1:]]  # the first is this test's own
    assert problem.__cause__ is problem.__context__ is None
    assert frames
    for text in (str(problem), repr(problem), repr(vars(problem)), repr(client), *frames):
        assert TOKEN not in text
    assert TOKEN not in caplog.text
    assert any(record.levelno <= logging.INFO for record in caplog.records)


@pytest.mark.parametrize("token", ["", "  ", "ghp_a\nX-Evil: 1", "ghp_ü", "ghp a", "ghp_\0"])
def test_a_token_that_cannot_be_one(github: GitHubServer, time: Time, token: str) -> None:
    """The HTTP library would quote it in its complaint, so it never gets that far."""
    with pytest.raises(Rejected, match="no token") as caught:
        _client(github, time, token=lambda: token).file(FIRST)
    assert "ghp" not in str(caught.value)
    assert github.calls == []


def test_a_token_from_a_file_may_end_in_a_newline(github: GitHubServer, time: Time) -> None:
    """As most files do."""
    assert _client(github, time, token=lambda: f"{TOKEN}\n").file(FIRST).action == "created"


def test_the_http_client_is_not_imported_early() -> None:
    """A deploy that succeeds does not pay for it."""
    code = "import deployguard.report.github, sys; sys.exit('httpx2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
