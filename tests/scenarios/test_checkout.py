"""A git checkout on real hosts: brought to a revision, or back as the repository that it was."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.fleet.host import Host
from tests.fleet.tree import Entry
from tests.scenarios.conftest import MakeScene
from tests.scenarios.scene import Scene

TAGS = b".git/refs/tags/deployguard"


class Shop:
    """A scene whose releases are tags of a repository beside the plan."""

    def __init__(self, scene: Scene, **git: Any) -> None:
        self.scene = scene
        self.hosts = scene.hosts
        self.repository = scene.directory / "repository"
        self.source: dict[str, Any] = git or {"repository": "repository", "branch": "main"}
        self.repository.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        """What git answers in the repository of the developers."""
        who = ("-c", "user.name=dev", "-c", "user.email=dev@example.com")
        done = subprocess.run(
            ["git", "-C", str(self.repository), *who, *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, version: str, *, fault: str = "none") -> str:
        """A commit that is the release, tagged with its version."""
        folder = self.scene.release(
            version, fault=fault, based_on="v1" if version == "v1" else "v2"
        )
        (folder / ".git").write_text(f"gitdir: {self.repository}/.git\n")
        who = ("-c", "user.name=dev", "-c", "user.email=dev@example.com")
        for arguments in (["add", "-A", "-f"], ["commit", "-q", "-m", version], ["tag", version]):
            subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True)
        return self.git("rev-parse", version)

    def apply(self, version: str, *options: str, revision: str = "") -> Any:
        """Deploy a revision."""
        scene = self.scene
        path = scene.write_plan(version)
        plan = yaml.safe_load(path.read_text())
        component = plan["components"]["backend"]
        del component["artifact"]
        component["git"] = {**self.source, **({"revision": revision} if revision else {})}
        path.write_text(yaml.safe_dump(plan, sort_keys=False))
        return scene.command("apply", "plan.yaml", "--json", *options)

    def on(self, host: Host, *arguments: str) -> str:
        """What git answers on a host, to its owner; the index is left alone."""
        safe = ["-c", f"safe.directory={self.scene.path}"]
        ask = ["git", *safe, "--no-optional-locks", "-C", self.scene.path, *arguments]
        return host.run(ask).stdout.decode().strip()

    def standing(self, host: Host) -> tuple[dict[bytes, Entry], list[str]]:
        """The whole tree with its repository, and what git says of it; the tags of ours apart."""
        found = {
            path: entry._replace(mtime_ns=0) if entry.kind == "directory" else entry
            for path, entry in host.tree(self.scene.path).items()
            if not path.startswith(TAGS)
        }
        questions = (
            ("status", "-sb", "--ignored"),
            ("stash", "list"),
            ("reflog",),
            ("branch", "-v"),
        )
        return found, [self.on(host, *question) for question in questions]


@pytest.fixture
def shop(scene: MakeScene) -> Iterator[Callable[..., Shop]]:
    """Make one: ``shop(hosts=2)``."""

    def make(git: dict[str, Any] | None = None, **options: Any) -> Shop:
        return Shop(scene(layout="git", **options), **(git or {}))

    return make


def test_two_hosts_and_back(shop: Callable[..., Shop]) -> None:
    """3,670 files: a first deploy, the next tag, and one that fails and leaves all as it was."""
    one = shop(hosts=2, real=True)
    scene = one.scene
    one.commit("v1")
    assert one.apply("v1").code == 0
    second = one.commit("v2")
    good = one.apply("v2")
    assert good.code == 0, good
    for host in one.hosts:
        assert one.on(host, "status", "--porcelain", "--branch") == "## main"
        assert one.on(host, "rev-parse", "main") == second
        served = scene.served(host)
        assert (served["version"], served["django"]) == ("v2", "5.2.7")
        host.write(f"{scene.path}/django/__init__.py", "# tried, and put away\n", 0o644)
        stash = ["git", "-c", "user.name=o", "-c", "user.email=o@example.com", "stash"]
        host.run([*stash[:5], "-C", scene.path, *stash[5:]])
    before = [one.standing(host) for host in one.hosts]
    one.commit("v3", fault="exit")
    failed = one.apply("v3")
    assert failed.code == 3, failed
    assert [one.standing(host) for host in one.hosts] == before
    tag = f"deployguard/{failed.outcome['transaction']}"
    for host in one.hosts:
        assert one.on(host, "rev-parse", tag) == second
        assert scene.served(host)["version"] == "v2"
        assert scene.leftovers(host) == []
    assert f"is tagged {tag}" in failed.text


@pytest.fixture
def daemon(shop: Callable[..., Shop]) -> Iterator[Callable[[Shop, Host], str]]:
    """Serve the developers' repository from a host, as it is now: ``url = daemon(shop, host)``."""
    serving: list[Host] = []

    def serve(one: Shop, host: Host) -> str:
        name = one.scene.name
        bundle = one.scene.directory / "all.bundle"
        one.git("bundle", "create", "-q", str(bundle), "--all")
        host.write(f"/srv/git/{name}.bundle", bundle.read_bytes())
        host.run(["rm", "-rf", f"/srv/git/{name}"])
        mirror = ["clone", "-q", "--mirror", f"/srv/git/{name}.bundle", f"/srv/git/{name}"]
        host.run(["git", *mirror])
        if host not in serving:
            run = ["systemd-run", "--quiet", "--collect", "--unit=gitd", "--property=Type=exec"]
            options = ["--export-all", "--base-path=/srv/git", "--reuseaddr"]
            host.run([*run, "git", "daemon", *options])
            serving.append(host)
        return f"git://{host.address}/{name}"

    yield serve
    for host in serving:
        host.run(["systemctl", "stop", "gitd"])
        host.run(["rm", "-rf", "/srv/git"])


def test_a_checkout_of_somebody(
    shop: Callable[..., Shop], daemon: Callable[[Shop, Host], str]
) -> None:
    """Cloned by a user and pulled by hand: what is in the way is named; saved, it is all there."""
    one = shop(hosts=1, git={"branch": "main", "timeout": "20s"})
    scene, host = one.scene, one.hosts[0]
    scene.component["keep"] = [".env"]
    one.commit("v1")
    url = daemon(one, host)
    host.run(["install", "-d", "-o", "deploy", "-g", "deploy", scene.path])
    host.run(["sudo", "-u", "deploy", "git", "clone", "-q", url, scene.path])
    unit = (scene.directory / "app.service").read_text()
    host.write(f"/etc/systemd/system/{scene.unit}", unit, 0o644)
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "start", scene.unit])
    host.write(f"{scene.path}/.env", "TOKEN=only here\n", 0o600)
    host.write(f"{scene.path}/app/module_0.py", "# fixed at night\n", 0o644)
    host.write(f"{scene.path}/notes.txt", "what I did\n", 0o644)
    host.run(["chown", "-R", "deploy:deploy", scene.path])
    before = one.standing(host)
    one.commit("v2")
    daemon(one, host)

    refused = one.apply("v2")
    assert refused.code == 5, refused
    assert "changed by hand: app/module_0.py; in no commit: notes.txt (" in refused.text
    assert one.standing(host) == before
    unknown = one.apply("v2", revision="v22")
    assert unknown.code == 5, unknown
    assert "origin has no branch or tag v22\n    | did you mean v2?" in unknown.text
    assert one.standing(host) == before
    assert not host.path(f"/srv/.{scene.name}.deployguard").exists()

    saved = one.apply("v2", "--drift", "save")
    assert saved.code == 0, saved
    assert one.on(host, "status", "-sb") == "## main...origin/main\n?? .env"
    assert host.read(f"{scene.path}/.env") == b"TOKEN=only here\n"
    kept = f"deployguard/saved/{saved.outcome['transaction']}"
    assert one.on(host, "show", f"{kept}:app/module_0.py") == "# fixed at night"
    owners = host.run(["find", scene.path, "-not", "-user", "deploy"]).stdout
    assert owners == b""
    one.commit("v3", fault="unhealthy")
    daemon(one, host)
    after = one.standing(host)
    assert one.apply("v3").code == 3
    assert one.standing(host) == after

    # Somebody rewrites main: it no longer has what is live.
    one.git("reset", "-q", "--soft", "v1")
    one.git("commit", "-q", "-m", "v2 without its history")
    daemon(one, host)
    rewritten = one.apply("v4", revision="main")
    assert rewritten.code == 5, rewritten
    assert "main does not contain" in rewritten.text and "rewritten: accept" in rewritten.text
    assert one.standing(host) == after


def test_hosts_that_do_not_mean_the_same(
    shop: Callable[..., Shop], daemon: Callable[[Shop, Host], str]
) -> None:
    """Each host asks its remote what main is; two answers are a refusal, with both named."""
    one = shop(hosts=2, git={"revision": "main", "branch": "main"})
    first, second = one.hosts
    one.commit("v1")
    for host in one.hosts:
        url = daemon(one, host)
        host.run(["git", "clone", "-q", url, one.scene.path])
    older = one.git("rev-parse", "main")
    newer = one.commit("v2")
    daemon(one, second)
    before = [one.standing(host) for host in one.hosts]
    refused = one.apply("v2")
    assert refused.code == 5, refused
    words = f"{older[:12]} on {first.name}; {newer[:12]} on {second.name}"
    assert f"backend: its revision is not the same commit everywhere: {words}" in refused.text
    assert [one.standing(host) for host in one.hosts] == before
