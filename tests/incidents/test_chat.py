"""A chat platform in Kubernetes: two of its health endpoints are critical, two are not.

A deploy that breaks it and comes back, and a night on which it breaks after the deploy: seen once,
rated, told to everybody over their own channel, rolled back by kubectl, written up, counted. The
plan is playbooks/chat/plan.yaml, but for the addresses of the channels and the patience of `watch`;
docs/incidents/chat-platform.md shows what it says.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.chat import ChatPlatform
from tests.cluster.cluster import Cluster, kubectl
from tests.docs.pages import ROOT, shown
from tests.docs.test_commands import assert_shown
from tests.notify.places import PLACES, Place

PAGE = ROOT / "docs" / "incidents" / "chat-platform.md"
SENTINEL = "chat-sentinel-password"
CHANNELS = ("slack", "pagerduty", "sms", "email", "statuspage")
#: What customers are told, in their words.
CUSTOMERS = (
    "We are looking into a problem with Macro AI.",
    "We are working on a solution.",
    "Macro AI works again.",
    "Chats can be read and written again.",
    "The problem is solved.",
)


class Night:
    """The platform, the providers of its channels, and somebody with the playbook."""

    def __init__(self, cluster: Cluster, folder: Path, places: dict[str, Place]) -> None:
        self.cluster = cluster
        self.platform = ChatPlatform(cluster)
        self.places = places
        self.folder = Path(shutil.copytree(ROOT / "playbooks" / "chat", folder / "chat"))
        self.environment = {
            **{
                k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "DEPLOYGUARD_"))
            },
            **{name: value for place in places.values() for name, value in place.environ.items()},
            "CHAT_ROOT": str(folder / "srv" / "chat"),
            "CHAT_URL": self.platform.url,
            "DEPLOYGUARD_STATE": str(folder / "state"),
            "HOME": str(folder),
            "KUBECONFIG": str(cluster.kubeconfig),
            "NO_PROXY": "127.0.0.1,localhost",
            "PATH": ":".join(
                [str(Path(kubectl()).parent), str(Path(sys.executable).parent), os.environ["PATH"]]
            ),
        }
        self._lead_to_the_providers()

    def _lead_to_the_providers(self) -> None:
        """The addresses of the channels, and no waiting between two looks."""
        for kind, last in (
            ("slack", "channel: C024BE91L}"),
            ("pagerduty", "key_env: PAGERDUTY_KEY}"),
            ("sms", 'to: ["+4915112345678"]}'),
            ("statuspage", "components: [ftgks51sfs2d]}"),
        ):
            base = self.places[kind].options["base_url"]
            self.change(last, f"{last[:-1]}, base_url: {base}}}")
        mail = self.places["email"].options
        where = f"host: localhost, port: {mail['port']}, ca_file: {mail['ca_file']}"
        self.change("host: smtp.example.com", where)
        self.change(
            "watch: {window: 30m, interval: 10s}",
            "watch: {failures: 1, group_wait: 0s, group_interval: 0s}",
        )

    def change(self, old: str, new: str) -> None:
        """One change of the plan."""
        path = self.folder / "plan.yaml"
        text = path.read_text()
        assert text.count(old) == 1, old
        path.write_text(text.replace(old, new))

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """As somebody types it; both channels are in ``stdout``, as on a terminal."""
        done = subprocess.run(
            shlex.split(command),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )
        assert SENTINEL not in done.stdout
        return done

    def as_shown(self, number: int, code: int) -> str:
        """Run the nth command of the page: it says what stands there, and ends with that."""
        one = shown(PAGE)[number]
        # The day of the page is another one.
        done = self.run(
            re.sub(r"INC-\d{8}", time.strftime("INC-%Y%m%d", time.gmtime()), one.command)
        )
        assert done.returncode == code, done.stdout
        assert_shown([line for line in one.output if line], without_blank_lines(done.stdout))
        return done.stdout

    def deployed(self, version: str, **options: Any) -> None:
        """A version that is live and well."""
        self.platform.build(version, **options)
        done = self.run(f"deployguard apply plan.yaml --release {version}")
        assert done.returncode == 0, done.stdout

    def incidents(self) -> list[dict[str, Any]]:
        """All of them, as programs are told."""
        text = self.run("deployguard incident list --all --json").stdout
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def rated(self) -> int:
        """How bad an assessment finds it: its severity."""
        text = self.run("deployguard incident respond plan.yaml --assess --json").stdout
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        (rated,) = [line["suggests"] for line in lines if line["type"] == "assessment"]
        return int(rated)

    def told(self, kind: str) -> list[str]:
        """What arrived over a channel."""
        return self.places[kind].arrived()


def without_blank_lines(text: str) -> str:
    """The lines of a text that say something."""
    return "\n".join(line for line in text.splitlines() if line)


@pytest.fixture
def night(cluster: Cluster, tmp_path: Path) -> Iterator[Night]:
    """Everything is well, and nothing is deployed yet."""
    with contextlib.ExitStack() as stack:
        places = {}
        for kind in CHANNELS:
            folder = tmp_path / kind
            folder.mkdir()
            places[kind] = stack.enter_context(PLACES[kind](folder))
        yield Night(cluster, tmp_path, places)
        for place in places.values():
            assert getattr(place.peer, "violations", []) == []
            assert not any(SENTINEL in payload for payload in place.payloads)


@pytest.mark.slow
def test_a_deploy_that_breaks_it(night: Night) -> None:
    """What is not critical is told; what is brings every object back, and opens one incident."""
    platform, cluster = night.platform, night.cluster
    night.deployed("v1")
    platform.down = {"redis"}
    night.deployed("v2")
    before = cluster.objects()
    settings = night.folder / "k8s" / "settings.yaml"
    settings.write_text(settings.read_text().replace("MODEL: small", "MODEL: large"))
    platform.build("v3", broken={"database"}, logs="no database at {DATABASE_PASSWORD}")
    night.as_shown(0, 3)
    assert cluster.objects() == before
    assert platform.health() == {"api": 200, "database": 200, "redis": 503, "ai": 200}
    assert platform.version() == "v2"
    assert cluster.ask(platform.port, "/settings") == (200, {"model": "small"})
    (evidence,) = (night.folder / "forensics").iterdir()
    said = b"".join(path.read_bytes() for path in evidence.rglob("*") if path.is_file())
    assert b"no database at [secret macro-ai/DATABASE_PASSWORD]" in said
    assert SENTINEL.encode() not in said

    (incident,) = night.incidents()
    assert (incident["severity"], incident["state"]) == ("high", "mitigated")
    # High: nobody is sent a text message, and no customer a mail.
    assert night.told("slack") == ["opened"]
    assert night.told("pagerduty") == ["0: trigger"]
    assert night.told("statuspage") == ["0: monitoring"]
    assert night.told("sms") == night.told("email") == []
    drafts = night.folder / "contexts" / "retrospectives" / "deployment-rollbacks"
    (draft,) = drafts.glob("*-v3.md")
    assert "/api/health/database answered 503" in draft.read_text()

    # Tried again, it is the same incident.
    assert night.run("deployguard apply plan.yaml --release v3").returncode == 3
    (again,) = night.incidents()
    assert again["id"] == incident["id"] and again["state"] == "mitigated"
    assert len(night.places["slack"].peer.messages) == 2
    assert night.places["slack"].peer.messages[1]["thread_ts"]
    assert len(night.places["statuspage"].peer.incidents) == 1


def test_it_breaks_after_the_deploy(night: Night) -> None:
    """Rated, seen once, told, rolled back by kubectl, resolved, written up and counted."""
    platform, cluster = night.platform, night.cluster
    night.deployed("v1")
    before = cluster.objects()
    broken: set[str] = set()
    night.deployed("v2", broken=broken)
    assert night.rated() == 4

    # Without Redis people can still sign in and read.
    platform.down = {"redis"}
    assert night.rated() == 3
    watched = night.run("deployguard watch plan.yaml --for 1s")
    assert watched.returncode == 0, watched.stdout
    assert "redis" in watched.stdout and night.incidents() == []

    broken |= {"api", "database"}
    assert night.rated() == 1
    night.as_shown(1, 9)
    (incident,) = night.incidents()
    assert (incident["severity"], incident["state"]) == ("critical", "open")
    # It goes on, and nobody is told twice.
    assert night.run("deployguard watch plan.yaml --for 1s").returncode == 9
    assert len(night.incidents()) == 1
    assert night.told("slack") == night.told("sms") == night.told("email") == ["opened"]
    assert night.told("pagerduty") == ["0: trigger"]
    assert night.told("statuspage") == ["0: investigating"]
    status = night.places["statuspage"].peer
    assert set(status.components.values()) == {"major_outage"}

    night.as_shown(2, 0)  # ack
    night.as_shown(3, 0)  # respond
    assert platform.version() == "v1"
    assert cluster.objects() == before
    assert cluster.get("ConfigMap", "maintenance-mode") is None
    night.as_shown(4, 0)  # update
    platform.down = set()
    night.as_shown(5, 0)  # resolve
    told = ["opened", "acknowledged", "mitigated", "news", "resolved"]
    assert night.told("slack") == told
    mails = [mail.get_content() for _, mail in night.places["email"].peer.mails]
    for mail, words in zip(mails, CUSTOMERS, strict=True):
        assert words in mail and "critical" not in mail and "database" not in mail
    assert night.told("pagerduty") == ["0: trigger", "0: acknowledge", "0: resolve"]
    assert night.told("sms") == ["opened", "mitigated", "news", "resolved"]
    published = ["investigating", "identified", "monitoring", "monitoring", "resolved"]
    assert night.told("statuspage") == [f"0: {word}" for word in published]
    assert set(status.components.values()) == {"operational"}

    night.as_shown(6, 0)  # draft
    night.as_shown(7, 8)  # check
    night.as_shown(8, 0)  # metrics
    drafts = night.folder / "contexts" / "retrospectives" / "deployment-rollbacks"
    (draft,) = drafts.glob("*-v2.md")
    text = draft.read_text()
    assert "was opened by the watch at" in text and "v2 was deployed before that" in text
    for words in (incident["id"], "looking at the database", "rollback: go back to v1"):
        assert words in text
    # What ended well is not said to have failed.
    assert "Failed version" not in text and "not proven" not in text.lower()
