"""The loop of a watch, with eyes and a clock that a script moves; what it makes of incidents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployguard.incidents.book import Book
from deployguard.monitor.filing import Filing
from deployguard.monitor.grouping import Notice, Receiver, Rules, Signal, State
from deployguard.monitor.looking import Look
from deployguard.monitor.watching import Ended, Memory, watch
from deployguard.plan.model import Plan
from deployguard.report.postmortems import wanted
from deployguard.store.journal import SqliteJournal

NOON = 1795262400.0
RULES = Rules(failures=2, group_wait=10.0, group_interval=60.0, repeat_interval=600.0)
GROUP = ("shop", "production", "t1")


class Clock:
    """Moves when somebody waits; a look takes a second."""

    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> float:
        """UTC seconds."""
        return self.at

    def wait(self, seconds: float) -> bool:
        """Let them pass; nobody stops it."""
        self.at += seconds
        return False


def http(host: str, healthy: bool, critical: bool = True) -> Signal:
    """One look at one check."""
    message = "ok" if healthy else f"http://{host}:80/ answered 503"
    return Signal(GROUP, (host, "web", "http"), healthy, "check", critical, message, "http")


def run(
    rounds: list[list[Signal]],
    seconds: float | None,
    state: State | None = None,
    save: Callable[[State], None] = lambda _: None,
) -> tuple[Ended, list[tuple[float, Notice]]]:
    """A watch that sees these rounds, the last one again and again."""
    clock = Clock()
    told: list[tuple[float, Notice]] = []
    left: Iterator[list[Signal]] = iter(rounds)
    last: list[Signal] = []

    def look() -> Look:
        nonlocal last
        last = next(left, last)
        clock.at += 1
        return Look(tuple(last), frozenset(signal.key[0] for signal in last))

    ended = watch(
        look,
        lambda notice: told.append((clock.at - NOON, notice)),
        RULES,
        (Receiver("team"),),
        state=state or State(),
        interval=15.0,
        seconds=seconds,
        now=clock.now,
        wait=clock.wait,
        save=save,
    )
    return ended, told


def test_a_window_in_which_all_is_well() -> None:
    """It looks at its interval, however long a look takes, and ends healthy."""
    ended, told = run([[http("web1", True)]], 60.0)
    assert (ended.looks, ended.healthy, told) == (5, True, [])


def test_what_fires_at_the_end_is_told() -> None:
    """Nobody will look again, so it is not waited for more to join."""
    ended, told = run([[http("web1", True)]] * 3 + [[http("web1", False)]], 60.0)
    assert not ended.healthy
    assert [(at, len(notice.fires)) for at, notice in told] == [(61.0, 1)]
    # One look that was not healthy is not told, and is no healthy end either.
    ended, told = run([[http("web1", True)]] * 4 + [[http("web1", False)]], 60.0)
    assert (ended.healthy, told) == (False, [])
    ended, _ = run([[http("web1", True)], [http("web1", False, critical=False)]], 60.0)
    assert ended.healthy


def test_it_is_remembered_between_runs(tmp_path: Path) -> None:
    """The second run tells the end of what the first has told, and nothing twice."""
    memory = Memory(tmp_path / "watch" / "shop.json")
    assert memory.read() == (State(), [])
    known = [(GROUP, "INC-20261121-001")]
    run([[http("web1", False)]], 60.0, save=lambda state: memory.write(state, known))
    assert (tmp_path / "watch" / "shop.json").stat().st_mode & 0o777 == 0o600
    state, incidents = memory.read()
    assert incidents == known
    again, told = run([[http("web1", False)]], 60.0, state)
    assert (again.healthy, told) == (False, [])
    _, told = run([[http("web1", True)]], 60.0, state)
    assert [notice.over for _, notice in told] == [(("web1", "web", "http"),)]
    (tmp_path / "watch" / "shop.json").write_text("{")
    assert memory.read() == (State(), [])


def test_a_check_that_is_no_longer_in_the_plan_is_over() -> None:
    """The host answers, and has nothing to say of it."""
    kept: list[State] = []
    run([[http("web1", False)]], 60.0, save=kept.append)
    port = Signal(GROUP, ("web1", "web", "port"), True)
    _, told = run([[port]], 60.0, kept[-1])
    assert [notice.over for _, notice in told] == [(("web1", "web", "http"),)]


PLAN = Plan.model_validate(
    {
        "name": "shop",
        "version": "v2",
        "hosts": {"web1": {}, "web2": {}},
        "components": {"web": {"artifact": "x", "path": "/srv/web", "checks": [{"port": 80}]}},
    }
)


@pytest.fixture
def filing(tmp_path: Path) -> Filing:
    """An empty book."""
    return Filing(PLAN, Book(SqliteJournal(tmp_path / "journal.db")))


def notices(*rounds: list[Signal]) -> list[Notice]:
    """What is told of some rounds that are a minute long."""
    repeated = [one for signals in rounds for one in [signals] * 5]
    return [notice for _, notice in run(repeated, 15.0 * len(repeated))[1]]


def test_an_incident_from_the_first_alert_to_the_end(filing: Filing, tmp_path: Path) -> None:
    """Opened with its severity, told once when more joins, mitigated when all of it is over."""
    one = [http("web1", False), http("web2", True)]
    both = [http("web1", False), http("web2", False)]
    well = [http("web1", True), http("web2", True)]
    first, second, end = notices(one, both, well)
    opened = filing.told(first)
    assert opened is not None
    assert (opened.state, opened.severity, opened.origin) == ("open", 2, "watch")
    assert opened.title == "shop web http fails in production"
    assert opened.signature == ("web http http: http://<host>:<n>/ answered <n>",)
    assert (opened.impact_at, opened.acknowledged_at) == (NOON + 1, None)
    # Users were hit: a post-mortem is wanted, though nobody has drafted one.
    assert opened.postmortem_by == opened.detected_at + 48 * 3600
    assert filing.told(second) is not None
    over = filing.told(end)
    assert over is not None and over.state == "mitigated"
    lookup = Book(SqliteJournal(tmp_path / "journal.db")).lookup
    (judged,) = wanted(lookup)
    assert judged.verdict.incident == opened.id
    assert judged.verdict.open == ("it was never drafted",)
    kinds = [entry.kind for entry in lookup.timeline(opened.id)]
    assert sorted(kinds) == ["alert", "mitigated", "opened"]
    assert [link.value for link in lookup.links(opened.id)] == ["t1"]
    assert filing.incidents == {}
    # The same again joins what is not over yet.
    again = filing.told(first)
    assert again is not None and again.id == opened.id


def test_severity_is_that_of_what_is_hit(filing: Filing) -> None:
    """All hosts: critical. A restore that failed: critical as well."""
    (first,) = notices([http("web1", False), http("web2", False)])
    opened = filing.told(first)
    assert opened is not None and opened.severity == 1
    stuck = Signal(GROUP, ("web1", "", "restore"), False, "restore", message="t1 is stuck")
    (first,) = notices([stuck, http("web1", False)])
    assert [alert.kind for alert in first.fires] == ["restore"]
