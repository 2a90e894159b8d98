"""What lies in the journal, and what a worker is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.engine import answers
from deployguard.engine.seal import Seal, new_key
from deployguard.engine.workers import check_worker, without_password
from deployguard.errors import (
    ActionFailed,
    ConnectionLost,
    DeployguardError,
    InternalError,
    Locked,
    ProtocolError,
    Refused,
    Unreachable,
    UsageError,
)

KEY = new_key()


@given(st.binary(max_size=5000))
def test_what_was_sealed_opens(data: bytes) -> None:
    """Whatever it was; and it does not show."""
    sealed = Seal(KEY, "t1").close("plan", data)
    assert Seal(KEY, "t1").open("plan", sealed) == data
    assert len(data) < 8 or data not in sealed


@pytest.mark.parametrize(
    ("key", "transaction", "about"),
    [(new_key(), "t1", "plan"), (KEY, "t2", "plan"), (KEY, "t1", "order/web1/2")],
    ids=["another key", "another transaction", "another name"],
)
def test_nothing_else_opens(key: bytes, transaction: str, about: str) -> None:
    """Another key, another transaction, another place: an order cannot be given twice."""
    sealed = Seal(KEY, "t1").close("plan", b"secret")
    with pytest.raises(InternalError, match="was not written there"):
        Seal(key, transaction).open(about, sealed)
    with pytest.raises(InternalError):
        Seal(KEY, "t1").open("plan", sealed[:-1])


@pytest.mark.parametrize(
    "error",
    [
        ActionFailed("web1", "no room", kind="space", detail={"a": [1]}, hint="make room"),
        ActionFailed("web1", "taken over", kind="stale_epoch", detail=3),
        Unreachable("web1", "no route", hint="mend it"),
        ConnectionLost("web1", "cut"),
        ProtocolError("web1", "nonsense"),
        Locked("web1: locked by ann"),
        Refused("web1: drift", hint="save it"),
        UsageError("no such file"),
    ],
)
def test_an_error_on_its_way(error: DeployguardError) -> None:
    """It is of the same class and says the same, so that it has the same exit code."""
    again = answers.error_of(answers.decode(answers.encode(answers.error_data(error))))
    assert type(again) is type(error)
    assert vars(again) == vars(error)


def test_names_that_are_no_utf8() -> None:
    """They travel as they are."""
    data = {"path": b"/srv/\xff".decode("utf-8", "surrogateescape")}
    assert answers.decode(answers.encode(data)) == data


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://ann:secret@db:5432/x", "postgresql://ann@db:5432/x"),
        ("postgresql://db/x?user=ann&password=secret", "postgresql://db/x?user=ann"),
        ("postgresql://ann@db/x?sslmode=require", "postgresql://ann@db/x?sslmode=require"),
        ("postgresql:///x?host=/run/postgresql", "postgresql:///x?host=%2Frun%2Fpostgresql"),
    ],
)
def test_the_password_stays_here(url: str, told: str) -> None:
    """A worker has its own, in its environment or in ~/.pgpass."""
    assert without_password(url) == told


def test_a_worker_of_another_version() -> None:
    """It says which."""
    assert "0.0.0" in check_worker("0.0.0", "postgresql://db/x", "t1")
