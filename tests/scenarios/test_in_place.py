"""One real directory that people and programs write to: nothing of theirs is lost either way."""

from __future__ import annotations

import io
import tarfile

from tests.fleet.host import Host
from tests.scenarios.conftest import MakeScene
from tests.scenarios.scene import Scene


def _adopt(shop: Scene, host: Host) -> None:
    """A tree that was there before deployguard: v1 by hand, with files only production has."""
    source = shop.release("v1")
    for path in sorted(source.rglob("*")):
        if path.is_file():
            host.run(["mkdir", "-p", f"{shop.path}/{path.relative_to(source).parent}"])
            host.write(f"{shop.path}/{path.relative_to(source)}", path.read_bytes(), 0o644)
    host.run(["mkdir", "-p", f"{shop.path}/src/db", f"{shop.path}/uploads"])
    host.write(f"{shop.path}/src/db/connection.js", b"production only\n", 0o640)
    host.write(f"{shop.path}/uploads/one.bin", b"an upload\n", 0o644)
    host.write(f"{shop.path}/.env", b"SECRET=production\n", 0o600)


def test_production_only_files_are_named_and_refused(scene: MakeScene) -> None:
    """The artifact lacks files that only the host has: exit 5, their names, nothing touched."""
    shop = scene(hosts=1, layout="in_place")
    host = shop.hosts[0]
    _adopt(shop, host)
    before = host.tree(shop.path)
    refused = shop.apply("v2")
    assert refused.code == 5, refused
    for name in ("src/db/connection.js", "uploads/one.bin", ".env"):
        assert name in refused.text
    assert host.tree(shop.path) == before
    assert shop.leftovers(host) == []


def test_kept_paths_go_along_and_come_back(scene: MakeScene) -> None:
    """With `keep` all are there in v2; what is written during a failed trial is kept as well."""
    shop = scene(hosts=1, layout="in_place")
    host = shop.hosts[0]
    shop.component["keep"] = ["src/db/connection.js", "uploads/", ".env", "*.sqlite3"]
    _adopt(shop, host)
    done = shop.apply("v2")
    assert done.code == 0, done
    assert host.read(f"{shop.path}/src/db/connection.js") == b"production only\n"
    assert host.read(f"{shop.path}/.env") == b"SECRET=production\n"
    before = host.tree(shop.path)
    # The trial version writes to kept paths while it runs, and then turns out to be broken.
    writes = "date +%N > uploads/during.bin; echo rows > shop.sqlite3"
    shop.extra["tasks"] = [
        {
            "name": "write",
            "run": ["sh", "-c", writes],
            "at": "after_start",
            "component": "backend",
            "undo_less": "what it writes belongs to the host",
        }
    ]
    failed = shop.apply("v3", fault="unhealthy")
    assert failed.code == 3, failed
    after = host.tree(shop.path)
    assert host.read(f"{shop.path}/shop.sqlite3") == b"rows\n"
    new = {b"uploads/during.bin", b"shop.sqlite3"}
    assert set(after) - set(before) == new
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= {b"uploads", b"."}  # their own times, for the files that came
    assert shop.served(host)["version"] == "v2"


def test_hand_edited_file_is_refused_then_saved(scene: MakeScene) -> None:
    """Drift is named and refused; `--drift save` goes on and keeps the edit in a bundle."""
    shop = scene(hosts=1, layout="in_place")
    host = shop.hosts[0]
    assert shop.apply("v1").code == 0
    host.write(f"{shop.path}/app/module_0.py", b"# fixed by hand at night\n", 0o644)
    host.write(f"{shop.path}/hotfix.py", b"# also\n", 0o644)
    before = host.tree(shop.path)
    refused = shop.apply("v2")
    assert refused.code == 5, refused
    assert "app/module_0.py" in refused.text and "hotfix.py" in refused.text
    assert host.tree(shop.path) == before
    saved = shop.apply("v2", "--drift", "save")
    assert saved.code == 0, saved
    note = next(line for line in saved.lines if "hand-made" in line.get("message", ""))
    bundle = host.read(note["detail"]["bundle"])
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        assert sorted(tar.getnames()) == ["app/module_0.py", "hotfix.py"]
        kept = tar.extractfile("app/module_0.py")
        assert kept is not None and kept.read() == b"# fixed by hand at night\n"
    assert shop.served(host)["version"] == "v2"


def test_failed_save_deploy_leaves_the_edits_live(scene: MakeScene) -> None:
    """When the deploy with `--drift save` fails, the hand-edited tree is what comes back."""
    shop = scene(hosts=1, layout="in_place")
    host = shop.hosts[0]
    assert shop.apply("v1").code == 0
    host.write(f"{shop.path}/hotfix.py", b"# by hand\n", 0o644)
    before = host.tree(shop.path)
    failed = shop.apply("v2", "--drift", "save", fault="exit")
    assert failed.code == 3, failed
    assert host.tree(shop.path) == before


def test_full_disk_refuses_before_anything(scene: MakeScene) -> None:
    """No room for the new tree and the reserve: exit 5, with the numbers, nothing touched."""
    shop = scene(hosts=1, layout="in_place", base="/srv/small")
    host = shop.hosts[0]
    host.small_disk("/srv/small", 12 * 1024 * 1024)
    first = shop.apply("v1")
    assert first.code == 0, first
    host.run(["sh", "-c", "head -c 6000000 /dev/zero > /srv/small/fill"])
    before = host.tree(shop.path)
    refused = shop.apply("v2")
    assert refused.code == 5, refused
    assert "bytes" in refused.text and "/srv/small" in refused.text
    assert host.tree(shop.path) == before
