"""What `recover` does when an earlier run is still at work, in an order no host can be held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import deployguard
from deployguard.plan.model import Host, Plan
from deployguard.rollout import recovery
from deployguard.store.journal import SqliteJournal
from deployguard.transport.session import Session


class FakeHost:
    """A host program's answers about one transaction."""

    def __init__(self, state: str) -> None:
        self.state = state
        self.epoch = 1
        self.asked: list[str] = []

    def report(self) -> dict[str, Any]:
        """The row that `status` and `adopt` answer with."""
        return {
            "transaction": "t1",
            "state": self.state,
            "epoch": self.epoch,
            "takeovers": self.epoch - 1,
            "going_back": False,
            "sent_back": False,
            "attended": False,
            "all_or_nothing": True,
        }

    def call(self, verb: str, args: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request."""
        self.asked.append(verb)
        if verb == "status":
            unfinished = [self.report()] if self.state not in ("idle", "aborted") else []
            return {"live": [], "unfinished": unfinished, "ended": [], "locks": []}
        if verb == "adopt":
            assert args is not None
            self.epoch = args["epoch"]
            return self.report()
        if verb == "restore":
            self.state = "aborted"
        return {"state": self.state}

    def keep_alive(self, interval: float) -> None:
        """From here on the host hears that its controller lives."""
        self.asked.append("keep_alive")

    def close(self) -> None:
        """Nothing is open."""


class Late(FakeHost):
    """Where the earlier run begins only when another host is taken over."""

    def __init__(self, other: FakeHost) -> None:
        super().__init__("idle")
        self._other = other

    def call(self, verb: str, args: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request, as the host is by then."""
        if self.state == "idle" and self._other.epoch > 1:
            self.state = "begun"
        return super().call(verb, args)


def two_hosts(folder: Path) -> Plan:
    """A plan for the hosts a and b."""
    (folder / "app").mkdir()
    (folder / "app" / "VERSION").write_text("v2")
    (folder / "plan.yaml").write_text(
        """
name: shop
version: v2
environment: test
hosts:
  a: {address: 127.0.0.1}
  b: {address: 127.0.0.2}
components:
  app:
    path: /srv/app
    artifact: app
    service: {process: {argv: ["true"]}}
    checks: [process: {}]
"""
    )
    return deployguard.load(folder / "plan.yaml")


def test_a_host_that_began_after_it_was_asked_is_taken_over(tmp_path: Path) -> None:
    """Else the earlier run would go on there, after the others were told to go back."""
    first = FakeHost("switched")
    hosts = {"a": first, "b": Late(first)}

    def connect(name: str, host: Host) -> Session:
        return cast(Session, hosts[name])

    journal = SqliteJournal(tmp_path / "journal.db")
    outcome = recovery.recover(two_hosts(tmp_path), None, journal, connect, None)
    assert {host.host: host.state for host in outcome.hosts} == {"a": "aborted", "b": "aborted"}
    assert hosts["b"].asked == ["status", "status", "keep_alive", "adopt", "restore"]
    # The hosts are taken over one after the other, and the first one's lease may be short.
    assert hosts["a"].asked == ["status", "keep_alive", "adopt", "restore"]
    assert hosts["b"].epoch == 2
    journal.close()
