"""`status --verify`: what is live is proved, and what differs is named."""

from __future__ import annotations

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
