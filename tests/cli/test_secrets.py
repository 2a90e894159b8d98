"""A secret that a program on a host says is nowhere: not on the terminal, not in any file here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployguard import api
from deployguard.errors import ExitCode
from deployguard.rollout import recovery
from deployguard.rollout.outcome import Outcome
from deployguard.store.journal import SqliteJournal
from tests.cli.conftest import Run, Site
from tests.cli.outcomes import finding, outcome
from tests.servers.databases import a_redis

NAMED = "hunter2-sentinel"
PATTERN = "correct-horse-battery"
#: Each line of it is a secret as well, since output is shown line by line.
LINES = ("first-half-of-the-key", "second-half-of-the-key")

LEAK = """\
rescue:
  redact: [SHOP_PASSWORD, SHOP_KEY]
  incident: {github: {repo: acme/shop, base_url: "http://127.0.0.1:1"}}
tasks:
  - name: leak
    run: [sh, -c, 'echo "it said %s"; echo password=%s; printf "%%s" "$KEY"; exit 1']
    env: {KEY: "{{ env.SHOP_KEY }}"}
    undo_less: it only talks
    at: before_start
"""


@pytest.fixture
def leaking(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A plan whose task fails, and says every kind of secret while it does."""
    monkeypatch.setenv("SHOP_PASSWORD", NAMED)
    monkeypatch.setenv("SHOP_KEY", "\n".join(LINES))
    monkeypatch.setenv("GITHUB_TOKEN", "a-token-for-nobody")
    with site.plan.open("a") as plan:
        plan.write(LEAK % (NAMED, PATTERN))
    return site


def written(folder: Path) -> str:
    """Every byte of every file below a folder, and the names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "".join(f"{path}\n{path.read_bytes().decode('latin-1')}\n" for path in files)


@pytest.mark.parametrize("command", ["apply", "rollback"])
def test_secrets_are_nowhere(deployguard: Run, leaking: Site, tmp_path: Path, command: str) -> None:
    """Terminal, ``--json``, log, journal, incident, forensics: they show that there was one."""
    if command == "rollback":
        text = leaking.plan.read_text()
        leaking.plan.write_text(text.replace("exit 1", "exit 0"))
        for release in ("v1", "v2"):
            if release != "v1":
                leaking.release(release)
            done = deployguard("apply", leaking.plan, "--release", release)
            assert done.code == 0, done.err
        leaking.plan.write_text(text)
    log = tmp_path / "log.jsonl"
    ran = deployguard(command, leaking.plan, "--json", "-v", "--log-file", log)
    assert ran.code == 3, ran.err
    folders = (tmp_path / "controller-state", leaking.root / "forensics-out")
    drafts = written(leaking.root / "contexts")
    assert "Post-mortem: demo v" in drafts and "[redacted:" in drafts
    kept = "".join(map(written, folders)) + drafts
    assert "journal.db" in kept and "metadata.json" in kept and "acme/shop" in kept
    page = deployguard("report", "-o", "-").out
    assert page.startswith("<!doctype html>")
    for place in (ran.out, ran.err, log.read_text(), kept, page):
        assert "[redacted:" in place
        for secret in (NAMED, PATTERN, *LINES, os.environ["GITHUB_TOKEN"]):
            assert secret not in place


def test_the_library_hands_out_no_secret(leaking: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deploy script prints what it is given: outcome and events are clean already."""
    monkeypatch.setenv("DEPLOYGUARD_STATE", str(leaking.root / "state"))
    heard: list[str] = []
    ended = api.apply(api.load(leaking.plan), listen=lambda event: heard.append(repr(event)))
    assert ended.exit_code == ExitCode.ROLLED_BACK
    for text in (repr(ended), "".join(heard)):
        assert "[redacted:" in text
        assert not [secret for secret in (NAMED, PATTERN, *LINES) if secret in text]


def test_recover_hands_out_no_secret(leaking: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hosts say of an undo that failed is redacted like everything else."""
    monkeypatch.setenv("DEPLOYGUARD_STATE", str(leaking.root / "state"))
    said = outcome(
        ExitCode.NEEDS_PERSON,
        "needs_person",
        summary=f"undo said {NAMED}",
        findings=(finding(message=f"undo said {NAMED}"),),
    )
    about = {"plan": "demo", "version": "v1", "environment": "test", "source": "", "owner": ""}
    name = said.transaction
    SqliteJournal().begin({"id": name, "started_at": 1.0, **about}, ["web1"])

    def tell(
        _: object, __: object, journal: SqliteJournal, *___: object, **____: object
    ) -> Outcome:
        journal.end(name, said.as_dict())
        return said

    monkeypatch.setattr(recovery, "recover", tell)
    ended = api.recover(api.load(leaking.plan))
    assert ended.transaction == name
    kept = api.transaction(name)["outcome"]
    assert (kept["transaction"], kept["exit_code"]) == (name, int(ExitCode.NEEDS_PERSON))
    for text in (repr(ended), repr(kept), written(leaking.root / "state")):
        assert "[redacted:" in text
        assert NAMED not in text


BROKEN = """\
import sys
print("ERROR cannot import telemetry", flush=True)
sys.exit(1)
"""


def test_the_password_of_a_check_is_nowhere(
    deployguard: Run, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a deploy, one that fails, and the restore that signs in with it again: it is not on
    the terminal, nor in any journal, here or on the host, nor in the evidence."""
    password = "geheim-sentinel"
    monkeypatch.setenv("CACHE_URL", f"redis://shop:{password}@127.0.0.1:1/0")
    plan = site.plan.read_text()
    check = "    checks:\n      - redis: {dsn_env: CACHE_URL, interval: 100ms}\n"
    with a_redis(f"user shop on >{password} ~* +@all", "requirepass other") as server:
        monkeypatch.setenv("CACHE_URL", f"redis://shop:{password}@127.0.0.1:{server.port}/0")
        site.plan.write_text(plan.replace("    checks:\n", check))
        done = deployguard("apply", site.plan, "--json", "-v")
        assert done.code == 0, done.err
        site.release("v2", server=BROKEN)
        log = tmp_path / "log.jsonl"
        ran = deployguard("apply", site.plan, "--release", "v2", "--json", "-v", "--log-file", log)
        assert ran.code == 3, ran.err
    # Restored, verified and healthy: so the host did sign in.
    assert ran.lines[-1]["hosts"][0]["healthy"] is True
    kept = written(tmp_path / "controller-state") + written(site.root)
    assert "journal.db" in kept and "metadata.json" in kept and "host-state/transactions" in kept
    for text in (done.out, done.err, ran.out, ran.err, log.read_text(), kept):
        assert password not in text
    # The journal of the host does know the check.
    assert f'"number":{server.port}' in kept.replace(" ", "")


def test_a_password_that_the_database_refuses(
    deployguard: Run, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding says whose password it was, and not which."""
    monkeypatch.setenv("CACHE_PASSWORD", "wrong-sentinel")
    with a_redis("requirepass right") as server:
        dsn = f"redis://127.0.0.1:{server.port}"
        options = f"{{dsn: '{dsn}', password_env: CACHE_PASSWORD, deadline: 1s, timeout: 1s}}"
        check = f"    checks:\n      - redis: {options}\n"
        site.plan.write_text(site.plan.read_text().replace("    checks:\n", check))
        ran = deployguard("apply", site.plan, "--json")
    assert ran.code == 3, ran.err
    assert "refuses the default user: invalid username-password pair" in ran.err
    assert "; it was given the password in CACHE_PASSWORD" in ran.err
    kept = written(tmp_path / "controller-state") + written(site.root)
    assert "wrong-sentinel" not in ran.out + ran.err + kept


def test_a_secret_that_is_not_set_stops_everything(deployguard: Run, site: Site) -> None:
    """Exit code 2, its place in the plan, and no host is touched."""
    check = "    checks:\n      - redis: {dsn: 'redis://cache', password_env: CACHE_PASSWORD}\n"
    site.plan.write_text(site.plan.read_text().replace("    checks:\n", check))
    ran = deployguard("apply", site.plan)
    assert ran.code == 2
    assert "plan.yaml:12:53 components.web.checks[0].redis.password_env: " in ran.err
    assert "the environment variable CACHE_PASSWORD is not set" in ran.err
    assert not (site.root / "host-state").exists() and not (site.root / "srv").exists()
