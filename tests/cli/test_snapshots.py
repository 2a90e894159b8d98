"""Snapshots off the hosts: taken before a deploy changes anything, and what they come to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.plan import load
from deployguard.snapshots.opening import open_vault
from tests.cli.conftest import Run, Site
from tests.cli.test_secrets import written
from tests.servers.bucket import CREDENTIALS, Bucket, a_bucket

KEY = "ab" * 32
SENTINEL = "hunter2-sentinel"


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    """moto's server with a bucket."""
    with a_bucket() as found:
        yield found


@pytest.fixture
def store(site: Site) -> Path:
    """A plan whose snapshots go to a directory, sealed."""
    key = site.root / "snapshots.key"
    key.write_text(KEY + "\n")
    key.chmod(0o600)
    with site.plan.open("a") as plan:
        plan.write("snapshots: {to: store, key_file: snapshots.key}\n")
    folder = site.root / "store"
    folder.mkdir(mode=0o700)
    return folder


def ids(site: Site, version: str = "v1") -> list[str]:
    """The snapshots in the plan's store."""
    return open_vault(load(site.plan, version=version, local_files=False)).ids()


def test_what_is_live_is_kept_before_it_is_changed(
    deployguard: Run, site: Site, store: Path
) -> None:
    """Nothing at the first deploy; then each deploy keeps the version before. In the store there
    is nothing that anybody could read without the key."""
    (site.root / "releases" / "v1" / "secret.env").write_text(SENTINEL)
    assert deployguard("apply", site.plan).code == 0
    assert ids(site) == [] and written(store) == ""
    site.release("v2")
    done = deployguard("apply", site.plan, "--release", "v2", "--json")
    assert done.code == 0, done.err
    (kept,) = ids(site)
    assert kept == done.lines[-1]["transaction"]
    notes = [e["message"] for e in done.lines[-1]["timeline"] if "is kept as" in e["message"]]
    assert len(notes) == 1 and kept in notes[0]
    vault = open_vault(load(site.plan, local_files=False))
    (host, name, component) = next(vault.snapshot().components())
    assert (host, name, component.version) == ("here", "web", "v1")
    tree = vault.manifest(vault.snapshot(), component)
    live = {
        entry.path: b"".join(vault.content(entry.digest, entry.size, vault.key))
        for entry in tree
        if entry.kind == "f"
    }
    released = site.root / "releases" / "v1"
    assert live == {path.name: path.read_bytes() for path in released.iterdir()}
    for secret in (SENTINEL, KEY, "server.py", str(site.root / "srv")):
        assert secret not in written(store)


def test_a_deploy_that_fails_is_rescued_all_the_same(
    deployguard: Run, site: Site, store: Path
) -> None:
    """The snapshot is there, and the same once more adds none."""
    assert deployguard("apply", site.plan).code == 0
    site.release("v2", server="raise SystemExit('broken')\n")
    assert deployguard("apply", site.plan, "--release", "v2").code == 3
    first = ids(site)
    assert len(first) == 1
    assert deployguard("apply", site.plan, "--release", "v2").code == 3
    assert ids(site) == first


#: Runs a command line, and is killed at the object of this number.
KILLED = """
import os, signal, sys
from deployguard.cli import main
from deployguard.snapshots.directory import DirectoryStore
left, real = int(sys.argv[1]), DirectoryStore.put
def put(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*arguments)
DirectoryStore.put = put
sys.exit(main.run(sys.argv[2:]))
"""


def test_killed_in_the_middle_of_an_upload(
    deployguard: Run, site: Site, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No snapshot, and v1 goes on serving; the next run takes one, of what is live, and removes
    the contents that were on their way."""
    assert deployguard("apply", site.plan).code == 0
    site.release("v2")
    words = [sys.executable, "-c", KILLED, "1", "apply", str(site.plan), "--release", "v2"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    killed = subprocess.run(
        words,
        env={**os.environ, "TMPDIR": str(temporary)},
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = temporary.iterdir()
    assert left.stat().st_mode & 0o777 == 0o700
    assert ids(site) == []
    assert (site.root / "srv" / "current" / "VERSION").read_text() == "v1"
    # Its host program may still be dropping what it had staged.
    until = time.monotonic() + 60
    while (code := deployguard("apply", site.plan, "--release", "v2").code) == 6:
        assert time.monotonic() < until
    assert code == 0
    assert list(temporary.iterdir()) == []
    vault = open_vault(load(site.plan, local_files=False))
    assert vault.snapshot().versions() == ["v1"]
    for digest, size in vault.needs(vault.snapshot()).values():
        assert len(b"".join(vault.content(digest, size, vault.key))) == size


def test_a_store_that_is_away_is_a_warning(deployguard: Run, site: Site, store: Path) -> None:
    """The deploy goes on; what went wrong and the mend are in its outcome."""
    assert deployguard("apply", site.plan).code == 0
    store.rmdir()
    site.release("v2")
    done = deployguard("apply", site.plan, "--release", "v2", "--json")
    assert done.code == 0, done.err
    (finding,) = done.lines[-1]["findings"]
    assert (finding["layer"], finding["critical"]) == ("snapshot", False)
    assert "there is no directory" in finding["message"] and "mount it" in finding["evidence"]
    assert "there is no snapshot of what was live" in done.err


def test_a_snapshot_that_is_required(deployguard: Run, site: Site, store: Path) -> None:
    """Without one nothing is touched, and the exit code is 5. A rollback does not ask for it."""
    site.plan.write_text(
        site.plan.read_text().replace("{to: store,", "{to: store, required: true,")
    )
    assert deployguard("apply", site.plan).code == 0
    site.release("v2")
    assert deployguard("apply", site.plan, "--release", "v2").code == 0
    store.rename(site.root / "gone")
    site.release("v3")
    assert "FAIL  here         snapshots" in deployguard("doctor", site.plan, "--here").err
    done = deployguard("apply", site.plan, "--release", "v3")
    assert done.code == 5, done.err
    assert "there is no snapshot of what is live" in done.err and "required: false" in done.err
    assert (site.root / "srv" / "current" / "VERSION").read_text() == "v2"
    assert deployguard("rollback", site.plan).code == 0
    assert (site.root / "srv" / "current" / "VERSION").read_text() == "v1"


def test_a_key_that_is_no_key(deployguard: Run, site: Site, store: Path) -> None:
    """A mistake of the plan, at its place, before anything is asked for; never with the key."""
    key = site.root / "snapshots.key"
    for text, mode, said in (
        (KEY, 0o644, "can be read by others (mode 0644); chmod 600 snapshots.key"),
        (KEY[:-1], 0o600, "snapshots.key is no key: 64 hex digits"),
        ("", 0o600, "snapshots.key is no key"),
        (f"{KEY}\n{SENTINEL}", 0o600, "line 2 of snapshots.key is no key"),
    ):
        key.write_text(text)
        key.chmod(mode)
        done = deployguard("apply", site.plan)
        assert done.code == 2
        assert f"snapshots.key_file: {'the key of the snapshots, ' if mode == 0o644 else ''}" in (
            done.err
        )
        assert said in done.err
        assert KEY[:40] not in done.err and SENTINEL not in done.err
    key.unlink()
    assert "openssl rand -hex 32" in deployguard("validate", site.plan).err


def test_a_tree_that_changes_while_it_is_read(deployguard: Run, site: Site, store: Path) -> None:
    """It is read again, and given up with the names."""
    assert deployguard("apply", site.plan).code == 0
    live = site.root / "srv" / "current"
    fifo = live / "pipe"
    os.mkfifo(fifo)
    site.release("v2")
    done = deployguard("apply", site.plan, "--release", "v2", "--drift", "save", "--json")
    assert done.code == 0, done.err
    assert any("not in the snapshot of web: pipe" in str(line) for line in done.lines)
    assert len(ids(site)) == 1


def test_a_bucket(
    deployguard: Run, site: Site, server: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same in a bucket, with the key from the environment; it is nowhere else."""
    for name, value in {**CREDENTIALS, "SNAPSHOT_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    server.empty()
    with site.plan.open("a") as plan:
        block = f"{{to: s3://backups/prod, key_env: SNAPSHOT_KEY, endpoint: '{server.endpoint}'}}"
        plan.write(f"snapshots: {block}\n")
    (site.root / "releases" / "v1" / "secret.env").write_text(SENTINEL)
    assert deployguard("apply", site.plan).code == 0
    site.release("v2")
    log = site.root / "log.jsonl"
    done = deployguard("apply", site.plan, "--release", "v2", "--json", "-v", "--log-file", log)
    assert done.code == 0, done.err
    assert len(ids(site)) == 1
    objects = server.objects()
    assert all(name.startswith("prod/demo/test/sealed/") for name in objects)
    assert not [name for name, data in objects.items() if SENTINEL.encode() in data]
    state = written(site.root.parent / "controller-state") + written(site.root / "host-state")
    for text in (done.out, done.err, log.read_text(), state):
        assert KEY not in text and SENTINEL not in text


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "nowhere"])
def test_a_bucket_that_is_away(
    deployguard: Run, site: Site, server: Bucket, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """Nobody answers, or there is no such bucket: a warning that says which."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket, at = ("backups", endpoint) if ":" in endpoint else (endpoint, server.endpoint)
    with site.plan.open("a") as plan:
        plan.write(f"snapshots: {{to: 's3://{bucket}', endpoint: '{at}'}}\n")
    assert deployguard("apply", site.plan).code == 0
    site.release("v2")
    done = deployguard("apply", site.plan, "--release", "v2", "--json")
    assert done.code == 0, done.err
    (finding,) = done.lines[-1]["findings"]
    assert f"s3://{bucket} cannot be reached" in finding["message"]


def test_a_bucket_without_boto3(
    deployguard: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of the plan with the mend; the same where only the command line names a bucket."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    mend = "pip install 'deployguard[s3]'"
    done = deployguard("restore", site.plan, "--from", "s3://backups/prod")
    assert done.code == 2 and mend in done.err
    with site.plan.open("a") as plan:
        plan.write("snapshots: s3://backups/prod\n")
    done = deployguard("apply", site.plan)
    assert done.code == 2, done.err
    assert "snapshots: snapshots in a bucket need boto3" in done.err and mend in done.err
