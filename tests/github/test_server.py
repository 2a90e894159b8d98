"""The test server is itself held to what it promises; otherwise its tests prove nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.github.contract import DESCRIPTION
from tests.github.server import GitHubServer, checked
from tests.github.trim_openapi import OPERATIONS, trim

REPO = "/repos/acme/shop"


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    """A GitHub that nothing may be wrong with at the end."""
    with checked() as server:
        yield server


def _client(github: GitHubServer, *, token: str | None = None, base: str = "") -> httpx2.Client:
    headers = {"Authorization": f"Bearer {github.token if token is None else token}"}
    return httpx2.Client(base_url=base or github.url, headers=headers, timeout=5)


@pytest.mark.parametrize("style", ["url", "enterprise_url"])
def test_an_issue_lives_through_every_operation(github: GitHubServer, style: str) -> None:
    """Each operation answers as GitHub describes it, below either kind of base URL."""
    with _client(github, base=getattr(github, style)) as client:
        made = client.post(
            f"{REPO}/issues", json={"title": "t", "labels": ["incident"], "milestone": None}
        )
        assert (made.status_code, made.json()["number"]) == (201, 1)
        assert made.json()["url"] == f"{getattr(github, style)}{REPO}/issues/1"
        assert client.post(f"{REPO}/issues/1/comments", json={"body": "c"}).status_code == 201
        assert [c["body"] for c in client.get(f"{REPO}/issues/1/comments").json()] == ["c"]
        closed = {"state": "closed", "state_reason": "completed", "labels": ["incident", "p1"]}
        assert client.patch(f"{REPO}/issues/1", json=closed).json()["closed_at"]
        assert client.get(f"{REPO}/issues/1").json()["state"] == "closed"
        assert client.get(f"{REPO}/issues").json() == []
        listed = client.get(f"{REPO}/issues", params={"state": "all", "labels": "incident,p1"})
        assert [issue["comments"] for issue in listed.json()] == [1]
        assert client.get(REPO).json()["full_name"] == "acme/shop"
        assert client.post(f"{REPO}/labels", json={"name": "x y"}).status_code == 201
        assert client.get(f"{REPO}/labels/x%20y").json()["name"] == "x y"
        assert len(client.get(f"{REPO}/labels").json()) == 3
        for missing in ("issues/9", "issues/9/comments", "labels/none"):
            assert client.get(f"{REPO}/{missing}").status_code == 404


def test_lists_come_in_pages(github: GitHubServer) -> None:
    """The Link header leads through the whole list and then stops."""
    for number in range(7):
        github.repository.add_issue(f"issue {number}", labels=("incident",))
    with _client(github) as client:
        url: str | None = f"{REPO}/issues?labels=incident&per_page=3&direction=asc"
        seen: list[int] = []
        while url:
            page = client.get(url)
            seen += [issue["number"] for issue in page.json()]
            url = page.links.get("next", {}).get("url")
    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_a_token_is_needed_and_so_is_the_right_repository(github: GitHubServer) -> None:
    """The two refusals everyone meets on the first day."""
    with _client(github, token="ghp_wrong") as client:
        assert client.get(REPO).json()["message"] == "Bad credentials"
    with httpx2.Client(base_url=github.url) as nobody:
        assert nobody.get(REPO).status_code == 401
    with _client(github) as client:
        assert client.get("/repos/acme/other").status_code == 404


def test_labels_are_dropped_for_a_token_that_may_not_push(github: GitHubServer) -> None:
    """GitHub does this without a word, and the client must cope."""
    github.repository.may_push = False
    with _client(github) as client:
        made = client.post(f"{REPO}/issues", json={"title": "t", "labels": ["incident"]})
    assert made.json()["labels"] == []


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("issues", {"title": "t", "labels": "incident"}, "is not of type 'array'"),
        ("issues", {"body": "no title"}, "'title' is a required property"),
        ("issues", {"title": "t", "lables": []}, "lables"),
        ("issues", None, "body"),
        ("issues/1/comments", {"body": None}, "nullable"),
        ("issues?labels=x&lable=y", {"title": "t"}, "no query parameter 'labels'"),
        ("milestones", {"title": "t"}, "not an operation"),
    ],
)
def test_what_github_forbids_is_a_violation(
    path: str, content: dict[str, Any] | None, told: str
) -> None:
    """A bad request is answered 422 with the reason, is kept, and writes nothing."""
    with GitHubServer() as github, _client(github) as client:
        github.repository.add_issue("there")
        answer = client.post(f"{REPO}/{path}", json=content)
        assert answer.status_code == 422
        assert told in answer.json()["message"]
        assert told in github.violations[0]
        assert len(github.repository.issues) == 1
        assert github.repository.comments[1] == []


@pytest.mark.parametrize("query", ["per_page=many", "state=ajar", "since=yesterday"])
def test_a_bad_query_is_a_violation(query: str) -> None:
    """Types, enumerations and formats of query parameters count."""
    with GitHubServer() as github, _client(github) as client:
        assert client.get(f"{REPO}/issues?{query}").status_code == 422
        assert github.violations


def test_the_server_is_held_to_the_description_as_well() -> None:
    """A wrong answer of the server's own shows as one, not as a client's bug."""
    with GitHubServer() as github, _client(github) as client:
        number = github.repository.add_issue("there")
        del github.repository.issues[number]["html_url"]
        answer = client.get(f"{REPO}/issues/{number}")
        assert answer.status_code == 500
        assert "'html_url' is a required property" in answer.json()["message"]
        assert "html_url" in github.violations[0]


def test_checked_fails_the_test_that_broke_the_contract() -> None:
    """The fixture's own promise."""
    with (
        pytest.raises(AssertionError, match="not an operation"),
        checked() as github,
        _client(github) as client,
    ):
        client.get("/user")


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize(("when", "written"), [("before", 0), ("after", 1)])
def test_failures_come_before_or_after_the_write(
    github: GitHubServer, status: int, when: Any, written: int
) -> None:
    """And hit as many requests as asked for, then stop."""
    github.fail(status, when, times=2, method="post")
    with _client(github) as client:
        for expected in (status, status, 201):
            assert client.get(REPO).status_code == 200
            answer = client.post(f"{REPO}/issues", json={"title": "t"})
            assert answer.status_code == expected
    assert len(github.repository.issues) == 2 * written + 1


def test_a_dropped_connection_and_a_closed_port(github: GitHubServer) -> None:
    """The write is done and nobody is told; later the port is closed, then open again."""
    github.drop("after")
    with _client(github) as client, pytest.raises(httpx2.RemoteProtocolError):
        client.post(f"{REPO}/issues", json={"title": "t"})
    assert len(github.repository.issues) == 1
    github.stop()
    with _client(github) as client, pytest.raises(httpx2.ConnectError):
        client.get(REPO)
    github.start()
    with _client(github) as client:
        assert client.get(REPO).status_code == 200


def test_rate_limits_say_when_to_come_back(github: GitHubServer) -> None:
    """Secondary limits by Retry-After, the primary one by its reset."""
    github.limit(429, retry_after=7)
    github.limit(403, reset_in=30)
    with _client(github) as client:
        assert client.get(REPO).headers["retry-after"] == "7"
        assert client.get(REPO).headers["x-ratelimit-remaining"] == "0"


def test_the_committed_description_is_what_the_trimming_makes() -> None:
    """Trimming it again changes nothing, so it holds the operations used and nothing else."""
    committed = json.loads(DESCRIPTION.read_bytes())
    again = trim(committed)
    again["info"] = committed["info"]
    assert again == committed
    assert {path: tuple(sorted(methods)) for path, methods in committed["paths"].items()} == {
        path: tuple(sorted(methods)) for path, methods in OPERATIONS.items()
    }


def test_what_was_reported_on_a_commit(github: GitHubServer) -> None:
    """By SHA, tag or branch: the last status of each context, the last run of each name."""
    sha = github.repository.commits.push("a" * 40, "v2", "release/2")
    assert github.repository.commits.sha_of("aaaa") is None
    with _client(github) as client:
        for ref in ("v2", "release%2F2", "aaaaaaa", sha):
            nothing = client.get(f"{REPO}/commits/{ref}/status").json()
            assert (nothing["sha"], nothing["state"], nothing["total_count"]) == (sha, "pending", 0)
        github.repository.commits.set_status(sha, "old", "failure")
        github.repository.commits.set_status(sha, "old", "success")
        assert client.get(f"{REPO}/commits/v2/status").json()["state"] == "success"
        github.repository.commits.set_check(sha, "test", conclusion="failure")
        github.repository.commits.set_check(sha, "test", status="in_progress")
        runs = client.get(f"{REPO}/commits/v2/check-runs").json()["check_runs"]
        assert [(run["status"], run["conclusion"]) for run in runs] == [("in_progress", None)]
        every = client.get(f"{REPO}/commits/v2/check-runs?filter=all&per_page=1")
        assert every.json()["total_count"] == 2 and "next" in every.links
        for what in ("status", "check-runs"):
            assert client.get(f"{REPO}/commits/v9/{what}").status_code == 404
