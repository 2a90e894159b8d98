"""``deployguard incident``: a night from the first sign to the end, and what deploys do to it."""

from __future__ import annotations

import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

import deployguard as library
from deployguard.evidence.timeline import iso, parse_iso
from deployguard.incidents.book import Book
from deployguard.report import incidents
from tests.cli.conftest import Run, Site

BROKEN = 'raise SystemExit("no configuration")\n'
UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def test_a_night(deployguard: Run) -> None:
    """Somebody sees it, joins in, is at it, mends it, and writes it down."""
    opened = deployguard("incident", "open", "critical", "API down", "--since", "10m", "--json")
    assert opened.code == 0
    (record,) = opened.lines
    name = record["id"]
    assert re.fullmatch(r"INC-\d{8}-001", name)
    assert (record["type"], record["state"], record["severity"]) == ("incident", "open", "critical")
    assert record["joined"] is False
    assert record["acknowledge_by"] - record["detected_at"] == 15 * 60
    assert record["resolve_by"] - record["detected_at"] == 60 * 60
    assert abs(record["detected_at"] - record["impact_at"] - 600) < 5
    assert f"{name} critical (1) is open: API down" in opened.err
    assert f"next: `deployguard incident ack {name}` says that you are at it" in opened.err

    joined = deployguard("incident", "open", "critical", "api down", "--by", "bob", "--json")
    assert (joined.code, joined.lines[0]["id"]) == (0, name)
    assert "you joined one that is ongoing" in joined.err

    acknowledged = deployguard("incident", "ack", "on", "it", "--by", "ann", "--json")
    assert acknowledged.code == 0
    assert acknowledged.lines[0]["acknowledged_by"] == "ann"
    second = deployguard("incident", "ack", "--by", "bob")
    assert second.code == 2
    assert re.search(rf"{name} is acknowledged already, by ann at {UTC}", second.err)

    assert deployguard("incident", "assign", "commander", "ann").code == 0
    assert deployguard("incident", "severity", name, "high", "only the EU").code == 0
    assert deployguard("incident", "note", name, "restarted", "--ticket", "OPS-1").code == 0
    early = deployguard("incident", "close", name)
    assert early.code == 2
    assert f"hint: `deployguard incident resolve {name}` comes first" in early.err

    assert deployguard("incident", "mitigate", "old config back", "--by", "ann").code == 0
    resolved = deployguard(
        "incident", "resolve", "--cause", "pool too large", "--fix", "pool set to 20"
    )
    assert resolved.code == 0
    assert deployguard("incident", "list").err == "no incident is ongoing\n"
    assert deployguard("incident", "close", "written down").code == 0

    whole = deployguard("incident", "show", name.lower(), "--json")
    (record,) = whole.lines
    assert [entry["kind"] for entry in record["timeline"]] == [
        "opened",
        "joined",
        "acknowledged",
        "assigned",
        "severity",
        "noted",
        "mitigated",
        "resolved",
        "closed",
    ]
    assert record["state"] == "closed"
    assert (record["commander"], record["severity"]) == ("ann", "high")
    assert (record["cause"], record["fix"]) == ("pool too large", "pool set to 20")
    assert [(link["kind"], link["value"]) for link in record["links"]] == [("ticket", "OPS-1")]
    assert re.search(rf"^  {UTC} mitigated    old config back  \(ann\)$", whole.err, re.MULTILINE)

    again = deployguard("incident", "open", "high", "API down")
    assert f"{name} API down (closed): pool set to 20" in again.err
    reopened = deployguard("incident", "reopen", name, "not mended")
    assert reopened.code == 0 and f"{name} high (2) is open" in reopened.err
    two = deployguard("incident", "ack")
    assert two.code == 2 and "2 incidents are ongoing" in two.err and name in two.err
    assert deployguard("incident", "cancel", name, "a drill").code == 0
    listed = deployguard("incident", "list", "--all", "--json")
    assert [line["state"] for line in listed.lines] == ["open", "cancelled"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["open", "p0", "down"], '"p0" is no severity'),
        (["open", "high", " "], "an incident needs a title"),
        (["open", "high", "down", "--since", "tomorrow"], "'tomorrow' is no moment"),
        (["open", "high", "down", "--since", "2099-01-01"], "--since has not come yet"),
        (["open", "high", "down", "--transaction", "nope"], "no transaction of this machine"),
        (["ack"], "no incident is ongoing"),
        (["show", "INC-20260101-001"], "there is no incident INC-20260101-001"),
        (["close"], "no incident is resolved"),
        (["akc"], 'did you mean "ack"?'),
        (["note"], "no incident is ongoing"),
    ],
)
def test_what_makes_no_sense(deployguard: Run, arguments: list[str], words: str) -> None:
    """One clear error, exit code 2, and nothing is written."""
    ran = deployguard("incident", *arguments)
    assert ran.code == 2
    assert words in ran.err
    assert deployguard("incident", "list", "--all").err == "there was no incident yet\n"


def test_words_that_are_missing(deployguard: Run) -> None:
    """Each error shows how it is written."""
    deployguard("incident", "open", "high", "down")
    # A slip in an id is no text about the only one there is.
    slip = deployguard("incident", "resolve", "INC-20261121-1")
    assert (slip.code, "there is no incident INC-20261121-1" in slip.err) == (2, True)
    assert deployguard("incident", "list", "--json").lines[0]["state"] == "open"
    assert "as in `deployguard incident assign INC-" in deployguard("incident", "assign", "ann").err
    assert "nothing to write down" in deployguard("incident", "note").err
    assert '"worse" is no severity' in deployguard("incident", "severity", "worse").err


def test_a_cause_that_is_found_later(deployguard: Run) -> None:
    """Resolved without it, one is asked for it; it counts as if it had been said then."""
    deployguard("incident", "open", "high", "down")
    resolved = deployguard("incident", "resolve")
    assert "with --cause and --fix says what it was; then `close`" in resolved.err
    (record,) = deployguard("incident", "list", "--all", "--json").lines
    said = ("--cause", "pool too large", "--fix", "pool set to 20")
    noted = deployguard("incident", "note", record["id"], *said)
    assert noted.code == 0
    assert f"next: `deployguard incident close {record['id']}`" in noted.err
    (shown,) = deployguard("incident", "show", record["id"], "--json").lines
    assert (shown["cause"], shown["fix"]) == ("pool too large", "pool set to 20")
    assert shown["timeline"][-1]["text"] == "cause: pool too large; fix: pool set to 20"
    assert "100%  pool too large" in deployguard("metrics").err


def test_written_down_later(deployguard: Run) -> None:
    """``--at``: as it was, in ISO 8601, as a time of today, or so long ago."""
    now = time.time()
    deployguard("incident", "open", "high", "down")
    past = iso(now - 3600)
    early = deployguard("incident", "ack", "--at", past)
    assert early.code == 2 and "is before it was detected" in early.err
    assert deployguard("incident", "note", "seen", "--at", past).code == 0
    entry = deployguard("incident", "show", "--json").lines[0]["timeline"][0]
    assert (entry["kind"], iso(entry["at"])) == ("noted", past)
    assert parse_iso(iso(entry["recorded_at"])) >= int(now)


def test_check_escalates_and_says_so(
    deployguard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a scheduler: 0 while all is in time, 8 while something is not."""
    assert deployguard("incident", "check").code == 0
    deployguard("incident", "open", "critical", "API down")
    quiet = deployguard("incident", "check")
    assert (quiet.code, quiet.err) == (0, "nothing is overdue\n")
    with sqlite3.connect(tmp_path / "controller-state" / "journal.db") as store:
        store.execute("UPDATE incidents SET acknowledge_by = acknowledge_by - 1000")
    late = deployguard("incident", "check", "--json")
    assert late.code == 8
    assert (late.lines[0]["missed"], late.lines[0]["escalated"]) == (["acknowledge"], True)
    assert "acknowledge overdue by" in late.err and "escalated to level 1" in late.err
    again = deployguard("incident", "check", "--json")
    assert (again.code, again.lines[0]["escalated"]) == (8, False)
    assert deployguard("incident", "ack").code == 0
    assert deployguard("incident", "check").code == 0


def live(deployguard: Run, site: Site, *more: str) -> None:
    """v1 runs."""
    assert deployguard("apply", site.plan, *more).code == 0


def test_a_failed_deploy_opens_one(deployguard: Run, site: Site) -> None:
    """Mitigated, with the moments of the deploy's own timeline; the same again joins; what goes
    well is noted; `status` names it until it is over."""
    live(deployguard, site)
    failed = deployguard("apply", site.plan, "--release", site.release("v2", BROKEN), "--json")
    assert failed.code == 3, failed.err
    outcome = failed.lines[-1]
    name = outcome["incident"]
    assert f"incident: {name}" in failed.err and outcome["report_errors"] == []

    record = deployguard("incident", "show", name, "--json").lines[0]
    assert (record["state"], record["severity"]) == ("mitigated", "high")
    assert record["acknowledged_at"] is None
    at = {
        (event["phase"], event["status"]): event["at"]
        for event in reversed(outcome["timeline"])
        if event["host"] == "here"
    }
    assert record["impact_at"] == at["switch", "started"]
    assert record["detected_at"] == at["check", "failed"]
    assert record["mitigated_at"] == at["restore", "done"]
    linked = {link["kind"]: link["value"] for link in record["links"]}
    assert linked["transaction"] == outcome["transaction"]
    assert linked["forensics"] == outcome["forensics"]

    again = deployguard("apply", site.plan, "--release", site.release("v3", BROKEN), "--json")
    assert (again.code, again.lines[-1]["incident"]) == (3, name)
    status = deployguard("status", site.plan, "--json")
    assert status.code == 0
    assert [line["id"] for line in status.lines if line["type"] == "incident"] == [name]
    assert f"incident {name}" in status.err

    live(deployguard, site, "--release", site.release("v4"))
    record = deployguard("incident", "show", "--json").lines[0]
    kinds = [entry["kind"] for entry in record["timeline"]]
    assert kinds == ["impact", "detected", "mitigated", "opened", "linked", "joined", "deployed"]
    assert deployguard("incident", "resolve").code == 0
    assert "incident INC" not in deployguard("status", site.plan).err

    other = deployguard("apply", site.plan, "--release", site.release("v5", BROKEN), "--json")
    assert other.lines[-1]["incident"] != name
    shown = deployguard("incident", "show", other.lines[-1]["incident"])
    assert f"{name} demo v2 failed in test (resolved): v4 was deployed next" in shown.err


def test_a_refusal_opens_none(deployguard: Run, site: Site) -> None:
    """Neither by drift nor by a guard; nor does a plan with mistakes."""
    live(deployguard, site)
    (site.root / "srv" / "current" / "VERSION").write_text("by hand")
    refused = deployguard("apply", site.plan, "--release", site.release("v2"), "--json")
    assert (refused.code, refused.lines[-1]["incident"]) == (5, None)
    with site.plan.open("a") as plan:
        plan.write("guards: [{disk: {path: /, free: 900 TB}}]\n")
    assert deployguard("apply", site.plan, "--release", "v2", "--drift", "save").code == 5
    assert deployguard("incident", "list", "--all").err == "there was no incident yet\n"


@pytest.mark.parametrize(
    "problem",
    [sqlite3.OperationalError("disk I/O error"), KeyError("a bug")],
)
def test_a_report_that_fails_hides_nothing(
    deployguard: Run, site: Site, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    """The deploy's own end, its first error and its exit code stay; this is one more line."""
    live(deployguard, site)

    def broken(*_: Any, **__: Any) -> Any:
        raise problem

    monkeypatch.setattr(Book, "open_or_join", broken)
    failed = deployguard("apply", site.plan, "--release", site.release("v2", BROKEN), "--json")
    outcome = failed.lines[-1]
    assert (failed.code, outcome["type"], outcome["status"]) == (3, "outcome", "rolled_back")
    assert "no configuration" in failed.err
    assert "next: " in failed.err
    (error,) = outcome["report_errors"]
    assert error.startswith("the incident is not kept: ")
    assert "not reported: the incident is not kept" in failed.err
    assert deployguard("history", "--json").lines[0]["status"] == "rolled_back"


def test_a_plan_says_how_bad_it_is_and_how_soon(deployguard: Run, site: Site) -> None:
    """`rescue.incident.severity` and `rescue.incident.targets`."""
    with site.plan.open("a") as plan:
        plan.write(
            "rescue: {incident: {severity: {at_most: low}, targets: {low: {acknowledge: 5m, "
            "resolve: next_business_day}}}}\n"
        )
    live(deployguard, site)
    deployguard("apply", site.plan, "--release", site.release("v2", BROKEN))
    record = deployguard("incident", "show", "--json").lines[0]
    assert record["severity"] == "low"
    assert record["acknowledge_by"] == record["detected_at"] + 300
    assert iso(record["resolve_by"]).endswith("T17:00:00Z")
    manual = deployguard("incident", "open", "low", "slow", "--plan", site.plan, "--json").lines[0]
    assert (manual["service"], manual["environment"]) == ("demo", "test")
    assert manual["acknowledge_by"] == manual["detected_at"] + 300


def test_no_secret_gets_into_an_incident(
    deployguard: Run, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever people type: what looks like a secret, and what the plan names as one."""
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2-sentinel")
    with site.plan.open("a") as plan:
        plan.write("rescue: {redact: [SHOP_PASSWORD]}\n")
    opened = deployguard(
        "incident", "open", "high", "hunter2-sentinel leaks", "--plan", site.plan, "--json"
    )
    note = deployguard("incident", "note", "it logs password=correct-horse-battery", "--json")
    shown = deployguard("incident", "show", "--json")
    kept = b"".join(
        path.read_bytes() for path in (tmp_path / "controller-state").iterdir() if path.is_file()
    ).decode("latin-1")
    for text in (opened.out, opened.err, note.out, note.err, shown.out, shown.err, kept):
        assert "hunter2-sentinel" not in text and "correct-horse-battery" not in text
    assert "[redacted:" in shown.err and "[redacted:" in kept


def test_targets_of_a_plan(site: Site) -> None:
    """Only those that are given replace the others."""
    site.plan.write_text(
        site.plan.read_text().replace("transport: local", "groups: [canaries], transport: local")
        + "rescue: {incident: {severity: {canary: [canaries]}, "
        "targets: {high: {escalate: 10m}, zone: Europe/Berlin}}}\n"
    )
    targets = incidents.targets_of(library.load(site.plan))
    assert targets.zone == "Europe/Berlin"
    assert (targets.of(2).acknowledge, targets.of(2).escalate) == (1800.0, 600.0)
