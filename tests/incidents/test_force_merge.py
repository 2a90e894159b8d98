"""2025-08-11: a merge by force, 519 files, and a telemetry module that was not among them.

Ten services of one compose file in a git checkout. Before the merge six of nine are healthy; two
are started over and over, and the container of airtable-gateway calls itself unhealthy while its
endpoint answers. The plan is playbooks/platform/plan.yaml; docs/incidents/force-merge.md shows what
it says.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, shown
from tests.docs.test_commands import assert_shown
from tests.drivers.stacks import python_on
from tests.fleet.fleet import Fleet
from tests.fleet.host import Host
from tests.fleet.tree import Entry
from tests.github.server import GitHubServer, checked
from tests.playbooks.published import Published

SOURCES = Path(__file__).parent / "platform"
PAGE = ROOT / "docs" / "incidents" / "force-merge.md"
CHECKOUT = "/srv/platform"
IN_ORDER = (
    *("postgres", "redis", "platform-services", "airtable-gateway", "api-gateway"),
    *("llm-orchestrator", "mcp-server", "automation-services", "saga-orchestrator", "frontend"),
)
HEALTHY = {*IN_ORDER[:3], *IN_ORDER[4:7]}
NOT_HEALTHY = {"airtable-gateway", "automation-services", "saga-orchestrator"}
FILES, COMMITS = 519, 12
OVERRIDES = (
    *("--override", "ci=merged by force"),
    *("--override", "change_size=merged by force"),
)


class Platform:
    """The machine of that day, and somebody with a clone, a plan and a tag that CI calls red."""

    def __init__(self, fleet: Fleet, folder: Path, github: GitHubServer) -> None:
        self.host: Host = fleet.hosts[0]
        self.folder = folder
        self.published = Published(fleet, folder, ["prod1.example.com"])
        self.published.environment |= {"GITHUB_API_URL": github.url, "GITHUB_TOKEN": github.token}
        self.clone = folder / "platform"
        shutil.copytree(SOURCES, self.clone)
        self.git("init", "-q", "-b", "main")
        self._commit("Sprint 3")
        self.before = self.git("rev-parse", "HEAD")
        self.git("bundle", "create", "-q", str(folder / "before.bundle"), "main")
        self._merge()
        self.after = self.git("rev-parse", "HEAD")
        commits = github.repository.commits
        commits.push(self.after, "sprint-4")
        for name in ("test", "build", "lint"):
            commits.set_check(self.after, name, conclusion="failure")

    def git(self, *words: str) -> str:
        """In the clone."""
        names = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
        argv = ["git", "-C", str(self.clone), *names, *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def _commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "-q", "--message", message)

    def _merge(self) -> None:
        """Every Python service asks for shared/telemetry.py, which nobody has added."""
        self.git("checkout", "-q", "-b", "feature/sprint-4-cleanup")
        changed = sorted((self.clone / "services").glob("*_*.py"))
        changed = [path for path in changed if path.name != "__init__.py"]
        for path in changed:
            line = "from shared.server import serve\n"
            text = path.read_text().replace(line, f"{line}from shared.telemetry import traced\n")
            path.write_text(text.replace("    serve(", "    traced(serve)("))
        self._commit("Telemetry everywhere")
        pages = self.clone / "docs" / "sprint-4"
        pages.mkdir(parents=True)
        left = FILES - len(changed)
        for commit in range(COMMITS - 1):
            for number in range(commit, left, COMMITS - 1):
                (pages / f"page-{number:03}.md").write_text(f"# Page {number}\n")
            self._commit(f"Clean up, part {commit + 1}")
        self.git("checkout", "-q", "main")
        self.git("merge", "-q", "--no-ff", "feature/sprint-4-cleanup", "-m", "Merge #19")
        self.git("tag", "sprint-4")

    # -- the machine -------------------------------------------------------------------------

    def lay_out(self) -> None:
        """As it ran that day: started by hand, one after the other, past what would not wait."""
        self.tidy()
        self.host.write("/srv/before.bundle", (self.folder / "before.bundle").read_bytes())
        self.host.run(["git", "clone", "-q", "-b", "main", "/srv/before.bundle", CHECKOUT])
        self.compose("build", "-q")
        # A service that needs one of its own group waits for it, and for no other.
        for group in (IN_ORDER[:2], IN_ORDER[2:4], IN_ORDER[4:]):
            self.compose("up", "-d", "--no-deps", *group)
        deadline = time.monotonic() + 120
        while not self.as_it_was():
            assert time.monotonic() < deadline, self.states()
            time.sleep(0.1)

    def as_it_was(self) -> bool:
        """Six are healthy, and the three are not well, each in its own way."""
        states = self.states()
        return (
            self.head() == (self.before, "main")
            and self.well() == HEALTHY
            and states["airtable-gateway"][1] == "unhealthy"
            and NOT_HEALTHY | HEALTHY | {"frontend"} == set(states)
        )

    def tidy(self) -> None:
        """Nothing of it is left for whoever has the host next."""
        ids = [one["Id"] for one in self.containers().values()]
        if ids:
            self.host.run(["docker", "rm", "-f", "-v", *ids])
        self.host.run(["docker", "network", "prune", "--force"])
        state = "/var/lib/deployguard"
        self.host.run(["rm", "-rf", CHECKOUT, "/srv/.platform.deployguard", state])

    def compose(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """As somebody types it in the checkout."""
        argv = ["docker-compose", "--project-directory", CHECKOUT, "-p", "platform"]
        return self.host.run([*argv, "-f", f"{CHECKOUT}/docker-compose.yml", *words])

    def containers(self) -> dict[str, dict[str, Any]]:
        """By service, what the engine says."""
        label = "label=com.docker.compose.project=platform"
        argv = ["docker", "ps", "-aq", "--filter", label]
        ids = self.host.run(argv).stdout.decode().split()
        if not ids:
            return {}
        found = json.loads(self.host.run(["docker", "inspect", *ids]).stdout)
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def states(self) -> dict[str, tuple[str, str]]:
        """State and health by service."""
        return {
            name: (one["State"]["Status"], one["State"].get("Health", {}).get("Status", ""))
            for name, one in self.containers().items()
        }

    def well(self) -> set[str]:
        """The services whose containers call themselves healthy."""
        return {name for name, (_, health) in self.states().items() if health == "healthy"}

    def head(self) -> tuple[str, str]:
        """Commit and branch of the checkout."""
        if not self.host.path(CHECKOUT).exists():
            return "", ""
        commit = self.on_host("rev-parse", "HEAD")
        return commit, self.on_host("symbolic-ref", "--short", "HEAD")

    def on_host(self, *words: str) -> str:
        """git in the checkout."""
        return self.host.run(["git", "-C", CHECKOUT, *words]).stdout.decode().strip()

    def tree(self) -> dict[bytes, Entry]:
        """Everything in the checkout but the repository, which has a tag more."""
        found = self.host.tree(CHECKOUT)
        return {
            path: entry._replace(mtime_ns=0) if entry.kind == "directory" else entry
            for path, entry in found.items()
            if path != b".git" and not path.startswith(b".git/")
        }

    # -- somebody ----------------------------------------------------------------------------

    def change(self, old: str, new: str) -> None:
        """One change of the plan."""
        path = self.folder / "plan.yaml"
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def deploy(self, *options: str) -> subprocess.CompletedProcess[str]:
        """As somebody types it."""
        return self.published.run("deployguard", "apply", "plan.yaml", *options)


@pytest.fixture(scope="module")
def machine(engine_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One for all: what is refused, or comes back, leaves it as it was."""
    folder = tmp_path_factory.mktemp("platform") / "plan"
    shutil.copytree(ROOT / "playbooks" / "platform", folder)
    engine_fleet.enter()  # that is where GitHub is to listen
    with checked("acme/platform") as github:
        engine_fleet.leave()
        made = Platform(engine_fleet, folder, github)
        yield made
        made.tidy()


@pytest.fixture
def platform(machine: Platform, engines: Fleet) -> Platform:
    """The platform as it was at 19:44."""
    python_on(engines.hosts[0])
    shutil.copy(ROOT / "playbooks" / "platform" / "plan.yaml", machine.folder / "plan.yaml")
    if not machine.as_it_was():
        machine.lay_out()
    return machine


def is_shown(number: int, said: str) -> None:
    """The page shows this as its nth output."""
    lines = [line for line in said.splitlines() if line and not line.startswith("{")]
    wanted = [line for line in shown(PAGE)[number].output if line]
    assert_shown([_plain(line) for line in wanted], _plain("\n".join(lines)))


#: What a run has of its own, beyond what every run has.
OWN = (
    (re.compile(r"\(([0-9a-f]{7})\)|\b[0-9a-f]{12}(?=, which is live)"), "COMMIT"),
    (re.compile(r"\d{8}T\d{6}-platform-[0-9a-f]{6}"), "TRANSACTION"),
    (re.compile(r"\.\d+Z "), " "),
)


def _plain(text: str) -> str:
    for pattern, word in OWN:
        text = pattern.sub(word, text)
    return text


def test_refused_three_times(platform: Platform) -> None:
    """By CI, by its size, and by the module that is missing; nothing is touched by any of it."""
    containers, tree = platform.containers(), platform.tree()
    refused = platform.deploy()
    assert refused.returncode == 5, refused.stdout
    assert f"{FILES} files" in refused.stdout
    assert "is not green" in refused.stdout
    is_shown(0, refused.stdout)
    forced = platform.deploy(*OVERRIDES)
    assert forced.returncode == 5, forced.stdout
    assert "shared.telemetry" in forced.stdout
    is_shown(1, forced.stdout)
    assert platform.head() == (platform.before, "main")
    assert platform.tree() == tree
    now = platform.containers()
    assert {name: one["Id"] for name, one in now.items()} == {
        name: one["Id"] for name, one in containers.items()
    }
    assert platform.well() == HEALTHY


def test_forced_it_breaks_and_comes_back(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six healthy and the same three not, of the very images, in order; and a tag."""
    platform.change(
        "          packages: false ", "          critical: false\n          packages: false "
    )
    images = {name: one["Image"] for name, one in platform.containers().items()}
    tree = platform.tree()
    failed = platform.deploy(*OVERRIDES, "--json")
    assert failed.returncode == 3, failed.stdout
    is_shown(2, failed.stdout)
    outcome = json.loads([line for line in failed.stdout.splitlines() if line[:1] == "{"][-1])

    # The checkout is what it was, to the commit, the branch and the byte.
    assert platform.head() == (platform.before, "main")
    assert platform.tree() == tree
    assert platform.on_host("status", "--porcelain") == ""
    tag = f"deployguard/{outcome['transaction']}"
    assert platform.on_host("rev-parse", f"{tag}^{{commit}}") == platform.before

    # The stack is: the same six are healthy, the same three are not, of the very images.
    after = platform.containers()
    assert {name: one["Image"] for name, one in after.items()} == images
    assert platform.well() == HEALTHY
    assert set(after) - platform.well() - {"frontend"} == NOT_HEALTHY
    assert after["frontend"]["State"]["Running"]
    started = {name: one["Created"] for name, one in after.items()}
    assert set(started) == set(IN_ORDER)
    first = {name: after[name]["State"]["StartedAt"] for name in HEALTHY | {"frontend"}}
    for before, later in (
        ("postgres", "platform-services"),
        ("redis", "platform-services"),
        ("platform-services", "api-gateway"),
        ("api-gateway", "frontend"),
    ):
        assert first[before] < first[later], "not in order of dependency"

    # What was found: why it broke, and that one of the three only says that it is not well.
    said = {(one["layer"], one["name"]): one for one in outcome["findings"]}
    assert "platform-services" in said["step", "start"]["message"]
    assert not said["imports", "imports"]["critical"]
    lies = said["disagreement", "container/http"]
    assert (
        "the container of airtable-gateway says unhealthy, the endpoint answers healthy"
        in (lies["message"])
    )
    assert "curl: not found" in lies["evidence"]
    assert "No module named 'shared.telemetry'" in said["log", "platform-service.log"]["message"]
    log = (Path(outcome["forensics"]) / "platform-service.log").read_text()
    assert log.rstrip().endswith("No module named 'shared.telemetry'")
    (host,) = outcome["hosts"]
    assert host["healthy"] and host["verified"]
    seconds = outcome["ended_at"] - outcome["started_at"]
    assert seconds < 11 * 60, "the people took eleven minutes for four services"
    with capsys.disabled():
        print(f"\nforce merge: {seconds:.0f} s in all, {json.dumps(host['seconds'])}")


@pytest.mark.slow
def test_by_hand_it_is_four_services(platform: Platform) -> None:
    """What the people did that night, and what they got: `up` waits for airtable-gateway."""
    platform.compose("down")
    argv = ["docker-compose", "-p", "platform", "up", "-d"]
    done = platform.host.run(["sh", "-c", 'cd "$0" && exec "$@"', CHECKOUT, *argv], check=False)
    assert done.returncode != 0
    running = {name for name, (state, _) in platform.states().items() if state == "running"}
    assert running == {"postgres", "redis", "platform-services", "airtable-gateway"}
