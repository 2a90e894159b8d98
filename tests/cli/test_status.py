"""`status`: of a plan, proved with `--verify`; and of all that this machine knows."""

from __future__ import annotations

import time

from deployguard.store.journal import SqliteJournal, default_path
from tests.cli.conftest import Run, Site


def test_every_file_is_hashed(deployguard: Run, site: Site) -> None:
    """As it was deployed: 0. One file changed by hand: 10, named, also as JSON."""
    assert deployguard("status", site.plan, "--verify").code == 0
    assert deployguard("apply", site.plan).code == 0
    ran = deployguard("status", site.plan, "--verify")
    assert ran.code == 0 and "web: every file is as v1 was deployed" in ran.err
    (site.root / "srv" / "current" / "VERSION").write_text("v9")
    ran = deployguard("status", site.plan, "--verify", "--json")
    assert ran.code == 10
    assert "VERSION differs in content" in ran.err
    component = ran.lines[0]["verification"]["components"]["web"]
    assert component["version"] == "v1" and len(component["differences"]) == 1
    assert deployguard("status", site.plan).code == 0


def test_of_all_services(deployguard: Run, site: Site) -> None:
    """Without a plan no host is asked; a failed deploy, its incident, and what has no end."""
    nothing = deployguard("status")
    assert (nothing.code, nothing.err) == (0, "no transaction was run from this machine yet\n")
    assert deployguard("apply", site.plan).code == 0
    site.plan.write_text(site.plan.read_text().replace("deadline: 5s", "deadline: 1s"))
    bad = deployguard("apply", site.plan, "--release", site.release("v2", "raise SystemExit(1)\n"))
    assert bad.code == 3, bad.err
    site.plan.rename(site.root / "moved.yaml")  # it is not read

    ran = deployguard("status", "--json")
    assert ran.code == 0
    service, incident = ran.lines
    assert (service["type"], service["plan"], service["exit_code"]) == ("service", "demo", 3)
    assert incident["type"] == "incident" and incident["state"] == "mitigated"
    first, second, third = ran.err.splitlines()
    assert first == f"demo in test: {service['summary']}" and "v2 failed on here" in first
    assert service["id"] in second and second.endswith(f"from {site.plan}")
    assert third.startswith(f"incident {incident['id']}")

    journal = SqliteJournal(default_path())
    begun = {"plan": "demo", "version": "v9", "environment": "test", "source": "a plan.yaml"}
    journal.begin({**begun, "id": "T1", "owner": "me", "started_at": time.time()}, ["web9"])
    journal.owe("T1", {"web9": "no route"})
    ran = deployguard("status")
    assert ran.code == 7
    assert "demo v9 in test is at work since" in ran.err and "or was killed: T1" in ran.err
    assert "hint: `deployguard status 'a plan.yaml'` asks the hosts" in ran.err
    assert "web9: has not heard how T1 ended (no route)" in ran.err


def test_of_all_services_and_an_option_for_one(deployguard: Run) -> None:
    """A usage error, and not silently ignored."""
    ran = deployguard("status", "--verify")
    assert ran.code == 2 and "--verify, --release and --var are for a PLAN" in ran.err
