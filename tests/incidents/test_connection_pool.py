"""v1.2.3 → v1.2.4: a pool of 50 connections, against a PostgreSQL that gives 40 of them.

Backend and frontend under systemd on one machine, PostgreSQL on another. Staging allows 100, so
nobody saw it there. The plan is playbooks/portal/plan.yaml, to the letter or without its guards;
docs/incidents/connection-pool.md shows what it says.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployguard.evidence.timeline import iso, parse_iso, rows
from deployguard.rollout.outcome import Outcome
from tests.docs.pages import ROOT, shown
from tests.docs.test_commands import assert_shown
from tests.fleet.fleet import Fleet
from tests.fleet.host import Host
from tests.fleet.tree import Entry
from tests.github.server import GitHubServer, checked
from tests.playbooks.published import Published
from tests.releases import pack
from tests.report.written import block, table

SOURCES = Path(__file__).parent / "portal"
PAGE = ROOT / "docs" / "incidents" / "connection-pool.md"
PASSWORD = "swordfish-of-the-portal"
#: Size of the pool by version; v1.2.5 is how it was mended.
POOLS = {"v1.2.3": 10, "v1.2.4": 50, "v1.2.5": 20}


class Portal:
    """The machines of that day, and somebody with a plan."""

    def __init__(self, fleet: Fleet, folder: Path, github: GitHubServer) -> None:
        self.app, self.database = fleet.hosts[:2]
        self.folder = folder
        self.published = Published(fleet, folder, ["app1.example.com"])
        self.published.environment |= {"GITHUB_API_URL": github.url, "GITHUB_TOKEN": github.token}
        for version, size in POOLS.items():
            self._build(version, size)

    def _build(self, version: str, size: int) -> None:
        """The artifacts of a version, as its build job makes them."""
        build = self.folder.parent / version
        for name in ("backend", "frontend"):
            (build / name).mkdir(parents=True)
            shutil.copy(SOURCES / f"{name}.py", build / name)
            (build / name / "VERSION").write_text(f"{version}\n")
        settings = {"version": version, "pool": {"min": size, "max": size}}
        (build / "backend" / "settings.json").write_text(json.dumps(settings))
        (self.folder / "dist").mkdir(exist_ok=True)
        for name in ("backend", "frontend"):
            pack(build / name, self.folder / "dist" / f"{name}-{version}.tar.gz")

    def on_that_day(self) -> None:
        """Staging's database allowed a hundred connections."""
        facts = self.folder / "facts" / "staging.yaml"
        text = facts.read_text()
        assert text.count("max_connections: 40") == 1
        facts.write_text(text.replace("max_connections: 40", "max_connections: 100"))

    def without_guards(self) -> None:
        """The plan as it was on that day."""
        path = self.folder / "plan.yaml"
        text = path.read_text()
        plain = re.sub(r"^guards:\n(?: .*\n)*\n", "", text, flags=re.MULTILINE)
        assert plain != text and "capacity" not in plain
        path.write_text(plain)

    def deploy(self, version: str, *options: str) -> subprocess.CompletedProcess[str]:
        """As a job types it."""
        return self.published.run(
            "deployguard", "apply", "plan.yaml", "--release", version, *options
        )

    def served(self) -> tuple[dict[str, Any], str]:
        """What the backend says of itself, and the page of the frontend."""
        try:
            with urllib.request.urlopen(f"http://{self.app.address}:8000/health", timeout=5) as it:
                backend = json.loads(it.read())
        except urllib.error.HTTPError as error:
            backend = json.loads(error.read())
        with urllib.request.urlopen(f"http://{self.app.address}:8080/", timeout=5) as it:
            return backend, it.read().decode()

    def connections(self) -> dict[str, int]:
        """Who holds how many, by the database's own word."""
        query = "SELECT application_name, count(*) FROM pg_stat_activity WHERE usename='portal' "
        query += "GROUP BY 1"
        lines = psql(self.database, "portal", query).splitlines()
        return {name: int(count) for name, count in (line.split("|") for line in lines)}

    def trees(self) -> list[dict[bytes, Entry]]:
        """What is live, whole, with the units."""
        found = []
        for name in ("backend", "frontend"):
            live = self.app.run(["readlink", "-f", f"/srv/{name}/current"]).stdout.decode().strip()
            found.append(self.app.tree(live))
            found.append(self.app.tree(f"/etc/systemd/system/{name}.service"))
        return found

    def units(self, since: int) -> list[str]:
        """What systemd did with the two services, from a line of its log on."""
        argv = ["journalctl", "--no-pager", "--output=cat", "-u", "backend", "-u", "frontend"]
        self.app.run(["journalctl", "--sync"])
        lines = self.app.run(argv).stdout.decode().splitlines()[since:]
        return [line.rstrip(".") for line in lines if re.match(r"(Started|Stopped) ", line)]

    def logged(self) -> int:
        """How long that log is."""
        argv = ["journalctl", "--no-pager", "--output=cat", "-u", "backend", "-u", "frontend"]
        self.app.run(["journalctl", "--sync"])
        return len(self.app.run(argv).stdout.decode().splitlines())


def psql(host: Host, database: str, query: str) -> str:
    """A query of the database's own administrator, who has connections of his own."""
    argv = ["runuser", "-u", "postgres", "--", "psql", "-qtAX", "-d", database, "-c", query]
    return host.run(argv).stdout.decode().strip()


@pytest.fixture(scope="module")
def machines(fleet: Fleet) -> Iterator[Fleet]:
    """A machine for the services and one with a database of forty connections."""
    app, database = fleet.hosts[:2]
    (version,) = (path.name for path in database.path("/etc/postgresql").iterdir())
    folder = f"/etc/postgresql/{version}/main"
    settings = "listen_addresses = '*'\nmax_connections = 40\nfsync = off\n"
    database.write(f"{folder}/conf.d/portal.conf", settings, owner="postgres")
    hba = database.read(f"{folder}/pg_hba.conf").decode()
    hba += f"host portal portal {app.address}/32 scram-sha-256\n"
    database.write(f"{folder}/pg_hba.conf", hba, mode=0o640, owner="postgres")
    database.run(["systemctl", "start", f"postgresql@{version}-main.service"])
    psql(database, "postgres", f"CREATE ROLE portal LOGIN PASSWORD '{PASSWORD}'")
    psql(database, "postgres", "CREATE DATABASE portal OWNER portal")
    psql(database, "portal", "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1), (2)")
    psql(database, "portal", "GRANT SELECT ON orders TO portal")
    app.run(["useradd", "--system", "portal"])
    app.write("/etc/portal/database.password", f"{PASSWORD}\n", mode=0o600, owner="portal")
    app.run(["chmod", "755", "/etc/portal"])
    with app.path("/etc/hosts").open("a") as hosts:
        hosts.write(f"{database.address} db1.example.com\n")
    yield fleet
    for host in (app, database):
        host.reset()


@pytest.fixture
def github(fleet: Fleet) -> Iterator[GitHubServer]:
    """A GitHub with nothing in it yet."""
    with checked() as server:
        server.name = server.repository.name = "acme/portal"
        yield server


@pytest.fixture
def portal(machines: Fleet, github: GitHubServer, tmp_path: Path) -> Portal:
    """v1.2.3 is live and well, as it was deployed before there were guards."""
    folder = Path(shutil.copytree(ROOT / "playbooks" / "portal", tmp_path / "portal"))
    made = Portal(machines, folder, github)
    first = made.deploy("v1.2.3")
    assert first.returncode == 0, first.stdout
    return made


def is_shown(command: str, number: int, said: str) -> None:
    """The page shows this, where it shows that command for the nth time."""
    found = [one for one in shown(PAGE) if one.command == command]
    lines = [line for line in said.splitlines() if line and not line.startswith("{")]
    assert_shown([line for line in found[number].output if line], "\n".join(lines))


def test_refused_by_parity_and_capacity(portal: Portal, github: GitHubServer) -> None:
    """Both say it before anything is touched, each with its numbers."""
    portal.on_that_day()
    trees, log = portal.trees(), portal.logged()
    refused = portal.deploy("v1.2.4")
    assert refused.returncode == 5, refused.stdout
    assert "parity: postgresql.max_connections is 40 here, 100 where it was" in refused.stdout
    assert "capacity: 50 connections are needed (backend: 50), and PostgreSQL has 37 to" in (
        refused.stdout
    )
    is_shown("deployguard apply plan.yaml --release v1.2.4", 0, refused.stdout)
    assert portal.trees() == trees and portal.units(log) == []
    assert portal.served()[0]["version"] == "v1.2.3"
    assert github.repository.issues == {}
    # The measured limit decides, whatever the facts say: one of the two is enough.
    over = portal.deploy("v1.2.4", "--override", "parity=it is being mended")
    assert over.returncode == 5, over.stdout
    assert "capacity: 50 connections" in over.stdout and "asked from app1" in over.stdout


def test_a_smaller_pool_passes(portal: Portal) -> None:
    """v1.2.5 asks for twenty, and staging is as production: the plan to the letter."""
    done = portal.deploy("v1.2.5")
    assert done.returncode == 0, done.stdout
    is_shown("deployguard apply plan.yaml", 0, done.stdout)
    backend, page = portal.served()
    assert (backend["version"], "portal v1.2.5" in page) == ("v1.2.5", True)
    assert portal.connections() == {"portal v1.2.5": 20}


def test_without_them_the_database_check_fails(
    portal: Portal, github: GitHubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trigger to complete: found by the database check, evidence, back, verified, one issue."""
    portal.without_guards()
    trees, log = portal.trees(), portal.logged()
    began = time.monotonic()
    failed = portal.deploy("v1.2.4", "--json")
    took = time.monotonic() - began
    assert failed.returncode == 3, failed.stdout
    lines = [json.loads(line) for line in failed.stdout.splitlines() if line[:1] == "{"]
    outcome = lines[-1]

    # Found by the database's own check; the process and the frontend were well.
    found = {(one["component"], one["name"]): one["message"] for one in outcome["findings"]}
    assert "connection" in found["backend", "database"]
    assert ("backend", "process") not in found
    assert not [name for component, name in found if component == "frontend"]

    # v1.2.3 serves, identical, with its ten connections.
    assert portal.trees() == trees
    backend, page = portal.served()
    assert (backend["status"], backend["version"]) == ("healthy", "v1.2.3")
    assert "portal v1.2.3" in page
    assert portal.connections() == {"portal v1.2.3": 10}

    _assert_order(portal, log, lines)
    _assert_forensics(Path(outcome["forensics"]), outcome)
    _assert_issue(github, outcome)
    _assert_postmortem(portal, outcome)
    is_shown("deployguard apply plan.yaml --release v1.2.4", 1, failed.stdout)
    (host,) = outcome["hosts"]
    with capsys.disabled():
        print(f"\nconnection pool: {took:.1f} s in all, by phase {json.dumps(host['seconds'])}")


def _assert_order(portal: Portal, log: int, lines: list[dict[str, Any]]) -> None:
    """As the template has it: the frontend stops first and starts last, each time."""
    down = ["Stopped Portal frontend", "Stopped Portal backend"]
    up = ["Started Portal backend", "Started Portal frontend"]
    shown = [re.sub(r"(frontend|backend)\.service - ", "", line) for line in portal.units(log)]
    assert shown == [*down, *up, *down, *up]
    at = {
        (line["phase"], line["status"]): index
        for index, line in enumerate(lines)
        if line["type"] == "event" and line["status"] != "progress"
    }
    filed = next(i for i, line in enumerate(lines) if "incident" in str(line.get("message", "")))
    assert at["check", "failed"] < at["restore", "started"] < at["restore", "done"] < filed


def _assert_forensics(folder: Path, outcome: dict[str, Any]) -> None:
    """`v1.2.4-<epoch>/{backend/,frontend/,backend-service.log,metadata.json}`, sealed."""
    assert re.fullmatch(r"v1\.2\.4-\d{10}", folder.name)
    for name in ("backend", "frontend"):
        assert (folder / name / "MANIFEST.jsonl").stat().st_size > 0
    assert json.loads((folder / "backend" / "files" / "settings.json").read_text())["pool"] == {
        "min": 50,
        "max": 50,
    }
    log = (folder / "backend-service.log").read_text()
    assert "backend v1.2.4: a pool of 50" in log and "of 50 connections: " in log
    assert "FATAL:  remaining connection slots are reserved" in log
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["transaction"] == outcome["transaction"]
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    for path in folder.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()


def _assert_issue(github: GitHubServer, outcome: dict[str, Any]) -> None:
    """One, with what the next person needs."""
    (issue,) = github.repository.issues.values()
    assert outcome["incident_url"] == issue["html_url"]
    for words in (outcome["transaction"], "database", "v1.2.3", "identical and healthy"):
        assert words in issue["body"]
    assert PASSWORD not in issue["body"]


def _assert_postmortem(portal: Portal, outcome: dict[str, Any]) -> None:
    """Drafted in the moment: every row and every box is what the journals say, to the second; what
    systemd wrote down on the machine agrees."""
    store = sqlite3.connect(portal.published.home / ".local/state/deployguard/journal.db")
    (kept,) = store.execute(
        "SELECT outcome FROM transactions WHERE id = ?", (outcome["transaction"],)
    ).fetchone()
    told = store.execute(
        "SELECT happened_at FROM incident_entries WHERE incident = ? AND kind NOT IN "
        "('impact', 'detected') ORDER BY happened_at, number",
        (outcome["incident"],),
    ).fetchall()
    store.close()
    deploy = Outcome.from_dict(json.loads(kept))
    path = Path(outcome["postmortem"])
    day = iso(deploy.started_at)[:10]
    folder = portal.folder / "contexts" / "retrospectives" / "deployment-rollbacks"
    assert path == folder / f"{day}-v1.2.4.md"
    text = path.read_text()

    timeline = table(text, "timeline")
    assert [row for row in timeline if row[4] == "T1"] == [
        [row.time, row.host, row.event, " ".join(row.details.split()), "T1"]
        for row in rows(deploy.timeline)
    ]
    assert [row[0] for row in timeline if row[4] == "INC"] == [iso(at) for (at,) in told]
    at = {(e.phase, e.status): e.at for e in reversed(deploy.timeline) if e.host}
    stop, sign, back = at["switch", "started"], at["check", "failed"], at["restore", "done"]
    assert table(text, "durations")[1][1:] == [iso(stop), iso(sign), f"{sign - stop:.1f} s"]
    response = {row[0]: row[1:3] for row in table(text, "response")}
    assert response["Detected"] == [iso(sign), f"{sign - stop:.1f} s"]
    assert response["Mitigated"] == [iso(back), f"{back - sign:.1f} s"]

    (down,) = table(text, "downtime")
    assert down[:3] == ["T1", "app1.example.com", iso(stop)]
    argv = ["journalctl", "--no-pager", "--output=short-unix", "-u", "backend", "-u", "frontend"]
    argv.append(f"--since=@{int(stop)}")
    lines = portal.app.run(argv).stdout.decode().splitlines()
    did = [float(line.split()[0]) for line in lines if re.search(r": (Started|Stopped) ", line)]
    # Down, up, down, up: of both services.
    assert len(did) == 8
    assert int(stop) <= did[0] < sign < did[4] <= did[7] <= parse_iso(down[3]) + 1

    about = dict(table(text, "about"))
    assert (about["Failed version"], about["Back on"]) == ("v1.2.4", "v1.2.3")
    assert about["Issue"] == outcome["incident_url"]
    assert about["Due"] == iso(sign + 48 * 3600)
    (safe,) = table(text, "safeguards")
    assert safe[:6] == ["T1", "app1.example.com", "restored", "yes", "yes", "v1.2.3"]
    boxes = re.findall(r"^- \[(.)\] ", block(text, "data") + block(text, "done"), re.MULTILINE)
    assert boxes and set(boxes) == {"x"}
    assert PASSWORD not in text
    # Nothing in it is untrue; what only people know is left.
    checked = portal.published.run("deployguard", "postmortem", "check", str(path), "--json")
    (verdict,) = [json.loads(line) for line in checked.stdout.splitlines() if line[:1] == "{"]
    assert checked.returncode == 8
    assert (verdict["wrong"], verdict["incident"]) == ([], outcome["incident"])
