"""The commands on this machine: real releases, a real service, no SSH."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

from deployguard import api
from deployguard.rollout.preview import ComponentPreview, HostPreview, Preview
from tests.cli.conftest import Run, Site, a_site

BROKEN = 'raise SystemExit("no configuration")\n'


def served(site: Site) -> str:
    """What the service answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{site.port}/", timeout=5) as answer:
        body: str = answer.read().decode()
    return body


def test_deploy_fail_and_go_back(deployguard: Run, site: Site) -> None:
    """The life of a service: plan, deploy, deploy again, fail and be restored, go back."""
    changes = deployguard("plan", site.plan, "--detailed-exitcode", "--json")
    assert changes.code == 10, changes.err
    assert changes.lines[-1]["type"] == "preview"
    assert changes.lines[-1]["changes"] is True
    assert not (site.root / "srv").exists()

    first = deployguard("apply", site.plan, "--json")
    assert first.code == 0, first.err
    assert first.lines[-1]["type"] == "outcome"
    assert first.lines[-1]["status"] == "committed"
    assert {line["type"] for line in first.lines[:-1]} == {"event"}
    assert "here: web v1 (committed)" in first.err
    assert "v1" in served(site)

    again = deployguard("apply", site.plan, "--json")
    assert again.lines[-1]["status"] == "unchanged"
    assert deployguard("plan", site.plan, "--detailed-exitcode").code == 0

    second = deployguard("apply", site.plan, "--release", site.release("v2"))
    assert (second.code, second.out) == (0, "")

    failed = deployguard("apply", site.plan, "--release", site.release("v3", BROKEN), "--json")
    assert failed.code == 3, failed.err
    outcome = failed.lines[-1]
    assert outcome["status"] == "rolled_back"
    assert outcome["hosts"][0]["versions_after"] == {"web": "v2"}
    assert "next: Read what failed" in failed.err
    assert "v2" in served(site)

    status = deployguard("status", site.plan, "--json")
    assert status.code == 0
    assert status.lines[0]["live"][0]["version"] == "v2"
    assert "web v2 since" in status.err

    back = deployguard("rollback", site.plan)
    assert back.code == 0, back.err
    assert "v1" in served(site)

    listed = deployguard("history", "--json")
    assert [line["status"] for line in listed.lines] == [
        "committed",
        "rolled_back",
        "committed",
        "unchanged",
        "committed",
    ]
    idle = deployguard("recover", site.plan, "--json")
    assert (idle.code, idle.lines[-1]["type"]) == (0, "outcome")


def test_drift_refuses_then_saves(deployguard: Run, site: Site) -> None:
    """A file changed by hand refuses a deploy with 5; ``--drift save`` goes on."""
    assert deployguard("apply", site.plan).code == 0
    (site.root / "srv" / "current" / "VERSION").write_text("by hand")
    site.release("v2")
    refused = deployguard("apply", site.plan, "--release", "v2")
    assert refused.code == 5, refused.err
    assert "VERSION" in refused.err
    assert deployguard("plan", site.plan, "--release", "v2").code == 5
    saved = deployguard("apply", site.plan, "--release", "v2", "--drift", "save")
    assert saved.code == 0, saved.err


def test_validate_shows_every_mistake(deployguard: Run, site: Site) -> None:
    """All mistakes with their places, in the text and as JSON; exit code 2."""
    text = site.plan.read_text().replace("checks:", "chekcs:").replace("service:", "sevrice:")
    site.plan.write_text(text)
    ran = deployguard("validate", site.plan, "--json")
    assert ran.code == 2
    mistakes = [line for line in ran.lines if line["type"] == "mistake"]
    assert len(mistakes) == 2
    assert ran.lines[-1]["message"] == "2 mistakes in the plan"
    for mistake in mistakes:
        assert f"{site.plan}:{mistake['line']}:{mistake['column']}" in ran.err


def test_validate_passes(deployguard: Run, site: Site) -> None:
    """A good plan says so."""
    ran = deployguard("validate", site.plan, "--json")
    assert ran.code == 0
    assert ran.lines == [
        {"type": "validation", "valid": True, "plan": "demo", "version": "v1"},
    ]


def test_variables_reach_the_templates(deployguard: Run, site: Site) -> None:
    """``--var`` fills the plan; one that is not NAME=VALUE is a mistake of usage."""
    text = site.plan.read_text().replace("environment: test", 'environment: "{{ vars.stage }}"')
    site.plan.write_text(text)
    assert deployguard("validate", site.plan).code == 2
    assert deployguard("validate", site.plan, "--var", "stage=blue=1").code == 0
    assert deployguard("validate", site.plan, "--var", "stage").code == 2


def test_mistakes_are_annotations_in_a_job(
    deployguard: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In GitHub Actions a mistake shows beside its line."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(site.root))
    site.plan.write_text(site.plan.read_text().replace("checks:", "chekcs:"))
    ran = deployguard("validate", site.plan)
    assert re.search(r"^::error file=plan\.yaml,line=\d+,col=\d+::", ran.err, re.MULTILINE)


def test_job_gets_outputs_and_a_summary(
    deployguard: Run, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed deploy in a job leaves its outputs, its summary and its annotations."""
    assert deployguard("apply", site.plan).code == 0
    output, job_summary = tmp_path / "output", tmp_path / "summary"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(job_summary))
    ran = deployguard("apply", site.plan, "--release", site.release("v2", BROKEN))
    assert ran.code == 3
    names = re.findall(r"^([a-z-]+)<<", output.read_text(), re.MULTILINE)
    assert names == ["outcome", "transaction", "exit-code", "incident-url", "forensics-path"]
    assert "rolled_back" in output.read_text()
    assert "### What failed" in job_summary.read_text()
    assert "::error title=deployguard::" in ran.err
    events = ran.err.index("here connect started")
    assert ran.err.index("::stop-commands::") < events < ran.err.index("::endgroup::")


def test_named_secrets_appear_nowhere(
    deployguard: Run, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret the plan names is in no text, no JSON line and no log, even when a host says it."""
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2-sentinel")
    plan = site.plan.read_text() + "rescue: {redact: [SHOP_PASSWORD]}\n"
    plan += (
        'tasks: [{name: leak, run: [sh, -c, "echo hunter2-sentinel >&2; exit 1"], undo_less: x}]'
    )
    site.plan.write_text(plan)
    log = tmp_path / "log.jsonl"
    ran = deployguard("apply", site.plan, "--json", "-v", "--log-file", log)
    assert ran.code == 3, ran.err
    text = ran.out + ran.err + log.read_text()
    assert "[redacted:" in text
    assert "hunter2-sentinel" not in text


def test_plan_lists_changes(deployguard: Run, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, restarts, drift, refusals and unreachable hosts are all in the text."""
    component = ComponentPreview(
        component="web",
        version_live="v1",
        version_new="v2",
        added=(("new.py", 10),),
        changed=tuple((f"file{i}.py", 2048) for i in range(20)),
        removed=(("old.py", 5 * 1024**2),),
        restarts=("web.service",),
        drift=("settings.py",),
        bytes_to_send=3 * 1024**3,
    )
    hosts = (
        HostPreview("web1", (component,), (("disk", False, "no room"), ("space", True, "fine"))),
        HostPreview("web2", error="no route to host"),
    )
    preview = Preview("demo", "v2", "test", hosts)
    monkeypatch.setattr(api, "preview", lambda plan, **_: preview)
    ran = deployguard("plan", site.plan, "--json")
    assert ran.code == 1
    for words in (
        "v1 → v2; 1 files added, 20 changed, 1 removed; 3.0 GiB to send",
        "+ new.py (10 B)",
        "~ … 8 more",
        "- old.py (5.0 MiB)",
        "! settings.py was changed by hand",
        "restarts web.service",
        "would refuse: disk: no room",
        "no route to host",
    ):
        assert words in ran.err
    assert "space" not in ran.err
    assert ran.lines[-1]["hosts"][1]["error"] == "no route to host"


def test_plan_of_a_host_that_is_not_there(deployguard: Run, site: Site) -> None:
    """A host that does not answer is no host without changes."""
    host = "{address: 127.0.0.1, port: 1, connect_deadline: 0.2s, known_hosts: none}"
    site.plan.write_text(re.sub(r"here: \{.*\}", f"web1: {host}", site.plan.read_text()))
    ran = deployguard("plan", site.plan)
    assert ran.code == 1
    assert "no changes" not in ran.err
    assert f"`deployguard doctor {site.plan}`" in ran.err


def test_schema_is_json(deployguard: Run) -> None:
    """The schema goes to stdout, as a document."""
    ran = deployguard("schema")
    assert ran.code == 0
    assert '"$defs"' in ran.out
    assert ran.err == ""


def test_doctor_asks_this_machine_and_the_hosts(deployguard: Run, site: Site) -> None:
    """Doctor connects, says what the host is, and ends with 0 when nothing failed."""
    ran = deployguard("doctor", site.plan, "--json")
    assert ran.code == 0, ran.err
    asked = {(line["where"], line["subject"]) for line in ran.lines if line["type"] == "check"}
    assert {("here", "python"), ("here", "journal"), ("here", "connect")} <= asked
    assert ran.lines[-1]["failed"] == 0


def test_doctor_finds_what_is_missing(deployguard: Run, site: Site) -> None:
    """No key of the host, no token, no secret, no connection: each with its mend."""
    key = site.root / "id_test"
    key.write_text("x")
    key.chmod(0o644)
    host = (
        "{address: 127.0.0.1, port: 1, connect_deadline: 1s, known_hosts: none, "
        f"identity_file: {key}}}"
    )
    plan = re.sub(r"here: \{.*\}", f"web1: {host}", site.plan.read_text())
    plan += "rescue: {redact: [NOT_SET], incident: {github: {repo: acme/shop}}}\n"
    site.plan.write_text(plan)
    ran = deployguard("doctor", site.plan, "--json")
    assert ran.code == 1
    found = {
        (line["where"], line["subject"]): line["status"]
        for line in ran.lines
        if line["type"] == "check"
    }
    assert found["here", "ssh key"] == "failed"
    assert found["here", "incident token"] == "warning"
    assert found["here", "redaction"] == "warning"
    assert found["web1", "host key"] == "warning"
    assert found["web1", "connect"] == "failed"
    assert f"mend: chmod 600 {key}" in ran.err
    assert deployguard("doctor", site.plan, "--here", "--json").lines[-1]["failed"] == 1


def test_two_plans_with_a_component_of_one_name(
    deployguard: Run, site: Site, tmp_path: Path
) -> None:
    """What the host keeps of one service is not taken for the other's: nobody stops that one."""
    assert deployguard("apply", site.plan).code == 0
    with a_site(tmp_path / "other") as other:
        text = other.plan.read_text()
        other.plan.write_text(text.replace(f"{other.root}/host-state", f"{site.root}/host-state"))
        assert deployguard("apply", other.plan).code == 0
        assert '"v1"' in served(site) and '"v1"' in served(other)
        failed = deployguard("apply", other.plan, "--release", other.release("v2", BROKEN))
        assert failed.code == 3, failed.err
        assert '"v1"' in served(site) and '"v1"' in served(other)
