"""A snapshot from off the hosts, brought to a host that has nothing: exact, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import urllib.request
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from deployguard.plan import load
from deployguard.snapshots.opening import open_vault
from deployguard.snapshots.record import Component, Snapshot
from deployguard.snapshots.vault import Vault
from tests.cli.conftest import Run, Site

KEY = "ab" * 32
ID = "20261121T010203-demo-abcdef"


def sealed_in_a_directory(site: Site, key: bool = True) -> Path:
    """The plan with a store, and a managed file beside its tree."""
    (site.root / "snapshots.key").write_text(KEY)
    (site.root / "snapshots.key").chmod(0o600)
    file = '{content: "R={{ version }}", mode: "0640"}'
    files = f"    files: {{{site.root}/etc/web.env: {file}}}\n"
    text = site.plan.read_text().replace("    service:", files + "    service:")
    where = "snapshots: {to: store, key_file: snapshots.key}\n" if key else "snapshots: store\n"
    site.plan.write_text(text + where)
    store = site.root / "store"
    store.mkdir(mode=0o700)
    return store


def looked_at(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything a restore has to bring back, read without deployguard."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = sha256(path.read_bytes()).hexdigest()
        about = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)
        found[str(path.relative_to(folder))] = (content, *about)
    return found


def lose_the_host(site: Site) -> None:
    """The service is stopped, and the host has nothing any more."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd").startswith(str(site.root / "srv")):
                os.kill(int(process.name), 9)
        except OSError:
            continue
    for name in ("srv", "host-state", "etc"):
        shutil.rmtree(site.root / name)


def served(site: Site) -> str:
    """The version that the service says it is."""
    with urllib.request.urlopen(f"http://127.0.0.1:{site.port}/", timeout=5) as answer:
        return str(json.loads(answer.read())["version"])


@pytest.fixture
def lost(deployguard: Run, site: Site) -> dict[str, tuple[Any, ...]]:
    """v1 was live, v2 was deployed over it, and then the host was lost. What v1 was."""
    sealed_in_a_directory(site)
    release = site.root / "releases" / "v1"
    (release / "bin").mkdir()
    (release / "bin" / "tool").write_bytes(os.urandom(1_500_000))
    (release / "bin" / "tool").chmod(0o750)
    (release / "latest").symlink_to("bin/tool")
    (release / "empty").touch()
    for path in (release / "bin" / "tool", release / "empty", release / "bin"):
        os.utime(path, ns=(1_000_000_000_123_456_789, 1_100_000_000_987_654_321))
    assert deployguard("apply", site.plan).code == 0
    tree = (site.root / "srv" / "current").resolve()
    before = looked_at(tree)
    before["web.env"] = looked_at(site.root / "etc")["web.env"]
    site.release("v2")
    done = deployguard("apply", site.plan, "--release", "v2")
    assert done.code == 0, done.err
    lose_the_host(site)
    return before


def test_an_empty_host(deployguard: Run, site: Site, lost: dict[str, tuple[Any, ...]]) -> None:
    """Everything is as it was and is served: content, mode, owner, time, link target; the managed
    file as well. Once more there is nothing to do, and the host is one that can be deployed to."""
    done = deployguard("restore", site.plan, "--json")
    assert done.code == 0, done.err
    outcome = done.lines[-1]
    assert outcome["status"] == "committed" and "verified" in outcome["summary"]
    assert served(site) == "v1"
    now = looked_at((site.root / "srv" / "current").resolve())
    now["web.env"] = looked_at(site.root / "etc")["web.env"]
    assert now == lost
    assert deployguard("restore", site.plan, "--json").lines[-1]["status"] == "unchanged"
    assert deployguard("status", site.plan, "--verify").code == 0
    assert deployguard("apply", site.plan, "--release", "v2").code == 0
    assert served(site) == "v2"


def test_a_checkout(deployguard: Run, site: Site) -> None:
    """With its repository, as it was; afterwards it can be deployed to and goes back as ever."""
    sealed_in_a_directory(site)
    folder = site.root / "releases"
    git = ["git", "-C", str(folder), "-c", "user.name=dev", "-c", "user.email=dev@example.com"]
    (folder / "v1" / "server.py").rename(folder / "server.py")
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    for version in ("v1", "v2"):
        (folder / "VERSION").write_text(version)
        for words in (
            ["add", "VERSION", "server.py"],
            ["commit", "-qm", version],
            ["tag", version],
        ):
            subprocess.run([*git, *words], check=True)
    text = site.plan.read_text()
    source = "layout: git\n    git: {repository: releases, branch: main}"
    site.plan.write_text(text.replace('artifact: "releases/{{ version }}"', source))
    assert deployguard("apply", site.plan).code == 0
    before = looked_at(site.root / "srv")
    assert deployguard("apply", site.plan, "--release", "v2").code == 0
    lose_the_host(site)

    done = deployguard("restore", site.plan)
    assert done.code == 0, done.err
    assert looked_at(site.root / "srv") == before and served(site) == "v1"
    look = ["git", "--no-optional-locks", "-C", str(site.root / "srv")]
    status = [*look, "status", "--porcelain", "--branch"]
    assert subprocess.check_output(status, text=True) == "## main\n"
    assert deployguard("status", site.plan, "--verify").code == 0
    assert deployguard("restore", site.plan, "--json").lines[-1]["status"] == "unchanged"
    assert deployguard("apply", site.plan, "--release", "v2").code == 0
    assert deployguard("rollback", site.plan).code == 0
    assert served(site) == "v1"
    assert deployguard("rollback", site.plan).code == 0
    assert served(site) == "v2"
    assert subprocess.check_output(status, text=True) == "## main\n"
    # Over what is live, which somebody has looked at with git since.
    again = deployguard("restore", site.plan)
    assert again.code == 0 and served(site) == "v1", again.err
    # Its repository knows nothing of v2, which is said; the revision brings it.
    refused = deployguard("rollback", site.plan)
    assert refused.code == 5 and "srv no longer has the commit of v2" in refused.err
    assert deployguard("apply", site.plan, "--release", "v2").code == 0
    assert served(site) == "v2"


def nothing_was_touched(site: Site) -> bool:
    """The host is as empty as before."""
    return not (site.root / "srv").exists() and not (site.root / "etc").exists()


@pytest.mark.parametrize("how", ["changed", "cut", "missing", "record", "key", "no key"])
def test_what_is_not_whole_is_not_restored(
    deployguard: Run, site: Site, lost: dict[str, tuple[Any, ...]], how: str
) -> None:
    """One clear error, and nothing on the host. `snapshots verify` says it too."""
    objects = {path: path.read_bytes() for path in (site.root / "store").rglob("*")
               if path.is_file()}  # fmt: skip
    largest = max(objects, key=lambda path: len(objects[path]))
    (record,) = [path for path in objects if path.parent.name == "snapshots"]
    if how == "changed":
        data = objects[largest]
        largest.write_bytes(data[:9000] + bytes([data[9000] ^ 1]) + data[9001:])
    elif how == "cut":
        largest.write_bytes(objects[largest][:-20])
    elif how == "missing":
        largest.unlink()
    elif how == "record":
        record.write_bytes(objects[record][:-1])
    elif how == "key":
        (site.root / "snapshots.key").write_text("cd" * 32)
    else:
        site.plan.write_text(site.plan.read_text().replace(", key_file: snapshots.key", ""))
    said = {
        "changed": "cannot be restored: bin/tool: ",
        "cut": "cannot be restored: bin/tool: ",
        "missing": "1 of its contents are not in",
        "record": "is damaged: cut off or changed",
        "key": "is encrypted with the key",
        "no key": "encrypted: name the key",
    }[how]
    done = deployguard("restore", site.plan)
    # A content is looked at when it is sent.
    assert done.code == (5 if how in ("changed", "cut") else 2), done.err
    assert said in done.err and KEY not in done.err
    assert "key" in how or f"`deployguard snapshots verify {site.plan}`" in done.err
    assert nothing_was_touched(site)
    verified = deployguard("snapshots", "verify", site.plan)
    assert verified.code == (0 if how == "no key" else 1), verified.err


def test_one_that_does_not_serve_is_undone(
    deployguard: Run, site: Site, lost: dict[str, tuple[Any, ...]]
) -> None:
    """It is checked like any deploy: the host is as empty afterwards as before."""
    plan = site.plan.read_text()
    site.plan.write_text(plan.replace("argv: [python3, server.py", "argv: [python3, gone.py"))
    done = deployguard("restore", site.plan)
    assert done.code == 3, done.err
    assert not (site.root / "srv" / "current").exists()
    assert not (site.root / "etc" / "web.env").exists()


def test_lists_and_words(deployguard: Run, site: Site, lost: dict[str, tuple[Any, ...]]) -> None:
    """What there is, whether it is whole; one that is not there; another host's."""
    listed = deployguard("snapshots", "list", site.plan, "--json")
    (one,) = listed.lines
    assert (one["type"], one["hosts"], one["error"]) == ("snapshot", {"here": {"web": "v1"}}, "")
    assert one["id"] in listed.err and "key " in listed.err
    (whole,) = deployguard("snapshots", "verify", site.plan, "--json").lines
    assert whole["verified"] and whole["id"] == one["id"]
    doctor = deployguard("doctor", site.plan, "--here", "--json")
    answers = [line for line in doctor.lines if line.get("subject") == "snapshots"]
    assert [(each["status"], one["id"] in each["message"]) for each in answers] == [("ok", True)]
    store = site.root / "store"
    for arguments, said in (
        (["--from", f"{store}@20250101"], "there is no snapshot 20250101"),
        (["--from", "@2025"], "there is no snapshot 2025"),
        (["--from", "gs://backups"], "is not a store"),
        (["--from", site.root / "elsewhere"], "there is no directory"),
        (["--host", "nobody"], "the plan has no host nobody"),
        (["--of", "here"], "name the new host with --host"),
        (["--host", "here", "--of", "nobody"], "has no nobody"),
    ):
        done = deployguard("restore", site.plan, *arguments)
        assert (done.code, said in done.err) == (2, True), done.err
    assert nothing_was_touched(site)
    site.plan.write_text(site.plan.read_text().replace("  here: {", "  there: {"))
    done = deployguard("restore", site.plan)
    assert done.code == 2 and "`--host NEW --of OLD`" in done.err
    source = f"@{one['id'][:15]}"
    done = deployguard("restore", site.plan, "--from", source, "--host", "there", "--of", "here")
    assert done.code == 0, done.err
    assert served(site) == "v1"
    taken = deployguard("snapshots", "take", site.plan, "--json")
    assert taken.code == 0, taken.err
    assert taken.lines[0]["hosts"] == {"there": {"web": "v1"}}
    assert len(deployguard("snapshots", "list", site.plan, "--json").lines) == 2


TWO = """\
name: pair
version: v1
environment: test
hosts:
  web1: {{transport: local, state_directory: "{root}/web1"}}
  web2: {{transport: local, state_directory: "{root}/web2"}}
components:
  first:
    artifact: "releases/{{{{ version }}}}"
    path: "{root}/first"
    hosts: [web1]
    checks: [{{command: ["true"]}}]
  second:
    artifact: "releases/{{{{ version }}}}"
    path: "{root}/second"
    hosts: [web2]
    layout: in_place
    checks: [{{command: ["{second}"]}}]
max_fail_percentage: 50
snapshots: store
"""


def test_hosts_of_two_versions(deployguard: Run, site: Site) -> None:
    """One snapshot has what each of them served. They come back one after another, and what only
    one of them has is not asked of the other; what both have was sent once."""
    (site.root / "store").mkdir(mode=0o700)
    site.release("v2")
    site.plan.write_text(TWO.format(root=site.root, second="true"))
    assert deployguard("apply", site.plan).code == 0
    site.plan.write_text(TWO.format(root=site.root, second="false"))
    done = deployguard("apply", site.plan, "--release", "v2")
    assert done.code == 3, done.err
    site.plan.write_text(TWO.format(root=site.root, second="true"))
    (one,) = deployguard("snapshots", "take", site.plan, "--json").lines
    assert one["hosts"] == {"web1": {"first": "v2"}, "web2": {"second": "v1"}}
    contents = {path.name for path in (site.root / "store").rglob("blobs/*/*")}
    released = [site.root / "releases" / version for version in ("v1", "v2")]
    files = [path.read_bytes() for release in released for path in release.iterdir()]
    # server.py is the same in both.
    assert {sha256(data).hexdigest() for data in files} <= contents and len(set(files)) == 3
    for name in ("first", "second", "web1", "web2"):
        shutil.rmtree(site.root / name)
    done = deployguard("restore", site.plan)
    assert done.code == 2 and "more than one version: v2 on web1; v1 on web2" in done.err
    for host, where, version in (("web1", "first/current", "v2"), ("web2", "second", "v1")):
        done = deployguard("restore", site.plan, "--host", host)
        assert done.code == 0, done.err
        assert (site.root / where / "VERSION").read_text() == version


# --- a store that somebody else writes to ---------------------------------------------------------


def manifest_of(*paths: tuple[str, str, str]) -> bytes:
    """An encoded manifest of (path, kind, digest), with no check of ours in the way."""
    rows = [(".", "d", ""), *paths]
    columns = {
        "v": 1,
        "path": [path for path, _, _ in rows],
        "kind": "".join(kind for _, kind, _ in rows),
        "mode": [0o755] * len(rows),
        "size": [4 if kind == "f" else 0 for _, kind, _ in rows],
        "mtime": [0] * len(rows),
        "digest": [digest for _, _, digest in rows],
        "uid": [os.getuid()] * len(rows),
        "gid": [os.getgid()] * len(rows),
        "xattrs": [],
    }
    return zlib.compress(json.dumps(columns).encode())


EVIL = sha256(b"evil").hexdigest()


def forged(vault: Vault, tree: bytes, change: Callable[[dict[str, Any]], object] | None) -> None:
    """A snapshot as somebody else would write it."""
    for data in (tree, b"evil"):
        vault.keep(sha256(data).hexdigest(), len(data), [data])
    part = Component("v1", "/srv", "releases", sha256(tree).hexdigest(), len(tree), 1, 4)
    snapshot = Snapshot(ID, "demo", "test", 1.0, "me", {"here": {"web": part}})
    data = json.loads(snapshot.encode())
    if change is not None:
        change(data["hosts"]["here"]["web"])
    vault._put(f"snapshots/{ID}", [json.dumps(data).encode()])


def with_file(**values: Any) -> Callable[[dict[str, Any]], object]:
    """A managed file that the plan does not have."""
    file = {"exists": True, "digest": EVIL, "size": 4, "mode": 0o644, "uid": 0, "gid": 0}
    return lambda part: part.update(files=[{**file, "mtime_ns": 0, **values}])


@pytest.mark.parametrize(
    ("tree", "change", "said"),
    [
        (manifest_of(("../../evil", "f", EVIL)), None, "not below a directory of the tree"),
        (manifest_of(("/etc/evil", "f", EVIL)), None, "not below a directory of the tree"),
        (manifest_of(("a", "d", ""), ("a/..", "f", EVIL)), None, "not a name"),
        (
            manifest_of(("out", "l", "/tmp"), ("out/evil", "f", EVIL)),
            None,
            "not below a directory of the tree",
        ),
        (manifest_of(), with_file(path="/etc/cron.d/evil"), "the plan does not manage"),
        (manifest_of(), with_file(path="/etc/../etc/passwd"), "an absolute path was expected"),
        (manifest_of(), with_file(path="/etc/x", mode=0o170644), "a number was expected"),
        (manifest_of(), with_file(path="/etc/x", digest="../x"), "a digest was expected"),
        (manifest_of(), lambda part: part.update(version="../../x"), "a version was expected"),
        (manifest_of(), lambda part: part.update(tree=EVIL), "is not its content"),
        (manifest_of(), lambda part: part.update(files=7), "is damaged"),
        (manifest_of(), lambda part: part.update(tree_size=2**40), "a number was expected"),
        (manifest_of(), with_file(path="/etc/x", size=2**40), "a number was expected"),
        (b"no manifest", None, "is damaged: not a manifest"),
    ],
)  # fmt: skip
def test_a_hostile_store(
    deployguard: Run,
    site: Site,
    tree: bytes,
    change: Callable[[dict[str, Any]], object] | None,
    said: str,
) -> None:
    """Whatever it says, nothing is written outside what the plan manages: one error, and nothing
    on the host."""
    sealed_in_a_directory(site, key=False)
    forged(open_vault(load(site.plan, local_files=False)), tree, change)
    done = deployguard("restore", site.plan)
    assert (done.code, said in done.err) == (2, True), done.err
    assert nothing_was_touched(site)
    assert not (site.root / "evil").exists() and not Path("/etc/cron.d/evil").exists()
