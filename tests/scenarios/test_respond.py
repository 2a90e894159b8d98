"""A response on several hosts: one whose cable is pulled, logs in the journal, steps that fail."""

from __future__ import annotations

import json
from typing import Any

from tests.fleet.host import Host
from tests.scenarios.conftest import MakeScene


def logged(host: Host, unit: str, *texts: str) -> None:
    """Lines in the journal of a unit, as of its own process."""
    for text in texts:
        fields = f"MESSAGE={text}\nPRIORITY=6\nOBJECT_SYSTEMD_UNIT={unit}\n\n"
        host.run(["logger", "--journald"], input=fields.encode())
    host.run(["journalctl", "--sync"])


def kinds(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The JSON lines of a kind."""
    return [line for line in lines if line["type"] == kind]


def test_a_response_on_two_hosts(scene: MakeScene) -> None:
    """What cannot be asked is named and holds nothing up; then both go back, step by step."""
    respond = {
        "deadline": "5s",
        "contain": [
            {"name": "flag", "run": ["touch", "/run/flag"], "undo": ["rm", "/run/flag"]},
            {
                "name": "half",
                "run": ["cp", "/run/only-here", "/run/copied"],
                "undo": ["rm", "-f", "/run/copied"],
            },
        ],
    }
    it = scene(hosts=2, respond=respond)
    web1, web2 = it.hosts
    logged(web1, it.unit, "ERROR order 7 not found")
    assert it.apply("v1").code == 0
    assert it.apply("v2").code == 0
    logged(web1, it.unit, "ERROR order 8 not found", "ERROR order 9 not found", "FATAL no cache")

    web2.cut_network()
    try:
        blind = it.command("incident", "respond", "plan.yaml", "--assess", "--json")
    finally:
        web2.heal_network()
    assert blind.code == 0, blind
    assessment, offered = blind.lines
    seen = {host["host"]: host for host in assessment["hosts"]}
    assert seen[web1.name]["error"] == "" and seen[web2.name]["error"]
    assert {check["host"] for check in assessment["checks"]} == {web1.name}
    assert (assessment["healthy"], assessment["suggests"]) == (False, 2)
    (log,) = assessment["logs"]
    assert (log["errors_before"], log["errors"]) == (1, 3)
    assert [(kind["first"], kind["new"]) for kind in log["kinds"]] == [
        ("FATAL no cache", True),
        ("ERROR order 8 not found", False),
    ]
    rollback = offered["options"][0]
    assert not rollback["possible"]
    assert any(reason.startswith(f"{web2.name}: ") for reason in rollback["impossible"])

    web1.write("/run/only-here", "x")
    done = it.command(
        *("incident", "respond", "plan.yaml", "--open", "critical", "orders are lost"),
        *("--choose", "rollback", "--yes", "--json"),
    )
    assert done.code == 0, done
    assert [it.served(host)["version"] for host in it.hosts] == ["v1", "v1"]
    for host in it.hosts:
        left = host.run(["sh", "-c", "ls /run/flag /run/copied 2>/dev/null || true"]).stdout
        assert left == b""
    (incident,) = kinds(done.lines, "incident")
    shown = it.command("incident", "show", incident["id"], "--json").lines[0]
    details = [(entry["kind"], entry["detail"]) for entry in shown["timeline"]]
    failed = [detail["failed"] for kind, detail in details if kind == "contained"]
    # One step that failed on one host kept nothing back, and is on record.
    assert failed[0] == {} and list(failed[1]) == [web2.name]
    assert "No such file" in json.dumps(failed[1])


def test_a_watch_of_two_hosts(scene: MakeScene) -> None:
    """A host that is cut off fires once, as high, and its checks say nothing; then it is over."""
    it = scene(hosts=2, watch={"failures": 1, "group_wait": 0, "group_interval": 0})
    assert it.apply("v1").code == 0
    look = ("watch", "plan.yaml", "--for", "1s", "--interval", "5s", "--json")
    web2 = it.hosts[1]
    web2.cut_network()
    try:
        first, second = it.command(*look), it.command(*look)
    finally:
        web2.heal_network()
    assert (first.code, second.code) == (9, 9), first
    (notice,) = kinds(first.lines, "notice")
    assert [(one["host"], one["name"]) for one in notice["fires"]] == [(web2.name, "reachable")]
    (incident,) = kinds(first.lines, "incident")
    assert (incident["severity"], incident["state"]) == ("high", "open")
    assert kinds(second.lines, "notice") == []
    healed = it.command(*look)
    assert healed.code == 0, healed
    (over,) = kinds(healed.lines, "incident")
    assert (over["id"], over["state"]) == (incident["id"], "mitigated")
