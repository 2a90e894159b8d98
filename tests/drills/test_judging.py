"""The verdict on one scenario, from readings: no host, no deploy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deployguard.drills.deploys import Deployed
from deployguard.drills.hosts import Reading
from deployguard.drills.judging import judged
from deployguard.drills.report import ScenarioDrilled
from deployguard.drills.scenarios import chosen
from deployguard.plan.model import Plan

HOSTS = ("web1", "web2")
KILLED = Deployed(-9, 1.0, [], "", ["before decide"])


def plan(**options: Any) -> Plan:
    """Two hosts, one component, v2 to deploy."""
    return Plan.model_validate(
        {
            "name": "shop",
            "version": "v2",
            "hosts": {name: {} for name in HOSTS},
            "components": {"app": {"artifact": "dist", "path": "/srv/app"}},
            **options,
        }
    )


def reading(host: str, version: str = "v1", **changes: Any) -> Reading:
    """A host that is whole, healthy and clean."""
    whole = Reading(
        host,
        versions={"app": version},
        manifests={"app": f"hash of {version}"},
        files=({"path": "/etc/app", "digest": version},),
    )
    return replace(whole, **changes)


def verdict(
    web1: Reading,
    web2: Reading,
    deployed: Deployed = KILLED,
    only: str = "controller-killed-after-vote",
    decision: str | None = None,
    **options: Any,
) -> ScenarioDrilled:
    """The verdict after a drill that began with v1."""
    (scenario,) = chosen([only])
    before = {name: reading(name) for name in HOSTS}
    ends: Any = dict.fromkeys(HOSTS, ("host", 6.0))
    after = {"web1": web1, "web2": web2}
    shop = plan(**options)
    return judged(scenario, shop, "web2", deployed, ends, before, after, "t1", decision)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_kept(version: str) -> None:
    """All hosts wholly old, or all wholly new."""
    found = verdict(reading("web1", version), reading("web2", version))
    assert found.kept and found.happened
    assert {host.ended for host in found.hosts} == {"old" if version == "v1" else "new"}
    assert (found.hosts[0].by, found.hosts[0].seconds) == ("host", 6.0)
    assert not found.look_at


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"error": "no route", "versions": None}, "it cannot be read: no route"),
        ({"versions": {"app": "v0"}}, "it is neither old nor new: app v0"),
        ({"manifests": {"app": "another"}}, "app is not as it was before"),
        ({"files": ({"path": "/etc/app", "digest": "x"},)}, "/etc/app is not as it was before"),
        ({"differences": ("/srv/app/x is missing",)}, "/srv/app/x is missing"),
        ({"sick": ("app/http: 503",)}, "not healthy: app/http: 503"),
        ({"unfinished": ("t1 is prepared",)}, "unfinished: transaction t1 is prepared"),
        ({"locks": ("/srv/app by t1",)}, "left behind: lock of /srv/app by t1"),
        ({"left": ("unit deployguard-t1.timer",)}, "left behind: unit deployguard-t1.timer"),
    ],
)
def test_broken_on_one_host(changes: dict[str, Any], words: str) -> None:
    """Every way is named, at its host, with where to look."""
    found = verdict(reading("web1"), reading("web2", **changes))
    assert not found.kept
    assert found.hosts[0].problems == ()
    assert found.hosts[1].problems == (words,)
    assert any("history t1" in place for place in found.look_at)


def test_hosts_that_do_not_agree() -> None:
    """Each is whole, and the promise is broken all the same."""
    found = verdict(reading("web1"), reading("web2", "v2"))
    assert found.problems == ("the hosts do not agree",)


@pytest.mark.parametrize(("decision", "version"), [("commit", "v1"), ("abort", "v2")])
def test_a_decision_that_was_not_carried_out(decision: str, version: str) -> None:
    """All hosts agree, on what was not decided."""
    found = verdict(reading("web1", version), reading("web2", version), decision=decision)
    (problem,) = found.problems
    assert problem.startswith(f"the decision on record is {decision}")


@pytest.mark.parametrize("options", [{"max_fail_percentage": 50}, {"on_failure": "restore_batch"}])
def test_a_plan_that_lets_hosts_differ(options: dict[str, Any]) -> None:
    """What the plan allows is not held against a drill."""
    assert verdict(reading("web1"), reading("web2", "v2"), **options).kept


def test_an_unhealthy_version_that_stays() -> None:
    """Where the checks failed the old version is what is promised."""
    said = {"type": "event", "status": "failed", "host": "web2", "message": "a drill has it so"}
    deployed = Deployed(0, 1.0, [said], "", [])
    found = verdict(reading("web1", "v2"), reading("web2", "v2"), deployed, only="bad-health")
    assert found.happened
    assert found.problems == ("a version that was not healthy was committed",)


def test_a_deploy_that_did_not_take_place() -> None:
    """Refused, locked or wrong: nothing was shown, and it is said why."""
    deployed = Deployed(6, 1.0, [{"type": "error", "message": "locked by t0"}], "", [])
    found = verdict(reading("web1"), reading("web2"), deployed)
    (problem,) = found.problems
    assert problem.endswith("it ended with 6: locked by t0") and not found.happened


def test_a_deploy_that_hung() -> None:
    """It was killed by us and not by the fault."""
    deployed = Deployed(-9, 99.0, [], "", [])
    found = verdict(reading("web1"), reading("web2"), deployed, only="disk-full-at-vote")
    assert found.problems == ("the deploy had to be killed after 99 s",)


def test_a_fault_that_never_came() -> None:
    """The release fails by itself: the promise is kept, and the fault is not shown."""
    found = verdict(reading("web1"), reading("web2"), Deployed(3, 1.0, [], "", ["before switch"]))
    assert found.kept and not found.happened
