"""Every command that the documentation shows is run, and its output is the one that is shown."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT, Shown, blocks, shown
from tests.notify.providers import PagerDutyPeer, SlackPeer, StatuspagePeer

pytestmark = pytest.mark.docs

README = ROOT / "README.md"
CLI = ROOT / "docs" / "cli.md"
INCIDENTS = ROOT / "docs" / "incidents.md"
METRICS = ROOT / "docs" / "metrics.md"
DRAWN = ROOT / "docs" / "pages.md"
NOTIFICATIONS = ROOT / "docs" / "notifications.md"
REST = (METRICS, DRAWN)
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "playbooks" / "README.md"]
DEMO = ROOT / "playbooks" / "demo"

_RM_RF_SRC = "tests/incidents/test_rm_rf_src.py::is_shown"
_CHAT = "tests/incidents/test_chat.py::as_shown"
_CONTAINMENT = "tests/incidents/test_containment.py::is_shown"
_ENGINE = "tests/scenarios/test_engine.py::test_a_good_deploy_and_a_bad_one"
_TLS = "tests/scenarios/test_engine.py::test_with_tls"
_DASK = "DASK_DISTRIBUTED__COMM__"
#: What is not run below: who runs it, or why nobody does.
ELSEWHERE = {
    "make demo": "tests/playbooks/test_demo.py::test_what_is_served_after_each_step",
    "make test": "runs this test",
    "pip install .": "tests/docs/test_install.py::test_install",
    "deployguard apply plan.yaml": _RM_RF_SRC,
    "deployguard apply plan.yaml --drift save": _RM_RF_SRC,
    "deployguard apply plan.yaml --release v1.2.4": (
        "tests/incidents/test_connection_pool.py::is_shown"
    ),
    "deployguard apply plan.yaml --fix": _RM_RF_SRC,
    "deployguard snapshots list plan.yaml": "tests/cli/test_restore.py::test_lists_and_words",
    "deployguard snapshots verify plan.yaml": "tests/cli/test_restore.py::test_lists_and_words",
    "deployguard restore plan.yaml": "tests/cli/test_restore.py::test_an_empty_host",
    "deployguard watch plan.yaml --for 1s": _CONTAINMENT,
    "deployguard incident respond plan.yaml --choose rollback --yes": _CONTAINMENT,
    'deployguard incident resolve --cause "quote sessions leak" --fix "closed in v1.5.1"': (
        _CONTAINMENT
    ),
    'deployguard incident close --anyway "the post-mortem is in the handbook"': _CONTAINMENT,
    "deployguard incident list --all": _CONTAINMENT,
    'deployguard apply plan.yaml --override "ci=merged by force" '
    '--override "change_size=merged by force"': "tests/incidents/test_force_merge.py::is_shown",
    "pip install 'deployguard[fleet]'": "what `make venv` installs",
    "dask scheduler": _ENGINE,
    "dask worker tcp://scheduler:8786": _ENGINE,
    "deployguard apply plan.yaml --engine dask://scheduler:8786 "
    "--journal postgresql://deploy@db/deployguard": _ENGINE,
    f"export {_DASK}REQUIRE_ENCRYPTION=true": _TLS,
    f"export {_DASK}TLS__CA_FILE=ca.pem": _TLS,
    f"export {_DASK}TLS__CLIENT__CERT=deployer.pem": _TLS,
    f"export {_DASK}TLS__CLIENT__KEY=deployer.key": _TLS,
    "deployguard apply plan.yaml --release v3": _CHAT,
    'deployguard incident ack "looking at the database"': _CHAT,
    'deployguard incident update "Chats can be read and written again."': _CHAT,
    'deployguard incident resolve --cause "v2 keeps connections to the database" '
    '--fix "back on v1"': _CHAT,
    "deployguard postmortem draft INC-20261121-001 --plan plan.yaml": _CHAT,
    "deployguard postmortem check contexts/retrospectives": _CHAT,
    "deployguard metrics --environment production": _CHAT,
    "python -m bench.deploy --hosts 1,10,40 --runs 3 --write": "takes an hour; its options hold",
    "python -m bench.store --write": "takes a minute of a quiet machine; its options hold",
}
#: What a run has of its own: times, ids, ports, folders.
OWN = [
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\dZ?"), "DATE TIME"),
    (re.compile(r"INC-\d{8}"), "INC-DAY"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"\d{8}T\d{6}-[a-z]+-[0-9a-f]{6}"), "TRANSACTION"),
    (
        re.compile(r"(?:(?<=assessment, )|(?<=took )|(?<=began )|(?<=downtime: ))[\d.]+ s\b"),
        "SECONDS",
    ),
    (re.compile(r"\([\d.]+ (?:s|min) ago\)"), "(AGO)"),
    (re.compile(r"\b\d+\.\d{3,}\b"), "NUMBER"),
    (re.compile(r"since [\d.]+ (?:s|min)\b"), "since SECONDS"),
    (re.compile(r" *\b\d+(?:\.\d+)? s\b"), " SECONDS"),
    (re.compile(r"the month \d{4}-\d\d"), "the month MONTH"),
    (re.compile(r" {2,}"), "  "),
    (re.compile(r"(port |127\.0\.0\.1:)\d+"), r"\1PORT"),
    (re.compile(r"\S+/forensics/v3-\d+"), "FORENSICS"),
    (re.compile(r"\S+/deployment-rollbacks/\d{4}-\d\d-\d\d-v3\.md"), "POSTMORTEM"),
    (re.compile(r"\(in 4[78]\.\d h\)"), "(in 48 h)"),
]


@dataclass
class Folder:
    """A folder with a plan, and a user who types commands there."""

    path: Path
    environment: dict[str, str]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """One line of a shell; both its channels are in ``stdout``, as in a terminal."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """The demo's plan with its three releases, of which the third is broken."""
    path = tmp_path / "shop"
    path.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GITHUB_", "DEPLOYGUARD_"))
    }
    environment |= {
        "DEPLOYGUARD_STATE": str(tmp_path / "state"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SHOP_PORT": str(port),
    }
    shutil.copy(DEMO / "plan.yaml", path)
    for version in ("v1", "v2", "v3"):
        shutil.copytree(DEMO / "app", path / "releases" / version)
        (path / "releases" / version / "VERSION").write_text(f"{version}\n")
    (path / "releases" / "v3" / "settings.json").write_text('{"currency": "EUR"}\n')
    yield Folder(path, environment)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = os.readlink(process / "cwd").startswith(str(path))
        except OSError:
            continue
        if inside:
            os.kill(int(process.name), signal.SIGKILL)


def plain(text: str) -> str:
    """A line without what differs from run to run."""
    for pattern, word in OWN:
        text = pattern.sub(word, text)
    return text.rstrip()


def assert_shown(expected: Sequence[str], output: str) -> None:
    """The lines are in the output, one right after the other but for an ``…`` between them."""
    actual = [plain(line) for line in output.splitlines()]
    at, gap = 0, False
    for line in expected:
        if line.strip() == "…":
            gap = True
            continue
        wanted = plain(line)
        if gap:
            assert wanted in actual[at:], f"{wanted!r} is not in:\n{output}"
            at = actual.index(wanted, at)
        else:
            assert actual[at] == wanted, output
        at, gap = at + 1, False
    assert gap or not "".join(actual[at:]), f"more follows:\n{output}"


def test_every_command_is_run() -> None:
    """A command on any other page, or a new one, needs its line here."""
    run_here = {
        str(one) for page in (README, CLI, INCIDENTS, NOTIFICATIONS, *REST) for one in shown(page)
    }
    left = [one for page in PAGES for one in shown(page) if str(one) not in run_here]
    left += [one for one in shown(README) if not one.command.startswith("deployguard")]
    assert {one.command for one in left} == set(ELSEWHERE)
    for test in ELSEWHERE.values():
        file, found, name = test.partition("::")
        assert not found or f"def {name}(" in (ROOT / file).read_text()


def test_the_readme(folder: Folder) -> None:
    """From v1 to v2, and to v3, which fails: the output is what the readme shows."""
    plan = (folder.path / "plan.yaml").read_text()
    assert f"<!-- plan: playbooks/demo/plan.yaml -->\n```yaml\n{plan}```" in README.read_text()
    assert folder.run("deployguard apply plan.yaml").returncode == 0
    commands = [one for one in shown(README) if one.command.startswith("deployguard")]
    assert [folder_run(folder, one) for one in commands] == [0, 3, 0]


def test_the_night_of_the_incidents(folder: Folder) -> None:
    """From the deploy that failed to the incident that somebody opens: as the page shows it."""
    folder.run("deployguard apply plan.yaml --release v2")
    assert folder.run("deployguard apply plan.yaml --release v3").returncode == 3
    assert [folder_run(folder, one) for one in shown(INCIDENTS)] == [0] * 5 + [8, 0, 0, 0]


def test_the_metrics_and_the_report(folder: Folder) -> None:
    """After one deploy that failed, as the pages show them."""
    folder.run("deployguard apply plan.yaml --release v2")
    assert folder.run("deployguard apply plan.yaml --release v3").returncode == 3
    assert [folder_run(folder, one) for page in REST for one in shown(page)] == [0, 0]
    (drawn,) = folder.path.glob("*.html")
    assert "shop v3 in demo: rolled back" in drawn.read_text()


def test_the_notifications(folder: Folder) -> None:
    """The plan of the page with peers on this machine: the test, and a night without a token."""
    plan = (folder.path / "plan.yaml").read_text()
    text, words = blocks(NOTIFICATIONS, "yaml")
    peers = {"slack": SlackPeer(), "pagerduty": PagerDutyPeer(), "statuspage": StatuspagePeer()}
    whole = yaml.safe_load(text)
    for channel in whole["notify"]["channels"].values():
        for kind, peer in peers.items():
            if kind in channel:
                channel[kind]["base_url"] = peer.url
    secrets = {
        "SLACK_TOKEN": SlackPeer.secret,
        "PAGERDUTY_KEY": PagerDutyPeer.secret,
        "STATUSPAGE_TOKEN": StatuspagePeer.secret,
        "NO_PROXY": "127.0.0.1",
    }
    (folder.path / "plan.yaml").write_text(plan + yaml.safe_dump(whole, sort_keys=False))
    trial, *others = shown(NOTIFICATIONS)
    try:
        folder.environment |= secrets
        assert folder_run(folder, trial) == 1
        assert peers["statuspage"].incidents == []  # type: ignore[attr-defined]

        channels = whole["notify"]["channels"]
        whole["notify"]["channels"] = {"ops": channels["ops"]}
        whole["notify"] |= yaml.safe_load(words)["notify"]
        (folder.path / "messages").mkdir()
        (folder.path / "messages" / "customers.j2").write_text("{{ product }}: {{ kind }}")
        (folder.path / "plan.yaml").write_text(plan + yaml.safe_dump(whole, sort_keys=False))
        del folder.environment["SLACK_TOKEN"]
        folder.run('deployguard incident open high "API down" --plan plan.yaml')
        assert folder_run(folder, others[0]) == 0
        folder.environment |= secrets
        assert [folder_run(folder, one) for one in others[1:]] == [0, 0]
        assert [peer.violations for peer in peers.values()] == [[], [], []]
    finally:
        for peer in peers.values():
            peer.close()


def folder_run(folder: Folder, one: Shown) -> int:
    """The exit code of a command whose output is as it is shown."""
    done = folder.run(one.command)
    assert_shown([line for line in one.output if line], _without_blanks(done.stdout))
    return done.returncode


def _without_blanks(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line)


def test_the_lines_of_the_library(folder: Folder) -> None:
    """The script of the readme deploys, and ends with the outcome's code."""
    (script,) = blocks(README, "python")
    (folder.path / "deploy.py").write_text(script)
    done = folder.run("python deploy.py")
    assert (done.returncode, done.stdout) == (0, "v1 is live on 1 host, healthy\n")


def test_the_commands_of_the_command_line(folder: Folder) -> None:
    """Each in its turn on a plan that is all right."""
    commands = [one for one in shown(CLI) if "|" not in one.command]
    assert len(commands) >= 6
    for one in commands:
        done = folder.run(one.command)
        assert done.returncode == 0, f"{one}\n{done.stdout}"
        assert not one.output


TWO_HOSTS = """\
name: pair
version: v1
hosts:
  web1: {{transport: local, state_directory: "{root}/web1"}}
  web2: {{transport: local, state_directory: "{root}/web2"}}
components:
  first: {{artifact: releases/v1, path: "{root}/first", hosts: [web1], checks: [{{command: ["true"]}}]}}
  second: {{artifact: releases/v1, path: "{root}/second", hosts: [web2], checks: [{{command: ["true"]}}]}}
"""  # noqa: E501 - a component a line


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_example_for_jq(folder: Folder) -> None:
    """The last JSON line has each host's state."""
    (folder.path / "plan.yaml").write_text(TWO_HOSTS.format(root=folder.path))
    (one,) = [one for one in shown(CLI) if "| jq" in one.command]
    done = folder.run(f"{{ {one.command.replace(' |', ' 2>/dev/null |', 1)}; }}")
    assert done.stdout.splitlines() == list(one.output)


def test_the_options_of_the_benchmarks() -> None:
    """The commands that bring docs/performance.md up to date still parse."""
    for one in shown(ROOT / "docs" / "performance.md"):
        words = [*one.command.split()[1:], "--help"]
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
