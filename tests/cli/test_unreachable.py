"""A host that cannot be reached: every command says why and what to do, and leaves nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run, Site
from tests.transport.sshd import SSHD, running_sshd


@pytest.fixture
def stranger(site: Site, tmp_path: Path) -> Iterator[Site]:
    """A plan whose second host shows a key that nobody has compared yet."""
    if not Path(SSHD).exists():
        pytest.skip("openssh-server is not installed")
    with running_sshd(tmp_path / "sshd") as sshd:
        sshd.known_hosts.unlink()
        plan = yaml.safe_load(site.plan.read_text())
        plan["hosts"]["web1"] = sshd.host().model_dump(exclude_unset=True)
        site.plan.write_text(yaml.safe_dump(plan, sort_keys=False))
        yield site


@pytest.mark.parametrize("command", ["apply", "plan", "status", "recover", "doctor"])
def test_an_unknown_host_key_comes_with_its_mend(
    deployguard: Run, stranger: Site, command: str
) -> None:
    """What to compare the key with, and the very line that makes it known."""
    ran = deployguard(command, stranger.plan, "--json")
    assert ran.code != 0
    for text in (ran.err, ran.out):
        assert "is not known: ssh-ed25519 SHA256:" in text
        assert "ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub" in text
        assert ">> " in text and "known_hosts" in text
    added = re.search(r"echo '([^']+)' >> (\S+)", ran.err)
    assert added is not None
    Path(added[2]).write_text(added[1] + "\n")
    assert "is not known" not in deployguard("status", stranger.plan).err


def test_the_host_is_named_once(deployguard: Run, stranger: Site) -> None:
    """Beside the name of the host its message does not begin with the name again."""
    for command in ("apply", "plan", "status", "doctor"):
        assert "web1: web1:" not in deployguard(command, stranger.plan).err
        assert not re.search(r"web1 [a-z ]*: web1:", deployguard(command, stranger.plan).err)


def test_a_refusal_names_the_host_once(deployguard: Run, site: Site) -> None:
    """So it is with what the host program itself refuses."""
    (site.root / "srv").mkdir()
    (site.root / "srv" / "current").write_text("not a link")
    ran = deployguard("apply", site.plan)
    assert ran.code == 5, ran.err
    assert "here inspect failed: " in ran.err
    assert "failed: here:" not in ran.err
    assert "\n  here: " not in deployguard("plan", site.plan).err


def test_no_folder_where_nothing_was_seen(deployguard: Run, stranger: Site) -> None:
    """A deploy that reached no host has no forensics, and leaves no empty folder."""
    plan = yaml.safe_load(stranger.plan.read_text())
    del plan["hosts"]["here"]
    stranger.plan.write_text(yaml.safe_dump(plan))
    ran = deployguard("apply", stranger.plan, "--json")
    assert ran.code == 3
    assert ran.lines[-1]["forensics"] is None
    assert "forensics" not in ran.err
    assert not (stranger.root / "forensics-out").exists()
