"""``deployguard notify``, and who hears of a deploy that fails and of the night after it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.notify import http
from tests.cli.conftest import Run, Site
from tests.notify.peer import Answer, Request
from tests.notify.providers import PagerDutyPeer, SlackPeer

BROKEN = 'raise SystemExit("no configuration")\n'


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackPeer]:
    """A workspace, and the token for it."""
    peer = SlackPeer()
    monkeypatch.setenv("SLACK_TOKEN", peer.secret)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(http, "TIMEOUT", 5.0)
    yield peer
    peer.close()
    assert peer.violations == []


@pytest.fixture
def pagerduty(monkeypatch: pytest.MonkeyPatch) -> Iterator[PagerDutyPeer]:
    """A service, and the key for it."""
    peer = PagerDutyPeer()
    monkeypatch.setenv("PAGERDUTY_KEY", peer.secret)
    yield peer
    peer.close()
    assert peer.violations == []


@pytest.fixture
def told(site: Site, slack: SlackPeer, pagerduty: PagerDutyPeer) -> Site:
    """The site with two channels: the team, and who is on call for what is critical."""
    site.plan.write_text(
        site.plan.read_text()
        + f"""\
notify:
  channels:
    ops: {{slack: {{token_env: SLACK_TOKEN, channel: C024BE91L, base_url: "{slack.url}"}}}}
    oncall:
      pagerduty: {{key_env: PAGERDUTY_KEY, base_url: "{pagerduty.url}"}}
      at_least: critical
      deploys: true
"""
    )
    return site


def titles(slack: SlackPeer) -> list[str]:
    """The first line of each message."""
    return [message["text"].splitlines()[0] for message in slack.messages]


def test_a_deploy_that_fails_and_the_night_after_it(
    deployguard: Run, told: Site, slack: SlackPeer, pagerduty: PagerDutyPeer
) -> None:
    """The team hears it in one thread, from machines that have no plan; who is on call hears of it
    when it gets critical, and sees each deploy as a change."""
    assert deployguard("apply", told.plan).code == 0
    assert slack.messages == []
    assert [change["summary"] for change in pagerduty.changes] == ["demo v1 was deployed to test"]

    told.release("v2", BROKEN)
    on_record: list[str] = []
    answer = slack.answer

    def look(request: Request) -> Answer:
        with sqlite3.connect(Path(os.environ["DEPLOYGUARD_STATE"]) / "journal.db") as journal:
            on_record.extend(
                row[0]
                for row in journal.execute("SELECT status FROM transactions ORDER BY started_at")
            )
        return answer(request)

    slack.answer = look  # type: ignore[method-assign]
    failed = deployguard("apply", told.plan, "--release", "v2", "--json")
    assert failed.code == 3
    (outcome,) = [line for line in failed.lines if line["type"] == "outcome"]
    assert outcome["report_errors"] == []
    assert "told ops: opened" in failed.err
    # Nobody was told before the old version was back, and that was on record.
    assert on_record == ["committed", "rolled_back"]
    slack.answer = answer  # type: ignore[method-assign]
    assert min(request.at for request in slack.requests) >= outcome["ended_at"]
    assert titles(slack) == ["[high] demo v2 failed in test"]
    assert outcome["incident"] in slack.messages[0]["text"]
    assert pagerduty.alerts == []
    assert pagerduty.changes[-1]["summary"] == "demo v2 was not deployed to test"

    acknowledged = deployguard("incident", "ack", "--by", "ann", "--json")
    assert [line["type"] for line in acknowledged.lines] == ["incident", "notification"]
    assert acknowledged.lines[1]["state"] == "delivered"
    worse = deployguard("incident", "severity", outcome["incident"], "critical", "all of the EU")
    assert "told oncall: severity" in worse.err
    assert deployguard("incident", "update", "half of it is back").code == 0
    assert deployguard("incident", "update").code == 2
    assert deployguard("incident", "resolve", "--fix", "the configuration is there").code == 0
    assert titles(slack)[1:] == [
        "[high] demo v2 failed in test: acknowledged",
        "[critical] demo v2 failed in test: another severity",
        "[critical] demo v2 failed in test: news",
        "[critical] demo v2 failed in test: resolved",
    ]
    first, *others = slack.messages
    assert {message["thread_ts"] for message in others} == {first["ts"]}
    (alert,) = pagerduty.alerts
    assert (alert["log"], alert["severity"]) == (["trigger", "resolve"], "critical")

    shown = deployguard("incident", "show", outcome["incident"], "--json")
    assert "  ops: opened, acknowledged, severity, update, resolved\n" in shown.err
    assert "  oncall: severity, resolved\n" in shown.err
    assert [one["kind"] for one in shown.lines[0]["told"] if one["channel"] == "oncall"] == [
        *("severity", "resolved"),
    ]
    listed = deployguard("notify", "list", "--json")
    assert {line["state"] for line in listed.lines} == {"delivered"}
    assert [line["kind"] for line in listed.lines if line["channel"] == "ops"] == [
        *("resolved", "update", "severity", "acknowledged", "opened"),
    ]


def test_what_waits_is_sent_by_the_next(
    deployguard: Run, told: Site, slack: SlackPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token when it happened: the summary says so, the exit code stays, `flush` sends it."""
    monkeypatch.delenv("SLACK_TOKEN")
    opened = deployguard("incident", "open", "high", "API down", "--plan", told.plan)
    assert opened.code == 0
    assert "ops waits: opened" in opened.err
    assert "$SLACK_TOKEN is not set here" in opened.err
    assert deployguard("notify", "flush").code == 1
    monkeypatch.setenv("SLACK_TOKEN", slack.secret)
    sent = deployguard("notify", "flush")
    assert (sent.code, titles(slack)) == (0, ["[high] API down"])
    assert deployguard("notify", "flush").err == "nothing waits to be sent\n"


def test_a_message_that_waits_is_told_once(
    deployguard: Run, told: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line a channel in the summary of the deploy, and none that calls it something else."""
    text = told.plan.read_text()
    told.plan.write_text(text.replace("ops: {slack", "ops: {deadline: 1s, slack"))
    assert deployguard("apply", told.plan).code == 0
    monkeypatch.delenv("SLACK_TOKEN")
    failed = deployguard("apply", told.plan, "--release", told.release("v2", BROKEN), "--json")
    assert failed.code == 3
    (outcome,) = [line for line in failed.lines if line["type"] == "outcome"]
    (error,) = outcome["report_errors"]
    assert error.startswith("ops was not told yet, 1 message left for `deployguard notify flush`")


def test_what_was_refused_is_sent_when_it_is_mended(
    deployguard: Run, told: Site, slack: SlackPeer
) -> None:
    """It is not tried again by itself."""
    slack.errors.append("not_in_channel")
    opened = deployguard("incident", "open", "high", "API down", "--plan", told.plan)
    assert opened.code == 0
    assert "ops refused it: opened" in opened.err
    assert "not_in_channel (invite the bot into the channel)" in opened.err
    assert "  ops: nothing\n  ops: opened rejected: Slack" in deployguard("incident", "show").err
    assert deployguard("notify", "flush").err == "nothing waits to be sent\n"
    assert deployguard("notify", "flush", "--rejected").code == 0
    assert titles(slack) == ["[high] API down"]


def test_a_test(deployguard: Run, told: Site, slack: SlackPeer, pagerduty: PagerDutyPeer) -> None:
    """Each channel by itself; who is on call is not woken; what is wrong is said."""
    tried = deployguard("notify", "test", told.plan)
    assert tried.code == 0
    assert tried.err.splitlines() == ["ops (slack): arrived", "oncall (pagerduty): arrived"]
    assert titles(slack) == ["Test message of deployguard for demo"]
    (alert,) = pagerduty.alerts
    assert (alert["severity"], alert["state"]) == ("info", "resolved")
    slack.errors.append("invalid_auth")
    wrong = deployguard("notify", "test", told.plan, "ops", "--json")
    assert wrong.code == 1
    assert wrong.lines == [
        {
            "type": "notification",
            "channel": "ops",
            "state": "failed",
            "said": "Slack refused chat.postMessage: invalid_auth (the token is wrong or was "
            "revoked)",
        }
    ]
    unknown = deployguard("notify", "test", told.plan, "opps")
    assert unknown.code == 2
    assert 'there is no channel "opps"' in unknown.err and 'did you mean "ops"?' in unknown.err


def test_an_incident_that_nobody_is_told_of(deployguard: Run, told: Site) -> None:
    """Whoever opens it is told that, and what to do: they may think that others have heard."""
    first = deployguard("incident", "open", "high", "API down")
    assert "nobody is told" not in first.err  # no channel is known yet
    assert deployguard("incident", "open", "high", "DB down", "--plan", told.plan).code == 0
    second = deployguard("incident", "open", "high", "disk full")
    assert (
        "nobody is told: channels are known of demo in test; --plan, or --service and --environment"
        in second.err
    )
    right = deployguard(
        *("incident", "open", "high", "queue full", "--service", "demo", "--environment", "test")
    )
    assert "told ops: opened" in right.err and "nobody" not in right.err
    told.plan.write_text(told.plan.read_text().replace("ops: {", "ops: {at_least: critical, "))
    low = deployguard("incident", "open", "low", "slow", "--plan", told.plan)
    assert "nobody is told: no channel of demo is told of what is low" in low.err


def test_a_drill_tells_nobody(
    deployguard: Run, told: Site, slack: SlackPeer, pagerduty: PagerDutyPeer
) -> None:
    """Not of the deploy, nor of the recover and the rollback after it; no incident is left."""
    text = told.plan.read_text().replace("transport: local,", "transport: local, drill: true,")
    told.plan.write_text(text.replace("environment: test", "environment: test\nlease: 5s"))
    assert deployguard("apply", told.plan).code == 0
    told.release("v2")
    known = len(pagerduty.changes)
    drilled = deployguard(
        *("drill", told.plan, "--release", "v2", "--only", "controller-killed-after-decision")
    )
    assert drilled.code == 0, drilled.err
    assert "recover" in drilled.err
    assert (slack.messages, pagerduty.alerts, len(pagerduty.changes)) == ([], [], known)
    assert deployguard("incident", "list", "--all").err == "there was no incident yet\n"


def test_doctor(deployguard: Run, told: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that this machine could not sign in to is found before the night."""
    monkeypatch.delenv("PAGERDUTY_KEY")
    asked = deployguard("doctor", told.plan, "--here", "--json")
    found = {line["subject"]: line for line in asked.lines if line["type"] == "check"}
    assert found["channel ops"]["status"] == "ok"
    assert found["channel oncall"]["status"] == "warning"
    assert found["channel oncall"]["message"].startswith("$PAGERDUTY_KEY is not set here")


def test_without_channels(deployguard: Run, site: Site) -> None:
    """Nothing changes for those who want none, and `test` says what is missing."""
    assert deployguard("notify", "test", site.plan).code == 2
    assert deployguard("notify", "list").err == "nobody was told of anything yet\n"
    opened = deployguard("incident", "open", "low", "slow", "--plan", site.plan)
    assert "told" not in opened.err
