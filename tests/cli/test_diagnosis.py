"""What doctor makes of a host's facts, without a host."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from deployguard.cli import diagnosis
from deployguard.plan.load import load
from deployguard.plan.model import Plan
from deployguard.transport import registry
from tests.cli.conftest import Run, Site


class Session:
    """A host program that said hello."""

    def __init__(self, **facts: Any) -> None:
        self.closed = False
        self.hello = {
            "python": "3.11.2",
            "uid": 0,
            "systemd": True,
            "state": "/var/lib/deployguard",
            "free_bytes": 10**10,
            "now": time.time(),
            **facts,
        }

    def close(self) -> None:
        """The end of the connection."""
        self.closed = True


@pytest.fixture
def plan(site: Site) -> Plan:
    """The plan of this machine."""
    return load(str(site.plan))


def ask(plan: Plan, monkeypatch: pytest.MonkeyPatch, session: Session) -> dict[str, str]:
    """Subject to status, for a host with these facts."""
    monkeypatch.setattr(registry, "connect", lambda *_, **__: session)
    answers = list(diagnosis.host("here", plan.hosts["here"], plan))
    assert session.closed
    assert all(answer.mend for answer in answers if answer.status != "ok")
    return {answer.subject: answer.status for answer in answers}


def test_good_host(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with everything has nothing to mend."""
    assert set(ask(plan, monkeypatch, Session()).values()) == {"ok"}


@pytest.mark.parametrize(
    ("facts", "subject"),
    [
        ({"free_bytes": 1024}, "state directory"),
        ({"now": time.time() - 3600}, "clock"),
        ({"systemd": False}, "systemd"),
    ],
)
def test_what_is_worth_a_word(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], subject: str
) -> None:
    """Little space, a wrong clock, no systemd: deploys work, with a warning."""
    assert ask(plan, monkeypatch, Session(**facts))[subject] == "warning"


def test_sudo_that_gives_no_root(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """`become` without root at the other end fails before the first deploy does."""
    host = plan.hosts["here"].model_copy(update={"become": True})
    asked = plan.model_copy(update={"hosts": {"here": host}})
    assert ask(asked, monkeypatch, Session(uid=1000))["sudo"] == "failed"


def test_unit_without_systemd(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan with a systemd unit for a host without systemd cannot work."""
    lines = [
        "    service: {systemd: web.service}" if "service:" in line else line
        for line in site.plan.read_text().splitlines()
    ]
    site.plan.write_text("\n".join(lines))
    plan = load(str(site.plan))
    assert ask(plan, monkeypatch, Session(systemd=False))["systemd"] == "failed"


def test_agent_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that nobody listens on is named: SSH would try it in silence."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent/agent.sock")
    answers = {answer.subject: answer for answer in diagnosis.local(None)}
    assert answers["ssh agent"].status == "warning"
    assert "SSH_AUTH_SOCK" in answers["ssh agent"].mend


def test_a_checkout(deployguard: Run, site: Site) -> None:
    """What the revision is, or why there can be no deploy; nothing of the question stays."""
    folder = site.root / "releases" / "v1"
    who = ("-c", "user.name=dev", "-c", "user.email=dev@example.com")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "v1"], ["tag", "v1"]):
        subprocess.run(["git", "-C", str(folder), *who, *words], check=True)
    text = site.plan.read_text()
    source = "layout: git\n    git: {repository: releases/v1}"
    site.plan.write_text(text.replace('artifact: "releases/{{ version }}"', source))
    good = deployguard("doctor", site.plan, "--json")
    assert good.code == 0, good.err
    (answer,) = [line for line in good.lines if line.get("subject") == "git (web)"]
    commit = subprocess.check_output(["git", "-C", str(folder), "rev-parse", "v1"], text=True)
    assert answer["message"] == f"v1 is the commit {commit[:12]}"
    unknown = deployguard("doctor", site.plan, "--release", "v1.1")
    assert unknown.code == 1
    assert "v1.1 is no branch, tag or commit there" in unknown.err and "mean v1?" in unknown.err
    (site.root / "srv").mkdir()
    (site.root / "srv" / "server.py").touch()
    other = deployguard("doctor", site.plan)
    assert other.code == 1
    assert "is not a git checkout: there is no .git in it" in other.err
    assert "layout: in_place" in other.err
    assert {path.name for path in site.root.iterdir()} == {
        "host-state", "plan.yaml", "releases", "srv",
    }  # fmt: skip
