"""`ci`: what GitHub says of a commit, against GitHub's own description of its interface."""

from __future__ import annotations

from typing import Any

import pytest

from deployguard.github.checks import Commit, Report
from deployguard.guards.ci import verdict
from deployguard.plan.model import CiGuard
from tests.github.server import GitHubServer
from tests.guards.conftest import Shop

SHA = "e2fef54bdf08dee6e5d377571a6597a87becb7dd"
RUN = "https://github.com/acme/shop/actions/runs/77/job/9"


def guard(github: GitHubServer, **options: Any) -> dict[str, Any]:
    """The guard as a plan has it."""
    base = {"repo": "acme/shop", "base_url": github.url, "token_env": "CI_TOKEN"}
    return {"ci": base | options}


def spec(**options: Any) -> CiGuard:
    """The guard as it is judged."""
    return CiGuard.model_validate({"repo": "acme/shop", **options})


def green(name: str) -> Report:
    """A check that succeeded."""
    return Report(name, "green", "success")


@pytest.mark.parametrize(
    ("reports", "options", "passed", "said"),
    [
        ([green("test"), green("lint")], {}, True, "is green: 2 checks"),
        ([], {}, False, "no check has reported on it"),
        ([green("lint"), Report("test", "red", "failure", RUN)], {}, False, f"look at {RUN}"),
        ([green("lint"), Report("test", "running", "queued")], {}, False, "test (queued)"),
        (
            [green("test"), Report("deploy", "red", "failure")],
            {"ignore": ["dep*"]},
            True,
            "1 check",
        ),
        ([green("test"), Report("docs", "red", "failure")], {"required": ["test"]}, True, "green"),
        ([green("docs")], {"required": ["test"]}, False, "not reported: test"),
    ],
)
def test_verdict(reports: list[Report], options: dict[str, Any], passed: bool, said: str) -> None:
    """Red, running, missing and unheard-of are all not green."""
    found = verdict(spec(**options), "v2", Commit(SHA, tuple(reports)), {})
    assert found.passed is passed
    assert said in found.message


def test_the_job_that_deploys_does_not_wait_for_itself() -> None:
    """Its own check run cannot have ended; another job of the same run counts."""
    commit = Commit(SHA, (green("test"), Report("deploy", "running", "in_progress", RUN)))
    inside = {"GITHUB_RUN_ID": "77", "GITHUB_JOB": "deploy"}
    assert verdict(spec(), "v2", commit, inside).passed
    assert not verdict(spec(), "v2", commit, {}).passed
    assert not verdict(spec(), "v2", commit, inside | {"GITHUB_RUN_ID": "7"}).passed
    assert not verdict(spec(), "v2", commit, inside | {"GITHUB_JOB": "test"}).passed


def test_a_red_commit_is_refused(shop: Shop, github: GitHubServer) -> None:
    """Checks and statuses alike; the version is the tag that is asked about."""
    commits = github.repository.commits
    commits.push(SHA, "v2")
    commits.set_check(SHA, "test", conclusion="failure", url=RUN)
    commits.set_check(SHA, "lint", status="in_progress")
    commits.set_status(SHA, "ci/legacy", "error")
    shop.guarded(guard(github))
    refused = shop.assert_refused("ci", "acme/shop at v2 (e2fef54) is not green", "lint")
    for words in ("test (failure)", "ci/legacy (error)", "not finished: lint (in_progress)", RUN):
        assert words in refused.err
    assert '--override ci="the reason"' in refused.err


def test_a_green_commit_passes(shop: Shop, github: GitHubServer) -> None:
    """The latest run of each name counts, over more pages than one; a branch has a slash."""
    commits = github.repository.commits
    commits.push(SHA, "release/2")
    commits.set_check(SHA, "test", conclusion="failure")
    commits.set_check(SHA, "test", conclusion="success")
    commits.set_status(SHA, "ci/legacy", "pending")
    commits.set_status(SHA, "ci/legacy", "success")
    for number in range(120):
        commits.set_check(SHA, f"part {number}", conclusion="skipped")
    shop.guarded(guard(github, commit="release/2"))
    shop.assert_passes("ci", "is green: 122 checks")


def test_what_github_does_not_say_is_not_green(
    shop: Shop, github: GitHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such commit, no token, no GitHub: refused, each with its mend."""
    shop.guarded(guard(github))
    shop.assert_refused("ci", "404", "was it pushed?")
    github.repository.commits.push(SHA, "v2")
    shop.assert_refused("ci", "no check has reported on it")
    monkeypatch.delenv("CI_TOKEN")
    shop.assert_refused("ci", "$CI_TOKEN is not set")
    monkeypatch.setenv("CI_TOKEN", github.token)
    github.stop()
    shop.guarded(guard(github, deadline="1s"))
    shop.assert_refused("ci", "is not known", "deploy again when GitHub answers")


def test_a_server_error_is_tried_again(shop: Shop, github: GitHubServer) -> None:
    """One that passes costs a second and no refusal."""
    github.repository.commits.push(SHA, "v2")
    github.repository.commits.set_check(SHA, "test", conclusion="success")
    github.fail(502, "before")
    shop.guarded(guard(github))
    shop.assert_passes("ci", "is green")
