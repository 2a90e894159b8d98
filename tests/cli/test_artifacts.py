"""An artifact that is not what the plan says: the place in the plan, what was found, the mend."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.artifact.archives import link, member, write
from tests.cli.conftest import Run, Site

GOOD = [member("server.py", b"print()\n"), member("VERSION", b"v1")]


def place(plan: Path, text: str) -> str:
    """``file:line:column`` of a text in the plan."""
    for number, line in enumerate(plan.read_text().splitlines(), start=1):
        if text in line:
            return f"{plan}:{number}:{line.index(text) + 1}"
    raise LookupError(text)


@pytest.fixture
def archived(site: Site) -> Site:
    """The plan with an archive as its artifact, and a hash for it to have."""
    write(site.root, GOOD).rename(site.root / "app.tar.gz")
    text = site.plan.read_text()
    artifact = f"{{path: app.tar.gz, sha256: {'f' * 64}}}"
    site.plan.write_text(text.replace('"releases/{{ version }}"', artifact))
    return site


def without_hash(site: Site) -> None:
    """The short form: a path alone."""
    text = site.plan.read_text()
    site.plan.write_text(text.replace(f"{{path: app.tar.gz, sha256: {'f' * 64}}}", "app.tar.gz"))


def assert_untouched(deployguard: Run, site: Site) -> None:
    """The host has neither a tree nor a transaction, and the history says how it went."""
    assert not (site.root / "srv").exists()
    assert not [*(site.root / "host-state").glob("transactions/*")]
    (row,) = deployguard("history", "--json").lines
    assert (row["status"], row["exit_code"]) == ("failed", 2)


def test_another_file_than_the_plan_means(deployguard: Run, archived: Site) -> None:
    """The line of the hash, the hash that was found and the one that was asked for."""
    found = hashlib.sha256((archived.root / "app.tar.gz").read_bytes()).hexdigest()
    for command in ("plan", "apply"):
        ran = deployguard(command, archived.plan, "--json")
        assert ran.code == 2, ran.err
        where = place(archived.plan, "f" * 64)
        assert f"{where} components.web.artifact.sha256: app.tar.gz: its sha256 is " in ran.err
        assert f"is {found}, not {'f' * 64}; build or fetch it again, or write {found}" in ran.err
        assert "error: 1 mistake in the artifacts" in ran.err
        mistake = next(line for line in ran.lines if line["type"] == "mistake")
        assert mistake["where"] == "components.web.artifact.sha256"
        assert ran.lines[-1]["exit_code"] == 2
    assert_untouched(deployguard, archived)


def test_a_file_that_broke_off(deployguard: Run, archived: Site) -> None:
    """In the short form the place is that of the path."""
    without_hash(archived)
    file = archived.root / "app.tar.gz"
    file.write_bytes(file.read_bytes()[:-30])
    ran = deployguard("apply", archived.plan)
    assert ran.code == 2, ran.err
    where = place(archived.plan, "app.tar.gz")
    assert f"{where} components.web.artifact: app.tar.gz: truncated or damaged" in ran.err
    assert "; build or fetch it again\n" in ran.err
    assert_untouched(deployguard, archived)


def test_members_that_leave_the_tree(deployguard: Run, archived: Site) -> None:
    """Every hostile member is named, at the line of the archive."""
    without_hash(archived)
    bad = [*GOOD, member("../outside", b"x"), link("settings", "/etc/shadow")]
    write(archived.root, bad[:3]).rename(archived.root / "app.tar.gz")
    where = place(archived.plan, "app.tar.gz")
    ran = deployguard("apply", archived.plan)
    assert ran.code == 2, ran.err
    name = f"{where} components.web.artifact: app.tar.gz: '../outside': the name climbs out"
    assert name in ran.err
    assert "; pack it anew without that" in ran.err
    write(archived.root, [*GOOD, bad[3]]).rename(archived.root / "app.tar.gz")
    ran = deployguard("plan", archived.plan)
    assert "'settings': the link to '/etc/shadow' leaves the tree" in ran.err


def test_an_archive_full_of_them(deployguard: Run, archived: Site) -> None:
    """Thousands of bad members do not fill the screen."""
    without_hash(archived)
    bad = [member(f"/{number}", b"x") for number in range(50)]
    write(archived.root, [*GOOD, *bad]).rename(archived.root / "app.tar.gz")
    ran = deployguard("apply", archived.plan)
    assert ran.err.count("an absolute name") == 20
    assert "and 30 more members like these" in ran.err


def test_a_file_where_a_shared_folder_goes(deployguard: Run, archived: Site) -> None:
    """What in the archive is in the way of a shared path is said at that key."""
    without_hash(archived)
    text = archived.plan.read_text()
    archived.plan.write_text(text.replace("    path:", "    shared: [VERSION/data]\n    path:"))
    ran = deployguard("apply", archived.plan)
    assert ran.code == 2, ran.err
    where = place(archived.plan, "shared:")
    assert f"{where} components.web.shared: VERSION in the artifact is in the way" in ran.err


def test_options_of_archives_for_a_directory(deployguard: Run, site: Site) -> None:
    """`validate` knows already: nothing of a directory can be stripped."""
    artifact = '{path: "releases/{{ version }}", strip_components: 1}'
    site.plan.write_text(site.plan.read_text().replace('"releases/{{ version }}"', artifact))
    ran = deployguard("validate", site.plan)
    assert ran.code == 2
    assert "components.web.artifact.strip_components: strip_components is for archives" in ran.err


def test_an_ecosystem_file_that_the_release_lacks(deployguard: Run, site: Site) -> None:
    """PM2 would find out when the old version is stopped; its line, and the file that was meant."""
    text = site.plan.read_text()
    start = text.index("service: {process:")
    pm2 = "service: {pm2: {name: web, ecosystem: ecosystem.config.js}}"
    site.plan.write_text(text[:start] + pm2 + text[text.index("\n", start) :])
    (site.root / "releases" / "v1" / "ecosystem.config.cjs").touch()
    ran = deployguard("apply", site.plan)
    assert ran.code == 2, ran.err
    where = place(site.plan, "ecosystem.config.js")
    said = (
        "components.web.service.pm2.ecosystem: releases/v1: there is no ecosystem.config.js in it"
    )
    assert f'{where} {said}; did you mean "ecosystem.config.cjs"?' in ran.err
    assert_untouched(deployguard, site)


def test_an_ecosystem_file_that_the_revision_lacks(deployguard: Run, site: Site) -> None:
    """The same of a commit that is sent from here."""
    folder = site.root / "releases" / "v1"
    (folder / "ecosystem.config.cjs").touch()
    who = ("-c", "user.name=dev", "-c", "user.email=dev@example.com")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "v1"], ["tag", "v1"]):
        subprocess.run(["git", "-C", str(folder), *who, *words], check=True)
    text = site.plan.read_text().replace(
        'artifact: "releases/{{ version }}"',
        'layout: git\n    git: {repository: "releases/v1", revision: v1}',
    )
    start = text.index("service: {process:")
    pm2 = "service: {pm2: {name: web, ecosystem: ecosystem.config.js}}"
    site.plan.write_text(text[:start] + pm2 + text[text.index("\n", start) :])
    ran = deployguard("apply", site.plan)
    assert ran.code == 2, ran.err
    said = f"{place(site.plan, 'ecosystem.config.js')} components.web.service.pm2.ecosystem: "
    assert f'{said}v1: there is no ecosystem.config.js in it; did you mean "ecos' in ran.err
