"""Checks that take a real host: systemd's journal."""

from __future__ import annotations

from tests.scenarios.conftest import MakeScene


def test_a_new_kind_of_error_in_the_journal(scene: MakeScene) -> None:
    """v1 and v2 complain about the same thing with other numbers; v3 has a complaint of its own,
    and goes back, though its health endpoint says that it is well."""
    shop = scene(hosts=1)
    (host,) = shop.hosts
    done = shop.apply("v1", fault="complains about order 17")
    assert done.code == 0, done
    shop.checks.append({"logs": {"min_healthy_time": "1s"}})
    done = shop.apply("v2", fault="complains about order 4711")
    assert done.code == 0, done
    done = shop.apply("v3", fault="complains that telemetry cannot be imported")
    assert done.code == 3, done
    assert shop.served(host)["version"] == "v2"
    found = {(finding["layer"], finding["name"]): finding for finding in done.outcome["findings"]}
    words = (
        f"1 new kind of error in the journal of {shop.unit} since the switch: "
        "ERROR that telemetry cannot be imported"
    )
    assert found["logs", "logs"]["message"] == words
    assert found["logs", "logs"]["critical"] is True
    disagreement = found["disagreement", "http/logs"]
    assert disagreement["message"] == f"HTTP answers 200, but {words}"
    assert disagreement["critical"] is False
    # The old version is not held against what it has always logged.
    assert done.outcome["hosts"][0]["healthy"] is True
