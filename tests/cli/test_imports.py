"""A release that lacks a module of its own: refused before anything is stopped."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path

from tests.cli.conftest import SERVER, Run, Site

LACKS = "from shop import telemetry\n" + SERVER
CHECK = "    checks:\n      - imports: {{python: [server.py]{options}}}\n"


def asks(site: Site, options: str = "") -> None:
    """Have the plan ask for the modules of the release."""
    text = site.plan.read_text()
    site.plan.write_text(text.replace("    checks:\n", CHECK.format(options=options), 1))


def running(site: Site) -> int:
    """The process that the host program supervises."""
    (file,) = (site.root / "host-state" / "services").glob("web-*.pid")
    return int(json.loads(file.read_text())["pid"])


def served(site: Site) -> str:
    """The version that answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{site.port}/", timeout=5) as answer:
        return str(json.loads(answer.read())["version"])


def lacking(site: Site) -> str:
    """A release whose package has no such module."""
    version = site.release("v2", LACKS)
    (site.root / "releases" / version / "shop").mkdir()
    (site.root / "releases" / version / "shop" / "__init__.py").touch()
    return version


def test_refused_with_the_file_and_the_module(deployguard: Run, site: Site) -> None:
    """Exit code 5; v1 was never stopped, and nothing is left of v2."""
    asks(site)
    assert deployguard("apply", site.plan).code == 0
    pid = running(site)
    refused = deployguard("apply", site.plan, "--release", lacking(site), "--json")
    assert refused.code == 5, refused.err
    assert "here: imports: web: server.py:1 needs telemetry from shop" in refused.err
    assert "nothing was touched" in refused.err
    assert refused.lines[-1]["status"] == "refused"
    assert served(site) == "v1"
    assert running(site) == pid
    assert [path.name for path in (site.root / "srv/releases").iterdir()] == ["v1"]
    assert deployguard("apply", site.plan, "--release", "v1").code == 0


def test_one_that_is_not_critical_is_a_finding(deployguard: Run, site: Site) -> None:
    """The deploy goes on; here it fails, and the finding is beside the failure."""
    asks(site, ", critical: false, name: modules")
    assert deployguard("apply", site.plan).code == 0
    failed = deployguard("apply", site.plan, "--release", lacking(site), "--json")
    assert failed.code == 3, failed.err
    found = [one for one in failed.lines[-1]["findings"] if one["layer"] == "imports"]
    assert [(one["name"], one["critical"]) for one in found] == [("modules", False)]
    assert served(site) == "v1"


def test_a_rollback_is_not_asked(deployguard: Run, site: Site) -> None:
    """Its modules were there once, and somebody needs it now."""
    assert deployguard("apply", site.plan).code == 0
    assert deployguard("apply", site.plan, "--release", site.release("v2")).code == 0
    asks(site, ", roots: [away]")
    assert deployguard("rollback", site.plan, "--to", "v1").code == 0
    assert served(site) == "v1"


def git(clone: Path, *words: str) -> None:
    """As somebody types it."""
    names = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
    subprocess.run(["git", "-C", clone, *names, *words], check=True, capture_output=True)


def test_a_revision_is_asked_too(deployguard: Run, site: Site) -> None:
    """Of a checkout the module is missing in the commit."""
    clone = site.root / "releases"
    git(clone, "init", "-q", "-b", "main")
    (clone / "v1").rename(clone / "shop")
    (clone / "shop" / "server.py").rename(clone / "server.py")
    (clone / "shop" / "VERSION").rename(clone / "VERSION")
    (clone / "shop" / "__init__.py").touch()
    git(clone, "add", "--all")
    git(clone, "commit", "-q", "-m", "one")
    git(clone, "tag", "v1")
    (clone / "server.py").write_text(LACKS)
    (clone / "VERSION").write_text("v2")
    git(clone, "commit", "-q", "-a", "-m", "two")
    git(clone, "tag", "v2")
    asks(site)
    lines = [line for line in site.plan.read_text().splitlines() if "artifact:" not in line]
    at = next(number for number, line in enumerate(lines) if "path:" in line)
    lines[at:at] = ["    layout: git", "    git: {repository: releases}"]
    site.plan.write_text("\n".join(lines) + "\n")
    done = deployguard("apply", site.plan)
    assert done.code == 0, done.err
    refused = deployguard("apply", site.plan, "--release", "v2")
    assert refused.code == 5, refused.err
    assert "here: imports: web: server.py:1 needs telemetry from shop" in refused.err
    assert served(site) == "v1"
