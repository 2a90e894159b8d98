"""``deployguard incident respond``: from an assessment to the old version back, on this machine."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import SERVER, Run, Site

#: v2 says that it is healthy until somebody takes its token away.
FRAGILE = SERVER.replace(
    "body = json.dumps(",
    """import os
        if os.path.exists("../../../broken"):
            print("ERROR token is gone", file=sys.stderr, flush=True)
            self.send_response(503)
            self.end_headers()
            return
        body = json.dumps(""",
)

RESPOND = """
respond:
  writes: {{run: [sh, -c, "echo 12"], unit: orders}}
  contain:
    - name: maintenance
      severity: high
      run: [touch, {root}/maintenance]
      undo: [rm, {root}/maintenance]
    - name: backup
      run: [sh, -c, "echo saved >> {root}/backups"]
      undo_less: a backup more does no harm
  mitigate:
    - name: quieter
      run: [touch, {root}/quiet]
      undo: [rm, {root}/quiet]
"""


@pytest.fixture
def broken(site: Site, deployguard: Run) -> Site:
    """v1 was live, v2 is, and it is broken now."""
    site.release("v2", FRAGILE)
    text = site.plan.read_text() + RESPOND.format(root=site.root)
    # Both are stable; nobody has to watch them for seconds.
    text = text.replace("process: {}", "process: {min_healthy_time: 200ms}")
    text = text.replace("deadline: 5s", "deadline: 5s\n          min_healthy_time: 200ms")
    site.plan.write_text(text)
    for version in ("v1", "v2"):
        assert deployguard("apply", site.plan, "--release", version).code == 0
    (site.root / "broken").touch()
    return site


def entries(deployguard: Run, name: str) -> list[tuple[str, str]]:
    """Kinds and texts of a timeline."""
    (record,) = deployguard("incident", "show", name, "--json").lines
    return [(entry["kind"], entry["text"]) for entry in record["timeline"]]


def test_nobody_is_there(site: Site, deployguard: Run) -> None:
    """Without a terminal and a flag nothing is done, not even opened."""
    site.plan.write_text(site.plan.read_text() + RESPOND.format(root=site.root))
    ran = deployguard("incident", "respond", site.plan, "--open", "critical", "API down")
    assert ran.code == 2
    assert "nobody is here to choose, and nothing was done" in ran.err
    assert "--choose rollback --yes" in ran.err
    assert not (site.root / "maintenance").exists()
    assert "no incident is ongoing" in deployguard("incident", "list").err
    half = deployguard("incident", "respond", site.plan, "--choose", "rollback")
    assert (half.code, "nobody is here to confirm it" in half.err) == (2, True)


def test_the_assessment_changes_nothing(broken: Site, deployguard: Run) -> None:
    """It says what fails, since when, and which ways out there are."""
    ran = deployguard("incident", "respond", broken.plan, "--assess", "--json")
    assert ran.code == 0, ran.err
    assessment, offered = ran.lines
    failing = [one for one in assessment["checks"] if one["state"] != "healthy"]
    assert [(one["name"], one["critical"]) for one in failing] == [("http", True)]
    assert (assessment["suggests"], assessment["healthy"]) == (1, False)
    assert {one["version"] for one in assessment["recent"]} == {"v1", "v2"}
    rollback, hotfix, mitigate = offered["options"]
    assert (rollback["possible"], rollback["version"]) == (True, "v1")
    # Measured in this journal, in the deploy of v2: before v1 there was nothing to be down.
    assert (rollback["downtime"]["n"], rollback["downtime"]["what"]) == (1, "deploy")
    assert any("12 orders written since the deploy" in text for text in rollback["data"])
    assert hotfix["possible"] is False
    assert mitigate["possible"] is True
    assert "it looks critical (1)" in ran.err
    assert "1. rollback: go back to v1" in ran.err
    assert not (broken.root / "maintenance").exists()
    assert "no incident is ongoing" in deployguard("incident", "list").err

    # What is not possible is refused, with the reason and with its code; nothing is deployed, and
    # nothing of `contain` is for a low severity.
    before = deployguard("history", "--json").out
    ran = deployguard(
        *("incident", "respond", broken.plan, "--open", "low", "API slow"),
        *("--choose", "hotfix", "--yes", "--release", "v3"),
    )
    assert ran.code == 5, ran.err
    assert 'hotfix is not possible: v3: the artifact "releases/v3"' in ran.err
    assert deployguard("history", "--json").out == before
    assert not (broken.root / "maintenance").exists()


def test_rollback_by_flag(broken: Site, deployguard: Run) -> None:
    """Contained by severity, rolled back, verified, taken back, written down."""
    ran = deployguard(
        *("incident", "respond", broken.plan, "--open", "auto", "API down", "--json"),
        *("--choose", "rollback", "--yes"),
    )
    assert ran.code == 0, ran.err
    (incident,) = [line for line in ran.lines if line["type"] == "incident"]
    assert (incident["state"], incident["severity"]) == ("mitigated", "critical")
    # No person was there, so nobody has acknowledged it.
    assert incident["acknowledged_at"] is None
    (outcome,) = [line for line in ran.lines if line["type"] == "outcome"]
    assert (outcome["version"], outcome["status"]) == ("v1", "committed")
    assert (broken.root / "backups").read_text() == "saved\n"
    assert not (broken.root / "maintenance").exists()
    told = entries(deployguard, incident["id"])
    kinds = [kind for kind, _ in told]
    assert kinds == [
        *("opened", "assessed", "containing", "contained", "containing", "contained"),
        *("decided", "deployed", "released", "released", "responded", "mitigated"),
    ]
    texts = dict(told)
    assert "rollback: go back to v1; confidence" in texts["decided"]
    assert "every check that matters is healthy" in texts["responded"]
    (shown,) = deployguard("incident", "show", incident["id"], "--json").lines
    assert [one["value"] for one in shown["links"]] == [outcome["transaction"]]
    # The next time it is known how long a rollback takes here.
    again = deployguard("incident", "respond", broken.plan, "--assess", "--json")
    rollback = again.lines[1]["options"][0]
    assert (rollback["downtime"]["n"], rollback["downtime"]["what"]) == (1, "rollback")


def test_mitigation_that_does_not_help(broken: Site, deployguard: Run) -> None:
    """It is done and written down; that the check still fails has a code of its own. The step is
    taken back by what was written down, whatever the plan says by then."""
    ran = deployguard(
        *("incident", "respond", broken.plan, "--open", "high", "API down"),
        *("--choose", "mitigate", "--yes"),
    )
    assert ran.code == 9, ran.err
    assert (broken.root / "quiet").exists() and (broken.root / "maintenance").exists()
    assert not (broken.root / "backups").exists()
    assert "still in force: maintenance, quieter" in ran.err
    # Whoever says that it is over is reminded.
    over = deployguard("incident", "resolve", "--cause", "a token")
    assert (over.code, "still in force: maintenance, quieter" in over.err) == (0, True)
    (record,) = deployguard("incident", "list", "--all", "--json").lines
    broken.plan.write_text(broken.plan.read_text().partition("\nrespond:")[0])
    undone = deployguard("incident", "respond", broken.plan, record["id"], "--undo")
    assert undone.code == 0, undone.err
    assert not (broken.root / "quiet").exists() and not (broken.root / "maintenance").exists()
    again = deployguard("incident", "respond", broken.plan, record["id"], "--undo")
    assert (again.code, "nothing is in force" in again.err) == (0, True)


def test_a_way_out_that_fails_is_told_in_its_incident(broken: Site, deployguard: Run) -> None:
    """However it failed: there is one incident, and what is back is as broken as it was."""
    broken.release("v3", "raise SystemExit('no such module')")
    ran = deployguard(
        *("incident", "respond", broken.plan, "--open", "high", "API down"),
        *("--choose", "hotfix", "--release", "v3", "--yes"),
    )
    assert ran.code in (3, 4), ran.err
    (record,) = deployguard("incident", "list", "--all", "--json").lines
    assert (record["state"], record["title"]) == ("open", "API down")
    (shown,) = deployguard("incident", "show", "--json").lines
    (joined,) = [one for one in shown["timeline"] if one["kind"] == "joined"]
    assert joined["text"].startswith("v3 failed as the way out: ")
    assert joined["detail"]["transaction"] in [one["value"] for one in shown["links"]]
    # Tried by hand it is another matter, which nobody has named.
    assert deployguard("apply", broken.plan, "--release", "v3", "--fix").code in (3, 4)
    assert len(deployguard("incident", "list", "--all", "--json").lines) == 2


def test_killed_in_the_middle_of_a_step(site: Site, deployguard: Run) -> None:
    """What was begun is in the timeline before it is done, so it is found and taken back."""
    root = site.root
    kill = f"touch {root}/closed; kill -9 $(cat {root}/pid)"
    step = {"name": "close", "run": ["sh", "-c", kill], "undo": ["rm", f"{root}/closed"]}
    text = json.dumps({"contain": [step]})
    site.plan.write_text(site.plan.read_text() + f"respond: {text}\n")
    words = f"echo $$ > {root}/pid; exec {sys.executable} -m deployguard "
    words += f"incident respond {site.plan} --open critical down --choose none --yes"
    killed = subprocess.run(["sh", "-c", words], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (record,) = deployguard("incident", "list", "--json").lines
    assert [kind for kind, _ in entries(deployguard, record["id"])][-1] == "containing"
    # The program on the host ends its command without us; only then is there anything to undo.
    deadline = time.monotonic() + 60
    while not (root / "closed").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    undone = deployguard("incident", "respond", site.plan, "--undo")
    assert undone.code == 0, undone.err
    assert not (root / "closed").exists()


def test_a_person_chooses(broken: Site, deployguard: Run) -> None:
    """On a terminal: impossible ones are refused with the reason, and who sits there is at it."""
    arguments = ["incident", "respond", str(broken.plan), "--open", "critical", "API down"]
    said = typed(arguments, "y\n2\n1\ny\n")
    assert "do that now? [Y/n]:" in said
    assert "2. hotfix: not possible: v1 of the plan is older than what is live" in said
    assert said.count("which? 1 to 3, 0 for none:") == 2
    assert "rollback: go back to v1? [y/N]:" in said
    (incident,) = deployguard("incident", "list", "--json").lines
    assert incident["state"] == "mitigated"
    assert incident["acknowledged_by"]


def typed(arguments: list[str], answers: str) -> str:
    """The command on a terminal of its own, where somebody types; what the terminal shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "deployguard", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "dumb"},
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, answers.encode())
    said = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # nobody holds the other end any more
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    assert process.wait(60) == 0, said.decode()
    return said.decode()


def test_the_word_is_for_its_service(site: Site, deployguard: Run) -> None:
    """An incident of another service is not answered with this plan."""
    (record,) = deployguard(
        "incident", "open", "high", "mail is slow", "--service", "mail", "--json"
    ).lines
    ran = deployguard("incident", "respond", site.plan, record["id"], "--assess")
    assert (ran.code, f"{record['id']} is about mail in" in ran.err) == (2, True)
    none = deployguard("incident", "respond", site.plan, "--choose", "none", "--yes", "--json")
    assert none.code == 2
    assert json.loads(none.out.splitlines()[-1])["hint"].startswith("--open critical")


def test_opened_by_hand_in_a_hurry(site: Site, deployguard: Run) -> None:
    """An incident of the service is found though nobody has said in which environment it is; one of
    no service is named, and not taken."""
    assert deployguard("apply", site.plan).code == 0
    words = (site.plan, "--choose", "none", "--yes")
    (record,) = deployguard("incident", "open", "low", "API down", "--json").lines
    none = deployguard("incident", "respond", *words)
    assert (none.code, f"name {record['id']} if it is about this: API down; or" in none.err) == (
        *(2, True),
    )
    (record,) = deployguard(
        "incident", "open", "low", "API slow", "--service", "demo", "--json"
    ).lines
    assert f"incident {record['id']}" in deployguard("status", site.plan).err
    ran = deployguard("incident", "respond", *words)
    assert ran.code == 0, ran.err
    assert "decided" in [kind for kind, _ in entries(deployguard, record["id"])]
