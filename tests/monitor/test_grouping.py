"""Alerts by a script: what is looked at when, and who is told what.

A script is lines of ``second: check[@host][/txn] ok|bad …``; the transcript beside it has the
notices. The rules are two failures, 10 s to wait, 60 s between, 600 s to repeat.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.monitor.grouping import Notice, Receiver, Rules, Signal, State, firing, step

RULES = Rules(failures=2, group_wait=10.0, group_interval=60.0, repeat_interval=600.0)
TEAM, PAGER = Receiver("team"), Receiver("pager", critical_only=True)


def signal(word: str, healthy: bool) -> Signal:
    """``search`` is not critical, ``restore`` is the one that silences, ``reach`` is a host."""
    word, _, transaction = word.partition("/")
    check, _, host = word.partition("@")
    kind = {"restore": "restore", "reach": "host"}.get(check, "check")
    return Signal(
        ("shop", "production", transaction or "t1"),
        (host or "web1", "web", check),
        healthy,
        kind,  # type: ignore[arg-type]  # one of the three
        critical=check != "search",
        message="ok" if healthy else "answered 503",
    )


def told(script: str, receivers: tuple[Receiver, ...] = (TEAM,)) -> list[str]:
    """The notices of a script. The state goes through JSON between two lines, as between runs."""
    state, found = State(), []
    for line in script.strip().splitlines():
        at, _, rest = line.partition(":")
        words = rest.split()
        signals = [
            signal(word, verdict == "ok")
            for word, verdict in zip(words[::2], words[1::2], strict=True)
        ]
        state = State.from_dict(json.loads(json.dumps(state.as_dict())))
        state, notices = step(state, signals, float(at), RULES, receivers)
        found += [f"{at.strip()} {said(notice)}" for notice in notices]
    return found


def said(notice: Notice) -> str:
    """A notice in a line."""
    transaction = "" if notice.group[2] == "t1" else f"/{notice.group[2]}"
    if not notice.fires:
        return f"{notice.receiver}{transaction} over " + " ".join(_name(k) for k in notice.over)
    names = " ".join(sorted(_name(alert.key) for alert in notice.fires))
    return f"{notice.receiver}{transaction} {'again' if notice.again else 'fires'} {names}"


def _name(key: tuple[str, str, str]) -> str:
    host, _, check = key
    return check if host == "web1" else f"{check}@{host}"


@pytest.mark.parametrize(
    ("script", "transcript"),
    [
        pytest.param(
            """
            0: http bad
            5: http ok
            10: http bad
            15: http ok
            30: http ok
            """,
            [],
            id="one look that was not healthy is nothing",
        ),
        pytest.param(
            """
            0: http bad port bad
            5: http bad port bad
            10: http bad port bad
            15: http bad port bad
            20: http bad port bad
            """,
            ["15 team fires http port"],
            id="what fails together is told together, once",
        ),
        pytest.param(
            """
            0: http bad
            5: http bad
            15: http bad port bad
            20: http bad port bad
            70: http bad port bad
            75: http bad port bad
            """,
            ["15 team fires http", "75 team fires http port"],
            id="one that joins is told, no sooner than the interval allows",
        ),
        pytest.param(
            """
            0: http bad
            5: http bad
            15: http bad
            300: http bad
            614: http bad
            700: http bad
            800: http bad
            """,
            ["15 team fires http", "700 team again http"],
            id="while it goes on it is repeated, seldom",
        ),
        pytest.param(
            """
            0: http bad
            5: http bad
            7: http ok
            9: http ok
            15: http ok
            90: http ok
            """,
            [],
            id="over before anybody was told: nobody is told that it is over",
        ),
        pytest.param(
            """
            0: http bad
            5: http bad
            15: http bad
            20: http ok
            25: http bad
            80: http ok
            85: http ok
            140: http ok
            200: http ok
            """,
            ["15 team fires http", "85 team over http"],
            id="over is told once, after as many looks that were healthy",
        ),
        pytest.param(
            """
            0: http bad port bad
            5: http bad port bad
            15: http bad port bad
            20: http ok port bad
            25: http ok port bad
            80: http ok port bad
            85: http ok port ok
            90: http ok port ok
            145: http ok port ok
            """,
            ["15 team fires http port", "90 team over http port"],
            id="it is over when all of it is",
        ),
        pytest.param(
            """
            0: restore bad http bad http@web2 bad reach@web3 bad
            5: restore bad http bad http@web2 bad reach@web3 bad
            15: restore bad http bad http@web2 bad reach@web3 bad
            80: restore bad http bad http@web2 bad reach@web3 bad
            """,
            ["15 team fires restore"],
            id="a failed restore silences the noise of its hosts",
        ),
        pytest.param(
            """
            0: http bad
            5: http bad
            15: http bad
            20: http bad restore/t2 bad
            25: http bad restore/t2 bad
            80: http bad restore/t2 bad
            140: http bad restore/t2 ok
            145: http bad restore/t2 ok
            200: http bad
            205: http ok
            210: http ok
            265: http ok
            """,
            [
                "15 team fires http",
                "80 team/t2 fires restore",
                "145 team/t2 over restore",
                "210 team over http",
            ],
            id="what is silenced is not called over",
        ),
        pytest.param(
            """
            0: http/t1 bad
            5: http/t1 bad
            15: http/t1 bad
            20: http/t2 ok
            80: http/t2 ok
            """,
            ["15 team fires http", "80 team over http"],
            id="a deploy ends what fired under the one before",
        ),
    ],
)
def test_scripts(script: str, transcript: list[str]) -> None:
    """Who is told what, and when."""
    assert told(script) == transcript


def test_each_receiver_has_its_own_end() -> None:
    """One that hears only of what is critical is not told that the rest is over."""
    script = """
        0: search bad
        5: search bad
        15: search bad
        80: search bad http bad
        85: search bad http bad
        140: search bad http bad
        200: search bad http ok
        205: search bad http ok
        260: search bad http ok
        320: search ok
        325: search ok
        380: search ok
    """
    assert told(script, (TEAM, PAGER)) == [
        "15 team fires search",
        "85 team fires http search",
        "85 pager fires http",
        "205 pager over http",
        "325 team over http search",
    ]


def test_nothing_is_kept_for_ever() -> None:
    """When everybody has heard the end, the state is as it was in the beginning."""
    state = State()
    for at, verdict in [(0, False), (5, False), (15, False), (100, True), (105, True), (170, True)]:
        state, _ = step(state, [signal("http", verdict)], float(at), RULES, (TEAM,))
    assert state.as_dict() == State().as_dict()


@given(
    st.lists(
        st.tuples(
            st.integers(1, 200),
            st.lists(
                st.tuples(
                    st.sampled_from(["http", "search", "restore", "reach", "http@web2", "http/t2"]),
                    st.booleans(),
                ),
                max_size=4,
            ),
        ),
        max_size=40,
    )
)
def test_over_follows_fires(rounds: list[tuple[int, list[tuple[str, bool]]]]) -> None:
    """Whatever happens: over is told only to one who heard that it fires, of just that, once; the
    same is not told twice within the repeat interval; and a silenced alert is not told at all."""
    state, now = State(), 0.0
    heard: dict[tuple[str, tuple[str, str, str]], frozenset[tuple[str, str, str]]] = {}
    at: dict[tuple[str, tuple[str, str, str]], float] = {}
    for gap, looks in rounds:
        now += gap
        signals = [signal(word, healthy) for word, healthy in looks]
        state, notices = step(state, signals, now, RULES, (TEAM, PAGER))
        loud = {(alert.group, alert.key) for alert in firing(state)}
        for notice in notices:
            place = (notice.receiver, notice.group)
            keys = frozenset(alert.key for alert in notice.fires)
            before = heard.get(place, frozenset())
            if not keys:
                assert before and frozenset(notice.over) == before
            else:
                assert {(notice.group, key) for key in keys} <= loud
                assert keys - before or (notice.again and now >= at[place] + 600)
            if notice.receiver == "pager":
                assert all(alert.critical for alert in notice.fires)
            heard[place], at[place] = keys, now
