"""What a GitHub repository remembers, and how it answers: no sockets, no faults.

Behaviour the description cannot express and clients trip over is modelled: labels made on first
use, or dropped without a word when the token may not push; pull requests listed among the issues;
65,536 characters to a body and 256 to a title.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote, urlencode

from tests.github.commits import Commits
from tests.github.contract import Answer, Call, contract

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)
MOST_BODY = 65_536
MOST_TITLE = 256

_REPO = "/repos/{owner}/{repo}"
_ISSUE = f"{_REPO}/issues/{{issue_number}}"


@dataclass
class Repository:
    """One repository; ``base`` is the URL it is reached by, for the links in its answers."""

    name: str
    base: str = "https://api.github.com"
    may_push: bool = True
    has_issues: bool = True
    issues: dict[int, dict[str, Any]] = field(default_factory=dict)
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    commits: Commits = field(default_factory=Commits)
    ticks: int = 0

    def answer(self, call: Call) -> Answer:
        """Do what ``call`` asks; the caller has checked that it is a known, valid operation."""
        pattern = contract().pattern(call)
        assert pattern is not None, f"{call.path} was not checked"
        if pattern.startswith(f"{_REPO}/issues") and not self.has_issues:
            return error(410, "Issues has been disabled in this repository.")
        return self._routes()[call.method, pattern](call)

    def now(self) -> datetime:
        """The server's clock: it advances a second a write, so that no two writes tie."""
        return EPOCH + timedelta(seconds=self.ticks)

    def add_issue(
        self, title: str, body: str = "", labels: tuple[str, ...] = (), *, pull: bool = False
    ) -> int:
        """Put an issue, or a pull request, there as someone else would; its number."""
        return int(self._new_issue(title, body, labels, pull=pull)["number"])

    def _routes(self) -> dict[tuple[str, str], Callable[[Call], Answer]]:
        return {
            ("get", _REPO): self._about,
            ("get", f"{_REPO}/issues"): self._list_issues,
            ("post", f"{_REPO}/issues"): self._create_issue,
            ("get", _ISSUE): self._get_issue,
            ("patch", _ISSUE): self._update_issue,
            ("get", f"{_ISSUE}/comments"): self._list_comments,
            ("post", f"{_ISSUE}/comments"): self._create_comment,
            ("get", f"{_REPO}/labels"): self._list_labels,
            ("post", f"{_REPO}/labels"): self._create_label,
            ("get", f"{_REPO}/labels/{{name}}"): self._get_label,
            ("get", f"{_REPO}/commits/{{ref}}/status"): self._combined_status,
            ("get", f"{_REPO}/commits/{{ref}}/check-runs"): self._list_check_runs,
        }

    def _about(self, call: Call) -> Answer:
        owner, _, name = self.name.partition("/")
        about = contract().example("full-repository")
        about |= {"name": name, "full_name": self.name, "has_issues": self.has_issues}
        about |= {"owner": _user(owner), "default_branch": "main", "visibility": "private"}
        return Answer(200, about)

    def _list_issues(self, call: Call) -> Answer:
        query = dict(call.query)
        wanted = {label for label in query.get("labels", "").split(",") if label}
        state, order = query.get("state", "open"), query.get("sort", "created")
        found = [
            issue
            for issue in self.issues.values()
            if state in ("all", issue["state"])
            and wanted <= {label["name"] for label in issue["labels"]}
            and issue["updated_at"] >= query.get("since", "")
        ]
        key = "comments" if order == "comments" else f"{order}_at"
        found.sort(key=lambda issue: issue[key], reverse=query.get("direction", "desc") == "desc")
        return self._page(call, found)

    def _create_issue(self, call: Call) -> Answer:
        wrong = _too_long("Issue", call.content)
        if wrong:
            return wrong
        given = call.content.get("labels", [])
        labels = tuple(label if isinstance(label, str) else label["name"] for label in given)
        issue = self._new_issue(
            str(call.content["title"]), call.content.get("body"), labels if self.may_push else ()
        )
        return Answer(201, issue, {"Location": issue["url"]})

    def _get_issue(self, call: Call) -> Answer:
        issue = self._issue(call)
        return error(404, "Not Found") if issue is None else Answer(200, issue)

    def _update_issue(self, call: Call) -> Answer:
        issue = self._issue(call)
        if issue is None:
            return error(404, "Not Found")
        wrong = _too_long("Issue", call.content)
        if wrong:
            return wrong
        self.ticks += 1
        issue |= {
            name: call.content[name]
            for name in ("title", "body", "state", "state_reason")
            if name in call.content
        }
        if "labels" in call.content and self.may_push:
            issue["labels"] = [self._label(name) for name in call.content["labels"]]
        issue["closed_at"] = self._stamp() if issue["state"] == "closed" else None
        issue["updated_at"] = self._stamp()
        return Answer(200, issue)

    def _list_comments(self, call: Call) -> Answer:
        issue = self._issue(call)
        if issue is None:
            return error(404, "Not Found")
        since = dict(call.query).get("since", "")
        found = [each for each in self.comments[issue["number"]] if each["updated_at"] >= since]
        return self._page(call, found)

    def _create_comment(self, call: Call) -> Answer:
        issue = self._issue(call)
        if issue is None:
            return error(404, "Not Found")
        wrong = _too_long("IssueComment", call.content)
        if wrong:
            return wrong
        self.ticks += 1
        comment = contract().example("issue-comment")
        comment |= {"id": 1000 + self.ticks, "body": call.content["body"], "user": _user("robot")}
        comment["html_url"] = f"{issue['html_url']}#issuecomment-{comment['id']}"
        comment["issue_url"] = issue["url"]
        comment["url"] = f"{self.base}/repos/{self.name}/issues/comments/{comment['id']}"
        comment["created_at"] = comment["updated_at"] = issue["updated_at"] = self._stamp()
        self.comments[issue["number"]].append(comment)
        issue["comments"] += 1
        return Answer(201, comment, {"Location": comment["url"]})

    def _list_labels(self, call: Call) -> Answer:
        return self._page(call, list(self.labels.values()))

    def _create_label(self, call: Call) -> Answer:
        if call.content["name"] in self.labels:
            return _invalid("Label", "name", "already_exists")
        label = self._label(call.content["name"])
        for name in ("color", "description"):
            label[name] = call.content.get(name, label[name])
        return Answer(201, label, {"Location": label["url"]})

    def _get_label(self, call: Call) -> Answer:
        label = self.labels.get(unquote(call.path.rpartition("/")[2]))
        return error(404, "Not Found") if label is None else Answer(200, label)

    def _combined_status(self, call: Call) -> Answer:
        sha = self.commits.sha_of(unquote(call.path.split("/")[-2]))
        if sha is None:
            return error(404, "Not Found")
        found = self.commits.statuses(sha)
        combined = contract().example("combined-commit-status")
        api = f"{self.base}/repos/{self.name}"
        combined |= {"sha": sha, "total_count": len(found), "url": f"{api}/commits/{sha}/status"}
        combined |= {"commit_url": f"{api}/commits/{sha}", "state": self.commits.state(sha)}
        page = self._page(call, found)
        return Answer(200, combined | {"statuses": page.content}, page.headers)

    def _list_check_runs(self, call: Call) -> Answer:
        sha = self.commits.sha_of(unquote(call.path.split("/")[-2]))
        if sha is None:
            return error(404, "Not Found")
        found = self.commits.check_runs(sha, latest=dict(call.query).get("filter") != "all")
        page = self._page(call, found)
        runs = {"total_count": len(found), "check_runs": page.content}
        return Answer(200, runs, page.headers)

    def _new_issue(
        self, title: str, body: str | None, labels: tuple[str, ...], *, pull: bool = False
    ) -> dict[str, Any]:
        self.ticks += 1
        number = len(self.issues) + 1
        api = f"{self.base}/repos/{self.name}"
        page = f"https://github.com/{self.name}/{'pull' if pull else 'issues'}/{number}"
        issue = contract().example("issue")
        issue |= {"id": 5000 + number, "node_id": f"I_{number}", "number": number, "title": title}
        issue |= {"body": body, "state": "open", "user": _user("robot")}
        issue |= {"labels": [self._label(name) for name in labels], "html_url": page}
        issue |= {"url": f"{api}/issues/{number}", "repository_url": api}
        issue |= {"comments_url": f"{api}/issues/{number}/comments"}
        issue |= {"created_at": self._stamp(), "updated_at": self._stamp()}
        if pull:
            links = ("url", "html_url", "diff_url", "patch_url")
            issue["pull_request"] = dict.fromkeys(links, page)
        self.issues[number] = issue
        self.comments[number] = []
        return issue

    def _label(self, name: str) -> dict[str, Any]:
        if name not in self.labels:
            label = contract().example("label")
            label |= {"id": 100 + len(self.labels), "name": name, "color": "ededed"}
            label["url"] = f"{self.base}/repos/{self.name}/labels/{name}"
            self.labels[name] = label
        return self.labels[name]

    def _issue(self, call: Call) -> dict[str, Any] | None:
        found = re.search(r"/issues/(\d+)", call.path)
        return self.issues.get(int(found[1])) if found else None

    def _page(self, call: Call, found: list[dict[str, Any]]) -> Answer:
        query = dict(call.query)
        size = max(1, min(100, int(query.get("per_page", 30))))
        page, last = int(query.get("page", 1)), max(1, -(-len(found) // size))
        numbers = {"prev": page - 1, "next": page + 1, "last": last, "first": 1}
        if page >= last:
            del numbers["next"], numbers["last"]
        if page == 1:
            del numbers["prev"], numbers["first"]
        links = ", ".join(
            f'<{self.base}{call.path}?{urlencode({**query, "page": number})}>; rel="{relation}"'
            for relation, number in numbers.items()
        )
        shown = found[(page - 1) * size : page * size]
        return Answer(200, shown, {"Link": links} if links else {})

    def _stamp(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def error(status: int, message: str) -> Answer:
    """An error as GitHub words it."""
    url = "https://docs.github.com/rest"
    return Answer(status, {"message": message, "documentation_url": url, "status": str(status)})


def _invalid(resource: str, name: str, code: str, message: str | None = None) -> Answer:
    problem = {"resource": resource, "field": name, "code": code}
    if message is not None:
        problem["message"] = message
    url = "https://docs.github.com/rest"
    return Answer(
        422, {"message": "Validation Failed", "documentation_url": url, "errors": [problem]}
    )


def _too_long(resource: str, content: dict[str, Any]) -> Answer | None:
    for name, most in (("title", MOST_TITLE), ("body", MOST_BODY)):
        if len(str(content.get(name) or "")) > most:
            text = f"{name} is too long (maximum is {most} characters)"
            return _invalid(resource, name, "custom", text)
    if content.get("title", "title") in ("", None):
        return _invalid(resource, "title", "missing_field")
    return None


def _user(login: str) -> dict[str, Any]:
    return contract().example("simple-user") | {"login": login}
