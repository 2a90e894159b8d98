"""`parity`: what the release was tested with, against what it meets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployguard.guards.parity import differences
from deployguard.plan.facts import Facts
from tests.guards.conftest import Shop

STAGING = {
    "versions": {"postgresql": "15", "python": "3.11"},
    "config": ["DATABASE_URL", "POOL_SIZE"],
    "limits": {"postgresql.max_connections": 100, "memory": "2 GiB"},
}


def facts(**changes: Any) -> Facts:
    """Staging's facts with some changed."""
    return Facts.model_validate({**STAGING, **changes})


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"versions": {"postgresql": "13", "python": "3.11"}}, "versions.postgresql", "13 here"),
        ({"versions": {"postgresql": "15"}}, "versions.python", "is not declared here, 3.11"),
        ({"config": ["DATABASE_URL"]}, "config.POOL_SIZE", "is not configured here"),
        ({"config": [*STAGING["config"], "X"]}, "config.X", "X is configured here, and was not"),
        (
            {"limits": {"postgresql.max_connections": 40, "memory": "2 GiB"}},
            "limits.postgresql.max_connections",
            "is 40 here, 100 where it was tested",
        ),
        ({"limits": {"postgresql.max_connections": 100}}, "limits.memory", "is not declared here"),
    ],
)
def test_a_difference(changes: dict[str, Any], name: str, said: str) -> None:
    """Each kind, by a name that `allow` can have."""
    ((found, words),) = differences(facts(**changes), facts())
    assert found == name
    assert said in words


def test_more_than_was_tested_with_is_enough() -> None:
    """A limit may be higher here; sizes are compared, not their words."""
    here = facts(limits={"postgresql.max_connections": 400, "memory": "2048 MiB"})
    assert list(differences(here, facts())) == []


def declare(shop: Shop, environment: str, **changes: Any) -> str:
    """A file of facts beside the plan."""
    path = shop.site.root / f"{environment}.yaml"
    path.write_text(yaml.safe_dump({**STAGING, **changes}))
    return path.name


def test_a_lower_limit_is_refused(shop: Shop) -> None:
    """Named, with both sides of it."""
    here = declare(shop, "production", limits={"postgresql.max_connections": 40, "memory": "4 GiB"})
    there = declare(shop, "staging")
    shop.guarded({"parity": {"facts": here, "tested_in": there}})
    shop.assert_refused("parity", "postgresql.max_connections is 40 here, 100 where it was tested")


def test_the_same_passes(shop: Shop) -> None:
    """And so does a difference that is meant; facts may stand in the plan itself."""
    shop.guarded(
        {
            "parity": {
                "facts": {**STAGING, "versions": {"postgresql": "16", "python": "3.11"}},
                "tested_in": declare(shop, "staging"),
                "allow": ["versions.post*"],
            }
        }
    )
    shop.assert_passes("parity", "6 facts are as they were tested with")


def test_facts_that_cannot_be_read(shop: Shop) -> None:
    """A mistake has its place in the file it is in; no host is asked."""
    wrong = declare(shop, "staging", limits={"memory": "much"}, version={"a": "1"})
    shop.guarded({"parity": {"facts": "nowhere.yaml", "tested_in": wrong}})
    with shop.untouched():
        ran = shop.apply()
    assert ran.code == 2
    said = [line["message"] for line in ran.lines if line["type"] == "mistake"]
    assert 'the file "nowhere.yaml" is not there' in said
    places = {Path(line["file"]).name: line["line"] for line in ran.lines if "file" in line}
    assert places["staging.yaml"] > 1
    assert any("limits.memory" in message and "not a limit" in message for message in said), said
    assert 'did you mean "versions"?' in ran.err
