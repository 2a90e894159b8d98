"""The same failure has the same fingerprint, whatever differs from one time to the next."""

from __future__ import annotations

from typing import Any

import pytest

from deployguard.incidents.fingerprint import fingerprint, likeness, shape, signature
from tests.cli.outcomes import finding, host, rolled_back

ANSWERED = (
    'not healthy within {s} s: http://127.0.0.1:{port}/health answered 503: {{"version": "{v}"}}'
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("worker 4711 died at 03:12:07", "worker 12 died at 14:00:59"),
        ("2026-11-21T03:12:07.123Z lost", "2026-01-02 23:59:59,001 lost"),
        ("10.0.0.7:5432 refused", "192.0.2.10:5433 refused"),
        ("id 7f3a1c9e-0d4b-4c5e-9a1f-0123456789ab", "id 00000000-0000-4000-8000-000000000000"),
        ("commit 3f2a91c is bad", "commit a1b2c3d4e5f60718293a4b5c6d7e8f9012345678 is bad"),
        ("at 0x7f8e3c", "at 0x12"),
        ("no file /srv/shop/releases/v1/a.py", "no file /srv/shop/releases/v2/b.py"),
        ("[redacted:password:3f2a91] was wrong", "[redacted:password:aaaaaa] was wrong"),
    ],
)
def test_what_differs_is_masked(one: str, other: str) -> None:
    """Times, addresses, ids, hashes, paths, numbers and secrets."""
    assert shape(one) == shape(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("connection refused", "connection timed out"),
        ("no module named telemetry", "no module named analytics"),
        ("answered 503: no database", "answered 503: no cache"),
    ],
)
def test_what_matters_stays(one: str, other: str) -> None:
    """The words."""
    assert shape(one) != shape(other)


def failed(version: str, *messages: str, hosts: str = "web1", **changes: Any) -> tuple[str, ...]:
    """The signature of a deploy that failed with these messages on some hosts."""
    names = hosts.split()
    found = [finding(host=name, message=text) for name in names for text in messages]
    outcome = rolled_back(
        version=version, hosts=tuple(map(host, names)), findings=tuple(found), **changes
    )
    return signature(outcome)


def test_the_same_failure_of_another_version_on_other_hosts() -> None:
    """The version, the hosts, the ports and the seconds make no difference."""
    one = failed("v2", ANSWERED.format(s=3, port=8765, v="v2"))
    other = failed("v2.1-rc.4", ANSWERED.format(s="4.5", port=9000, v="v2.1-rc.4"), hosts="b a")
    assert one == other
    assert fingerprint("shop", "production", one) == fingerprint("shop", "production", other)
    assert fingerprint("shop", "staging", one) != fingerprint("shop", "production", one)
    assert fingerprint("wiki", "production", one) != fingerprint("shop", "production", one)
    assert failed("v2", "web1: connection refused", hosts="web1") == failed(
        "v2", "web9: connection refused", hosts="web9"
    )


def test_what_is_not_critical_or_not_settled_does_not_count() -> None:
    """It is there or not as it happens."""
    critical = finding(message="answered 503")
    aside = finding(layer="log", message="anything", critical=False)
    unsettled = finding(layer="port", message="not settled when the watch ended: closed")
    assert signature(rolled_back(findings=(critical, aside, unsettled))) == signature(
        rolled_back(findings=(critical,))
    )
    # Unless there is nothing else.
    assert "closed" in signature(rolled_back(findings=(unsettled,)))[0]
    assert signature(rolled_back(findings=())) == ("- rolled_back",)


def test_other_checks_are_another_failure() -> None:
    """The layer, the name and the component are part of it."""
    one = signature(rolled_back(findings=(finding(),)))
    for changes in ({"layer": "port"}, {"name": "ready"}, {"component": "worker"}):
        assert signature(rolled_back(findings=(finding(**changes),))) != one


def test_how_much_is_alike() -> None:
    """From nothing to all."""
    assert likeness(("a", "b"), ("b", "a")) == 1.0
    assert likeness(("a", "b"), ("b",)) == 0.5
    assert likeness(("a",), ("b",)) == likeness((), ()) == 0.0
