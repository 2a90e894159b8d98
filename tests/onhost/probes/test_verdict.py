"""The verdict is pure: every rule of the module's table, sample by sample."""

from __future__ import annotations

from typing import Any

from deployguard.onhost.probes import verdict
from deployguard.onhost.probes.base import CheckData, Sample
from deployguard.onhost.probes.verdict import State, Verdict


def check(deadline: float = 10.0, soak: float = 0.0) -> CheckData:
    """A check that starts at instant 0 in these tests."""
    return {
        "id": "a/p",
        "component": "a",
        "kind": "process",
        "name": "p",
        "critical": True,
        "timeout": 2.0,
        "interval": 1.0,
        "deadline": deadline,
        "min_healthy_time": soak,
    }


def sample(
    state: str, final: bool = False, seconds: float = 0.0, message: str = "m", **observed: Any
) -> Sample:
    """A sample as a probe gives it."""
    return {
        "check": "a/p",
        "state": state,
        "message": message,
        "final": final,
        "observed": observed,
        "at": 0.0,
        "seconds": seconds,
    }


def play(state: State, *steps: tuple[float, Sample]) -> tuple[State, list[Verdict | None]]:
    """All verdicts, one a sample."""
    verdicts = []
    for now, one in steps:
        state, found = verdict.step(state, one, now)
        verdicts.append(found)
    return state, verdicts


def healthy(found: Verdict | None) -> bool | None:
    """The verdict in one word."""
    return None if found is None else found.healthy


def test_without_a_soak_the_first_healthy_sample_settles_it() -> None:
    """A quick service costs one look."""
    state, found = play(verdict.begin(check(), 0.0), (0.1, sample("healthy")))
    assert healthy(found[0]) is True
    assert state.first_healthy == 0.1


def test_a_slow_start_that_just_makes_it() -> None:
    """A look begun at the deadline counts, even when it is answered after it."""
    state = verdict.begin(check(deadline=10.0), 0.0)
    _, found = play(state, (9.0, sample("unhealthy")), (11.5, sample("healthy", seconds=1.5)))
    assert [healthy(one) for one in found] == [None, True]


def test_one_look_later_is_too_late() -> None:
    """What was begun after the deadline does not count, healthy or not."""
    state = verdict.begin(check(deadline=10.0), 0.0)
    _, found = play(state, (10.5, sample("healthy")))
    assert healthy(found[0]) is False
    assert found[0] is not None and "only after its deadline of 10 s" in found[0].message


def test_unhealthy_at_the_deadline_fails_with_the_last_message() -> None:
    """Until then there is hope."""
    state = verdict.begin(check(deadline=10.0), 0.0)
    _, found = play(
        state,
        (0.0, sample("unhealthy")),
        (9.9, sample("unhealthy")),
        (10.0, sample("unhealthy", message="port 3000 is closed")),
    )
    assert [healthy(one) for one in found] == [None, None, False]
    assert found[2] is not None
    assert found[2].message == "not healthy within 10 s: port 3000 is closed"


def test_unknown_is_never_healthy() -> None:
    """Unknown at the deadline has failed, and says that it was unknown."""
    state = verdict.begin(check(deadline=1.0), 0.0)
    _, found = play(state, (0.0, sample("unknown")), (1.0, sample("unknown")))
    assert [healthy(one) for one in found] == [None, False]
    assert found[1] is not None and found[1].state == "unknown"
    assert found[1].message.startswith("still unknown after 1 s")


def test_the_soak_counts_from_the_answer_of_the_first_healthy_sample() -> None:
    """A look begun before the soak is over does not end it."""
    state = verdict.begin(check(deadline=10.0, soak=5.0), 0.0)
    _, found = play(
        state,
        (2.0, sample("healthy", seconds=1.0)),
        (6.9, sample("healthy")),
        (7.5, sample("healthy", seconds=1.0)),
        (7.6, sample("healthy")),
    )
    assert [healthy(one) for one in found] == [None, None, None, True]


def test_a_soak_may_end_after_the_deadline() -> None:
    """The deadline is for becoming healthy."""
    state = verdict.begin(check(deadline=10.0, soak=30.0), 0.0)
    _, found = play(state, (9.0, sample("healthy")), (39.0, sample("healthy")))
    assert [healthy(one) for one in found] == [None, True]


def test_a_broken_soak_starts_anew_before_the_deadline_only() -> None:
    """After the deadline a break is the end."""
    state = verdict.begin(check(deadline=10.0, soak=5.0), 0.0)
    state, found = play(
        state,
        (1.0, sample("healthy")),
        (2.0, sample("unknown")),
        (3.0, sample("healthy")),
        (7.9, sample("healthy")),
    )
    assert [healthy(one) for one in found] == [None, None, None, None]
    _, fine = play(state, (8.0, sample("healthy")))
    assert healthy(fine[0]) is True
    late = verdict.begin(check(deadline=10.0, soak=5.0), 0.0)
    _, found = play(late, (9.0, sample("healthy")), (11.0, sample("unhealthy")))
    assert healthy(found[1]) is False
    assert found[1] is not None and found[1].message == "it did not stay healthy: m"


def test_a_restart_fails_at_once_however_healthy_it_looks() -> None:
    """Counted against the first look when nothing is known from before the start."""
    state = verdict.begin(check(soak=5.0), 0.0)
    state, found = play(
        state,
        (0.0, sample("healthy", restarts=7, instance="a")),
        (1.0, sample("healthy", restarts=8, instance="b")),
        (2.0, sample("healthy", restarts=8, instance="b")),
    )
    assert [healthy(one) for one in found] == [None, False, False]
    assert found[1] is not None and found[1].final
    assert found[1].message == "restarted since the start; m"
    assert state.restarted == 1


def test_a_restart_before_the_first_look_counts_with_the_baseline() -> None:
    """A start by hand sets the count to nothing, so what it shows has happened since."""
    before = {"restarts": 40, "instance": "old"}
    state = verdict.begin(check(), 0.0, before)
    _, found = play(state, (0.1, sample("healthy", restarts=4, instance="new")))
    assert healthy(found[0]) is False
    assert found[0] is not None and found[0].message.startswith("restarted 4 times")


def test_a_service_that_was_not_restarted_keeps_its_old_count() -> None:
    """Forty crashes last month are not ours."""
    before = {"restarts": 40, "instance": "old"}
    state = verdict.begin(check(), 0.0, before)
    _, found = play(state, (0.1, sample("healthy", restarts=40, instance="old")))
    assert healthy(found[0]) is True


def test_a_restart_that_is_due_at_the_first_look_is_a_restart() -> None:
    """It died between the start and the look, and waits for systemd to start it again."""
    due = sample("unhealthy", restarts=1, instance="a", restart_due=True)
    _, found = play(verdict.begin(check(), 0.0), (0.0, due))
    assert healthy(found[0]) is False


def test_another_process_is_a_restart_even_without_a_count() -> None:
    """Somebody restarted it by hand, which sets the count back."""
    state = verdict.begin(check(soak=5.0), 0.0)
    _, found = play(
        state,
        (0.0, sample("healthy", restarts=0, instance="a")),
        (1.0, sample("healthy", restarts=0, instance="b")),
    )
    assert [healthy(one) for one in found] == [None, False]


def test_a_final_state_fails_before_the_deadline() -> None:
    """Nobody waits for a unit that has failed."""
    state = verdict.begin(check(deadline=100.0), 0.0)
    _, found = play(state, (0.5, sample("unhealthy", final=True, message="x is failed")))
    assert healthy(found[0]) is False
    assert found[0] is not None and found[0].message == "x is failed"


def test_a_settled_check_that_breaks_gets_one_short_chance() -> None:
    """Half a minute after its deadline one lost answer is forgiven, lasting failure is not."""
    state = verdict.begin(check(deadline=10.0), 0.0)
    state, found = play(
        state,
        (1.0, sample("healthy")),
        (40.0, sample("unhealthy")),
        (41.0, sample("healthy")),
    )
    assert [healthy(one) for one in found] == [True, None, True]
    _, again = play(state, (50.0, sample("unhealthy")), (51.0, sample("unhealthy")))
    assert [healthy(one) for one in again] == [None, False]
