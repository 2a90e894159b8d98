"""2025-11-03: `rm -rf src` took files with it that only production had, and PM2 said "online".

A Node API under PM2 in the home directory of its user, beside a worker that the deploy has no part
in. The release has new routes and none of the three files. The plan is playbooks/irisx/plan.yaml,
to the letter or with one line changed; docs/incidents/rm-rf-src.md shows what it says.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, shown
from tests.docs.test_commands import assert_shown
from tests.fleet.fleet import Fleet
from tests.fleet.host import Host
from tests.fleet.tree import Entry
from tests.playbooks.published import Published

SOURCES = Path(__file__).parent / "irisx"
PAGE = ROOT / "docs" / "incidents" / "rm-rf-src.md"
HOME = "/home/ubuntu"
BACKEND = f"{HOME}/irisx-backend"
ONLY_IN_PRODUCTION = ("db/connection.js", "db/redis.js", "services/freeswitch.js")
NEW = ("routes/admin-users.js", "middleware/rate-limit.js", "services/analytics.js")

WORKER = 'setInterval(() => console.log("worker: waiting for calls"), 60000);\n'


class Irisx:
    """The machine of that day, and somebody with a plan."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.host: Host = fleet.hosts[0]
        self.published = Published(fleet, folder, ["api1.example.com"])
        self.folder = folder
        (folder / "dist").mkdir()
        with tarfile.open(folder / "dist" / "api-src-v25.tar.gz", "w:gz") as tar:
            tar.add(SOURCES / "release", arcname="src")

    def lay_out(self) -> None:
        """Week 24 is live, as it grew by hand; nobody ever deployed with anything but tar."""
        for process in self.listed():
            self.pm2("delete", process)
        self.host.run(["rm", "-rf", BACKEND, f"{HOME}/.local"])
        for source in sorted((SOURCES / "production").rglob("*.js")):
            path = f"{BACKEND}/src/{source.relative_to(SOURCES / 'production')}"
            self.host.write(path, source.read_bytes(), owner="ubuntu")
        self.host.write(f"{BACKEND}/worker.js", WORKER, owner="ubuntu")
        self.pm2("start", f"{BACKEND}/src/index.js", "--name", "irisx-api")
        self.pm2("start", f"{BACKEND}/worker.js", "--name", "irisx-worker")
        self.pm2("save")

    def pm2(self, *words: str) -> str:
        """PM2 as its owner has it."""
        argv = ["runuser", "-u", "ubuntu", "--", "env", f"HOME={HOME}", "pm2", *words]
        return self.host.run(argv).stdout.decode()

    def listed(self) -> dict[str, dict[str, Any]]:
        """What `pm2 list` shows, by name."""
        text = self.pm2("jlist")
        found = json.loads(text[text.rindex("\n[") if "\n[" in text else 0 :])
        return {entry["name"]: entry for entry in found}

    def change(self, old: str, new: str) -> None:
        """One change of the plan."""
        path = self.folder / "plan.yaml"
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def deploy(self, *options: str) -> subprocess.CompletedProcess[str]:
        """As somebody types it."""
        return self.published.run("deployguard", "apply", "plan.yaml", *options)

    def health(self) -> dict[str, Any]:
        """What the API says of itself; empty where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.host.address}:3000/health", timeout=5) as it:
                found: dict[str, Any] = json.loads(it.read())
                return found
        except (urllib.error.URLError, ConnectionError):
            return {}

    def tree(self) -> dict[bytes, Entry]:
        """Everything below the backend's folder. The folder's own time says that a tree was staged
        in it once."""
        found = self.host.tree(BACKEND)
        return {path: entry for path, entry in found.items() if path != b"."}


@pytest.fixture(scope="module")
def ubuntu(fleet: Fleet) -> Iterator[Host]:
    """A host with that user, empty again after the last test."""
    host = fleet.hosts[0]
    host.run(["useradd", "--create-home", "--shell", "/bin/bash", "ubuntu"])
    key = host.client_key.with_suffix(".pub").read_bytes()
    host.write(f"{HOME}/.ssh/authorized_keys", key, mode=0o600, owner="ubuntu")
    yield host
    host.reset()


@pytest.fixture
def irisx(fleet: Fleet, ubuntu: Host, tmp_path: Path) -> Irisx:
    """Week 24 is live and well."""
    assert ubuntu.running
    irisx = Irisx(fleet, Path(shutil.copytree(ROOT / "playbooks" / "irisx", tmp_path / "irisx")))
    irisx.lay_out()
    deadline = time.monotonic() + 30
    while irisx.health().get("status") != "healthy":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return irisx


def is_shown(command: str, number: int, said: str) -> None:
    """The page shows this, where it shows that command for the nth time."""
    found = [one for one in shown(PAGE) if one.command == command]
    lines = [line for line in said.splitlines() if line and not line.startswith("{")]
    assert_shown([line for line in found[number].output if line], "\n".join(lines))


@pytest.fixture
def without_keep(irisx: Irisx) -> Irisx:
    """The plan as somebody writes it who does not know of the three files."""
    irisx.change("    keep: [db, services/freeswitch.js]\n", "")
    return irisx


def test_refused_by_name(without_keep: Irisx) -> None:
    """The three files are named, and not a byte or a process was touched."""
    irisx, files, pm2 = without_keep, without_keep.tree(), without_keep.listed()
    refused = irisx.deploy()
    assert refused.returncode == 5, refused.stdout
    for name in ONLY_IN_PRODUCTION:
        assert name in refused.stdout
    is_shown("deployguard apply plan.yaml", 0, refused.stdout)
    # Gone over that, the modules are missed where the release asks for them.
    forced = irisx.deploy("--drift", "save")
    assert forced.returncode == 5, forced.stdout
    for needed in ("./db/connection", "./db/redis", "./services/freeswitch"):
        assert f"index.js:17 needs {needed}" in forced.stdout
    is_shown("deployguard apply plan.yaml --drift save", 0, forced.stdout)
    assert irisx.tree() == files
    assert {n: e["pid"] for n, e in irisx.listed().items()} == {n: e["pid"] for n, e in pm2.items()}
    assert irisx.health()["version"] == "v24"


def test_deployed_with_all_of_them_present(irisx: Irisx) -> None:
    """With `keep` the new routes are there, and the three files as they were."""
    before = irisx.host.tree(f"{BACKEND}/src")
    worker = irisx.listed()["irisx-worker"]["pid"]
    done = irisx.deploy()
    assert done.returncode == 0, done.stdout
    is_shown("deployguard apply plan.yaml", 1, done.stdout)
    after = irisx.host.tree(f"{BACKEND}/src")
    assert {name.encode() for name in (*ONLY_IN_PRODUCTION, *NEW)} <= set(after)
    for name in ONLY_IN_PRODUCTION:
        assert after[name.encode()] == before[name.encode()]
    healthy = {"status": "healthy", "version": "v25", "opened": ["postgres", "redis", "freeswitch"]}
    assert irisx.health() == healthy
    assert irisx.listed()["irisx-worker"]["pid"] == worker


def test_forced_it_breaks_and_comes_back(
    without_keep: Irisx, capsys: pytest.CaptureFixture[str]
) -> None:
    """PM2 says online, nobody answers on 3000: found, named, and restored identical."""
    irisx = without_keep
    irisx.change("imports: {node", "imports: {critical: false, node")
    files, pm2 = irisx.tree(), irisx.listed()
    saved = irisx.host.read(f"{HOME}/.pm2/dump.pm2")
    failed = irisx.deploy("--drift", "save", "--json")
    assert failed.returncode == 3, failed.stdout
    said = "process up, not serving: PM2 says online, but 127.0.0.1 port 3000 is closed"
    assert said in failed.stdout
    is_shown("deployguard apply plan.yaml --drift save", 1, failed.stdout)
    outcome = json.loads([line for line in failed.stdout.splitlines() if line[:1] == "{"][-1])
    layers = {(one["layer"], one["name"]) for one in outcome["findings"]}
    assert {("port", "port"), ("disagreement", "process/port"), ("imports", "imports")} <= layers
    assert irisx.tree() == files
    assert irisx.health()["version"] == "v24"
    after = irisx.listed()
    for name in ("irisx-api", "irisx-worker"):
        assert after[name]["pm_id"] == pm2[name]["pm_id"]
        assert after[name]["pm2_env"]["status"] == "online"
    assert after["irisx-worker"]["pid"] == pm2["irisx-worker"]["pid"]
    assert irisx.host.read(f"{HOME}/.pm2/dump.pm2") == saved
    evidence = Path(outcome["forensics"])
    assert "Cannot find module './db/connection'" in (evidence / "api-service.log").read_text()
    table = json.loads((evidence / "api-pm2.json").read_text())
    assert {entry["name"]: entry["status"] for entry in table["processes"]} == {
        "irisx-api": "online",
        "irisx-worker": "online",
    }
    (host,) = outcome["hosts"]
    with capsys.disabled():
        print(f"\nrm -rf src: {json.dumps(host['seconds'])}")


def test_an_api_that_is_down_already_is_noticed(irisx: Irisx) -> None:
    """The code of week 24 asked for routes of week 25: nobody had looked before they deployed."""
    stale = (SOURCES / "stale" / "index.js").read_bytes()
    irisx.host.write(f"{BACKEND}/src/index.js", stale, owner="ubuntu")
    irisx.pm2("restart", "irisx-api")
    assert irisx.health() == {} and irisx.listed()["irisx-api"]["pm2_env"]["status"] == "online"
    before = irisx.tree()
    refused = irisx.deploy()
    assert refused.returncode == 5, refused.stdout
    assert "process up, not serving: PM2 says online" in refused.stdout
    is_shown("deployguard apply plan.yaml", 2, refused.stdout)
    assert irisx.tree() == before
    fixed = irisx.deploy("--fix")
    assert fixed.returncode == 0, fixed.stdout
    is_shown("deployguard apply plan.yaml --fix", 0, fixed.stdout)
    assert irisx.health()["version"] == "v25"
