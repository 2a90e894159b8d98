"""A guard is gone over with a reason, and the reason is wherever somebody looks afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from deployguard.guards.registry import GUARDS, OVERRIDABLE
from deployguard.plan.model import Guard
from deployguard.store.journal import SqliteJournal
from tests.github.server import GitHubServer
from tests.guards.conftest import Shop

REASON = "the runner is down | tests ran by hand"
BROKEN = 'raise SystemExit("no configuration")\n'
TOO_MUCH = {"change_size": {"files": 0}}


def test_every_kind_is_registered() -> None:
    """A guard that the plan takes and nobody asks would be worse than none."""
    assert set(GUARDS) == set(Guard.KINDS)
    assert set(OVERRIDABLE) | {"approval"} >= set(GUARDS)


def test_an_override_is_on_record(shop: Shop) -> None:
    """In the journal, the outcome, the summary and the history, with what had been said."""
    shop.guarded(TOO_MUCH)
    refused = shop.apply()
    assert (refused.code, refused.lines[-1]["overrides"]) == (5, [])
    going = ("--override", f"change_size={REASON}")
    shown = shop.plan(*going)
    assert shown.code == 0
    ((name, passed, words),) = shown.lines[-1]["guards"]
    assert (name, passed) == ("change_size", True) and words.startswith(f"overridden ({REASON})")
    done = shop.apply(*going)
    assert done.code == 0, done.err
    (said,) = done.lines[-1]["overrides"]
    assert (said["guard"], said["reason"]) == ("change_size", REASON)
    assert said["refused"][0].startswith("1 files change on here")
    assert "@" in said["by"]
    assert f"  change_size: {REASON} (by " in done.err
    listed = shop.run("history", "--json")
    assert listed.lines[0]["overrides"][0]["reason"] == REASON
    assert f"overrode change_size: {REASON}" in listed.err
    whole = shop.run("history", done.lines[-1]["transaction"])
    assert f"  change_size: {REASON} (by " in whole.err


def test_all_refuse_at_once_and_each_is_gone_over_by_its_own_name(
    shop: Shop, tmp_path: Path
) -> None:
    """Every guard that can be overridden says no in one answer. A single one that is left out of
    the overrides still refuses; with a reason for each the deploy goes on."""
    github = {"repo": "acme/shop", "base_url": "http://127.0.0.1:9", "token_env": "HOME"}
    versions = [{"versions": {"python": number}} for number in ("3.11", "3.12")]
    shop.guarded(
        TOO_MUCH,
        {"ci": {**github, "deadline": "1s"}},
        {"window": {"freeze": [{"from": "00:00", "to": "24:00"}]}},
        {"parity": dict(zip(("facts", "tested_in"), versions, strict=True))},
        {"capacity": {"components": {"web": {"memory": "900 TiB"}}}},
        {"backup": {"path": str(tmp_path / "none-*"), "younger_than": "1h"}},
        {"structure": {"needs": ["settings.json"]}},
        {"baseline": {}},
        {"disk": {"path": "/", "free": "9000 TiB"}},
        checks=[{"command": ["grep", "-q", "v2", str(shop.root / "current" / "VERSION")]}],
    )
    (shop.root / "current" / "by-hand").write_text("x")
    with shop.untouched():
        refused = shop.apply()
    assert refused.code == 5
    named = {finding["name"] for finding in refused.lines[-1]["findings"]}
    assert named == {*OVERRIDABLE} - {"migrations", "revision"}
    for left in sorted(named):
        words = [word for name in named - {left} for word in ("--override", f"{name}={REASON}")]
        with shop.untouched():
            shown = shop.plan(*words)
        assert shown.code == 5, left
    words = [word for name in named for word in ("--override", f"{name}={REASON}")]
    done = shop.apply(*words)
    assert done.code == 0, done.err
    assert {said["guard"] for said in done.lines[-1]["overrides"]} == named
    assert "v2" in shop.served()


def test_it_is_in_the_journal_before_anything_is_done(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that cannot take it ends the deploy while nothing was touched."""
    shop.guarded(TOO_MUCH)

    def full(*_: object) -> None:
        from deployguard.errors import JournalUnavailable

        raise JournalUnavailable("no room for the journal")

    monkeypatch.setattr(SqliteJournal, "override", full)
    with shop.untouched():
        failed = shop.apply("--override", "change_size=it is large")
    assert (failed.code, failed.lines[-1]["status"]) == (1, "failed")
    assert "no room for the journal" in failed.err


def test_it_is_in_the_incident(
    shop: Shop, github: GitHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is woken up sees first that somebody went over a guard, and why."""
    shop.guarded(TOO_MUCH)
    plan = yaml.safe_load(shop.site.plan.read_text())
    incident = {"repo": "acme/shop", "base_url": github.url, "token_env": "CI_TOKEN"}
    plan["rescue"] = {"incident": {"github": incident}, "redact": ["SECRET"]}
    shop.site.plan.write_text(json.dumps(plan))
    monkeypatch.setenv("SECRET", "hunter2secret")
    shop.site.release("v3", BROKEN)
    failed = shop.apply("--override", f"change_size={REASON}, password hunter2secret", release="v3")
    assert failed.code == 3, failed.err
    (issue,) = github.repository.issues.values()
    assert "## Guards that were overridden" in issue["body"]
    assert "2 files change on here" in issue["body"]
    assert REASON.replace("|", "\\|") in issue["body"]
    everything = failed.out + failed.err + issue["body"] + shop.run("history", "--json").out
    assert "hunter2secret" not in everything


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("change_sise=why", 'did you mean "change_size"?'),
        ("space=why", "those that can be overridden are"),
        ("change_size= ", "is not overridden without a reason"),
        ("change_size", "is not GUARD=REASON"),
    ],
)
def test_a_wrong_override(shop: Shop, option: str, said: str) -> None:
    """A slip of the pen is exit code 2, and no override of something else."""
    shop.guarded(TOO_MUCH)
    with shop.untouched():
        wrong = shop.apply("--override", option)
    assert wrong.code == 2
    assert said in wrong.err


def test_drift_that_is_overridden_is_kept(shop: Shop) -> None:
    """Going over what somebody did by hand loses nothing of it."""
    (shop.root / "current" / "hotfix.py").write_text("by hand\n")
    shop.guarded()
    shop.assert_refused("drift", "added hotfix.py")
    done = shop.apply("--override", "drift=it is in the new release")
    assert done.code == 0, done.err
    assert done.lines[-1]["overrides"][0]["guard"] == "drift"
    note = next(e for e in done.lines[-1]["timeline"] if "hand-made changes" in e["message"])
    assert Path(note["detail"]["bundle"]).exists()


def test_a_rollback_asks_only_what_protects_the_host(shop: Shop) -> None:
    """At three in the morning nobody waits for a green check of what ran yesterday."""
    shop.guarded()
    assert shop.apply().code == 0
    missing = {"repo": "acme/shop", "base_url": "http://127.0.0.1:9", "deadline": "1s"}
    shop.guarded(TOO_MUCH, {"baseline": {}}, {"ci": missing})
    assert shop.apply(release=shop.site.release("v3")).code == 5
    back = shop.run("rollback", shop.site.plan)
    assert back.code == 0, back.err
    assert "v1" in shop.served()
    shop.guarded({"disk": {"path": str(shop.site.root), "free": "900 TiB"}})
    refused = shop.run("rollback", shop.site.plan)
    assert refused.code == 5 and "disk" in refused.err
