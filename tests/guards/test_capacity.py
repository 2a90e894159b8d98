"""`capacity`: what a release needs, against what there is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployguard.guards.base import Known, Unknown
from deployguard.guards.capacity import connections, value_in
from deployguard.plan.model import ReleaseValue
from tests.guards.conftest import Shop

FORTY = {"max_connections": 40}


def needs(need: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The guard with what the one component needs."""
    return {"capacity": {"components": {"web": need}, **more}}


def test_the_pools_of_everybody_count() -> None:
    """Exactly what is left is enough; what is reserved and what others hold is not left."""
    both = {"api: 15 × 2 hosts": 30, "jobs: 5": 5}
    assert connections(both, 40, 3, 2, "plan").passed
    found = connections(both, 40, 3, 3, "plan")
    assert not found.passed
    assert "35 connections are needed (api: 15 × 2 hosts; jobs: 5)" in found.message
    assert "34 to give: 40, 3 of them reserved and 3 for others (plan)" in found.message


def test_a_pool_that_is_too_large_is_refused(shop: Shop) -> None:
    """The number stands in the release, where the release changes it."""
    settings = shop.site.root / "releases" / "v2" / "settings.json"
    settings.write_text(json.dumps({"pool": {"min": 50}}))
    where = {"file": "settings.json", "key": "pool.min"}
    shop.guarded(needs({"connections": where}, postgresql=FORTY))
    shop.assert_refused(
        "capacity", "50 connections are needed (web: 50), and PostgreSQL has 37 to give: 40"
    )


def test_a_pool_that_fits_passes(shop: Shop) -> None:
    """All instances on all hosts."""
    shop.guarded(needs({"connections": 18, "instances": 2}, postgresql=FORTY))
    shop.assert_passes("capacity", "36 of 37 connections (web: 18 × 2 instances)")


@pytest.mark.parametrize(
    ("need", "more", "said"),
    [
        ({"memory": "900 TiB"}, {}, "of memory are needed (web "),
        ({"memory": "1 MiB"}, {"keep_memory": "900 TiB"}, "of memory are needed (web 1.0 MiB)"),
        ({"open_files": 2_000_000_000_000}, {}, "(raise LimitNOFILE)"),
        ({"disk": "900 TiB"}, {}, "free after the deploy"),
    ],
)
def test_more_than_the_host_has_is_refused(
    shop: Shop, need: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    """Memory, open files, disk: each with what is needed and what is there."""
    shop.guarded(needs(need, **more))
    shop.assert_refused("capacity", said)


def test_what_the_host_has_passes(shop: Shop) -> None:
    """All of them are shown."""
    shop.guarded(needs({"memory": "1 MiB", "open_files": 10, "disk": "1 MiB"}))
    shop.assert_passes("capacity", "1.0 MiB of ", "web 10 of ", "open files")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"db": {"pool": 12}}'),
        ("a.yaml", "db: {pool: 12}\n"),
        ("a.toml", "[db]\npool = 12\n"),
        ("a.ini", "[db]\npool = 12\n"),
        ("a.env", "# settings\nOTHER=1\nexport db.pool='12'\n"),
    ],
)
def test_where_a_release_says_it(name: str, text: str) -> None:
    """The kinds of files that settings stand in."""
    if name.endswith(".toml"):
        pytest.importorskip("tomllib")
    known = reading({name: text})
    key = "db.pool" if not name.endswith(".env") else "pool"
    if name.endswith(".env"):
        known = reading({name: text.replace("db.", "")})
    assert value_in(known, "web", ReleaseValue(file=name, key=key)) == 12


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no file a.json"),
        ({"a.json": "{"}, "pool in a.json of web is not a number"),
        ({"a.json": '{"pool": "many"}'}, "is not a number"),
        ({"a.json": '{"size": 3}'}, "there is no pool in a.json"),
        ({"a.json": "[3]"}, "there is no pool in a.json"),
    ],
)
def test_where_a_release_does_not_say_it(files: dict[str, str], said: str) -> None:
    """Not known is not good."""
    with pytest.raises(Unknown, match=said.replace("(", r"\(")):
        value_in(reading(files), "web", ReleaseValue(file="a.json", key="pool"))


def reading(files: dict[str, str]) -> Known:
    """What is known when the release has these files, and nothing else is."""

    def read(component: str, path: str) -> bytes | None:
        return files[path].encode() if path in files else None

    nothing: Any = None
    return Known(plan=nothing, version="v2", hosts=(), world=nothing, read=read)
