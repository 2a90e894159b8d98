"""What the second entry of a job makes of a host, in every state that the first may have left."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest

import deployguard
from deployguard.engine.joining import join
from deployguard.errors import ActionFailed
from deployguard.guards.world import real_world
from deployguard.rollout.deployment import members_of
from deployguard.rollout.member import Context, Member, Recorder
from deployguard.rollout.targets import Source
from deployguard.rollout.work import Here
from tests.cli.conftest import PLAN


class FakeHost:
    """A host program's answers about transaction `t1`."""

    def __init__(self, state: str, epoch: int = 1, **past: Any) -> None:
        self.hello = {"state": "/var/lib/deployguard", "uid": 0}
        self.state, self.epoch = state, epoch
        self.past = {"going_back": False, "held": None, "takeovers": epoch - 1, **past}
        self.asked: list[str] = []

    def call(self, verb: str, args: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request."""
        self.asked.append(verb)
        if verb == "status":
            report = {"transaction": "t1", "state": self.state, "epoch": self.epoch, **self.past}
            ended = self.state in ("aborted", "restored") or (
                self.state == "committed" and not self.past.get("unsettled")
            )
            known = [] if self.state == "idle" else [report]
            return {"unfinished": [] if ended else known, "ended": known if ended else []}
        assert verb == "adopt" and args is not None
        if args["epoch"] <= self.epoch:
            raise ActionFailed("here", "stale", kind="stale_epoch", detail=self.epoch)
        self.epoch = args["epoch"]
        return {"state": self.state}


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A transaction of one host."""
    (tmp_path / "plan.yaml").write_text(PLAN.format(root=tmp_path, port=1))
    plan = deployguard.load(tmp_path / "plan.yaml", local_files=False)
    return Context(
        plan=plan,
        transaction="t1",
        epoch=1,
        owner="ann@laptop",
        sources={"web": Source("v1")},
        record=Recorder(None),
        connect=cast(Any, None),
        stop=threading.Event(),
        settle=lambda *_: "",
        work=Here(),
        world=real_world(),
        version="v1",
    )


def member_on(context: Context, host: FakeHost) -> Member:
    """The member, with a connection to this host."""
    (member,) = members_of(context.plan)
    member.session = cast(Any, host)
    return member


def test_never_begun(context: Context) -> None:
    """It goes on as if nothing had been."""
    host = FakeHost("idle")
    member = member_on(context, host)
    found = join(context, member, 0)
    assert (found.lost, found.ended, member.begun) == ("", False, False)
    assert host.asked == ["status"]


@pytest.mark.parametrize("state", ["begun", "staged", "armed", "switched", "stuck"])
def test_begun_and_not_voted(context: Context, state: str) -> None:
    """It has failed; it is held, whoever held it last, and waits for what is decided."""
    host = FakeHost(state, epoch=4)
    member = member_on(context, host)
    found = join(context, member, 1)
    assert state in found.lost and not found.ended
    assert (host.epoch, context.epoch, member.state) == (5, 5, state)
    assert member.begun and member.touched == (state not in ("begun", "staged"))


def test_voted(context: Context) -> None:
    """The vote stands; it can be checked again."""
    host = FakeHost("prepared", epoch=2)
    member = member_on(context, host)
    found = join(context, member, 2)
    assert (found.lost, found.ended, member.state) == ("", False, "prepared")
    assert (host.epoch, context.epoch) == (3, 3)
    assert [check["component"] for check in member.checks] == ["web", "web"]


@pytest.mark.parametrize("held", [0, 1, 3])
def test_voted_and_taken_over_by_somebody_else(context: Context, held: int) -> None:
    """Its vote is none of ours any more, and it is left to whoever has it."""
    host = FakeHost("prepared", epoch=2)
    member = member_on(context, host)
    found = join(context, member, held)
    assert "somebody else" in found.lost and found.ended
    assert (host.epoch, member.state) == (2, "taken_over")


def test_taken_over_a_moment_ago(context: Context) -> None:
    """Between the question and the takeover: theirs stands."""

    class Raced(FakeHost):
        def call(self, verb: str, args: dict[str, Any] | None = None) -> dict[str, Any]:
            if verb == "adopt":
                self.epoch = 2
            return super().call(verb, args)

    host = Raced("prepared", epoch=1)
    member = member_on(context, host)
    assert "somebody else" in join(context, member, 1).lost
    assert (host.epoch, member.state) == (2, "taken_over")


def test_a_restore_of_a_voter_has_begun(context: Context) -> None:
    """It ends as one."""
    host = FakeHost("prepared", going_back=True)
    member = member_on(context, host)
    assert join(context, member, 1).lost
    assert host.epoch == 2


def test_held_behind_a_point_of_no_return(context: Context) -> None:
    """It waits for a person, and is no vote."""
    host = FakeHost("prepared", held={"task": "migrate"})
    member = member_on(context, host)
    assert join(context, member, 1).lost
    assert (member.state, member.touched, host.epoch) == ("held", True, 2)


@pytest.mark.parametrize("state", ["aborted", "restored", "committed"])
def test_ended(context: Context, state: str) -> None:
    """Nothing is left to be done, or taken over."""
    host = FakeHost(state)
    member = member_on(context, host)
    found = join(context, member, 1)
    assert found.ended and state in found.lost
    assert (member.state, host.asked) == (state, ["status"])
    assert member.outcome().verified and member.outcome().healthy


def test_committed_and_not_settled(context: Context) -> None:
    """It is held, so that the commit can be told again and clears up."""
    host = FakeHost("committed", unsettled=True)
    member = member_on(context, host)
    assert not join(context, member, 1).ended
    assert (member.state, host.epoch) == ("committed", 2)
