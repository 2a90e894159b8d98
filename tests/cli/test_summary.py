"""The summary: what is live where, what failed and why, where to read on, what to do next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployguard.cli import summary
from deployguard.errors import EXPLANATIONS, ExitCode
from deployguard.rollout.outcome import Outcome
from tests.cli.outcomes import committed, finding, host, outcome, rolled_back

SICK = (host("web1", sick=("web/cache", "web/tls")),)


def text_of(shown: Outcome) -> str:
    """The block as text."""
    return "\n".join(line for line, _ in summary.lines(shown))


def test_success_names_what_is_live() -> None:
    """A good deploy says the version and the hosts, and asks for nothing."""
    text = text_of(committed())
    assert "web1, web2: web v2 (committed)" in text
    assert "exit code 0 (committed, healthy)" in text
    assert "next:" not in text


def test_rollback_says_what_failed_and_where_to_read_on() -> None:
    """A rollback names the finding, the forensics, the incident and the next step."""
    text = text_of(rolled_back())
    assert "web1: web v1 (restored, files verified, healthy)" in text
    assert "web1 web http: answered 503" in text
    assert "forensics: forensics-out/x" in text
    assert "incident: https://github.com/acme/shop/issues/7" in text
    assert EXPLANATIONS[ExitCode.ROLLED_BACK].act in text


def test_what_was_not_healthy_before_is_not_called_healthy() -> None:
    """A restore is as good as before the deploy, and says what was no good then."""
    text = text_of(rolled_back(hosts=SICK))
    assert "(restored, files verified, healthy as before, but for web/cache, web/tls)\n" in text
    stuck = outcome(ExitCode.NEEDS_PERSON, "needs_person", hosts=(replace(SICK[0], healthy=False),))
    assert "files verified, NOT healthy)" in text_of(stuck)


def test_a_failure_before_the_switch_is_no_rollback() -> None:
    """Where nothing was touched the code is 3 too, but nobody reads of a rollback."""
    hosts = (host("web1", "unreachable"), host("web2", "aborted"))
    text = text_of(outcome(ExitCode.ROLLED_BACK, "rolled_back", hosts=hosts))
    assert "exit code 3 (failed; nothing was touched)" in text
    assert "deployguard doctor PLAN" in text
    assert "nothing was touched" not in text_of(rolled_back())


def test_stuck_host_comes_first_and_loud() -> None:
    """Where a restore failed, that host leads and nothing calls it restored."""
    shown = outcome(
        ExitCode.NEEDS_PERSON,
        "needs_person",
        hosts=(host("web1"), host("web2", "stuck", verified=False, error="rename: EIO")),
    )
    lines = [line for line, _ in summary.lines(shown)]
    at = lines.index("live now")
    assert lines[at + 1] == "  web2: web v1 (stuck: not restored, a person is needed); rename: EIO"


def test_unverified_restore_says_so() -> None:
    """A restore whose files or checks are not proven never reads like a good one."""
    shown = outcome(
        ExitCode.NEEDS_PERSON,
        "needs_person",
        hosts=(host("web1", verified=False, healthy=False),),
    )
    assert "files NOT verified, NOT healthy" in text_of(shown)


def test_large_fleet_is_counted() -> None:
    """Hosts that ended alike share a line; forty are not listed."""
    shown = committed(hosts=tuple(host(f"web{i}", "committed") for i in range(40)))
    assert "  40 hosts (web0, web1, web2, web3, web4, …): web v2 (committed)" in text_of(shown)


def test_findings_are_bounded() -> None:
    """A fleet that fails everywhere still ends in a readable block."""
    findings = tuple(finding(host=f"web{i}") for i in range(60))
    text = text_of(rolled_back(findings=findings))
    assert "… and 40 more" in text
    assert text.count("answered 503") == 20


def test_what_was_not_reported_is_said() -> None:
    """A report that failed shows, without touching the first error."""
    text = text_of(rolled_back(report_errors=("GitHub answered 401",)))
    assert "not reported: GitHub answered 401" in text
    assert "answered 503" in text


@pytest.mark.parametrize(
    ("shown", "color"),
    [
        (committed(), "green"),
        (rolled_back(), "yellow"),
        (outcome(ExitCode.NEEDS_PERSON, "needs_person"), "red"),
        (outcome(ExitCode.INTERRUPTED, "interrupted"), "red"),
    ],
)
def test_color_follows_the_danger(shown: Outcome, color: str) -> None:
    """Yellow is for what is safe; not knowing is red."""
    assert summary.color_of(shown) == color


def test_markdown_cannot_be_broken_out_of() -> None:
    """Text from a host stays in its cell: no new rows, no HTML, no code span."""
    shown = rolled_back(findings=(finding(message="a|b\n| c | <img src=x> `d`"),))
    text = summary.markdown(shown)
    row = next(line for line in text.splitlines() if "a\\|b" in line)
    assert row == "| web1 | http | a\\|b \\| c \\| &lt;img src=x> 'd' |"


def test_markdown_has_the_whole_story() -> None:
    """The job summary holds the same facts as the block on the terminal."""
    text = summary.markdown(rolled_back())
    for words in ("v2", "production", "web1", "answered 503", "issues/7", "**Next:**"):
        assert words in text
