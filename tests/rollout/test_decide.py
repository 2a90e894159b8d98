"""The decisions are pure: every combination that matters is a row here."""

from __future__ import annotations

import pytest

from deployguard.errors import ExitCode
from deployguard.rollout import decide
from deployguard.rollout.decide import decision_for
from deployguard.rollout.outcome import HostOutcome


@pytest.mark.parametrize(
    ("batch", "failed", "allowed", "verdict"),
    [
        (["a", "b"], [], 0.0, "go_on"),
        (["a", "b"], ["a"], 0.0, "abort"),
        (["a", "b"], ["a"], 50.0, "go_on"),
        (["a", "b"], ["a"], 49.0, "abort"),
        (["a"], ["a"], 100.0, "go_on"),
    ],
)
def test_after_batch(batch: list[str], failed: list[str], allowed: float, verdict: str) -> None:
    """The percentage must be exceeded, not equalled."""
    assert decide.after_batch(batch, failed, allowed) == verdict


def _host(state: str, *, proven: bool = True) -> HostOutcome:
    return HostOutcome("h", state, verified=proven, healthy=proven)


@pytest.mark.parametrize(
    ("hosts", "code"),
    [
        ([_host("committed")], ExitCode.COMMITTED),
        ([_host("committed"), _host("restored")], ExitCode.ROLLED_BACK),
        ([_host("restored"), _host("aborted"), _host("unreachable")], ExitCode.ROLLED_BACK),
        ([_host("restored", proven=False)], ExitCode.NEEDS_PERSON),
        ([_host("restored"), _host("stuck")], ExitCode.NEEDS_PERSON),
        ([_host("restored"), _host("lost")], ExitCode.NEEDS_PERSON),
        ([_host("committed"), _host("prepared")], ExitCode.INTERRUPTED),
        ([_host("prepared"), _host("stuck")], ExitCode.NEEDS_PERSON),
    ],
)
def test_exit_code(hosts: list[HostOutcome], code: ExitCode) -> None:
    """The worst that is true of any host is what the command says."""
    assert decide.exit_code(hosts) == code


@pytest.mark.parametrize(
    ("recorded", "states", "unreachable", "decision"),
    [
        ("commit", {"a": "prepared"}, [], "commit"),
        ("abort", {"a": "prepared"}, [], "abort"),
        (None, {"a": "prepared", "b": "committed"}, ["c"], "commit"),
        (None, {"a": "prepared", "b": "restored"}, ["c"], "abort"),
        (None, {"a": "prepared"}, [], "abort"),
        (None, {"a": "prepared"}, ["b"], "in_doubt"),
        (None, {"a": "switched"}, [], "abort"),
    ],
)
def test_recovery_decision(
    recorded: str | None, states: dict[str, str], unreachable: list[str], decision: str
) -> None:
    """A record stands; a commit anywhere is a commit; silence with everybody there is an abort."""
    assert decision_for(recorded, states, unreachable) == decision


def test_a_host_that_went_back_alone_proves_nothing() -> None:
    """Where the plan may go on without it, the others may have been told to commit."""
    states = {"a": "restored", "c": "prepared"}
    assert decision_for(None, states, ["b"], all_or_nothing=False) == "in_doubt"
    assert decision_for(None, states, [], all_or_nothing=False) == "abort"


@pytest.mark.parametrize(
    ("states", "unreachable", "sent_back", "first_takeover", "decision"),
    [
        # Somebody without the record had every host's answer, and aborted.
        ({"a": "prepared", "b": "restored"}, [], True, False, "abort"),
        ({"a": "going_back", "b": "prepared"}, ["c"], True, False, "abort"),
        # Nobody can have had it: one host was never taken over.
        ({"a": "prepared"}, ["b"], False, True, "commit"),
        # Somebody may have had it, and the host that knows is not to be reached.
        ({"a": "prepared"}, ["b"], False, False, "in_doubt"),
        ({"a": "prepared", "b": "prepared"}, [], False, False, "commit"),
        ({"a": "prepared", "b": "committed"}, ["c"], False, False, "commit"),
    ],
)
def test_a_commit_that_was_recorded_and_told_to_nobody(
    states: dict[str, str],
    unreachable: list[str],
    sent_back: bool,
    first_takeover: bool,
    decision: str,
) -> None:
    """It is void where a recover that could not read it has decided first."""
    found = decision_for(
        "commit", states, unreachable, sent_back=sent_back, first_takeover=first_takeover
    )
    assert found == decision


def test_one_that_was_sent_back_does_not_speak_for_all() -> None:
    """Where the plan may go on without it, only every host's answer does."""
    found = decision_for(
        "commit",
        {"a": "prepared", "b": "restored"},
        ["c"],
        all_or_nothing=False,
        sent_back=True,
        first_takeover=False,
    )
    assert found == "in_doubt"
